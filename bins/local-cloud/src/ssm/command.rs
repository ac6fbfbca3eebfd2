//! One command and its invocations: who gets it, when it expires, how it ends. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::Step;
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
    pub(super) document: String,
    pub(super) document_version: String,
    /// As it came, to be shown again.
    pub(super) parameters: Map<String, Value>,
    pub(super) steps: Vec<Step>,
    /// Seconds.
    pub(super) delivery_timeout: u32,
    /// Where the whole output goes besides.
    pub(super) bucket: Option<Bucket>,
    /// The log group where it goes while a step runs.
    pub(super) log_group: Option<String>,
    pub(super) instance_ids: Vec<String>,
    pub(super) targets: Vec<Target>,
    pub(super) max_concurrency: Limit,
    pub(super) max_errors: Limit,
}

/// `OutputS3BucketName` and `OutputS3KeyPrefix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Bucket {
    #[serde(rename = "bucket")]
    pub(super) name: String,
    pub(super) prefix: String,
}

/// Somebody who is to run it.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) instance_id: String,
    pub(super) name: String,
    /// Why it is not sent there at all.
    pub(super) refused: Option<End>,
}

/// What the agent says about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) step: String,
    pub(super) end: End,
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
    /// The steps that have ended, as far as the agent has said.
    pub(super) outcomes: Vec<Outcome>,
    /// Whether the agent has said how it ended.
    reported: bool,
    /// Whether its turn has come; the agent may not have taken it yet.
    sent: bool,
    /// When the agent was last asked to kill it.
    asked_to_stop: Option<Timestamp>,
}

impl Invocation {
    /// Whether the agent has said how it ended.
    pub(super) fn reported(&self) -> bool {
        self.reported
    }

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

/// How it is with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Heard of lately.
    There,
    /// Its connection is lost, or its instance is stopped.
    Silent,
    /// Its instance is terminated.
    Gone,
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
    /// Why nobody runs it, as `StatusDetails` say it, once that is known.
    nobody: Option<Nobody>,
    settled: bool,
}

