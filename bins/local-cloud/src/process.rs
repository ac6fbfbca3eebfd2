//! Processes: the one place that starts any, so that each has a deadline and ends with us; and ending one that an earlier
//! command started.

use std::ffi::OsStr;
use std::fs::File;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::Instant;

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

tokio::task_local! {
    /// When everything that is run has to be over, whatever each program may take.
    static DEADLINE: Instant;
}

/// Does something whose programs have so long altogether.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let mut deadline = Instant::now() + limit;
    if let Ok(outer) = DEADLINE.try_with(|outer| *outer) {
        deadline = deadline.min(outer);
    }
    DEADLINE.scope(deadline, work).await
}

/// How long a program may take: many times what it takes on a busy machine, since only one that hangs is meant.
fn patience(program: &str, first: Option<&str>) -> Duration {
    let seconds = match (program, first) {
        ("nft" | "ip" | "modprobe", _) => 10,
        ("docker", Some("info" | "version" | "ps" | "inspect" | "network" | "container")) => 30,
        // These move whole file systems.
        ("docker", Some("run" | "commit" | "import" | "load" | "cp")) => 900,
        ("docker", _) => 180,
        ("tar", _) => 300,
        ("nsenter", _) => 20,
        (python, _) if python.contains("python") => 900,
        _ => 60,
    };
    Duration::from_secs(seconds)
}

/// A program that ends with us: when its handle is dropped, and when this process ends in any way, SIGKILL too. It is in a
/// process group of its own, so that what it started itself can be ended with it.
///
/// A process hears of its parent's end by `PR_SET_PDEATHSIG`, which `setpriv` sets.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

/// This program again, as a daemon that outlives us; whoever starts it gives it its deadline.
pub fn daemon() -> Command {
    // Not its path: a rebuild may have replaced the file meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("local-cloud").current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a program on this terminal, for as long as whoever sits there likes. It ends with us.
pub async fn on_terminal(program: &str, args: &[&str]) -> std::io::Result<ExitStatus> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", program])
        .args(args)
        .kill_on_drop(true)
        .status()
        .await
}

/// Ends a whole process group unless its leader has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails for one that has just ended.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a program to its end, with nothing or `input` on its stdin.
pub async fn capture<I, S>(program: &str, args: I, input: Option<&str>) -> Result<Output, Error>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    capture_all(program, args, stdin, input.unwrap_or_default()).await
}

/// [`capture`] with a file as its stdin.
pub async fn capture_file<const N: usize>(
    program: &str,
    args: [&str; N],
    file: File,
) -> Result<Output, Error> {
    capture_all(program, args, file.into(), "").await
}

async fn capture_all<I, S>(
    program: &str,
    args: I,
    stdin: Stdio,
    input: &str,
) -> Result<Output, Error>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let failed = |error: std::io::Error| Error::Program {
        program: program.to_owned(),
        output: error.to_string(),
    };
    let args: Vec<S> = args.into_iter().collect();
    let first = args.first().and_then(|arg| arg.as_ref().to_str());
    let own = Instant::now() + patience(program, first);
    let deadline = DEADLINE.try_with(|outer| own.min(*outer)).unwrap_or(own);
    let begun = Instant::now();
    let mut child = command(program)
        .args(&args)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(leader);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (pipe_in, pipe_out, pipe_err) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut pipe) = pipe_in {
            // A program that ends before it has read everything says why by its status.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
        Ok(())
    };
    let read = async |pipe: Option<&mut (dyn tokio::io::AsyncRead + Unpin + Send)>,
                      into: &mut Vec<u8>| match pipe {
        Some(pipe) => pipe.read_to_end(into).await.map(drop),
        None => Ok(()),
    };
    let (mut pipe_out, mut pipe_err) = (pipe_out, pipe_err);
    let ended = tokio::time::timeout_at(deadline, async {
        tokio::try_join!(
            feed,
            read(pipe_out.as_mut().map(|pipe| pipe as _), &mut stdout),
            read(pipe_err.as_mut().map(|pipe| pipe as _), &mut stderr),
            child.wait(),
        )
    })
    .await;
    let Ok(ended) = ended else {
        let shown = first.map_or_else(String::new, |first| format!(" {first}"));
        return Err(Error::TooLate {
            program: format!("{program}{shown}"),
            after: begun.elapsed(),
        });
    };
    let ((), (), (), status) = ended.map_err(failed)?;
    group.0 = None;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    // Then it was never started.
    if status.code() == Some(127)
        && let Some(why) = stderr.strip_prefix("setpriv: failed to execute ")
    {
        return Err(Error::Program { program: program.to_owned(), output: why.trim().to_owned() });
    }
    Ok(Output { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr })
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

    /// Whether a process of this number runs; a zombie does not.
    fn runs(pid: &str) -> bool {
        pid.trim().parse().ok().and_then(Identity::of).is_some()
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A shell that notes its child's number and hangs with it.
    fn hanging(note: &std::path::Path) -> String {
        format!("sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait", note.display())
    }

    #[tokio::test]
    async fn a_program_that_hangs_ends_at_the_deadline_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("pid");
        let script = hanging(&note);
        let begun = Instant::now();
        let run = capture("sh", ["-c", &script], None);
        let error = within(Duration::from_millis(700), run).await.expect_err("it hangs");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(matches!(&error, Error::TooLate { program, .. } if program == "sh -c"), "{error}");
        let child = std::fs::read_to_string(&note).expect("it had begun");
        until("its child ends as well", || !runs(&child)).await;
    }

    #[tokio::test]
    async fn a_program_ends_when_nobody_waits_for_it_any_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("pid");
        let script = hanging(&note);
        let run = tokio::spawn(async move { capture("sh", ["-c", &script], None).await });
        until("it has begun", || note.exists()).await;
        let child = std::fs::read_to_string(&note).expect("a number");
        assert!(runs(&child));
        run.abort();
        until("its child ends as well", || !runs(&child)).await;
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said_to_be() {
        let error = capture("no-such-program", ["x"], None).await.expect_err("none");
        assert!(error.to_string().contains("`no-such-program` failed"), "{error}");
    }

    #[test]
    fn every_program_is_started_here() {
        // A process that is started elsewhere has no deadline and may outlive us.
        let room = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut rooms = vec![room.clone()];
        let mut seen = 0;
        while let Some(folder) = rooms.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    rooms.push(path);
                    continue;
                }
                let mine = path == room.join("process.rs");
                if mine || path.file_name().is_some_and(|name| name == "tests.rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("text");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let imports = code.lines().filter(|line| line.contains("process::"));
                for line in imports {
                    assert!(!line.contains("Command"), "{}: {line}", path.display());
                }
                seen += 1;
            }
        }
        assert!(seen > 80, "only {seen} files were looked at");
    }

    #[tokio::test]
    async fn a_failing_program_tells_its_last_words() {
        let error = run("sh", ["-c", "echo no >&2; exit 3"], None).await.expect_err("status 3");
        assert_eq!(error.to_string(), "`sh -c echo no >&2; exit 3` failed: no");
    }
}
