//! The shell scripts that Systems Manager runs on a host. Pure text; everything with structure happens in
//! `host/run.py`, which travels in the bundle.

use crate::error::Error;
use crate::request::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What is another one after each boot of the host, in a shell; a container has the kernel's boot, but its own first process.
const BOOT: &str =
    "$(cat /proc/sys/kernel/random/boot_id) $(sed 's/.*)//' /proc/1/stat | cut -d ' ' -f 21)";

/// What travels in every bundle besides the Ansible folder.
pub(crate) const HOST_FILES: [(&str, &str); 8] = [
    (".ssm-run-playbook/run.py", include_str!("host/run.py")),
    (".ssm-run-playbook/answer.py", include_str!("host/answer.py")),
    (".ssm-run-playbook/leftovers.py", include_str!("host/leftovers.py")),
    (".ssm-run-playbook/module_server.py", include_str!("host/module_server.py")),
    (".ssm-run-playbook/references.py", include_str!("host/references.py")),
    (".ssm-run-playbook/decrypted.py", include_str!("host/decrypted.py")),
    (".ssm-run-playbook/inventory_plugins/ssm_run_playbook.py", include_str!("host/inventory.py")),
    (".ssm-run-playbook/callback_plugins/ssm_run_playbook.py", include_str!("host/callback.py")),
];

/// Base64 characters of a bundle in one command; a multiple of 4. Document and parameters together may take 64 KB
/// (`MaxDocumentSizeExceeded`, <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html>);
/// with the largest request and script this stays below 60,000 bytes.
const PART_CHARS: usize = 44_000;
/// Base64 characters of a request.
const REQUEST_CHARS: usize = 12_000;
/// GetCommandInvocation returns the first 24,000 characters of stdout.
pub(crate) const SLICE_CHARS: usize = 23_000;

const ANSWER: &str = r#"umask 077
answer() { printf 'ssm-run-playbook/1 {"state":"%s","error":"%s"}\n' "$1" "$2"; exit "$3"; }
# On a full disk the agent needs the room for what it has to say.
broken() { rm -rf "$base/incoming/$run" "$base/runs/$run/work"; answer broken "$1" 1; }
"#;

/// Installs Ansible where it is missing. In a session of its own: a package manager that is killed with a cancelled command
/// would leave its packages half installed. apt waits for dpkg's lock, but not for the one of its lists. Of what apt
/// said, its errors and warnings go home.
const INSTALL: &str = r#"if ! command -v python3 > /dev/null || ! command -v ansible-playbook > /dev/null; then
  command -v apt-get > /dev/null || answer install-failed 'there is no apt-get; install ansible-core by other means' 1
  cat > "$base/install.sh" << 'EOF'
export DEBIAN_FRONTEND=noninteractive
n=0
until apt-get -q update > "$1" 2>&1; do
  n=$((n + 1))
  [ $n -lt 150 ] && grep -q 'Could not get lock' "$1" || exit 1
  sleep 2
done
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends python3 ansible-core >> "$1" 2>&1
EOF
  setsid -w sh "$base/install.sh" "$base/install.log" || answer install-failed "$( (grep -E '^([EW]|dpkg): ' "$base/install.log" || cat "$base/install.log") | tail -n 6 | paste -s -d ';' | tr '\t' ' ' | tr -cd '[:print:]' | tr -d '"\\' | tail -c 700)" 1
fi
"#;