/// Why a command runs nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Its targets match no managed instance.
    NoInstancesInTag,
    /// Too many invocations wait already.
    RateExceeded,
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
                state: recipient.refused.map_or(State::Pending, State::Ended),
                outcomes: Vec::new(),
                reported: false,
                sent: false,
                asked_to_stop: None,
            })
            .collect::<Vec<_>>();
        let nobody = invocations.is_empty().then_some(Nobody::NoInstancesInTag);
        let (cancelling, settled) = (false, false);
        let mut command = Self { id, order, requested, invocations, cancelling, nobody, settled };
        command.advance(requested);
        command
    }

    /// A command that exceeds what may wait: it is not sent to anybody.
    pub(super) fn exceeding(id: String, order: Order, requested: Timestamp) -> Self {
        let nobody = Some(Nobody::RateExceeded);
        Self { nobody, ..Self::new(id, order, Vec::new(), requested) }
    }

    /// `ExpiresAfter`: the total of both timeouts.
    pub(super) fn expires(&self) -> Timestamp {
        let seconds = i64::from(self.order.delivery_timeout)
            + self.order.steps.iter().map(Step::seconds).sum::<i64>();
        self.requested.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    }

    /// Whether nothing more happens to it.
    pub(super) fn ended(&self) -> bool {
        self.invocations.iter().all(|invocation| invocation.state.ended())
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.invocations.iter().map(|invocation| invocation.state))
    }

    /// `Status` and `StatusDetails`.
    pub(super) fn status(&self) -> (&'static str, &'static str) {
        match self.nobody {
            // As observed on AWS: targets are looked for after the answer.
            Some(_) if !self.settled => ("Pending", "Pending"),
            Some(Nobody::NoInstancesInTag) => ("Success", "NoInstancesInTag"),
            // "The system has canceled the command before executing it on any managed node."
            Some(Nobody::RateExceeded) => ("Cancelled", "RateExceeded"),
            None => self.counts().command(self.max_errors(), self.cancelling),
        }
    }

    pub(super) fn invocation(&self, instance_id: &str) -> Option<&Invocation> {
        self.invocations.iter().find(|invocation| invocation.instance_id == instance_id)
    }

    fn max_errors(&self) -> usize {
        self.order.max_errors.of(self.invocations.len())
    }

    /// What the passing of time and the ends of others bring about.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.settled |= now > self.requested;
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

    /// How it is with the agents of those that wait: gone with the instance, not heard of, or there.
    pub(super) fn look_for(&mut self, presence: impl Fn(&str) -> Presence) {
        for invocation in self.invocations.iter_mut().filter(|i| i.sent && i.state.waits()) {
            invocation.state = match presence(&invocation.instance_id) {
                Presence::Gone => State::Ended(End::Undeliverable),
                Presence::Silent => State::Delayed,
                Presence::There => continue,
            };
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
            State::Pending | State::Delayed if held => {
                invocation.state = State::InProgress;
                Duty::Nothing
            }
            State::Pending | State::Delayed if invocation.sent && now < last_start => Duty::Start,
            State::Cancelling => invocation.ask_to_stop(now),
            // It took the command a moment before it was cancelled.
            State::Ended(End::Cancelled) if held && !invocation.reported => {
                invocation.ask_to_stop(now)
            }
            State::Pending | State::Delayed | State::InProgress | State::Ended(_) => Duty::Nothing,
        }
    }

    /// The agent says which steps have ended, and how all of it did. What has ended already stays as it is.
    pub(super) fn finish(
        &mut self,
        instance_id: &str,
        end: Option<End>,
        outcomes: Vec<Outcome>,
    ) -> bool {
        match self.find(instance_id) {
            Some(invocation) if !invocation.state.ended() => {
                if let Some(end) = end {
                    invocation.state = State::Ended(end);
                    invocation.reported = true;
                } else if invocation.state.waits() {
                    invocation.state = State::InProgress;
                }
                invocation.outcomes = outcomes;
                true
            }
            Some(invocation) if invocation.state == State::Ended(End::Cancelled) => {
                if !invocation.reported {
                    invocation.outcomes = outcomes;
                    invocation.reported = end.is_some();
                }
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
                State::Pending | State::Delayed => {
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
    use serde_json::json;

    use super::super::document::Document;
    use super::*;

    pub(in super::super) fn order(max_concurrency: Limit, max_errors: Limit) -> Order {
        let parameters = json!({"commands": ["true"], "executionTimeout": ["100"]});
        let parameters = parameters.as_object().expect("an object").clone();
        Order {
            comment: String::new(),
            document: "AWS-RunShellScript".into(),
            document_version: "$DEFAULT".into(),
            parameters: Map::new(),
            steps: Document::run_shell_script().steps(&parameters).expect("valid"),
            delivery_timeout: 30,
            bucket: None,
            log_group: None,
            instance_ids: Vec::new(),
            targets: Vec::new(),
            max_concurrency,
            max_errors,
        }
    }

    pub(in super::super) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    pub(in super::super) fn outcome(end: End, code: i32) -> Outcome {
        Outcome {
            step: "aws:runShellScript".into(),
            end,
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
                refused: None,
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
        assert!(command.finish(id, Some(end), vec![outcome(end, 0)]));
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
        let late = vec![outcome(End::Success, 0)];
        assert!(!command.finish("i-0", Some(End::Success), late), "too late");
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
        let killed = vec![outcome(End::Cancelled, 137)];
        assert!(command.finish("i-0", Some(End::Cancelled), killed));
        assert_eq!(command.status(), ("Cancelled", "Cancelled"));
    }

    #[test]
    fn cancelling_what_has_ended_changes_nothing() {
        let mut command = command(1, Limit::Count(1), Limit::Count(0));
        run(&mut command, "i-0", End::Success);
        command.cancel(&["i-0".into()]);
        assert_eq!(command.status(), ("Success", "Success"));
    }

    #[test]
    fn what_waits_for_a_silent_agent_is_delayed_and_undeliverable_when_it_is_gone() {
        let mut command = command(3, Limit::Count(2), Limit::Count(0));
        assert_eq!(command.duty("i-0", true, at(1)), Duty::Nothing);
        command.look_for(|_| Presence::Silent);
        assert_eq!(
            details(&command),
            ["InProgress", "Delayed", "Pending"],
            "the third has to wait"
        );
        assert_eq!(command.status(), ("InProgress", "InProgress"));
        assert_eq!(command.duty("i-1", false, at(2)), Duty::Start, "it is back");
        command.look_for(|_| Presence::Gone);
        assert_eq!(details(&command), ["InProgress", "Undeliverable", "Pending"]);
        command.advance(at(130));
        assert_eq!(details(&command), ["DeliveryTimedOut", "Undeliverable", "DeliveryTimedOut"]);
    }

    #[test]
    fn a_command_for_nobody_settles_after_its_answer() {
        let mut none = command(0, Limit::Count(1), Limit::Count(0));
        assert_eq!(none.status(), ("Pending", "Pending"));
        none.advance(at(1));
        assert_eq!(none.status(), ("Success", "NoInstancesInTag"));
        let order = order(Limit::Count(1), Limit::Count(0));
        let mut many = Command::exceeding("c".into(), order, at(0));
        assert_eq!(many.status(), ("Pending", "Pending"));
        many.advance(at(1));
        assert_eq!(many.status(), ("Cancelled", "RateExceeded"));
    }

    #[test]
    fn steps_are_told_one_by_one() {
        let mut command = command(1, Limit::Count(1), Limit::Count(0));
        assert!(command.finish("i-0", None, vec![outcome(End::Success, 0)]));
        assert_eq!(command.status().0, "InProgress");
        let all = vec![outcome(End::Success, 0), outcome(End::Failed, 9)];
        assert!(command.finish("i-0", Some(End::Failed), all));
        assert_eq!(command.status(), ("Failed", "Failed"));
        assert_eq!(command.invocations[0].outcomes.len(), 2);
    }
}
