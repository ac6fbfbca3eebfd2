//! Runs a tool's real binary in a clean environment and returns all that it left: status, stdout, stderr, step outputs
//! and step summary. A dev-dependency only.

mod manual;

pub use manual::{manual_can_be_read, readme_shows_help};

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// One call of a binary, being prepared.
#[derive(Debug)]
pub struct Tool {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    cwd: Option<PathBuf>,
    home: TempDir,
    actions: bool,
}

/// What a call left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; `-1` when a signal ended the process.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Step outputs, when [`Tool::actions`] was asked for.
    pub outputs: HashMap<String, String>,
    /// The step summary, when [`Tool::actions`] was asked for.
    pub summary: String,
}

impl Tool {
    /// A call of `program`, usually `env!("CARGO_BIN_EXE_…")`. Its environment holds `PATH` and a home folder of its own.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            cwd: None,
            home: tempfile::tempdir().expect("a temporary folder can be made"),
            actions: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Points the AWS SDK at a double, with credentials that are worth nothing.
    #[must_use]
    pub fn aws(self, endpoint: &str) -> Self {
        self.env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// Gives it this on stdin; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it in this folder; in its own home folder by default.
    #[must_use]
    pub fn cwd(mut self, folder: impl AsRef<Path>) -> Self {
        self.cwd = Some(folder.as_ref().to_owned());
        self
    }

    /// Runs it as a step of a GitHub Actions job.
    #[must_use]
    pub fn actions(mut self) -> Self {
        self.actions = true;
        self
    }

    /// The home folder of the call; it is gone when this value is dropped.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts it, for tests that must act while it runs. stdout and stderr are pipes.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn(&self) -> Child {
        let mut command = self.command();
        command.stdin(Stdio::null()).spawn().expect("the binary starts")
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When the binary cannot be started or writes something other than UTF-8.
    pub fn run(self) -> Outcome {
        let mut child = self.command().stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let input = self.stdin.clone();
        let writer = std::thread::spawn(move || {
            // A tool that does not read its stdin closes it; that is no fault of the test.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the binary ends");
        writer.join().expect("the writer does not panic");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
            outputs: parse_outputs(&fs::read_to_string(self.file("output")).unwrap_or_default()),
            summary: fs::read_to_string(self.file("summary")).unwrap_or_default(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        for key in ["PATH", "LLVM_PROFILE_FILE", "DEPLOY_VENV"] {
            #[expect(
                clippy::disallowed_methods,
                reason = "a test passes on where programs are found"
            )]
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command.env("HOME", self.home()).current_dir(self.cwd.as_deref().unwrap_or(self.home()));
        if self.actions {
            command.env("GITHUB_ACTIONS", "true");
            command.env("GITHUB_OUTPUT", self.file("output"));
            command.env("GITHUB_STEP_SUMMARY", self.file("summary"));
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home().join(format!("github-{name}"))
    }
}

/// Reads the runner's output file: `name=value` lines and `name<<DELIMITER` blocks.
fn parse_outputs(text: &str) -> HashMap<String, String> {
    let mut outputs = HashMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((name, delimiter)) = line.split_once("<<") {
            let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
            outputs.insert(name.to_owned(), value.join("\n"));
        } else if let Some((name, value)) = line.split_once('=') {
            outputs.insert(name.to_owned(), value.to_owned());
        }
    }
    outputs
}
