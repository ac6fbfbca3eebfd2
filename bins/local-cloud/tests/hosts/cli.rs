//! The AWS CLI, in processes that stay: each call then takes a tenth of a second instead of one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::answers;

/// An error that the API answered, as the AWS CLI shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AwsError {
    /// The API's code; empty when the AWS CLI itself refused.
    pub(crate) code: String,
    /// Its message; everything that was said when the AWS CLI itself refused.
    pub(crate) message: String,
}

/// Makes calls, any number at a time.
#[derive(Debug)]
pub(crate) struct Cli {
    python: PathBuf,
    env: Vec<(String, String)>,
    idle: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Cli {
    /// With the interpreter of this `aws` and this environment besides `PATH` and `HOME`.
    pub(crate) fn new(aws: &Path, env: Vec<(String, String)>) -> Self {
        let script = std::fs::read_to_string(aws)
            .unwrap_or_else(|error| panic!("{}: {error}", aws.display()));
        let python = script
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("#!"))
            .unwrap_or_else(|| panic!("{} is no Python script of version 1", aws.display()));
        Self { python: python.trim().into(), env, idle: Mutex::default() }
    }

    /// One call; its answer, `Null` when there is none.
    pub(crate) fn call(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Value, AwsError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = idle.unwrap_or_else(|| self.start());
        let env: serde_json::Map<String, Value> =
            env.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        writeln!(worker.stdin, "{}", json!({"args": args, "env": env})).expect("the worker lives");
        let mut line = String::new();
        worker.stdout.read_line(&mut line).expect("the worker answers");
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{args:?}: {error} {line}"));
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        answers::keep(said["answers"].as_array().into_iter().flatten().cloned());
        let text = |field: &str| said[field].as_str().unwrap_or_default().trim().to_owned();
        if said["status"] != 0 {
            return Err(refusal(&text("stderr")));
        }
        let stdout = text("stdout");
        if stdout.is_empty() {
            return Ok(Value::Null);
        }
        // With `--output text` it is no JSON.
        Ok(serde_json::from_str(&stdout).unwrap_or(Value::String(stdout)))
    }

    fn start(&self) -> Worker {
        let mut child = Command::new(&self.python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/aws-cli.py"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.python.display()));
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Worker { child, stdin, stdout }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing is under way in an idle one; whether it can be ended decides nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `An error occurred (CODE) when calling the OPERATION operation: MESSAGE`.
fn refusal(stderr: &str) -> AwsError {
    let told = stderr.split_once("An error occurred (").and_then(|(_, rest)| {
        let (code, rest) = rest.split_once(')')?;
        let (_, message) = rest.split_once(": ")?;
        Some(AwsError { code: code.to_owned(), message: message.to_owned() })
    });
    told.unwrap_or_else(|| AwsError { code: String::new(), message: stderr.to_owned() })
}
