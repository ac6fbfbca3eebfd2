//! What faults do to agents: one that never comes, comes late, answers late, or is gone in the middle of a command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Ssm;
use crate::faults::{Kind, Standing};
use crate::hosts::HostInfo;
use crate::log;

/// What was decided for agents so far, so that asking again changes nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Fates(Arc<Mutex<Decided>>);

#[derive(Debug, Default)]
struct Decided {
    /// By instance.
    coming: BTreeMap<String, Coming>,
    /// By instance and command: when it may reach the agent.
    delivery: BTreeMap<(String, String), Option<Instant>>,
    /// By instance and command: those that `agent-drop` was asked for.
    asked: BTreeSet<(String, String)>,
    /// By instance: why its agent is refused, said once in the log.
    refused: BTreeMap<String, String>,
    /// By instance: when the agent can be reached again.
    cut: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Coming {
    /// The fault that keeps it away.
    never: Option<u64>,
    not_before: Instant,
}

/// Whether an agent may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Now,
    Wait(Duration),
    Never,
}

impl Fates {
    fn lock(&self) -> MutexGuard<'_, Decided> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ssm {
    /// Whether the agent of an instance that asks for the first time may register now.
    pub(super) fn arrival(&self, host: &HostInfo) -> Arrival {
        let coming =
            *self.fates.lock().coming.entry(host.instance_id.clone()).or_insert_with(|| {
                let never =
                    self.faults.strike(Kind::AgentNever, Some(host)).map(|strike| strike.id);
                let late = self.faults.strike(Kind::AgentLate, Some(host));
                let late = late.map_or(Duration::ZERO, |strike| strike.delay);
                Coming { never, not_before: Instant::now() + self.timing.registration + late }
            });
        // It stays away for as long as its fault is listed and not over in time.
        let away = |fault: u64| {
            let listed = self.faults.list();
            listed.iter().any(|listed| listed.id == fault && listed.standing != Standing::Expired)
        };
        if coming.never.is_some_and(away) {
            return Arrival::Never;
        }
        match coming.not_before.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Arrival::Now,
            wait => Arrival::Wait(wait),
        }
    }

    /// Says once in the log that and why an agent is refused, or that it no longer is.
    pub(super) fn note_refusal(&self, instance_id: &str, why: Option<String>) {
        let mut fates = self.fates.lock();
        let before = match &why {
            Some(why) => fates.refused.insert(instance_id.to_owned(), why.clone()),
            None => fates.refused.remove(instance_id),
        };
        match why {
            Some(why) if before.as_ref() != Some(&why) => {
                log::line(format_args!("{instance_id}: its agent is refused: {why}"));
            }
            None if before.is_some() => {
                log::line(format_args!("{instance_id}: its agent is not refused any more"));
            }
            _ => {}
        }
    }

    /// Until when a command does not reach the agent, when that is later than now.
    pub(super) fn held_back(&self, host: &HostInfo, command_id: &str) -> Option<Instant> {
        let key = (host.instance_id.clone(), command_id.to_owned());
        let until = *self.fates.lock().delivery.entry(key).or_insert_with(|| {
            self.faults
                .strike(Kind::AgentSlow, Some(host))
                .map(|strike| Instant::now() + strike.delay)
        });
        until.filter(|until| *until > Instant::now())
    }

    /// How much later than it came an agent's word counts.
    pub(super) fn word_late(&self, host: &HostInfo) -> Option<Duration> {
        self.faults.strike(Kind::AgentSlow, Some(host)).map(|strike| strike.delay)
    }

    /// Whether nothing of this agent arrives now.
    pub(super) fn is_cut(&self, instance_id: &str) -> bool {
        self.fates.lock().cut.get(instance_id).is_some_and(|until| *until > Instant::now())
    }

    /// An agent has these commands: may one of them be its last word for a while.
    pub(super) fn see_running(&self, host: &HostInfo, held: &[String]) {
        for command_id in held {
            let key = (host.instance_id.clone(), command_id.clone());
            if !self.fates.lock().asked.insert(key) {
                continue;
            }
            let Some(strike) = self.faults.strike(Kind::AgentDrop, Some(host)) else { continue };
            let (ssm, id) = (self.clone(), host.instance_id.clone());
            let after = Duration::from_secs(strike.seconds.max(0).unsigned_abs());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                ssm.cut(&id, strike.delay, strike.code == "dies").await;
            });
        }
    }

    async fn cut(&self, id: &str, lasting: Duration, dies: bool) {
        self.fates.lock().cut.insert(id.to_owned(), Instant::now() + lasting);
        log::line(format_args!("{id}: its agent is cut off for {lasting:?}"));
        // A question for work that is open ends with it.
        self.tell();
        if let Some(ec2) = self.ec2.as_ref().filter(|_| dies) {
            let kill = ["systemctl", "kill", "--signal=KILL", "amazon-ssm-agent.service"];
            match ec2.docker.exec(id, &kill).await {
                Ok(output) if output.status.success() => {
                    log::line(format_args!("{id}: its agent is killed with all that it ran"));
                }
                Ok(output) => log::line(format_args!("{id}: {}", output.stderr.trim())),
                Err(error) => log::line(format_args!("{id}: its agent cannot be killed: {error}")),
            }
        }
        tokio::time::sleep(lasting).await;
        if !self.is_cut(id) {
            log::line(format_args!("{id}: its agent can be reached again"));
        }
    }
}