/// The bundle in parts for the command line.
pub(crate) fn parts(bundle: &[u8]) -> Vec<String> {
    let text = STANDARD.encode(bundle);
    // Base64 is ASCII, so every chunk of bytes is text.
    text.as_bytes()
        .chunks(PART_CHARS)
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .collect()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn head(base: &str, run: &str, sha256: &str) -> String {
    format!("{ANSWER}base={} run={} sha={}\n", quote(base), quote(run), quote(sha256))
}

/// Keeps one part of the bundle on the host.
pub(crate) fn keep_part(base: &str, run: &str, number: usize, part: &str) -> String {
    format!(
        r#"{}incoming="$base/incoming/$run"
mkdir -p "$incoming" || broken "cannot create $incoming"
printf %s '{part}' | base64 -d > "$incoming/{number:04}.tmp" && mv "$incoming/{number:04}.tmp" "$incoming/{number:04}" || broken "cannot write to $incoming"
answer part '' 0
"#,
        head(base, run, "")
    )
}

/// How a host gets the bundle that it lacks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery<'a> {
    /// The number of parts and the last of them; the host has the others.
    LastPart(usize, &'a str),
    /// An address to read it from.
    Address(&'a str),
}

/// Reads the bundle's address from stdin, so that no process shows it, and says in a few plain words what went wrong.
const FETCH: &str = r#"import re, shutil, sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.stdin.read(), timeout=60) as source, open(sys.argv[1], "wb") as file:
        shutil.copyfileobj(source, file)
        if source.length:
            raise OSError("the answer ended %d bytes too early" % source.length)
except urllib.error.HTTPError as error:
    print("status %d" % error.code)
    sys.exit(44 if error.code == 404 else 1)
except (OSError, ValueError) as error:
    print(re.sub("[^A-Za-z0-9 :._-]", " ", "%s %s" % (type(error).__name__, error))[:200])
    sys.exit(1)
"#;

/// Runs the playbook when the host has the bundle, and asks for it otherwise. With a delivery the bundle is completed
/// first.
pub(crate) fn run(
    base: &str,
    sha256: &str,
    request: &Request<'_>,
    delivery: Option<Delivery<'_>>,
) -> Result<String, Error> {
    let json = serde_json::to_vec(request).expect("a request has only string keys");
    let encoded = STANDARD.encode(json);
    if encoded.len() > REQUEST_CHARS {
        return Err(Error::RequestTooLarge { bytes: encoded.len(), limit: REQUEST_CHARS });
    }
    let mut script = head(base, request.run, sha256);
    script.push_str(
        r#"PATH="${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
mkdir -p "$base/runs" "$base/bundles" "$base/incoming" || broken "cannot create $base"
"#,
    );
    if request.install_ansible {
        script.push_str(INSTALL);
    }
    script.push_str(
        r#"command -v python3 > /dev/null || answer no-ansible 'python3 is not on PATH' 1
command -v ansible-playbook > /dev/null || answer no-ansible 'ansible-playbook is not on PATH' 1
bundle="$base/bundles/$sha"
right() { [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$sha" ]; }
"#,
    );
    match delivery {
        None => {}
        Some(Delivery::LastPart(count, part)) => script.push_str(&format!(
            r#"incoming="$base/incoming/$run"
mkdir -p "$incoming" "$bundle" && printf %s '{part}' | base64 -d > "$incoming/{count:04}" || broken "cannot write to $incoming"
cat "$incoming"/[0-9][0-9][0-9][0-9] > "$incoming/bundle" || broken "cannot write to $incoming"
right "$incoming/bundle" || broken 'the bundle arrived damaged'
mv "$incoming/bundle" "$bundle/bundle.tar.gz" && rm -rf "$incoming" || broken "cannot write to $bundle"
"#
        )),
        Some(Delivery::Address(url)) => script.push_str(&format!(
            r#"if ! {{ [ -f "$bundle/bundle.tar.gz" ] && right "$bundle/bundle.tar.gz"; }}; then
  incoming="$base/incoming/$run"
  mkdir -p "$incoming" "$bundle" || broken "cannot write to $incoming"
  said=$(printf %s {} | python3 -c '{FETCH}' "$incoming/bundle")
  case $? in
    0) ;;
    44) answer need-bundle '' 0 ;;
    *) broken "cannot fetch the bundle: $said" ;;
  esac
  right "$incoming/bundle" || broken "the object ssm-run-playbook/$sha.tar.gz in the bucket is not what its name says; delete it"
  mv "$incoming/bundle" "$bundle/bundle.tar.gz" && rm -rf "$incoming" || broken "cannot write to $bundle"
fi
"#,
            quote(url)
        )),
    }
    script.push_str(&format!(
        r#"[ -f "$bundle/bundle.tar.gz" ] && right "$bundle/bundle.tar.gz" || answer need-bundle '' 0
touch "$bundle"
folder="$base/runs/$run"
boot="{BOOT}"
if [ ! -f "$folder/resume" ]; then
  mkdir "$folder" || {{ [ -f "$folder/boot" ] && [ "$(cat "$folder/boot")" != "$boot" ] && answer went-down '' 1; }} || {{ [ -d "$folder" ] && answer duplicate "$folder exists" 1; broken "cannot create $folder"; }}
fi
# Held by every process of this run and by none of Ansible: as long as it is, no other run tidies this folder away.
exec 9< "$folder" && flock -s 9 || broken "cannot hold $folder"
if [ -f "$folder/resume" ]; then
  mv "$folder/resume" "$folder/resumed" && rm -rf "$folder/work" || broken "cannot write to $folder"
fi
printf %s "$boot" > "$folder/boot" || broken "cannot write to $folder"
mkdir "$folder/work" && tar -xpzf "$bundle/bundle.tar.gz" -C "$folder/work" || broken "cannot unpack into $folder"
printf %s '{encoded}' | base64 -d > "$folder/request.json" || broken "cannot write to $folder"
exec python3 "$folder/work/.ssm-run-playbook/run.py" "$base" "$folder"
"#
    ));
    Ok(script)
}

/// Says how many results there are and which task runs.
pub(crate) fn progress(base: &str, run: &str) -> String {
    format!(
        r#"folder={}/runs/{}
events="$folder/events.jsonl"
last='{{"e":"starting","name":""}}'
[ -f "$events" ] || {{ echo "0 $last"; exit 0; }}
found=$(grep -E '^\{{"e":"(task|waiting|rebooting|resumed)"' "$events" | tail -n 1)
# Nobody holds the folder of a run that had no end and wants to go on after no reboot: the host went down under it.
if [ -f "$folder/boot" ] && [ "$(cat "$folder/boot")" != "{BOOT}" ] && [ ! -f "$folder/resume" ] && [ ! -f "$folder/recap" ] && flock -n "$folder" true; then
  found=$(printf %s "${{found:-$last}}" | sed 's/^{{"e":"[a-z]*"/{{"e":"lost"/')
fi
printf '%s %s\n' "$(grep -c '^{{"e":"result"' "$events")" "${{found:-$last}}"
sed -n 's/^{{"e":"result","host":"[^"]*","status":"\([a-z]*\)".*/\1/p' "$events" | sort | uniq -c
"#,
        quote(base),
        quote(run)
    )
}

/// Prints a piece of a run's packed events or log.
pub(crate) fn slice(base: &str, run: &str, name: &str, from: usize) -> String {
    format!(
        "tail -c +{} {}/runs/{}/{name}.b64 | head -c {SLICE_CHARS}\n",
        from + 1,
        quote(base),
        quote(run)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Target;

    fn request<'a>(extra_vars: &'a [String]) -> Request<'a> {
        Request {
            run: "r1",
            hosts: [("i-1", Target { name: "sip-1", has_interpreter: false })].into(),
            bundle: "/b".into(),
            lock_wait_s: 20,
            timeout_s: 60,
            inventory: "inventory.json",
            playbook: "site.yml",
            flags: &[],
            extra_vars,
            references: &[],
            vault_passwords: &[],
            allow_reboot: false,
            install_ansible: true,
            live: false,
        }
    }

    #[test]
    fn parts_give_back_the_bundle_and_fit_into_a_command() {
        let bundle: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let parts = parts(&bundle);
        assert_eq!(parts.len(), 7);
        let mut whole = Vec::new();
        for part in &parts {
            whole.extend(STANDARD.decode(part).unwrap());
        }
        assert_eq!(whole, bundle);
    }

    #[test]
    fn the_largest_command_stays_below_the_limit_and_larger_vars_are_refused() {
        let part = "A".repeat(PART_CHARS);
        let fits = ["x".repeat(8_500)];
        let script =
            run("/var/lib/x", &"0".repeat(64), &request(&fits), Some(Delivery::LastPart(9, &part)))
                .unwrap();
        let sent = serde_json::to_string(&script).unwrap();
        assert!(sent.len() < 60_000, "{}", sent.len());
        let large = ["x".repeat(9_500)];
        let error = run("/var/lib/x", "", &request(&large), None).unwrap_err();
        assert!(matches!(error, Error::RequestTooLarge { .. }));
    }

    #[test]
    fn extra_vars_are_not_readable_in_the_script() {
        let vars = [r#"{"a":"$(reboot) 'quoted'"}"#.to_owned()];
        let script = run("/it's", "", &request(&vars), None).unwrap();
        assert!(!script.contains("reboot") && script.contains(r"'/it'\''s'"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_run_that_was_started_before() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("bundles/sum");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("bundle.tar.gz"), "x").unwrap();
        // A disk that has room for nothing new, and a host that has all programs.
        let host = "mkdir() { [ \"$1\" = -p ]; }; sha256sum() { echo sum; }; command() { :; }\n";
        let of_host = Request { install_ansible: false, ..request(&[]) };
        let script = run(&base.path().display().to_string(), "sum", &of_host, None).unwrap();
        let script = format!("{host}{script}");
        let said = || {
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(said().contains(r#""state":"broken","error":"cannot create "#), "{}", said());
        std::fs::create_dir_all(base.path().join("runs/r1")).unwrap();
        assert!(said().contains(r#""state":"duplicate""#), "{}", said());
    }
}
