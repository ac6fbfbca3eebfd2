//! Why an instance is in its state, in EC2's codes and words (API reference, `StateReason`), and which changes of state
//! it allows. Pure.

use jiff::Timestamp;

use super::answers::Refusal;
use crate::hosts::HostState;

/// Why an instance left `running`, or never came to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `stateReason/code`.
    pub code: &'static str,
    /// `stateReason/message`.
    pub message: String,
    /// `reason`, which the documentation calls the state transition reason.
    pub transition: String,
}

impl Reason {
    /// `StopInstances` or `TerminateInstances`.
    pub fn user(now: Timestamp) -> Self {
        Self {
            code: "Client.UserInitiatedShutdown",
            message: "Client.UserInitiatedShutdown: User initiated shutdown".into(),
            transition: format!("User initiated ({} GMT)", now.strftime("%Y-%m-%d %H:%M:%S")),
        }
    }

    /// A power-off from inside the host.
    pub fn instance() -> Self {
        Self {
            code: "Client.InstanceInitiatedShutdown",
            message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown".into(),
            transition: String::new(),
        }
    }

    /// The host could not be started. What this machine said follows EC2's own words.
    pub fn failed(why: &str) -> Self {
        let lower = why.to_lowercase();
        let full = ["no space left", "cannot allocate memory", "too many open files"];
        let (code, text) = if full.iter().any(|sign| lower.contains(sign)) {
            (
                "Server.InsufficientInstanceCapacity",
                "There was insufficient capacity available to satisfy the launch request",
            )
        } else {
            ("Server.InternalError", "Internal error on launch")
        };
        Self { code, message: format!("{code}: {text} ({why})"), transition: code.into() }
    }
}

/// A call that changes states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `StartInstances`.
    Start,
    /// `StopInstances`.
    Stop,
    /// `RebootInstances`.
    Reboot,
    /// `TerminateInstances`.
    Terminate,
}

impl Change {
    /// The call of this name.
    pub fn of(operation: &str) -> Option<Self> {
        match operation {
            "StartInstances" => Some(Self::Start),
            "StopInstances" => Some(Self::Stop),
            "RebootInstances" => Some(Self::Reboot),
            "TerminateInstances" => Some(Self::Terminate),
            _ => None,
        }
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "StartInstances",
            Self::Stop => "StopInstances",
            Self::Reboot => "RebootInstances",
            Self::Terminate => "TerminateInstances",
        }
    }

    /// The state in which it leaves an instance at once; `None` when there is nothing to do.
    ///
    /// # Errors
    /// `IncorrectInstanceState`.
    pub fn next(
        self,
        id: &str,
        state: HostState,
        ran_before: bool,
    ) -> Result<Option<HostState>, Refusal> {
        use HostState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        let refuse = |message: String| Err(Refusal::client("IncorrectInstanceState", message));
        let cannot = |done: &str| {
            refuse(format!("The instance '{id}' is not in a state from which it can be {done}."))
        };
        match (self, state) {
            (Self::Start, Stopped) => Ok(Some(Pending)),
            (Self::Start, Pending | Running) => Ok(None),
            (Self::Start, _) => cannot("started"),
            (Self::Stop, Running) => Ok(Some(Stopping)),
            (Self::Stop, Stopping | Stopped) => Ok(None),
            (Self::Stop, Pending) if !ran_before => refuse(format!(
                "Instance '{id}' cannot be stopped as it has never reached the 'running' state."
            )),
            (Self::Stop, _) => cannot("stopped"),
            (Self::Reboot, Running) => Ok(Some(Running)),
            // "Requests to reboot terminated instances are ignored." (API reference)
            (Self::Reboot, ShuttingDown | Terminated) => Ok(None),
            (Self::Reboot, _) => cannot("rebooted"),
            (Self::Terminate, ShuttingDown | Terminated) => Ok(None),
            (Self::Terminate, _) => Ok(Some(ShuttingDown)),
        }
    }
}

/// No instances of these ids.
pub fn unknown(ids: &[&str]) -> Refusal {
    let message = match ids {
        [id] => format!("The instance ID '{id}' does not exist"),
        ids => format!("The instance IDs '{}' do not exist", ids.join(", ")),
    };
    Refusal::client("InvalidInstanceID.NotFound", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_ec2s_codes_and_words() {
        let user = Reason::user(Timestamp::UNIX_EPOCH);
        assert_eq!(user.transition, "User initiated (1970-01-01 00:00:00 GMT)");
        assert!(user.message.starts_with(user.code));
        let check = |why: &str, code: &str| {
            let reason = Reason::failed(why);
            assert_eq!((reason.code, reason.transition.as_str()), (code, code));
            assert!(reason.message.ends_with(&format!("({why})")), "{}", reason.message);
        };
        check("docker: write /x: no space left on device", "Server.InsufficientInstanceCapacity");
        check("exec format error", "Server.InternalError");
    }

    #[test]
    fn only_some_states_can_be_left() {
        use HostState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        let states = [Pending, Running, Stopping, Stopped, ShuttingDown, Terminated];
        let check = |change: Change, expected: [&str; 6]| {
            for (state, expected) in states.into_iter().zip(expected) {
                let next = match change.next("i-1", state, true) {
                    Ok(next) => next.map_or("-", HostState::name),
                    Err(refusal) => {
                        assert_eq!(refusal.code, "IncorrectInstanceState");
                        "refused"
                    }
                };
                assert_eq!(next, expected, "{change:?} when {}", state.name());
            }
        };
        check(Change::Start, ["-", "-", "refused", "pending", "refused", "refused"]);
        check(Change::Stop, ["refused", "stopping", "-", "-", "refused", "refused"]);
        check(Change::Reboot, ["refused", "running", "refused", "refused", "-", "-"]);
        let down = "shutting-down";
        check(Change::Terminate, [down, down, down, down, "-", "-"]);
        let first = Change::Stop.next("i-1", Pending, false).expect_err("refused");
        assert!(first.message.ends_with("never reached the 'running' state."));
    }

    #[test]
    fn unknown_ids_are_named_together() {
        assert!(unknown(&["i-1"]).message.contains("ID 'i-1' does not"));
        assert!(unknown(&["i-1", "i-2"]).message.contains("IDs 'i-1, i-2' do not"));
    }
}
