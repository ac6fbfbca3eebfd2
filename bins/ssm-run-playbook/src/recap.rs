//! What a host answers: the recap line, then packed events and log. A recap that is missing or cut is never a success.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Read as _;

const MARKER: &str = "ssm-run-playbook/1 ";
/// Larger events and logs have no place in memory, with those of all other hosts.
const UNPACKED_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// The first line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Recap {
    pub(crate) state: State,
    /// Ansible's exit status; 128 + n when signal n ended it.
    #[serde(default)]
    pub(crate) rc: Option<i32>,
    /// How long the run took on the host.
    #[serde(default)]
    pub(crate) ms: u64,
    /// Absent when Ansible did not come to its own recap.
    #[serde(default)]
    pub(crate) stats: Option<Stats>,
    /// Counted from the results when Ansible did not come to its own recap.
    #[serde(default)]
    pub(crate) so_far: Option<Stats>,
    /// Milliseconds that the run waited for the host's lock, and who held it.
    #[serde(default)]
    pub(crate) lock: Option<(u64, String)>,
    /// Number of task results.
    #[serde(default)]
    pub(crate) tasks: u64,
    /// The task that was started last.
    #[serde(default)]
    pub(crate) last: Option<String>,
    /// Whether Ansible ended before that task had its result.
    #[serde(default)]
    pub(crate) open: bool,
    /// Number of failed results.
    #[serde(default)]
    pub(crate) failures: u64,
    /// The first of them, perhaps shortened.
    #[serde(default)]
    pub(crate) failure: Option<FailedTask>,
    /// Names and milliseconds of the slowest tasks.
    #[serde(default)]
    pub(crate) slowest: Vec<(String, u64)>,
    /// How often the host was rebooted by the playbook.
    #[serde(default)]
    pub(crate) reboots: u32,
    /// Whether `set_stats` gave values, which are in the events.
    #[serde(default)]
    pub(crate) custom: bool,
    /// What went wrong outside of a task.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// Length in base64 and SHA-256 of the events.
    #[serde(default)]
    pub(crate) events: Option<(usize, String)>,
    /// Length in base64 and SHA-256 of the log.
    #[serde(default)]
    pub(crate) log: Option<(usize, String)>,
}

/// How far a host came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Ansible ended by itself.
    Done,
    /// The deadline passed on the host; Ansible was ended.
    Timeout,
    /// The command was cancelled; Ansible was ended.
    Cancelled,
    /// The host does not have the bundle yet.
    NeedBundle,
    /// A part of the bundle is kept.
    Part,
    /// Another run holds the host.
    Locked,
    /// Ansible or Python is missing.
    NoAnsible,
    /// Ansible is missing and could not be installed.
    InstallFailed,
    /// The host was rebooted in the middle of this run.
    WentDown,
    /// This run was started before.
    Duplicate,
    /// The instance role may not read a reference.
    ReferenceDenied,
    /// A reference names nothing.
    ReferenceMissing,
    /// No answer about a reference.
    ReferenceFailed,
    /// Something on the host does not work.
    Broken,
}

/// Ansible's figures for one host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) ok: u64,
    pub(crate) changed: u64,
    #[serde(rename(deserialize = "failures"))]
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) unreachable: u64,
    pub(crate) rescued: u64,
    pub(crate) ignored: u64,
}

impl Stats {
    /// Counts results like Ansible: what changed or was ignored was also ok.
    pub(crate) fn add(&mut self, status: &str, count: u64) {
        match status {
            "ok" => self.ok += count,
            "changed" => (self.ok, self.changed) = (self.ok + count, self.changed + count),
            "ignored" => (self.ok, self.ignored) = (self.ok + count, self.ignored + count),
            "failed" => self.failed += count,
            "skipped" => self.skipped += count,
            "rescued" => self.rescued += count,
            "unreachable" => self.unreachable += count,
            _ => {}
        }
    }
}

