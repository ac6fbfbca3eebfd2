//! One command and its invocations: who gets it, when it expires, how it ends. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::{Counts, End, State};

/// `MaxConcurrency` or `MaxErrors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Count(usize),
    Percent(usize),
}

impl Limit {
    /// How many of so many; a part of one is not one.
    pub(super) fn of(self, targets: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => targets * percent / 100,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// One entry of `Targets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Target {
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) values: Vec<String>,
}

/// What was asked for, checked.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) comment: String,
    pub(super) document_version: String,
    /// As it came, to be shown again.
    pub(super) parameters: Map<String, Value>,
    pub(super) commands: Vec<String>,
    pub(super) working_directory: String,
    /// As it came: what an agent makes of it is the agent's affair.
    pub(super) execution_timeout: u32,
    pub(super) delivery_timeout: u32,
    pub(super) instance_ids: Vec<String>,
    pub(super) targets: Vec<Target>,
    pub(super) max_concurrency: Limit,
    pub(super) max_errors: Limit,
}

/// Somebody who is to run it.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) instance_id: String,
    pub(super) name: String,
    /// Whether it is a managed instance at all.
    pub(super) managed: bool,
}

/// What the agent says about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

/// A command on one instance.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) instance_id: String,
    pub(super) instance_name: String,
    pub(super) state: State,
    pub(super) outcome: Option<Outcome>,
    /// Whether its turn has come; the agent may not have taken it yet.
    sent: bool,
    /// When the agent was last asked to kill it.
    asked_to_stop: Option<Timestamp>,
}

impl Invocation {
    fn ask_to_stop(&mut self, now: Timestamp) -> Duty {
        if self.asked_to_stop.is_some_and(|asked| now.duration_since(asked) < ASK_AGAIN) {
            return Duty::Nothing;
        }
        self.asked_to_stop = Some(now);
        Duty::Stop
    }
}

/// What the agent is to do about an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    Nothing,
    Start,
    Stop,
}

/// An agent that does not react is asked again after this.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// A command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) id: String,
    pub(super) order: Order,
    pub(super) requested: Timestamp,
    pub(super) invocations: Vec<Invocation>,
    cancelling: bool,
}

impl Command {
    pub(super) fn new(
        id: String,
        order: Order,
        recipients: Vec<Recipient>,
        requested: Timestamp,
    ) -> Self {
        let invocations = recipients
            .into_iter()
            .map(|recipient| Invocation {
                instance_id: recipient.instance_id,
                instance_name: recipient.name,
                state: if recipient.managed {
                    State::Pending
                } else {
                    State::Ended(End::Undeliverable)
                },
                outcome: None,
                sent: false,
                asked_to_stop: None,
            })
            .collect();
        let mut command = Self { id, order, requested, invocations, cancelling: false };
        command.advance(requested);
        command
    }

