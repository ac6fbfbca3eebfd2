//! The states of an invocation and of a command, with AWS's names.
//!
//! Source: API reference, `CommandInvocation` and `Command`, and the user guide's page "Understanding command
//! statuses". The service writes the details without the blanks that its pages show.

/// Where an invocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No agent has taken it.
    Pending,
    /// No agent has taken it, and the one that should is not heard of.
    Delayed,
    /// The agent has it.
    InProgress,
    /// The agent has it and is asked to kill it.
    Cancelling,
    /// Nothing changes any more.
    Ended(End),
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Exit status 0.
    Success,
    /// Another exit status, or it could not be started.
    Failed,
    /// By `CancelCommand`.
    Cancelled,
    /// The command expired before the agent said how it ended.
    DeliveryTimedOut,
    /// The agent killed it after `executionTimeout`, or it exited with 137.
    ExecutionTimedOut,
    /// No such managed instance.
    Undeliverable,
    /// Not sent any more because `MaxErrors` was exceeded.
    Terminated,
    /// The document is for other systems than this one.
    InvalidPlatform,
    /// The caller may not send to this instance.
    AccessDenied,
}

impl State {
    pub(super) fn ended(self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Whether it still waits for an agent.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Pending | Self::Delayed)
    }

    /// `Status`.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Delayed => "Delayed",
            Self::InProgress => "InProgress",
            Self::Cancelling => "Cancelling",
            Self::Ended(End::Success) => "Success",
            Self::Ended(
                End::Failed | End::Undeliverable | End::InvalidPlatform | End::AccessDenied,
            ) => "Failed",
            Self::Ended(End::Cancelled | End::Terminated) => "Cancelled",
            Self::Ended(End::DeliveryTimedOut | End::ExecutionTimedOut) => "TimedOut",
        }
    }

    /// `StatusDetails`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::Ended(End::DeliveryTimedOut) => "DeliveryTimedOut",
            Self::Ended(End::ExecutionTimedOut) => "ExecutionTimedOut",
            Self::Ended(End::Undeliverable) => "Undeliverable",
            Self::Ended(End::Terminated) => "Terminated",
            Self::Ended(End::InvalidPlatform) => "InvalidPlatform",
            Self::Ended(End::AccessDenied) => "AccessDenied",
            other => other.status(),
        }
    }
}

impl End {
    /// Whether it counts towards `MaxErrors`.
    pub(super) fn is_error(self) -> bool {
        matches!(self, Self::Failed | Self::ExecutionTimedOut)
    }
}

/// Counts over a command's invocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) targets: usize,
    pub(super) completed: usize,
    pub(super) errors: usize,
    /// Those of the errors that are execution timeouts.
    pub(super) execution_timed_out: usize,
    pub(super) delivery_timed_out: usize,
    pub(super) cancelled: usize,
    pub(super) succeeded: usize,
    /// Those that neither succeed nor count as an error: the user guide lets four of them beside one success be a
    /// successful command.
    pub(super) undeliverable: usize,
    pub(super) in_progress: usize,
}

impl Counts {
    pub(super) fn of(states: impl Iterator<Item = State>) -> Self {
        let mut counts = Self::default();
        for state in states {
            counts.targets += 1;
            match state {
                State::Pending | State::Delayed => {}
                State::InProgress | State::Cancelling => counts.in_progress += 1,
                State::Ended(end) => {
                    counts.completed += 1;
                    counts.errors += usize::from(end.is_error());
                    match end {
                        End::Success => counts.succeeded += 1,
                        End::Cancelled => counts.cancelled += 1,
                        End::DeliveryTimedOut => counts.delivery_timed_out += 1,
                        End::Undeliverable | End::InvalidPlatform | End::AccessDenied => {
                            counts.undeliverable += 1;
                        }
                        End::ExecutionTimedOut => counts.execution_timed_out += 1,
                        End::Failed | End::Terminated => {}
                    }
                }
            }
        }
        counts
    }

    /// `Status` and `StatusDetails` of a command.
    pub(super) fn command(
        self,
        max_errors: usize,
        cancelling: bool,
    ) -> (&'static str, &'static str) {
        if self.completed < self.targets {
            return match (cancelling, self.in_progress + self.completed) {
                (true, _) => ("Cancelling", "Cancelling"),
                (false, 0) => ("Pending", "Pending"),
                (false, _) => ("InProgress", "InProgress"),
            };
        }
        if self.execution_timed_out > max_errors && self.execution_timed_out == self.errors {
            ("TimedOut", "ExecutionTimedOut")
        } else if self.errors > max_errors || self.undeliverable == self.targets {
            ("Failed", "Failed")
        } else if self.cancelled > 0 {
            ("Cancelled", "Cancelled")
        } else if self.delivery_timed_out > max_errors {
            ("TimedOut", "DeliveryTimedOut")
        } else if self.succeeded > 0 && self.succeeded + self.undeliverable == self.targets {
            ("Success", "Success")
        } else {
            // `Status` has no value of its own for it.
            ("Failed", "Incomplete")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sums_up_its_invocations() {
        let check = |ends: &[End], max_errors: usize, expected: (&str, &str)| {
            let counts = Counts::of(ends.iter().map(|end| State::Ended(*end)));
            assert_eq!(counts.command(max_errors, false), expected, "{ends:?}, {max_errors}");
        };
        check(&[End::Success, End::Success], 0, ("Success", "Success"));
        check(&[End::Success, End::Failed], 0, ("Failed", "Failed"));
        check(&[End::Success, End::Failed], 1, ("Failed", "Incomplete"));
        check(&[End::ExecutionTimedOut], 0, ("TimedOut", "ExecutionTimedOut"));
        check(&[End::ExecutionTimedOut, End::Terminated], 0, ("TimedOut", "ExecutionTimedOut"));
        check(&[End::ExecutionTimedOut, End::Failed], 0, ("Failed", "Failed"));
        check(&[End::ExecutionTimedOut], 1, ("Failed", "Incomplete"));
        check(&[End::DeliveryTimedOut], 0, ("TimedOut", "DeliveryTimedOut"));
        check(&[End::DeliveryTimedOut, End::Success], 1, ("Failed", "Incomplete"));
        check(&[End::Success, End::Cancelled], 0, ("Cancelled", "Cancelled"));
        check(&[End::Failed, End::Terminated], 0, ("Failed", "Failed"));
        // Four of five undeliverable: the parent alone proves nothing.
        check(
            &[
                End::Undeliverable,
                End::Undeliverable,
                End::Undeliverable,
                End::Undeliverable,
                End::Success,
            ],
            0,
            ("Success", "Success"),
        );
        check(&[End::Undeliverable], 0, ("Failed", "Failed"));
        check(&[End::InvalidPlatform, End::AccessDenied], 0, ("Failed", "Failed"));
        check(&[End::InvalidPlatform, End::AccessDenied, End::Success], 0, ("Success", "Success"));
    }

    #[test]
    fn a_command_is_pending_until_one_agent_has_it() {
        let check = |states: &[State], cancelling: bool, expected: &str| {
            let (status, _) = Counts::of(states.iter().copied()).command(0, cancelling);
            assert_eq!(status, expected, "{states:?}");
        };
        check(&[State::Pending, State::Delayed], false, "Pending");
        check(&[State::Pending, State::InProgress], false, "InProgress");
        check(&[State::Pending, State::Ended(End::Success)], false, "InProgress");
        check(&[State::Cancelling, State::Ended(End::Success)], true, "Cancelling");
    }
}
