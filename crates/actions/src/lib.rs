//! GitHub Actions input and output: the typed environment, workflow commands, step outputs, the step summary and masks;
//! and the only way from a tool to its stdout and stderr, on which text from outside cannot be a workflow command.
//!
//! The only crate that reads the process environment (clap reads the flag mirrors). Outside Actions every call is a
//! no-op, so tools need not ask where they run.
//! Sources: <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands> and
//! <https://docs.github.com/actions/reference/workflows-and-actions/variables>.

mod commands;
pub mod console;
mod environment;
pub mod text;

pub use commands::{Annotation, Level};
pub use environment::{Environment, is_empty_variable, named_variable};

use commands::StopToken;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// GitHub drops a step summary that is larger than this, whole and without a word.
const SUMMARY_LIMIT_BYTES: u64 = 1024 * 1024;

/// What GitHub Actions offers to a step, or nothing when the tool runs elsewhere.
#[derive(Debug, Clone)]
pub struct Actions {
    environment: Environment,
}

impl Actions {
    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        Self { environment: Environment::from_process() }
    }

    /// Builds it from a given environment, for tests.
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// Whether this process is a step of a GitHub Actions job.
    pub fn is_active(&self) -> bool {
        self.environment.in_actions
    }

    /// The environment that was read.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Appends `name=value` to the step's outputs, with a random delimiter so that a value cannot forge another output.
    ///
    /// # Errors
    /// When the output file cannot be written.
    pub fn set_output(&self, name: &str, value: &str) -> io::Result<()> {
        match &self.environment.output {
            Some(path) if self.is_active() => {
                append(path, &commands::output_block(name, value, &commands::token()))
            }
            _ => Ok(()),
        }
    }

    /// Appends Markdown to the step summary; text that would take it past GitHub's 1 MiB is cut at a line with a note.
    ///
    /// # Errors
    /// When the summary file cannot be written.
    pub fn append_summary(&self, markdown: &str) -> io::Result<()> {
        let Some(path) = self.environment.step_summary.as_ref().filter(|_| self.is_active()) else {
            return Ok(());
        };
        let used = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let room = usize::try_from(SUMMARY_LIMIT_BYTES.saturating_sub(used)).unwrap_or(0);
        append(path, &commands::fit(markdown, room))
    }

    /// Asks the runner to replace `secret` by `***` in all later output of the job. Every line is masked by itself. On
    /// stderr: stdout may be somebody's input.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub fn mask(&self, secret: &str) -> io::Result<()> {
        if self.is_active() {
            for line in secret.lines().filter(|line| !line.trim().is_empty()) {
                console::raw(&format!("::add-mask::{}", commands::escape_data(line)))?;
            }
        }
        Ok(())
    }

    /// Writes an annotation. Outside Actions nothing is written: the error itself is already on the terminal.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub fn annotate(&self, annotation: &Annotation) -> io::Result<()> {
        if self.is_active() { console::raw(&annotation.to_string()) } else { Ok(()) }
    }

    /// Opens a foldable group of lines; whether there is one to close.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub fn begin_group(&self, title: &str) -> io::Result<bool> {
        if self.is_active() {
            console::raw(&format!("::group::{}", commands::escape_data(&text::line(title))))?;
        }
        Ok(self.is_active())
    }

    /// Closes it.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub fn end_group(&self) -> io::Result<()> {
        if self.is_active() { console::raw("::endgroup::") } else { Ok(()) }
    }

    /// Text of another program, several lines: a foldable group in Actions, in which the runner reads no commands.
    ///
    /// # Errors
    /// When stderr cannot be written.
    pub fn tell_foreign(&self, title: &str, text: &str) -> io::Result<()> {
        let (title, text) = (text::line(title), text::lines(text.trim_end()));
        if self.is_active() {
            let token = StopToken::new();
            let (begin, end) = (token.begin(), token.end());
            let title = commands::escape_data(&title);
            console::raw(&format!("::group::{title}\n{begin}\n{text}\n{end}\n::endgroup::"))
        } else {
            console::raw(&format!("--- {title}\n{text}\n---"))
        }
    }

    /// A link to the running workflow run, when there is one.
    pub fn run_url(&self) -> Option<String> {
        let env = &self.environment;
        Some(format!(
            "{}/{}/actions/runs/{}",
            env.server_url.as_ref()?,
            env.repository.as_ref()?,
            env.run_id.as_ref()?
        ))
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}
