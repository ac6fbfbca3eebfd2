//! What runs, put together from hosts, agents and faults.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Control;
use crate::ec2::machine::Reachable;
use crate::faults::Listed;
use crate::hosts::HostState;
use crate::vitals::Vital;

/// How often the hosts are looked at when nobody asks.
const LOOKS: Duration = Duration::from_secs(5);

/// What the daemon says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The project.
    pub project: String,
    /// The region.
    pub region: String,
    /// All hosts that are not terminated.
    pub hosts: Vec<HostStatus>,
    /// All faults, also those that are over.
    #[serde(default)]
    pub faults: Vec<Listed>,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostStatus {
    /// Instance id.
    pub instance_id: String,
    /// `Name` tag.
    pub name: Option<String>,
    /// State.
    pub state: HostState,
    /// Address in the VPC.
    pub private_ip: String,
    /// Public address.
    pub public_ip: Option<String>,
    /// Whether its service manager is up.
    pub reachable: bool,
    /// Container.
    pub container: String,
    /// Debian suite.
    #[serde(default)]
    pub suite: String,
    /// What cloud-init says on the host, as `cloud-init status` would; `None` while the host is down.
    #[serde(default)]
    pub cloud_init: Option<String>,
    /// `PingStatus` of its agent; `None` when it never registered.
    #[serde(default)]
    pub agent: Option<String>,
    /// Use of processors in the last seconds; 100 is one of them.
    #[serde(default)]
    pub cpu_percent: Option<f64>,
    /// Memory that its processes use, in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

impl Control {
    /// Looks at the hosts now and then, so that a status can say what happened lately. Does not end.
    pub async fn watch(&self) {
        loop {
            self.look().await;
            tokio::time::sleep(LOOKS).await;
        }
    }

    async fn look(&self) -> BTreeMap<String, Vital> {
        let running = self.ec2.hosts.all().into_iter();
        let running = running.filter(|host| host.state == HostState::Running);
        self.vitals
            .look(running.map(|host| self.ec2.docker.container(&host.instance_id)).collect())
            .await
    }

    /// What runs now.
    pub async fn status(&self) -> Status {
        let ec2 = &self.ec2;
        let vitals = self.look().await;
        let hosts = ec2.hosts.all().into_iter().filter(|host| host.state != HostState::Terminated);
        let host_status = |host: crate::hosts::HostInfo| {
            let machine = ec2.machine(&host.instance_id).unwrap_or_default();
            let container = ec2.docker.container(&host.instance_id);
            let vital = vitals.get(&container).cloned().unwrap_or_default();
            HostStatus {
                container,
                agent: self.ssm.ping_status(&host.instance_id).map(str::to_owned),
                suite: ec2.image(&machine.seen.image_id).map_or_else(
                    |_| machine.seen.image_id.clone(),
                    |ami| ami.what.name().to_owned(),
                ),
                instance_id: host.instance_id,
                name: host.name,
                state: host.state,
                private_ip: host.private_ip.to_string(),
                public_ip: machine.seen.public_ip.map(|ip| ip.to_string()),
                reachable: host.state == HostState::Running && machine.reachable == Reachable::Ok,
                cloud_init: vital.cloud_init,
                cpu_percent: vital.cpu_percent,
                memory_bytes: vital.memory_bytes,
            }
        };
        Status {
            project: ec2.settings.project.clone(),
            region: ec2.settings.region.clone(),
            hosts: hosts.map(host_status).collect(),
            faults: self.faults.list(),
        }
    }
}
