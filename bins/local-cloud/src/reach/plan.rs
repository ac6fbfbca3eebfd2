//! Decides from what EC2 says which packets pass: groups of each interface, routes of each subnet, public addresses that
//! lead somewhere. Whatever cannot be decided is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::cidr::Cidr;
use super::rule::{Direction, Peer, Rule, set_name};
use super::services;
use super::topology::{
    Acl, Destination, EndpointKind, Interface, Route, RouteTable, Target, Topology,
};

/// A host that has an address now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its instance.
    pub instance: String,
    /// Its VPC.
    pub vpc: String,
    /// The VPC's range.
    pub vpc_range: Cidr,
    /// Its address in the VPC.
    pub private: Ipv4Addr,
    /// Its public address.
    pub public: Option<Ipv4Addr>,
    /// Whether it has a public address of another range instead, as another emulator gives: it reaches outside, and nothing
    /// leads to it.
    pub foreign: bool,
    /// How bad its network is.
    pub trouble: Trouble,
}

/// A fault of a host's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// No packet passes.
    pub lost: bool,
    /// Of 100 packets in each direction, these many are lost.
    pub loss: u8,
    /// Which of them.
    pub seed: u64,
}

/// Of what one host sends to another a part is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The host that sends.
    pub from: Ipv4Addr,
    /// The addresses of the other one: in its VPC, and its public one.
    pub to: Vec<Ipv4Addr>,
    /// Of 100 packets, these many.
    pub percent: u8,
    /// Which of them.
    pub seed: u64,
}

/// What packets pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Public addresses that lead to a host.
    pub inward: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Under which public address a host appears outside.
    pub outward: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Named sets: members of groups, entries of prefix lists.
    pub sets: BTreeMap<String, Vec<Cidr>>,
    /// Ranges of all VPCs that have hosts.
    pub vpcs: BTreeSet<Cidr>,
    /// Hosts, with what holds for them.
    pub hosts: Vec<Held>,
    /// Rules of each combination of groups.
    pub profiles: Vec<Profile>,
    /// What leaves each subnet.
    pub ways: BTreeMap<String, Vec<(Cidr, Way)>>,
    /// Hosts and services with a VPC endpoint between them.
    pub through: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// Services that have only that way from these VPCs.
    pub replaced: BTreeSet<(Cidr, Ipv4Addr)>,
    /// Faults between two hosts.
    pub losses: Vec<Loss>,
    /// Network ACLs that do not admit everything, before these subnets.
    pub acls: Vec<Barrier>,
    /// Hosts that are closed, and why.
    pub closed: Vec<(String, String)>,
}

/// A host and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its subnet; a host without one is closed.
    pub subnet: String,
    /// The rules of its groups, an index of [`Plan::profiles`].
    pub profile: usize,
    /// A fault.
    pub trouble: Trouble,
    /// Whether it has a public address through an internet gateway.
    pub public: bool,
}

/// The rules of a combination of groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The groups.
    pub groups: Vec<String>,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// What happens to packets that leave a subnet for a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They stay in the VPC.
    Local,
    /// Those of hosts with a public address pass.
    InternetGateway,
    /// They pass, under this address.
    Nat(Ipv4Addr),
    /// They pass through a gateway endpoint.
    Endpoint,
    /// A black hole.
    Nothing,
}

/// A network ACL before a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The subnet's range.
    pub range: Cidr,
    /// What may enter: whether a match admits; `None`: everything.
    pub ingress: Option<Vec<(bool, Rule)>>,
    /// What may leave.
    pub egress: Option<Vec<(bool, Rule)>>,
}

/// Addresses that stand for the internet: [`crate::firewall::PUBLIC_RANGE`].
const OUTSIDE: Ipv4Addr = crate::firewall::OUTSIDE;

/// Decides for these hosts.
pub fn decide(topology: &Topology, hosts: &[Host]) -> Plan {
    let mut plan =
        Plan { vpcs: hosts.iter().map(|host| host.vpc_range).collect(), ..Plan::default() };
    let mut used = Vec::new();
    for host in hosts {
        let decided = interface_of(topology, host).and_then(|interface| {
            let profile = profile_of(topology, interface)?;
            Ok((interface, profile))
        });
        match decided {
            Ok((interface, profile)) => {
                plan.hold(topology, host, interface, profile);
                used.push((host, interface));
            }
            Err(why) => plan.closed.push((host.instance.clone(), why)),
        }
    }
    plan.name_sets(topology, &used);
    plan.open_endpoints(topology, &used);
    let subnets: BTreeSet<&str> = used.iter().map(|(_, i)| i.subnet.as_str()).collect();
    plan.acls = topology
        .acls
        .iter()
        .flat_map(|acl| acl.subnets.iter().map(move |subnet| (acl, subnet)))
        .filter(|(_, subnet)| subnets.contains(subnet.as_str()))
        .filter_map(|(acl, subnet)| Barrier::of(acl, topology.subnets.get(subnet)?.range))
        .collect();
    plan
}

