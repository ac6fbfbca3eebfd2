//! The report that every tool writes with `--report FILE` and prints with `--format json`.
//!
//! One outcome, one line, then a list of subjects (hosts, checks, resources). `notify-slack` and the summary of a
//! deployment read reports and nothing else. The JSON Schema is `docs/contracts/report.schema.json`. A report never
//! holds a secret.

mod gantt;
mod junit;
mod render;

pub use gantt::{Bar, GANTT_SECTIONS, gantt, gantt_label};
pub use junit::{Fault, junit, junit_with};
pub use render::{markdown, text};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Names the document's type, so that a reader can refuse anything else.
pub const SCHEMA: &str = "calldata-foundation/report";
/// The version of the document that this crate writes.
pub const VERSION: u32 = 1;

/// How one run of one tool ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// The tool's name.
    pub tool: String,
    /// The tool's version.
    pub tool_version: String,
    /// The project that was worked on, when known.
    pub project: Option<String>,
    /// The environment (`dev`, `staging`, `prod`), when known.
    pub environment: Option<String>,
    /// When the tool started, RFC 3339 in UTC.
    pub started_at: Timestamp,
    /// When the tool ended, RFC 3339 in UTC.
    pub ended_at: Timestamp,
    /// How long it took, measured by a monotonic clock.
    pub elapsed_ms: u64,
    /// The name of the exit status, e.g. `success` or `verdict`; see `docs/exit-codes.md`.
    pub outcome: String,
    /// One line for people.
    pub title: String,
    /// What was looked at, in the tool's order.
    pub subjects: Vec<Subject>,
}

/// One thing that the tool looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// What it is: `host`, `check`, `resource`, …
    pub kind: String,
    /// Its name, unique within its kind.
    pub name: String,
    /// How it fared.
    pub outcome: SubjectOutcome,
    /// One line for people.
    pub detail: String,
    /// How long it took, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Figures and facts, free in shape.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

/// How a subject fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectOutcome {
    /// It is as it should be.
    Success,
    /// It is not.
    Failed,
    /// It is usable, and somebody should look.
    Warned,
    /// It was left out on purpose.
    Skipped,
    /// The tool could not tell.
    Unknown,
}

impl SubjectOutcome {
    /// The word used in JSON, text and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Warned => "warned",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

impl Subject {
    /// A subject without figures.
    pub fn new(
        kind: impl Into<String>,
        name: impl Into<String>,
        outcome: SubjectOutcome,
        detail: impl Into<String>,
    ) -> Self {
        let (kind, name, detail) = (kind.into(), name.into(), detail.into());
        Self { kind, name, outcome, detail, elapsed_ms: None, data: Value::Null }
    }

    /// Adds how long it took.
    #[must_use]
    pub fn elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed_ms = Some(milliseconds(elapsed));
        self
    }

    /// Adds figures and facts.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }
}

/// Collects a report while a tool runs.
#[derive(Debug, Clone)]
pub struct ReportBuilder {
    tool: String,
    tool_version: String,
    project: Option<String>,
    environment: Option<String>,
    started_at: Timestamp,
    clock: Instant,
    subjects: Vec<Subject>,
}

impl ReportBuilder {
    /// Starts a report at `started_at`; `clock` is the same moment on the monotonic clock.
    pub fn new(tool: &str, tool_version: &str, started_at: Timestamp, clock: Instant) -> Self {
        Self {
            tool: tool.to_owned(),
            tool_version: tool_version.to_owned(),
            project: None,
            environment: None,
            started_at,
            clock,
            subjects: Vec::new(),
        }
    }

    /// Names the project; `None` leaves what was known before.
    #[must_use]
    pub fn project(mut self, project: Option<&str>) -> Self {
        self.project = project.map(str::to_owned).or(self.project);
        self
    }

    /// Names the environment; `None` leaves what was known before.
    #[must_use]
    pub fn environment(mut self, environment: Option<&str>) -> Self {
        self.environment = environment.map(str::to_owned).or(self.environment);
        self
    }

    /// Adds a subject.
    #[must_use]
    pub fn subject(mut self, subject: Subject) -> Self {
        self.subjects.push(subject);
        self
    }

    /// Adds subjects in their order.
    #[must_use]
    pub fn subjects(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        self.subjects.extend(subjects);
        self
    }

    /// Ends the report now.
    pub fn finish(self, outcome: &str, title: impl Into<String>) -> Report {
        let elapsed = self.clock.elapsed();
        Report {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            tool: self.tool,
            tool_version: self.tool_version,
            project: self.project,
            environment: self.environment,
            started_at: self.started_at,
            ended_at: jiff::SignedDuration::try_from(elapsed)
                .ok()
                .and_then(|elapsed| self.started_at.checked_add(elapsed).ok())
                .unwrap_or(self.started_at),
            elapsed_ms: milliseconds(elapsed),
            outcome: outcome.to_owned(),
            title: title.into(),
            subjects: self.subjects,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_as_written() {
        let start = Timestamp::UNIX_EPOCH;
        let subject = Subject::new("host", "sip-1", SubjectOutcome::Failed, "disk full")
            .elapsed(Duration::from_millis(12))
            .data(serde_json::json!({"changed": 3}));
        let report = ReportBuilder::new("tool", "0.1.0", start, Instant::now())
            .environment(Some("dev"))
            .subject(subject)
            .finish("verdict", "1 of 1 hosts failed");
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""started_at":"1970-01-01T00:00:00Z""#), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