/// One failed task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedTask {
    pub(crate) task: String,
    /// Relative to the Ansible folder as it comes from the host; as a person finds it in reports.
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) module: Option<String>,
    pub(crate) message: String,
}

/// One result of a task, from the events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct TaskResult {
    pub(crate) status: String,
    pub(crate) task: String,
    #[serde(default)]
    pub(crate) module: Option<String>,
    #[serde(default)]
    pub(crate) file: Option<String>,
    #[serde(default)]
    pub(crate) line: Option<u32>,
    /// Milliseconds from the start of the run on the host to the start of the task.
    #[serde(default)]
    pub(crate) at: u64,
    /// How long it took.
    #[serde(default)]
    pub(crate) ms: u64,
    #[serde(default)]
    pub(crate) message: String,
    /// What changed, with `--diff`.
    #[serde(default)]
    pub(crate) diff: Option<String>,
    /// Characters that the diff lacks at its end.
    #[serde(default)]
    pub(crate) diff_cut: u64,
}

/// Why an answer cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("no recap came back")]
    None,
    #[error("the recap came back cut or damaged")]
    Cut,
    #[error("{0} bytes of the {1} are missing")]
    Part(usize, &'static str),
    #[error("the {0} came back damaged")]
    Damaged(&'static str),
    #[error("the {0} take more than 64 MiB")]
    Large(&'static str),
}

/// `1 result`, `2 results`.
pub(crate) fn counted(results: u64) -> String {
    format!("{results} {}", if results == 1 { "result" } else { "results" })
}

/// Reads the recap from the start of an output.
pub(crate) fn parse(stdout: &str) -> Result<Recap, Missing> {
    let line = stdout.lines().find(|line| line.starts_with(MARKER)).ok_or(Missing::None)?;
    serde_json::from_str(&line[MARKER.len()..]).map_err(|_| Missing::Cut)
}

/// The part of a packed text that came with the answer itself.
pub(crate) fn inline<'a>(stdout: &'a str, name: &str) -> &'a str {
    let mut lines = stdout.lines().skip_while(|line| !line.starts_with(MARKER)).skip(1);
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    // The agent's own mark of a cut is no base64.
    found
        .map_or("", |text| text.split(|c: char| c == '-' || c.is_whitespace()).next().unwrap_or(""))
}

