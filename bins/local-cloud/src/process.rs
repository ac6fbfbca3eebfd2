//! Processes: running a program to its end, and ending one that an earlier command started.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::error::Error;

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// Its start, in clock ticks since boot (`proc(5)`, field 22 of `stat`).
    pub start: u64,
}

impl Identity {
    /// The identity of a running process.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        start_of(&stat).map(|start| Self { pid, start })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        u32::try_from(self.pid).ok().and_then(Self::of) == Some(self)
    }

    /// Ends it: asks first, then forces; returns when it is gone. Does nothing to a different process of that number.
    pub async fn end(self, patience: Duration) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The descriptor holds on to the process, so the number cannot change hands between the look and the signal.
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        for signal in [Signal::TERM, Signal::KILL] {
            if !self.alive() || rustix::process::pidfd_send_signal(&process, signal).is_err() {
                return;
            }
            let deadline = tokio::time::Instant::now() + patience;
            while self.alive() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The start time in a line of `/proc/<pid>/stat`; a zombie has none. The name, in parentheses, may hold anything.
fn start_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
}

/// What a program said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs a program to its end, with nothing or `input` on its stdin.
pub async fn capture<I, S>(program: &str, args: I, input: Option<&str>) -> Result<Output, Error>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let failed = |error: std::io::Error| Error::Program {
        program: program.to_owned(),
        output: error.to_string(),
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends before it has read everything says why by its status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program that has to succeed and gives its stdout.
pub async fn run<const N: usize>(
    program: &str,
    args: [&str; N],
    input: Option<&str>,
) -> Result<String, Error> {
    run_all(program, &args, input).await
}

/// [`run`] for arguments of any number.
pub async fn run_all<S: AsRef<str>>(
    program: &str,
    args: &[S],
    input: Option<&str>,
) -> Result<String, Error> {
    let output = capture(program, args.iter().map(AsRef::as_ref), input).await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let shown: Vec<&str> = args.iter().take(2).map(AsRef::as_ref).collect();
    Err(Error::Program {
        program: format!("{program} {}", shown.join(" ")),
        output: last_lines(&output.stderr, 3),
    })
}

/// The last lines of a text, in one line.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let tail = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 0";
        assert_eq!(start_of(&format!("12 (sh) {tail}")), Some(4711));
        assert_eq!(start_of(&format!("12 (a b) c) {tail}")), Some(4711));
        assert_eq!(start_of(&format!("12 (sh) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(start_of(""), None);
    }

    #[test]
    fn this_process_is_alive_and_no_other_start_is() {
        let me = Identity::of(std::process::id()).expect("proc");
        assert!(me.alive());
        assert!(!Identity { start: me.start + 1, ..me }.alive());
    }

    #[tokio::test]
    async fn a_failing_program_tells_its_last_words() {
        let error = run("sh", ["-c", "echo no >&2; exit 3"], None).await.expect_err("status 3");
        assert_eq!(error.to_string(), "`sh -c echo no >&2; exit 3` failed: no");
    }
}
