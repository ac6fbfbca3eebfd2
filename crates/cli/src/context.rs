//! What one run of a tool knows about itself, and the one place where a run ends.

use crate::signal::Stop;
use crate::{CommonArgs, Exit, Failure, Format, Place, Progress};
use deploy_actions::text::{cell, line};
use deploy_actions::{Actions, Annotation, Level, console};
use deploy_report::{Report, ReportBuilder, Subject, SubjectOutcome};
use jiff::Timestamp;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Name and version of a tool; see [`crate::tool!`].
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The binary's name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// What a finished run hands to [`Context::finish`].
#[derive(Debug, Clone)]
pub struct Done {
    /// The exit status.
    pub exit: Exit,
    /// The report.
    pub report: Report,
    /// What stdout gets in text mode instead of the report's own text: lines for people.
    pub stdout: Option<String>,
    /// What stdout gets in text mode instead of both, when programs read it: JSON, or YAML with strings quoted as in JSON.
    pub data: Option<String>,
    /// What stdout gets in JSON mode instead of the report: a JSON document that the user asked for by a flag.
    pub document: Option<String>,
    /// Step outputs besides `outcome`.
    pub outputs: Vec<(String, String)>,
    /// Annotations besides the ones that are made from failed subjects when this is empty.
    pub annotations: Vec<Annotation>,
    /// Markdown after the report's table in the step summary.
    pub summary: Option<String>,
}

impl Done {
    /// A finished run with nothing but its report.
    pub fn new(exit: Exit, report: Report) -> Self {
        Self {
            exit,
            report,
            stdout: None,
            data: None,
            document: None,
            outputs: Vec::new(),
            annotations: Vec::new(),
            summary: None,
        }
    }
}

/// One run of a tool: its flags, its clock, where it may print, when it must stop.
#[derive(Debug)]
pub struct Context {
    tool: Tool,
    common: CommonArgs,
    actions: Actions,
    progress: Progress,
    stop: Stop,
    started_at: Timestamp,
    clock: Instant,
}

impl Context {
    /// The context of this process. Inside a tokio runtime it starts to listen for SIGINT and SIGTERM.
    pub fn from_process(tool: Tool, common: &CommonArgs) -> Self {
        let clock = Instant::now();
        let actions = Actions::from_process();
        let progress = Progress::new(actions.clone(), common.quiet, common.verbose, clock);
        let (common, stop) = (common.clone(), Stop::listen());
        Self { tool, common, actions, progress, stop, started_at: Timestamp::now(), clock }
    }

    /// Draws progress.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Prints text from outside safely; see [`Progress::untrusted`].
    pub fn untrusted(&self, title: &str, text: &str) {
        self.progress.untrusted(title, text);
    }

    /// Whether this is a step of a GitHub Actions job.
    pub fn in_actions(&self) -> bool {
        self.actions.is_active()
    }

    /// GitHub Actions input and output.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// `--project`.
    pub fn project(&self) -> Option<&str> {
        self.common.project.as_deref()
    }

    /// `--environment`.
    pub fn environment(&self) -> Option<&str> {
        self.common.environment.as_deref()
    }

    /// `--region`.
    pub fn region(&self) -> Option<&str> {
        self.common.region.as_deref()
    }

    /// `--verbose`.
    pub fn verbose(&self) -> bool {
        self.common.verbose
    }

    /// `--format`.
    pub fn format(&self) -> Format {
        self.common.format
    }

    /// When this run started, by the wall clock.
    pub fn started(&self) -> Timestamp {
        self.started_at
    }

    /// Resolves on the first SIGINT or SIGTERM. A later signal ends the process at once.
    pub async fn stopped(&self) -> Exit {
        self.stop.stopped().await
    }

    /// A report of this run, still open.
    pub fn report(&self) -> ReportBuilder {
        ReportBuilder::new(self.tool.name, self.tool.version, self.started_at, self.clock)
            .project(self.project())
            .environment(self.environment())
    }

    /// Ends the run: writes the report, stdout, step summary, outputs and annotations, or prints the error once, and
    /// returns the exit status.
    pub fn finish<E: Failure>(&self, outcome: Result<Done, E>) -> ExitCode {
        self.progress.clear();
        let (done, failed) = match outcome {
            Ok(done) => (done, false),
            Err(error) => {
                let (done, text) = self.describe(&error);
                // Nobody left to tell when stderr is gone; the status still says it.
                let _ = console::tell(&text);
                (done, true)
            }
        };
        let mut exit = done.exit;
        // A report that cannot be written takes nothing from stdout, nor the other way round.
        for written in [self.publish(&done, failed), self.write_report(&done.report)] {
            let Err(message) = written else { continue };
            let _ = console::tell(&format!("error: {message}"));
            if exit == Exit::Success {
                exit = Exit::Usage;
            }
        }
        ExitCode::from(exit.code())
    }

