//! The exit statuses of all tools, and what an error must know about its ending.

/// How a tool ended. `Verdict` means *the deployment is bad*; any other failure means *the tool could not tell*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or checked and good.
    Success,
    /// Checked, and the answer is no.
    Verdict,
    /// A bad flag, input or file.
    Usage,
    /// Nothing matched although something was required.
    Empty,
    /// The deadline passed before an answer.
    Timeout,
    /// Credentials are missing, expired or not allowed.
    Denied,
    /// Network, throttling or 5xx after the last retry; a service that does not run.
    Unavailable,
    /// A bug of ours.
    Internal,
    /// SIGINT; what was started remotely has been cancelled or is named.
    Interrupted,
    /// SIGTERM or SIGHUP; what was started remotely has been cancelled or is named.
    Terminated,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Verdict,
        Self::Usage,
        Self::Empty,
        Self::Timeout,
        Self::Denied,
        Self::Unavailable,
        Self::Internal,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The process's exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Verdict => 1,
            Self::Usage => 2,
            Self::Empty => 3,
            Self::Timeout => 4,
            Self::Denied => 5,
            Self::Unavailable => 6,
            Self::Internal => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The name used in reports and outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Verdict => "verdict",
            Self::Usage => "usage",
            Self::Empty => "empty",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// What it means for the workflow, as `docs/exit-codes.md` prints it.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done, or checked and good",
            Self::Verdict => {
                "checked, and the answer is no: a check failed, a play failed on a host, orphans found with `--check`"
            }
            Self::Usage => "a bad flag, input or file",
            Self::Empty => "nothing matched although something was required",
            Self::Timeout => "the deadline passed before an answer",
            Self::Denied => "credentials missing, expired or not allowed",
            Self::Unavailable => {
                "network, throttling or 5xx after the last retry; a service that does not run"
            }
            Self::Internal => "a bug; the message asks for a report",
            Self::Interrupted => {
                "stopped by SIGINT; what was started remotely has been cancelled or is named"
            }
            Self::Terminated => {
                "stopped by SIGTERM or SIGHUP; what was started remotely has been cancelled or is named"
            }
        }
    }
}

/// A place in a file of the user, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the repository's root where there is one.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// An error that knows how the tool ends because of it and what a person can do next.
pub trait Failure: std::error::Error {
    /// The exit status.
    fn exit(&self) -> Exit;

    /// The places in files that it speaks of. Each becomes a subject of the report, and in Actions
    /// an annotation.
    fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    /// What to do next, apart from the error's own text.
    fn hint(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn names_and_codes_are_unique_and_sorted() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b));
        let names: std::collections::HashSet<_> =
            Exit::ALL.iter().map(|exit| exit.name()).collect();
        assert_eq!(names.len(), Exit::ALL.len());
    }
}
