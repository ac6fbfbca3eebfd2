//! The read-only question that a host is asked, and its answer.
//!
//! One script for every cloud-init from 20.4 on: it waits on the host for a moment, writes nothing, and prints
//! `key=value` lines. The files tell the truth (`/run/cloud-init/{status,result}.json`); `cloud-init status` only adds
//! what they lack, because its exit status and wording differ between versions and distributions.

use serde_json::Value;
use std::time::Duration;

/// How long a host waits for its own cloud-init before it answers "not yet".
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The script for `AWS-RunShellScript`. `window` bounds its waiting.
pub(crate) fn script(window: Duration) -> String {
    SCRIPT.replace("@SECONDS@", &window.as_secs().to_string())
}

/// What is short and decides stands before what may be cut off; `end=1` proves that nothing was. A host that boots is
/// busy, and each start of cloud-init takes a second of it at best: it is asked only where files and units do not say.
const SCRIPT: &str = r#"exec 2>/dev/null
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dir=/run/cloud-init
binary=$(command -v cloud-init)
flat() { [ -e "$1" ] && tr -s ' \t\r\n' ' ' <"$1"; }
final() {
  if systemctl is-failed --quiet cloud-init-main.service; then
    echo failed
  else
    systemctl is-active cloud-final.service
  fi
}
failed() {
  for unit in cloud-init-local cloud-init-main cloud-init cloud-init-network cloud-config cloud-final; do
    systemctl is-failed --quiet $unit.service && return 0
  done
  return 1
}
leaving() { [ "$(systemctl is-system-running)" = stopping ]; }
version() {
  for file in /usr/lib/python3*/*-packages/cloudinit/version.py; do
    sed -n 's/^__VERSION__ = "\(.*\)".*/\1/p' "$file"
    return
  done
}
if [ -n "$binary" ] && [ -e $dir/enabled ]; then
  waited=0
  while [ ! -e $dir/result.json ] && [ $waited -lt @SECONDS@ ] && [ "$(final)" != failed ]; do
    sleep 1
    waited=$((waited + 1))
  done
fi
version=$(version)
[ -n "$version" ] || version=$([ -n "$binary" ] && "$binary" --version 2>&1 | head -c 80)
long=
if [ -n "$binary" ] && { [ ! -e $dir/enabled ] || failed; }; then
  long=$(timeout 30 "$binary" status --long | tr '\n' '|')
fi
printf 'probe=1\n'
printf 'binary=%s\n' "$binary"
printf 'version=%s\n' "$version"
printf 'boot=%s\n' "$(cat /proc/sys/kernel/random/boot_id)"
printf 'clock=%s %s\n' "$(date +%s.%N)" "$(cut -d ' ' -f 1 /proc/uptime)"
printf 'final=%s\n' "$(final)"
[ -e $dir/disabled ] && printf 'marker=disabled\n'
leaving && printf 'leaving=1\n'
[ -w / ] && printf 'room=%s\n' "$(df -Pk / | { read -r _; read -r _ _ _ free _; echo "$free"; })"
printf 'result=%s\n' "$(flat $dir/result.json)"
printf 'status=%s\n' "$(flat $dir/status.json)"
printf 'long=%s\n' "$long"
printf 'end=1\n'
exit 0
"#;

/// What a host answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Where cloud-init is; empty when there is none.
    pub binary: String,
    /// `cloud-init --version`.
    pub version: String,
    /// The kernel's ID of this boot.
    pub boot: String,
    /// When the host booted, by its own clock, seconds since the epoch.
    pub booted_at: Option<f64>,
    /// What systemd says of `cloud-final.service`.
    pub final_unit: String,
    /// Whether the host is going down, for a reboot or for good.
    pub leaving: bool,
    /// Whether cloud-init's generator left its mark that it is off.
    pub marked_disabled: bool,
    /// KiB that are free on the root file system; unknown where it is read-only.
    pub room_kib: Option<u64>,
    /// `/run/cloud-init/result.json`; it is written last.
    pub result: Option<Value>,
    /// `/run/cloud-init/status.json`.
    pub status: Option<Value>,
    /// `cloud-init status --long`.
    pub long: Vec<String>,
}

/// The answer in a command's output; `None` when it is not whole.
pub fn parse(output: &str) -> Option<Reading> {
    let mut reading = Reading::default();
    let (mut begun, mut ended) = (false, false);
    for line in output.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        match key {
            "probe" => begun = true,
            "binary" => value.clone_into(&mut reading.binary),
            "version" => value.clone_into(&mut reading.version),
            "boot" => value.clone_into(&mut reading.boot),
            "clock" => reading.booted_at = booted_at(value),
            "final" => value.clone_into(&mut reading.final_unit),
            "leaving" => reading.leaving = value == "1",
            "room" => reading.room_kib = value.parse().ok(),
            "marker" => reading.marked_disabled = value == "disabled",
            "result" => reading.result = serde_json::from_str(value).ok(),
            "status" => reading.status = serde_json::from_str(value).ok(),
            "long" => {
                reading.long = value
                    .split('|')
                    .map(|line| line.trim().to_owned())
                    .filter(|line| !line.is_empty())
                    .collect();
            }
            "end" => ended = true,
            _ => {}
        }
    }
    (begun && ended).then_some(reading)
}

/// From the time and the time since boot.
fn booted_at(clock: &str) -> Option<f64> {
    let (now, uptime) = clock.split_once(' ')?;
    Some(now.parse::<f64>().ok()? - uptime.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_nothing() {
        let text = "probe=1\nbinary=/usr/bin/cloud-init\nversion=/usr/bin/cloud-init 22.4.2\nboot=b\nclock=1700000100.5 100.25\nfinal=active\nroom=812\n\
                    result={ \"v1\": {} }\nstatus={ \"v1\": { \"a\": \"x=y\" } }\nlong=status: done|detail:|DataSourceEc2|\nend=1\n";
        let reading = parse(text).unwrap();
        assert_eq!(reading.version, "/usr/bin/cloud-init 22.4.2");
        assert_eq!(reading.booted_at, Some(1_700_000_000.25));
        assert_eq!(reading.room_kib, Some(812));
        assert_eq!(reading.status.unwrap()["v1"]["a"], "x=y");
        assert_eq!(reading.long, ["status: done", "detail:", "DataSourceEc2"]);
        for end in 0..text.len() - 6 {
            assert_eq!(parse(&text[..end]), None, "{end}");
        }
    }

    #[test]
    fn the_script_fits_and_writes_nothing() {
        let script = script(WINDOW);
        assert!(script.contains("-lt 10 ]") && script.len() < 4000);
        assert!(
            !script.replace("2>/dev/null", "").replace("2>&1", "").contains('>'),
            "no redirection into a file"
        );
    }
}