    fn describe<E: Failure>(&self, error: &E) -> (Done, String) {
        let exit = error.exit();
        let mut chain = error.to_string();
        let mut text = format!("error: {chain}\n");
        let mut cause = error.source();
        while let Some(error) = cause {
            let message = error.to_string();
            text.push_str(&format!("  caused by: {message}\n"));
            chain.push_str(": ");
            chain.push_str(&message);
            cause = error.source();
        }
        let hint = error.hint();
        if let Some(hint) = &hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        if exit == Exit::Internal {
            text.push_str(
                "this is a bug; please report it with the command line and this output\n",
            );
        }
        let places = error.places();
        // Of an error that lists places the first line is the title; the list is the subjects.
        let title = chain.lines().next().unwrap_or_default();
        let title = if places.is_empty() { chain.as_str() } else { title };
        let report = self.report().subjects(subjects(&places));
        let mut done = Done::new(exit, report.finish(exit.name(), title));
        if places.is_empty() {
            let message =
                hint.clone().map_or_else(|| chain.clone(), |hint| format!("{chain}\n{hint}"));
            done.annotations.push(Annotation::new(Level::Error, self.tool.name, message));
        }
        done.annotations.extend(places.iter().map(|place| {
            Annotation::new(Level::Error, self.tool.name, &place.message)
                .at(&place.file, Some(place.line))
        }));
        done.summary = hint.as_deref().map(explanation);
        (done, text)
    }

    fn write_report(&self, report: &Report) -> Result<(), String> {
        let Some(path) = &self.common.report else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(report).expect("a report has only string keys");
        text.push('\n');
        write_with_parents(path, &text)
            .map_err(|error| format!("cannot write the report `{}`: {error}", path.display()))
    }

    fn publish(&self, done: &Done, failed: bool) -> Result<(), String> {
        let written = match self.common.format {
            Format::Json => match &done.document {
                Some(document) => console::print_json(document),
                None => {
                    let json = serde_json::to_string_pretty(&done.report)
                        .expect("a report has only string keys");
                    console::print_json(&format!("{json}\n"))
                }
            },
            // The error is on stderr already.
            Format::Text if failed => Ok(()),
            Format::Text => match (&done.data, &done.stdout) {
                (Some(data), _) => console::print_json(data),
                (None, Some(text)) => console::print(text),
                (None, None) => console::print(&deploy_report::text(&done.report)),
            },
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(format!("cannot write to stdout: {error}"));
            }
            _ => {}
        }
        self.publish_to_actions(done)
            .map_err(|error| format!("cannot write to GitHub's step files: {error}"))
    }

    fn publish_to_actions(&self, done: &Done) -> io::Result<()> {
        if !self.in_actions() {
            return Ok(());
        }
        let from_subjects: Vec<Annotation>;
        let annotations = if done.annotations.is_empty() {
            from_subjects = done
                .report
                .subjects
                .iter()
                .filter_map(|subject| self.annotation(subject))
                .collect();
            &from_subjects
        } else {
            &done.annotations
        };
        for annotation in annotations {
            self.actions.annotate(annotation)?;
        }
        let mut summary = deploy_report::markdown(&done.report);
        if let Some(extra) = &done.summary {
            summary.push('\n');
            summary.push_str(extra);
        }
        self.actions.append_summary(&summary)?;
        self.actions.set_output("outcome", done.exit.name())?;
        for (name, value) in &done.outputs {
            self.actions.set_output(name, value)?;
        }
        Ok(())
    }

    fn annotation(&self, subject: &Subject) -> Option<Annotation> {
        let level = match subject.outcome {
            SubjectOutcome::Failed => Level::Error,
            SubjectOutcome::Warned | SubjectOutcome::Unknown => Level::Warning,
            SubjectOutcome::Success | SubjectOutcome::Skipped => {
                return None;
            }
        };
        let title = format!("{}: {} {}", self.tool.name, subject.kind, subject.name);
        Some(Annotation::new(level, title, subject.detail.clone()))
    }
}

/// One for each place; what is wrong there may be several things.
fn subjects(places: &[Place]) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    for Place { file, line, message } in places {
        let name = format!("{file}:{line}");
        match subjects.iter_mut().find(|subject| subject.name == name) {
            Some(known) => known.detail.push_str(&format!("; {message}")),
            None => {
                subjects.push(Subject::new("place", name, SubjectOutcome::Failed, message.clone()));
            }
        }
    }
    subjects
}

/// What the step summary says below the heading of an error: the hint, and the excerpt of a file that may follow it.
fn explanation(hint: &str) -> String {
    let mut lines = hint.lines();
    let mut out = format!("{}\n", cell(lines.next().unwrap_or_default()));
    let excerpt: String = lines.map(|text| format!("    {}\n", line(text))).collect();
    if !excerpt.is_empty() {
        out.push_str(&format!("\n{excerpt}"));
    }
    out
}

fn write_with_parents(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}
