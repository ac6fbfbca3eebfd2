//! The registry of hosts: what every part of the rehearsal cloud knows about them.
//!
//! One table, shared by cheap clones. Who changes it: [`crate::ec2`] only (launch, stop, start, terminate, tags).
//! Who reads it: instance metadata (which host is calling?), Systems Manager (is that instance known, is it up?),
//! the status page. A reader gets copies, so nobody holds the lock while doing something slow.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// The states of an instance, as EC2 names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// Launched; its container is not running yet.
    Pending,
    /// Its container runs.
    Running,
    /// Shutting down after `StopInstances`.
    Stopping,
    /// Stopped; its disk is kept.
    Stopped,
    /// Being removed after `TerminateInstances`.
    ShuttingDown,
    /// Gone; still listed for a while, as on EC2.
    Terminated,
}

impl HostState {
    /// EC2's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// EC2's code of the state (API reference, `InstanceState`).
    pub fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

/// What others may know about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// The instance id that `RunInstances` answered.
    pub instance_id: String,
    /// Its `Name` tag.
    pub name: Option<String>,
    /// Its address inside the VPC; calls to the metadata address come from it.
    pub private_ip: Ipv4Addr,
    /// Its present state.
    pub state: HostState,
    /// Its tags as last seen.
    pub tags: BTreeMap<String, String>,
    /// When it was launched.
    pub launched: jiff::Timestamp,
}

/// The table of hosts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<RwLock<BTreeMap<String, HostInfo>>>);

impl Hosts {
    /// The host that uses this address, unless it is terminated (its address may belong to a newer one).
    pub fn by_address(&self, ip: IpAddr) -> Option<HostInfo> {
        let IpAddr::V4(ip) = ip.to_canonical() else { return None };
        self.read(|hosts| {
            hosts.values().find(|h| h.private_ip == ip && h.state != HostState::Terminated).cloned()
        })
    }

    /// The host of this instance id, terminated ones included.
    pub fn by_instance(&self, id: &str) -> Option<HostInfo> {
        self.read(|hosts| hosts.get(id).cloned())
    }

    /// All hosts, ordered by instance id.
    pub fn all(&self) -> Vec<HostInfo> {
        self.read(|hosts| hosts.values().cloned().collect())
    }

    /// Whether this instance id was ever launched here.
    pub fn known(&self, id: &str) -> bool {
        self.read(|hosts| hosts.contains_key(id))
    }

    /// Adds a host or replaces what is known about it.
    pub fn put(&self, host: HostInfo) {
        self.write(|hosts| {
            hosts.insert(host.instance_id.clone(), host);
        });
    }

    /// Takes a host out: it was terminated long ago.
    pub fn remove(&self, id: &str) {
        self.write(|hosts| {
            hosts.remove(id);
        });
    }

    /// Changes one host in place; `false` when it is not known.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut HostInfo)) -> bool {
        self.write(|hosts| hosts.get_mut(id).map(change).is_some())
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, HostInfo>) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<String, HostInfo>) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str, last: u8, state: HostState) -> HostInfo {
        HostInfo {
            instance_id: id.into(),
            name: None,
            private_ip: Ipv4Addr::new(10, 20, 1, last),
            state,
            tags: BTreeMap::new(),
            launched: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_address_belongs_to_the_host_that_still_lives() {
        let hosts = Hosts::default();
        hosts.put(host("i-1", 10, HostState::Terminated));
        hosts.put(host("i-2", 10, HostState::Running));
        let found = hosts.by_address("10.20.1.10".parse().expect("address"));
        assert_eq!(found.map(|h| h.instance_id), Some("i-2".into()));
        let mapped = hosts.by_address("::ffff:10.20.1.10".parse().expect("address"));
        assert_eq!(mapped.map(|h| h.instance_id), Some("i-2".into()));
        assert!(hosts.known("i-1"));
        assert!(!hosts.known("i-3"));
    }

    #[test]
    fn a_change_is_seen_through_every_clone() {
        let hosts = Hosts::default();
        let other = hosts.clone();
        hosts.put(host("i-1", 10, HostState::Pending));
        assert!(hosts.update("i-1", |h| h.state = HostState::Running));
        assert_eq!(other.by_instance("i-1").map(|h| h.state), Some(HostState::Running));
        assert!(!other.update("i-9", |_| ()));
    }
}