fn interface_of<'a>(topology: &'a Topology, host: &Host) -> Result<&'a Interface, String> {
    let interface = topology
        .interfaces
        .iter()
        .find(|i| i.instance.as_deref() == Some(&host.instance) && i.address == host.private)
        .ok_or_else(|| format!("EC2 knows no network interface with {}", host.private))?;
    if !topology.subnets.contains_key(&interface.subnet) {
        return Err(format!("EC2 knows no subnet `{}`", interface.subnet));
    }
    Ok(interface)
}

/// The rules of all groups of an interface together. An interface without groups has its VPC's default group, as on AWS.
fn profile_of(topology: &Topology, interface: &Interface) -> Result<Profile, String> {
    let mut groups = interface.groups.clone();
    if groups.is_empty() {
        groups = default_group(topology, &interface.vpc).into_iter().collect();
    }
    groups.sort();
    groups.dedup();
    let mut profile = Profile { groups, ..Profile::default() };
    for id in &profile.groups {
        match topology.groups.get(id) {
            Some(Ok(group)) => {
                profile.ingress.extend(group.ingress.iter().cloned());
                profile.egress.extend(group.egress.iter().cloned());
            }
            Some(Err(why)) => return Err(format!("the security group {id} cannot be read: {why}")),
            None => return Err(format!("EC2 knows no security group {id}")),
        }
    }
    for rules in [&mut profile.ingress, &mut profile.egress] {
        rules.sort();
        rules.dedup();
    }
    Ok(profile)
}

fn default_group(topology: &Topology, vpc: &str) -> Option<String> {
    let is_it = |group: &Result<_, _>| {
        group.as_ref().is_ok_and(|g: &super::topology::Group| g.default && g.vpc == vpc)
    };
    topology.groups.iter().find(|(_, group)| is_it(group)).map(|(id, _)| id.clone())
}

impl Plan {
    fn hold(&mut self, topology: &Topology, host: &Host, interface: &Interface, profile: Profile) {
        let profile = match self.profiles.iter().position(|known| *known == profile) {
            Some(index) => index,
            None => {
                self.profiles.push(profile);
                self.profiles.len() - 1
            }
        };
        let subnet = &interface.subnet;
        if !self.ways.contains_key(subnet) {
            self.ways.insert(subnet.clone(), ways(topology, subnet));
        }
        let outside = self.ways.get(subnet).map_or(Way::Nothing, |ways| way_to(ways, OUTSIDE));
        let public = match (outside, host.public) {
            (Way::InternetGateway, Some(public)) => {
                self.inward.push((public, host.private));
                self.outward.push((host.private, public));
                true
            }
            (Way::InternetGateway, None) => host.foreign,
            (Way::Nat(public), _) => {
                self.outward.push((host.private, public));
                false
            }
            _ => false,
        };
        self.hosts.push(Held {
            address: host.private,
            subnet: subnet.clone(),
            profile,
            trouble: host.trouble,
            public,
        });
    }

    fn name_sets(&mut self, topology: &Topology, used: &[(&Host, &Interface)]) {
        let mut sets = BTreeMap::new();
        let barriers = self.profiles.iter().flat_map(|p| p.ingress.iter().chain(&p.egress));
        for rule in barriers {
            match &rule.peer {
                Peer::Range(_) => {}
                Peer::Group(id) => {
                    let members = used
                        .iter()
                        .filter(|(_, interface)| interface.groups.contains(id))
                        .map(|(_, interface)| Cidr::host(interface.address));
                    sets.insert(set_name("members", id), members.collect());
                }
                Peer::List(id) => {
                    let entries = topology.lists.get(id).cloned().unwrap_or_default();
                    sets.insert(set_name("list", id), entries);
                }
            }
        }
        self.sets = sets;
    }

    /// An interface endpoint with private DNS takes over its service's name in the VPC: the host's groups have to let it
    /// reach the endpoint, and the endpoint's groups have to let it in.
    fn open_endpoints(&mut self, topology: &Topology, used: &[(&Host, &Interface)]) {
        for endpoint in &topology.endpoints {
            let EndpointKind::Interface { subnets, groups, private_dns: true } = &endpoint.kind
            else {
                continue;
            };
            let Some(service) = services::address(&endpoint.service) else { continue };
            let default = default_group(topology, &endpoint.vpc).into_iter().collect();
            let groups = if groups.is_empty() { &default } else { groups };
            let ranges = subnets.iter().filter_map(|id| topology.subnets.get(id)).map(|s| s.range);
            let ranges: Vec<Cidr> = ranges.collect();
            for (host, interface) in used.iter().filter(|(host, _)| host.vpc == endpoint.vpc) {
                self.replaced.insert((host.vpc_range, service));
                let Ok(profile) = profile_of(topology, interface) else { continue };
                let leaves = profile.egress.iter().any(|rule| {
                    ranges.iter().any(|range| rule.admits_tcp(443, *range, groups, &topology.lists))
                });
                let own = Cidr::host(interface.address);
                let enters = groups
                    .iter()
                    .filter_map(|id| topology.groups.get(id)?.as_ref().ok())
                    .any(|group| {
                        let admits = |rule: &Rule| {
                            rule.admits_tcp(443, own, &profile.groups, &topology.lists)
                        };
                        group.ingress.iter().any(admits)
                    });
                if leaves && enters {
                    self.through.insert((interface.address, service));
                }
            }
        }
    }
}