/// Unpacks a text that is complete.
pub(crate) fn unpack(
    packed: &str,
    expected: &(usize, String),
    name: &'static str,
) -> Result<String, Missing> {
    if packed.len() != expected.0 {
        return Err(Missing::Part(expected.0.saturating_sub(packed.len()), name));
    }
    if hex::encode(Sha256::digest(packed.as_bytes())) != expected.1 {
        return Err(Missing::Damaged(name));
    }
    let damaged = |_| Missing::Damaged(name);
    let bytes = STANDARD.decode(packed).map_err(|_| Missing::Damaged(name))?;
    let mut text = Vec::new();
    let mut unpacked = GzDecoder::new(bytes.as_slice()).take(UNPACKED_LIMIT_BYTES + 1);
    let length = unpacked.read_to_end(&mut text).map_err(damaged)?;
    if length as u64 > UNPACKED_LIMIT_BYTES {
        return Err(Missing::Large(name));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The results in an event file.
pub(crate) fn results(events: &str) -> Vec<TaskResult> {
    events
        .lines()
        .filter(|line| line.starts_with(r#"{"e":"result""#))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// What `set_stats` gave: of the run and of this host, the latter first.
pub(crate) fn custom_stats(events: &str, host: &str) -> serde_json::Map<String, Value> {
    of_stats(events, host, "custom")
}

/// The lengths, in characters, of the values that `set_stats` gave and that were too long to come home.
pub(crate) fn left_out_stats(events: &str, host: &str) -> serde_json::Map<String, Value> {
    of_stats(events, host, "left_out")
}

fn of_stats(events: &str, host: &str, field: &str) -> serde_json::Map<String, Value> {
    let mut found = serde_json::Map::new();
    let stats = events.lines().filter(|line| line.starts_with(r#"{"e":"stats""#));
    for event in stats.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for owner in ["_run", host] {
            let values = event[field][owner].as_object();
            found.extend(values.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    found
}

/// Where Ansible says that an error is: `Origin: FILE:LINE:COLUMN` since 2.19, before that
/// `The error appears to be in 'FILE': line LINE, column COLUMN`.
pub(crate) fn error_place(text: &str) -> Option<(String, u32)> {
    let newer = || {
        let rest = text.split_once("Origin: ")?.1.lines().next()?;
        let mut parts = rest.split(':');
        Some((parts.next()?.to_owned(), parts.next()?.trim().parse().ok()?))
    };
    let older = || {
        let (file, rest) = text.split_once("appears to be in '")?.1.split_once("': line ")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((file.to_owned(), digits.parse().ok()?))
    };
    newer().or_else(older)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recap_is_found_cut_or_missing() {
        let whole = "noise\nssm-run-playbook/1 {\"state\":\"done\",\"rc\":0,\"stats\":{\"ok\":2,\"changed\":1,\"failures\":0,\"skipped\":0,\"unreachable\":0,\"rescued\":0,\"ignored\":0},\"slowest\":[[\"x\",120]]}\nevents QUJD\n";
        let recap = parse(whole).unwrap();
        assert_eq!(
            (recap.state, recap.rc, recap.stats.unwrap().changed),
            (State::Done, Some(0), 1)
        );
        assert_eq!(recap.slowest, [("x".to_owned(), 120)]);
        assert_eq!(inline(whole, "events"), "QUJD");
        assert_eq!(inline(whole, "log"), "");
        assert_eq!(
            parse("ssm-run-playbook/1 {\"state\":\"do\n---Output truncated---"),
            Err(Missing::Cut)
        );
        assert_eq!(parse("Killed"), Err(Missing::None));
        assert_eq!(parse(""), Err(Missing::None));
    }

    #[test]
    fn packed_text_must_be_whole() {
        use std::io::Write as _;
        let pack = |bytes: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).unwrap();
            let packed = STANDARD.encode(gzip.finish().unwrap());
            let sum = hex::encode(Sha256::digest(packed.as_bytes()));
            (packed.clone(), (packed.len(), sum))
        };
        let (packed, expected) = pack(b"hello\n");
        assert_eq!(unpack(&packed, &expected, "log").unwrap(), "hello\n");
        assert_eq!(unpack(&packed[4..], &expected, "log"), Err(Missing::Part(4, "log")));
        let damaged = packed.replace(&packed[10..11], "!");
        assert_eq!(unpack(&damaged, &expected, "log"), Err(Missing::Damaged("log")));
        let (packed, expected) = pack(&vec![b'x'; (64 << 20) + 1]);
        assert_eq!(unpack(&packed, &expected, "events"), Err(Missing::Large("events")));
    }

    #[test]
    fn places_of_both_generations_of_ansible_are_understood() {
        let old = "ERROR! conflicting action statements: debug, command\n\nThe error appears to be in 'playbooks/site.yml': line 4, column 7, but may\n";
        let new = "[ERROR]: conflicting action statements: debug, command\nOrigin: playbooks/site.yml:4:7\n\n2   hosts: all";
        let expected = Some(("playbooks/site.yml".to_owned(), 4));
        assert_eq!(error_place(old), expected);
        assert_eq!(error_place(new), expected);
        assert_eq!(error_place("ERROR! something else"), None);
    }

    #[test]
    fn results_are_read_from_events() {
        let events = "{\"e\":\"play\",\"name\":\"x\"}\n{\"e\":\"result\",\"host\":\"a\",\"status\":\"changed\",\"task\":\"t\",\"module\":\"copy\",\"file\":null,\"line\":null,\"ms\":7}\n";
        let results = results(events);
        assert_eq!((results.len(), results[0].ms, results[0].status.as_str()), (1, 7, "changed"));
    }
}