    /// `ExpiresAfter`: the total of both timeouts.
    pub(super) fn expires(&self) -> Timestamp {
        let seconds =
            i64::from(self.order.delivery_timeout) + i64::from(self.order.execution_timeout);
        self.requested.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.invocations.iter().map(|invocation| invocation.state))
    }

    /// `Status` and `StatusDetails`.
    pub(super) fn status(&self) -> (&'static str, &'static str) {
        self.counts().command(self.max_errors(), self.cancelling)
    }

    pub(super) fn invocation(&self, instance_id: &str) -> Option<&Invocation> {
        self.invocations.iter().find(|invocation| invocation.instance_id == instance_id)
    }

    fn max_errors(&self) -> usize {
        self.order.max_errors.of(self.invocations.len())
    }

    /// What the passing of time and the ends of others bring about.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if now >= self.expires() {
            for invocation in self.invocations.iter_mut().filter(|i| !i.state.ended()) {
                invocation.state = State::Ended(match invocation.state {
                    State::Cancelling => End::Cancelled,
                    _ => End::DeliveryTimedOut,
                });
            }
            return;
        }
        let too_many_errors = self.counts().errors > self.max_errors();
        let most = self.order.max_concurrency.of(self.invocations.len()).max(1);
        let mut active = self.invocations.iter().filter(|i| i.sent && !i.state.ended()).count();
        for invocation in &mut self.invocations {
            if invocation.sent || invocation.state.ended() {
                continue;
            }
            if too_many_errors {
                invocation.state = State::Ended(End::Terminated);
            } else if active < most {
                invocation.sent = true;
                active += 1;
            }
        }
    }

    /// What the agent of an instance is to do now. `held`: it says that it has this command.
    pub(super) fn duty(&mut self, instance_id: &str, held: bool, now: Timestamp) -> Duty {
        let last_start = self
            .requested
            .saturating_add(SignedDuration::from_secs(self.order.delivery_timeout.into()))
            .unwrap_or(Timestamp::MAX);
        let Some(invocation) = self.find(instance_id) else { return Duty::Nothing };
        match invocation.state {
            State::Pending if held => {
                invocation.state = State::InProgress;
                Duty::Nothing
            }
            State::Pending if invocation.sent && now < last_start => Duty::Start,
            State::Cancelling => invocation.ask_to_stop(now),
            // It took the command a moment before it was cancelled.
            State::Ended(End::Cancelled) if held && invocation.outcome.is_none() => {
                invocation.ask_to_stop(now)
            }
            State::Pending | State::InProgress | State::Ended(_) => Duty::Nothing,
        }
    }

    /// The agent says how it ended. What has ended already stays as it is.
    pub(super) fn finish(&mut self, instance_id: &str, end: End, outcome: Outcome) -> bool {
        match self.find(instance_id) {
            Some(invocation) if !invocation.state.ended() => {
                invocation.state = State::Ended(end);
                invocation.outcome = Some(outcome);
                true
            }
            Some(invocation) if invocation.state == State::Ended(End::Cancelled) => {
                invocation.outcome.get_or_insert(outcome);
                false
            }
            _ => false,
        }
    }

    /// Cancels on these instances, or on all: at once where no agent has it, else the agent is asked.
    pub(super) fn cancel(&mut self, instance_ids: &[String]) {
        for invocation in &mut self.invocations {
            if !instance_ids.is_empty() && !instance_ids.contains(&invocation.instance_id) {
                continue;
            }
            match invocation.state {
                State::Pending => {
                    invocation.state = State::Ended(End::Cancelled);
                    self.cancelling = true;
                }
                State::InProgress => {
                    invocation.state = State::Cancelling;
                    self.cancelling = true;
                }
                State::Cancelling | State::Ended(_) => {}
            }
        }
    }

    fn find(&mut self, instance_id: &str) -> Option<&mut Invocation> {
        self.invocations.iter_mut().find(|invocation| invocation.instance_id == instance_id)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn order(max_concurrency: Limit, max_errors: Limit) -> Order {
        Order {
            comment: String::new(),
            document_version: "$DEFAULT".into(),
            parameters: Map::new(),
            commands: vec!["true".into()],
            working_directory: String::new(),
            execution_timeout: 100,
            delivery_timeout: 30,
            instance_ids: Vec::new(),
            targets: Vec::new(),
            max_concurrency,
            max_errors,
        }
    }

    pub(in super::super) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    pub(in super::super) fn outcome(code: i32) -> Outcome {
        Outcome {
            code,
            stdout: String::new(),
            stderr: String::new(),
            started: at(1),
            finished: at(2),
        }
    }

    fn command(count: usize, max_concurrency: Limit, max_errors: Limit) -> Command {
        let recipients = (0..count)
            .map(|n| Recipient {
                instance_id: format!("i-{n}"),
                name: String::new(),
                managed: true,
            })
            .collect();
        Command::new("c".into(), order(max_concurrency, max_errors), recipients, at(0))
    }

    fn details(command: &Command) -> Vec<&'static str> {
        command.invocations.iter().map(|invocation| invocation.state.details()).collect()
    }

    fn run(command: &mut Command, id: &str, end: End) {
        assert_eq!(command.duty(id, false, at(1)), Duty::Start, "{id}");
        assert_eq!(command.duty(id, true, at(1)), Duty::Nothing, "{id}");
        assert!(command.finish(id, end, outcome(0)));
        command.advance(at(2));
    }

    #[test]
    fn no_more_than_max_concurrency_run_at_once() {
        let mut command = command(4, Limit::Percent(50), Limit::Count(0));
        let due: Vec<_> = (0..4).map(|n| command.duty(&format!("i-{n}"), false, at(1))).collect();
        assert_eq!(due, [Duty::Start, Duty::Start, Duty::Nothing, Duty::Nothing]);
        run(&mut command, "i-1", End::Success);
        assert_eq!(command.duty("i-2", false, at(1)), Duty::Start);
        assert_eq!(command.duty("i-3", false, at(1)), Duty::Nothing);
    }

    #[test]
    fn a_part_of_one_is_still_one_at_a_time() {
        let mut command = command(3, Limit::Percent(10), Limit::Count(0));
        assert_eq!(command.duty("i-0", false, at(1)), Duty::Start);
        assert_eq!(command.duty("i-1", false, at(1)), Duty::Nothing);
    }

    #[test]
    fn the_first_error_beyond_max_errors_terminates_the_rest() {
        let mut strict = command(3, Limit::Count(1), Limit::Count(0));
        run(&mut strict, "i-0", End::Failed);
        assert_eq!(details(&strict), ["Failed", "Terminated", "Terminated"]);
        assert_eq!(strict.status(), ("Failed", "Failed"));

        let mut lenient = command(3, Limit::Count(1), Limit::Count(1));
        run(&mut lenient, "i-0", End::ExecutionTimedOut);
        run(&mut lenient, "i-1", End::Failed);
        assert_eq!(details(&lenient), ["ExecutionTimedOut", "Failed", "Terminated"]);
    }

    #[test]
    fn what_was_not_taken_in_time_is_not_started_and_later_expires() {
        let mut command = command(2, Limit::Count(50), Limit::Count(0));
        assert_eq!(command.duty("i-0", true, at(1)), Duty::Nothing);
        assert_eq!(command.duty("i-1", false, at(29)), Duty::Start);
        assert_eq!(command.duty("i-1", false, at(30)), Duty::Nothing);
        command.advance(at(129));
        assert_eq!(details(&command), ["InProgress", "Pending"]);
        // Delivery and execution timeout together, also for what runs.
        command.advance(at(130));
        assert_eq!(details(&command), ["DeliveryTimedOut", "DeliveryTimedOut"]);
        assert_eq!(command.status(), ("TimedOut", "DeliveryTimedOut"));
        assert!(!command.finish("i-0", End::Success, outcome(0)), "too late");
    }

    #[test]
    fn cancelling_ends_at_once_where_nothing_runs_and_asks_the_agent_elsewhere() {
        let mut command = command(3, Limit::Count(2), Limit::Count(0));
        assert_eq!(command.duty("i-0", true, at(1)), Duty::Nothing);
        command.cancel(&[]);
        assert_eq!(details(&command), ["Cancelling", "Cancelled", "Cancelled"]);
        assert_eq!(command.status().0, "Cancelling");
        assert_eq!(command.duty("i-0", true, at(2)), Duty::Stop);
        assert_eq!(command.duty("i-0", true, at(3)), Duty::Nothing, "it was asked already");
        assert_eq!(command.duty("i-0", true, at(7)), Duty::Stop, "it did not react");
        // It had taken the command just before.
        assert_eq!(command.duty("i-1", true, at(7)), Duty::Stop);
        assert!(command.finish("i-0", End::Cancelled, outcome(137)));
        assert_eq!(command.status(), ("Cancelled", "Cancelled"));
    }

    #[test]
    fn cancelling_what_has_ended_changes_nothing() {
        let mut command = command(1, Limit::Count(1), Limit::Count(0));
        run(&mut command, "i-0", End::Success);
        command.cancel(&["i-0".into()]);
        assert_eq!(command.status(), ("Success", "Success"));
    }
}