/// The route table of a subnet: its own, else the VPC's main one.
fn table_of<'a>(topology: &'a Topology, subnet: &str) -> Option<&'a RouteTable> {
    let vpc = &topology.subnets.get(subnet)?.vpc;
    let own = topology.tables.iter().find(|table| table.subnets.iter().any(|id| id == subnet));
    own.or_else(|| topology.tables.iter().find(|table| table.main && table.vpc == *vpc))
}

/// What leaves a subnet, the longest prefix first.
fn ways(topology: &Topology, subnet: &str) -> Vec<(Cidr, Way)> {
    let Some(table) = table_of(topology, subnet) else { return Vec::new() };
    let mut ways = Vec::new();
    for route in &table.routes {
        let way = through(topology, table, route);
        match &route.to {
            Destination::Range(range) => ways.push((*range, way)),
            Destination::List(id) => {
                let entries = topology.lists.get(id).into_iter().flatten();
                ways.extend(entries.map(|range| (*range, way)));
            }
        }
    }
    for endpoint in &topology.endpoints {
        if let EndpointKind::Gateway(tables) = &endpoint.kind
            && tables.contains(&table.id)
            && let Some(service) = services::address(&endpoint.service)
        {
            ways.push((Cidr::host(service), Way::Endpoint));
        }
    }
    ways.sort_by_key(|(range, way)| {
        (std::cmp::Reverse(range.prefix()), *range, *way != Way::Endpoint)
    });
    ways.dedup_by_key(|(range, _)| *range);
    ways
}

fn through(topology: &Topology, table: &RouteTable, route: &Route) -> Way {
    match &route.target {
        Target::Local => Way::Local,
        Target::InternetGateway(id) => {
            let attached = topology.internet_gateways.get(id) == Some(&table.vpc);
            if attached { Way::InternetGateway } else { Way::Nothing }
        }
        Target::NatGateway(id) => match topology.nat_gateways.get(id) {
            Some(nat) if stands_outside(topology, &nat.subnet) => Way::Nat(nat.public),
            _ => Way::Nothing,
        },
        Target::Endpoint(id) => {
            let there = topology.endpoints.iter().any(|endpoint| endpoint.id == *id);
            if there { Way::Endpoint } else { Way::Nothing }
        }
        Target::Other => Way::Nothing,
    }
}

/// Whether a NAT gateway in this subnet reaches the internet: its own route has to lead to an internet gateway.
fn stands_outside(topology: &Topology, subnet: &str) -> bool {
    let Some(table) = table_of(topology, subnet) else { return false };
    let outside = Cidr::host(OUTSIDE);
    let longest = table
        .routes
        .iter()
        .filter_map(|route| match &route.to {
            Destination::Range(range) if range.contains(outside) => Some((range.prefix(), route)),
            _ => None,
        })
        .max_by_key(|(prefix, _)| *prefix);
    longest.is_some_and(|(_, route)| match &route.target {
        Target::InternetGateway(id) => topology.internet_gateways.get(id) == Some(&table.vpc),
        _ => false,
    })
}

fn way_to(ways: &[(Cidr, Way)], address: Ipv4Addr) -> Way {
    let address = Cidr::host(address);
    ways.iter().find(|(range, _)| range.contains(address)).map_or(Way::Nothing, |(_, way)| *way)
}

impl Barrier {
    /// `None`: the ACL admits everything, as a VPC's default one does. One that cannot be read admits nothing.
    fn of(acl: &Acl, range: Cidr) -> Option<Self> {
        let Ok(entries) = &acl.entries else {
            return Some(Self { range, ingress: Some(Vec::new()), egress: Some(Vec::new()) });
        };
        let side = |egress: bool| {
            let entries: Vec<(bool, Rule)> = entries
                .iter()
                .filter(|entry| entry.egress == egress)
                .map(|entry| (entry.allow, entry.rule.clone()))
                .collect();
            let everything = entries
                .first()
                .is_some_and(|(allow, rule)| *allow && rule.matches(Direction::Egress).is_empty());
            (!everything).then_some(entries)
        };
        let barrier = Self { range, ingress: side(false), egress: side(true) };
        (barrier.ingress.is_some() || barrier.egress.is_some()).then_some(barrier)
    }
}
