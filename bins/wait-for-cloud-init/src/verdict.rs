//! The words of a judgement: the stages of a wait, the verdicts, and a finding that joins both with a cause.

use crate::quote;

/// A cause is cut here: a thousand hosts still fit into a step summary.
const MOST: usize = 600;

/// Where a host is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// EC2 starts and checks it.
    Instance,
    /// Its Systems Manager agent has to come online.
    Agent,
    /// cloud-init works.
    CloudInit,
}

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// cloud-init finished without a complaint.
    Ready,
    /// It finished, and recovered from errors.
    Degraded,
    /// It finished with errors, or died.
    Failed,
    /// It is switched off.
    Disabled,
    /// It is not installed.
    Absent,
    /// The instance was stopped.
    Stopped,
    /// The instance is gone.
    Terminated,
    /// The deadline passed and the agent had not come online.
    NeverOnline,
    /// The deadline passed in another stage.
    TimedOut,
    /// The wait ended before this host was judged.
    Pending,
}

impl Verdict {
    /// The word in reports and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Absent => "absent",
            Self::Stopped => "stopped",
            Self::Terminated => "terminated",
            Self::NeverOnline => "never-online",
            Self::TimedOut => "timed-out",
            Self::Pending => "pending",
        }
    }
}

/// A verdict, where it was reached, why, and what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The stage that it was reached in.
    pub stage: Stage,
    /// Why, in the words of the host or of AWS.
    pub cause: String,
    /// What to do next; empty when there is nothing to do.
    pub next: String,
    /// Whether it is degraded by notices of deprecation and nothing else.
    pub only_deprecated: bool,
}

impl Finding {
    /// A finding. Its cause is cut, whatever the host said.
    pub fn new(verdict: Verdict, stage: Stage, cause: &str, next: &str) -> Self {
        let cause = quote::cut(cause, MOST);
        Self { verdict, stage, cause, next: next.to_owned(), only_deprecated: false }
    }
}
