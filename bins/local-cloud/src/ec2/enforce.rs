//! Groups, subnets and routes made true: asks the emulator how they are and holds that on the machine's side of the
//! bridges, where no host can undo it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::Response;
use tokio::sync::Mutex;

use super::answers::Refusal;
use super::machine::{Machine, Seen};
use super::{Ec2, Request};
use crate::faults::{Kind, Strike};
use crate::firewall::PublicAddress;
use crate::hosts::{HostInfo, HostState};
use crate::log;
use crate::network::Lead;
use crate::operation::Form;
use crate::reach::cidr::Cidr;
use crate::reach::plan::{self, Host, Loss, Plan, Trouble};
use crate::reach::services;
use crate::reach::topology::Topology;

/// Operations after which other packets may pass than before. (The API reference names them.)
pub(super) const CHANGES: [&str; 18] = [
    "AssociateRouteTable",
    "AttachInternetGateway",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateNetworkAclEntry",
    "CreateRoute",
    "DeleteNetworkAclEntry",
    "DeleteRoute",
    "DeleteVpcEndpoints",
    "DisassociateRouteTable",
    "ModifyManagedPrefixList",
    "ModifyVpcEndpoint",
    "ReplaceNetworkAclAssociation",
    "ReplaceNetworkAclEntry",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
];

/// Which looks at the emulator were asked for, and which of them are done.
#[derive(Debug, Default)]
pub(super) struct Enforcing {
    asked: AtomicU64,
    done: Mutex<u64>,
}

impl Ec2 {
    /// Makes groups, routes and gateways true as EC2 has them now. When that fails every host is closed.
    pub(crate) async fn networks_changed(&self) {
        if let Err(refusal) = self.enforce().await {
            log::line(format_args!("every host is closed: {}", refusal.message));
        }
    }

    pub(super) async fn pass_and_enforce(
        &self,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let answer = self.pass(request).await?;
        if answer.status.is_success() {
            self.networks_changed().await;
        }
        Ok(answer.into_response())
    }

    /// [`Self::networks_changed`] for whoever cannot go on without. Calls that wait for a look share one.
    pub(super) async fn enforce(&self) -> Result<(), Refusal> {
        let mine = self.enforcing.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.enforcing.done.lock().await;
        if *done >= mine {
            return Ok(());
        }
        let now = self.enforcing.asked.load(Ordering::SeqCst);
        let hosts = self.reached_hosts();
        let leads: Vec<Lead> = self.machines().values().filter_map(|m| self.lead(m)).collect();
        let outcome = match self.look(!hosts.is_empty()).await {
            Ok(topology) => {
                let mut plan = plan::decide(&topology, &hosts);
                plan.losses = self.losses(&hosts);
                for (instance, why) in &plan.closed {
                    log::line(format_args!("{instance} is closed: {why}"));
                }
                self.networks.hold(leads, plan).await
            }
            Err(refusal) => {
                // Nothing is known, so nothing may pass.
                self.networks
                    .hold(leads, Plan::default())
                    .await
                    .map_err(|error| Refusal::server("InternalError", error.to_string()))?;
                return Err(refusal);
            }
        };
        outcome.map_err(|error| Refusal::server("InternalError", error.to_string()))?;
        *done = now;
        Ok(())
    }

    /// Keeps faults of hosts' networks true, as they are added, removed and end.
    pub async fn follow_network_faults(self: Arc<Self>) {
        let mut changes = self.faults.changed();
        let mut before = BTreeMap::new();
        while changes.changed().await.is_ok() {
            let now = self.troubles();
            if now == before {
                continue;
            }
            self.networks_changed().await;
            for (ends, trouble) in &now {
                if before.get(ends) == Some(trouble) {
                    continue;
                }
                match (ends, trouble) {
                    ((host, _), Trouble { lost: true, .. }) => {
                        log::line(format_args!("{host} has no network"));
                    }
                    ((host, None), Trouble { loss, .. }) => {
                        log::line(format_args!("{host} loses {loss} % of its packets"));
                    }
                    ((host, Some(to)), Trouble { loss, .. }) => {
                        log::line(format_args!("{host} loses {loss} % of its packets to {to}"));
                    }
                }
            }
            for (host, to) in before.keys().filter(|ends| !now.contains_key(*ends)) {
                match to {
                    None => log::line(format_args!("{host} has its network back")),
                    Some(to) => log::line(format_args!("{host} has its way to {to} back")),
                }
            }
            before = now;
        }
    }

    /// Hosts with a fault of their network, and pairs with one between them.
    fn troubles(&self) -> BTreeMap<(String, Option<String>), Trouble> {
        let hosts = self.reached_hosts();
        let ill = hosts.iter().filter(|host| host.trouble != Trouble::default());
        let mut troubles: BTreeMap<_, _> =
            ill.map(|host| ((host.instance.clone(), None), host.trouble)).collect();
        for (from, to, trouble) in self.between(&hosts) {
            troubles.insert((from.instance.clone(), Some(to.instance.clone())), trouble);
        }
        troubles
    }

    fn losses(&self, hosts: &[Host]) -> Vec<Loss> {
        let loss = |(from, to, trouble): (&Host, &Host, Trouble)| Loss {
            from: from.private,
            to: [to.private].into_iter().chain(to.public).collect(),
            percent: trouble.loss,
            seed: trouble.seed,
        };
        self.between(hosts).into_iter().map(loss).collect()
    }

