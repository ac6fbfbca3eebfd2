//! The agents that registered, and whether they were heard of lately. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

/// What an agent says about itself when it registers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Registration {
    pub(super) agent_version: String,
    pub(super) platform_name: String,
    pub(super) platform_version: String,
    pub(super) computer_name: String,
    /// How many commands it runs at a time.
    pub(super) workers: usize,
}

/// A registered agent.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) about: Registration,
    pub(super) last_ping: Timestamp,
}

/// All registered agents by instance id.
#[derive(Debug)]
pub(super) struct Agents {
    known: BTreeMap<String, Agent>,
    lost: Duration,
}

impl Agents {
    pub(super) fn new(lost: Duration) -> Self {
        Self { known: BTreeMap::new(), lost }
    }

    pub(super) fn register(&mut self, instance_id: &str, about: Registration, now: Timestamp) {
        self.known.insert(instance_id.to_owned(), Agent { about, last_ping: now });
    }

    /// Notes a sign of life; `None` when it has to register first.
    pub(super) fn ping(&mut self, instance_id: &str, now: Timestamp) -> Option<&Agent> {
        let agent = self.known.get_mut(instance_id)?;
        agent.last_ping = now;
        Some(agent)
    }

    pub(super) fn get(&self, instance_id: &str) -> Option<&Agent> {
        self.known.get(instance_id)
    }

    /// Forgets those whose instance is gone.
    pub(super) fn retain(&mut self, managed: impl Fn(&str) -> bool) {
        self.known.retain(|id, _| managed(id));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Agent)> {
        self.known.iter().map(|(id, agent)| (id.as_str(), agent))
    }

    /// `PingStatus`.
    pub(super) fn ping_status(&self, agent: &Agent, now: Timestamp) -> &'static str {
        let silent = now.duration_since(agent.last_ping).unsigned_abs();
        if silent < self.lost { "Online" } else { "ConnectionLost" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_online_until_it_was_silent_for_too_long() {
        let mut agents = Agents::new(Duration::from_secs(15));
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("in range");
        assert!(agents.ping("i-1", at(0)).is_none());
        let about = Registration {
            agent_version: "0.0.1.0".into(),
            platform_name: "Debian GNU/Linux".into(),
            platform_version: "12".into(),
            computer_name: "sip-1".into(),
            workers: 5,
        };
        agents.register("i-1", about, at(0));
        let status =
            |agents: &Agents, now| agents.get("i-1").map(|agent| agents.ping_status(agent, now));
        assert_eq!(status(&agents, at(14)), Some("Online"));
        assert_eq!(status(&agents, at(15)), Some("ConnectionLost"));
        assert!(agents.ping("i-1", at(20)).is_some());
        assert_eq!(status(&agents, at(21)), Some("Online"));
        agents.retain(|_| false);
        assert_eq!(status(&agents, at(21)), None);
    }
}