    fn between<'a>(&self, hosts: &'a [Host]) -> Vec<(&'a Host, &'a Host, Trouble)> {
        if !self.faults.any(Kind::PacketLoss) {
            return Vec::new();
        }
        let known: Vec<(&Host, HostInfo)> = hosts
            .iter()
            .filter_map(|host| Some((host, self.hosts.by_instance(&host.instance)?)))
            .collect();
        let mut found = Vec::new();
        for (from, sender) in &known {
            for (to, receiver) in &known {
                if let Some(strike) = self.faults.holds_between(Kind::PacketLoss, sender, receiver)
                {
                    let ids = [&sender.instance_id, &receiver.instance_id].map(String::as_str);
                    found.push((*from, *to, self.loss(&strike, &ids)));
                }
            }
        }
        found
    }

    /// Two hosts of one fault lose different packets.
    fn loss(&self, strike: &Strike, ids: &[&str]) -> Trouble {
        let fault = self.faults.list().into_iter().find(|fault| fault.id == strike.id);
        let own = ids
            .iter()
            .flat_map(|id| id.bytes())
            .fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let seed = fault.map_or(0, |fault| fault.seed) ^ own;
        Trouble { lost: false, loss: strike.percent, seed }
    }

    fn trouble(&self, instance: &str) -> Trouble {
        let Some(host) = self.hosts.by_instance(instance) else { return Trouble::default() };
        let lost = self.faults.holds(Kind::NetworkLost, Some(&host)).is_some();
        let Some(strike) = self.faults.holds(Kind::PacketLoss, Some(&host)) else {
            return Trouble { lost, ..Trouble::default() };
        };
        Trouble { lost, ..self.loss(&strike, &[instance]) }
    }

    /// Hosts that have an address: all that are not terminated.
    fn reached_hosts(&self) -> Vec<Host> {
        let machines = self.machines();
        let mut hosts: Vec<Host> = machines
            .values()
            .filter(|machine| {
                let state = self.state(&machine.seen.instance_id);
                state.is_some_and(|state| state != HostState::Terminated)
            })
            .filter_map(|machine| {
                Some(Host {
                    instance: machine.seen.instance_id.clone(),
                    vpc: machine.seen.vpc_id.clone(),
                    vpc_range: machine.vpc_cidr.parse().ok()?,
                    private: machine.seen.private_ip?,
                    public: self.lead(machine).map(|lead| lead.address.public),
                    foreign: machine.seen.public_ip.is_some_and(|public| !is_ours(public)),
                    trouble: self.trouble(&machine.seen.instance_id),
                })
            })
            .collect();
        hosts.sort_by_key(|host| host.private);
        hosts
    }

    /// How everything is now. Without hosts nobody needs to know.
    async fn look(&self, hosts: bool) -> Result<Topology, Refusal> {
        let mut topology = Topology::default();
        if !hosts {
            return Ok(topology);
        }
        let ask = async |action: &str| {
            let form = Form::new([("Action", action), ("Version", "2016-11-15")]);
            self.upstream.ask("ec2", &self.settings.region, &form).await
        };
        let (groups, interfaces, subnets, tables, internet, nat, endpoints, lists, acls) = tokio::try_join!(
            ask("DescribeSecurityGroups"),
            ask("DescribeNetworkInterfaces"),
            ask("DescribeSubnets"),
            ask("DescribeRouteTables"),
            ask("DescribeInternetGateways"),
            ask("DescribeNatGateways"),
            ask("DescribeVpcEndpoints"),
            ask("DescribeManagedPrefixLists"),
            ask("DescribeNetworkAcls"),
        )?;
        topology.read_groups(&groups);
        topology.read_interfaces(&interfaces);
        topology.read_subnets(&subnets);
        topology.read_tables(&tables);
        topology.read_internet_gateways(&internet);
        topology.read_nat_gateways(&nat);
        topology.nat_gateways.retain(|id, _| self.nat_gateways.works(id));
        topology.read_endpoints(&endpoints);
        topology.read_acls(&acls);
        for (id, name) in topology.used_lists(&lists) {
            let mut form = Form::new([
                ("Action", "GetManagedPrefixListEntries"),
                ("Version", "2016-11-15"),
                ("PrefixListId", &id),
            ]);
            form.push("MaxResults", "100");
            let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
            let entries = root.items(&["entrySet"]).filter_map(|entry| entry.text_at(&["cidr"]));
            let mut entries: Vec<Cidr> = entries.filter_map(|cidr| cidr.parse().ok()).collect();
            // AWS's own lists stand for the addresses that its services have here.
            let service = name.strip_prefix("com.amazonaws.").and_then(|n| n.rsplit('.').next());
            entries.extend(service.and_then(services::address).map(Cidr::host));
            topology.lists.insert(id, entries);
        }
        Ok(topology)
    }

    fn lead(&self, machine: &Machine) -> Option<Lead> {
        let Seen { instance_id, vpc_id, private_ip, public_ip, .. } = &machine.seen;
        let gone = [HostState::Terminated, HostState::ShuttingDown];
        if self.state(instance_id).is_none_or(|state| gone.contains(&state)) {
            return None;
        }
        let address = PublicAddress { public: (*public_ip)?, private: (*private_ip)? };
        if !is_ours(address.public) {
            // Only another emulator than ours gives such addresses.
            log::line(format_args!("{instance_id}: {} leads nowhere", address.public));
            return None;
        }
        Some(Lead { vpc: vpc_id.clone(), address })
    }
}

/// Whether a public address is one that this machine can lead to a host ([`crate::firewall::PUBLIC_RANGE`]).
fn is_ours(public: Ipv4Addr) -> bool {
    public.octets()[..3] == [198, 51, 100]
}
