//! What is decided, and how it is written, for small clouds.

use std::net::Ipv4Addr;

use super::cidr::Cidr;
use super::plan::{Host, Loss, Plan, Trouble, Way, decide};
use super::rule::{Peer, Ports, Protocol, Rule};
use super::topology::{
    Acl, AclEntry, Destination, Endpoint, EndpointKind, Group, Interface, NatGateway, Route,
    RouteTable, Subnet, Target, Topology,
};
use super::{filter, services};
use crate::firewall::Gateway;
use crate::xml::Element;

const PHONE: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 10);
const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 20, 2, 10);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a range")
}

fn rule(protocol: Protocol, peer: Peer) -> Rule {
    Rule { protocol, peer }
}

fn everywhere() -> Peer {
    Peer::Range(Cidr::ALL)
}

fn group(ingress: Vec<Rule>) -> Result<Group, String> {
    let egress = vec![rule(Protocol::All, everywhere())];
    Ok(Group { vpc: "vpc-1".into(), default: false, ingress, egress })
}

fn route(to: &str, target: Target) -> Route {
    Route { to: Destination::Range(cidr(to)), target }
}

fn table(id: &str, subnet: &str, target: Target) -> RouteTable {
    RouteTable {
        id: id.into(),
        vpc: "vpc-1".into(),
        main: false,
        subnets: vec![subnet.into()],
        routes: vec![route("10.20.0.0/16", Target::Local), route("0.0.0.0/0", target)],
    }
}

/// A public subnet with a SIP host, a private one behind a NAT gateway with its database.
fn topology() -> Topology {
    let sip = vec![
        rule(Protocol::Udp(Ports(5060, 5060)), everywhere()),
        rule(Protocol::Tcp(Ports(80, 80)), Peer::Range(cidr("198.51.100.0/24"))),
    ];
    let postgres = vec![rule(Protocol::Tcp(Ports(5432, 5432)), Peer::Group("sg-sip".into()))];
    let interface = |address, public, instance: &str, group: &str, subnet: &str| Interface {
        address,
        public,
        groups: vec![group.into()],
        vpc: "vpc-1".into(),
        subnet: subnet.into(),
        instance: Some(instance.into()),
    };
    let subnet = |range| Subnet { vpc: "vpc-1".into(), range: cidr(range) };
    Topology {
        groups: [("sg-sip".into(), group(sip)), ("sg-db".into(), group(postgres))].into(),
        interfaces: vec![
            interface(PHONE, Some(PUBLIC), "i-sip", "sg-sip", "subnet-out"),
            interface(DATABASE, None, "i-db", "sg-db", "subnet-in"),
        ],
        subnets: [
            ("subnet-out".into(), subnet("10.20.1.0/24")),
            ("subnet-in".into(), subnet("10.20.2.0/24")),
        ]
        .into(),
        tables: vec![
            table("rtb-out", "subnet-out", Target::InternetGateway("igw-1".into())),
            table("rtb-in", "subnet-in", Target::NatGateway("nat-1".into())),
        ],
        internet_gateways: [("igw-1".into(), "vpc-1".into())].into(),
        nat_gateways: [("nat-1".into(), NatGateway { subnet: "subnet-out".into(), public: NAT })]
            .into(),
        ..Topology::default()
    }
}

fn hosts() -> Vec<Host> {
    let host = |instance: &str, private, public| Host {
        instance: instance.into(),
        vpc: "vpc-1".into(),
        vpc_range: cidr("10.20.0.0/16"),
        private,
        public,
        foreign: false,
        trouble: Trouble::default(),
    };
    vec![host("i-sip", PHONE, Some(PUBLIC)), host("i-db", DATABASE, None)]
}

fn written(plan: &Plan) -> String {
    let gateway = Gateway {
        bridge: "lc1".into(),
        address: Ipv4Addr::new(10, 20, 0, 1),
        range: cidr("10.20.0.0/16"),
        metadata_port: 8001,
        tls_port: 8002,
    };
    let mut out = String::new();
    filter::write(&mut out, &[gateway], &[Ipv4Addr::new(10, 1, 1, 1)], plan);
    out
}

fn way(plan: &Plan, subnet: &str, to: &str) -> Way {
    let ways = &plan.ways[subnet];
    ways.iter().find(|(range, _)| range.contains(cidr(to))).map_or(Way::Nothing, |(_, way)| *way)
}

#[test]
fn groups_and_routes_become_one_table() {
    let plan = decide(&topology(), &hosts());
    assert_eq!(plan.closed, []);
    assert_eq!(plan.inward, [(PUBLIC, PHONE)]);
    assert_eq!(plan.outward, [(PHONE, PUBLIC), (DATABASE, NAT)]);
    insta::assert_snapshot!("two_hosts", written(&plan));
}

#[test]
fn without_anything_known_nothing_passes() {
    let text = written(&Plan::default());
    let check = |chain: &str, expected: &[&str]| {
        let body = text.split(&format!("chain {chain} {{\n")).nth(1).expect("a chain");
        let lines: Vec<&str> = body.lines().map(str::trim).take(expected.len()).collect();
        assert_eq!(lines, expected);
    };
    check(
        "leave",
        &[
            "ip daddr 169.254.169.254 tcp dport 80 accept",
            "ip daddr { 10.1.1.1 } meta l4proto { tcp, udp } th dport 53 accept",
            "ip daddr != 198.51.100.1 fib daddr type local drop",
            "drop",
        ],
    );
    check(
        "arrive",
        &[
            "ip saddr 169.254.169.254 tcp sport 80 ct direction reply accept",
            "ip saddr { 10.1.1.1 } meta l4proto { tcp, udp } th sport 53 ct direction reply accept",
            "goto refuse",
        ],
    );
}

#[test]
fn a_host_whose_groups_cannot_be_read_is_closed_and_the_other_is_not() {
    let check = |break_it: &dyn Fn(&mut Topology), why: &str| {
        let mut topology = topology();
        break_it(&mut topology);
        let plan = decide(&topology, &hosts());
        assert_eq!(plan.closed.len(), 1);
        assert_eq!(plan.closed[0].0, "i-sip");
        assert!(plan.closed[0].1.contains(why), "{:?}", plan.closed);
        assert_eq!(plan.hosts.len(), 1);
        assert!(plan.inward.is_empty());
    };
    check(
        &|t| drop(t.groups.insert("sg-sip".into(), Err("`warp` is no protocol".into()))),
        "`warp` is no protocol",
    );
    check(&|t| drop(t.groups.remove("sg-sip")), "no security group sg-sip");
    check(&|t| drop(t.interfaces.remove(0)), "no network interface");
    check(&|t| drop(t.subnets.remove("subnet-out")), "no subnet");
}

#[test]
fn several_groups_are_one_union_and_none_is_the_default_one() {
    let mut topology = topology();
    topology.interfaces[0].groups = vec!["sg-sip".into(), "sg-db".into()];
    topology.interfaces[1].groups = vec![];
    let own = vec![rule(Protocol::All, Peer::Group("sg-0".into()))];
    let default = group(own).map(|group| Group { default: true, ..group });
    topology.groups.insert("sg-0".into(), default);
    let plan = decide(&topology, &hosts());
    assert_eq!(plan.profiles[0].groups, ["sg-db", "sg-sip"]);
    assert_eq!(plan.profiles[0].ingress.len(), 3);
    assert_eq!(plan.profiles[0].egress.len(), 1, "the same rule of both counts once");
    assert_eq!(plan.profiles[1].groups, ["sg-0"]);
    assert_eq!(plan.sets["members_sg_sip"], [Cidr::host(PHONE)]);
}

#[test]
fn a_route_is_worth_what_it_goes_through() {
    let check = |change: &dyn Fn(&mut Topology), public: Way, private: Way| {
        let mut topology = topology();
        change(&mut topology);
        let plan = decide(&topology, &hosts());
        assert_eq!(way(&plan, "subnet-out", "198.51.100.77/32"), public);
        assert_eq!(way(&plan, "subnet-in", "198.51.100.77/32"), private);
        assert_eq!(way(&plan, "subnet-in", "10.20.1.1/32"), Way::Local);
        assert_eq!(plan.inward.is_empty(), public != Way::InternetGateway);
    };
    check(&|_| (), Way::InternetGateway, Way::Nat(NAT));
    check(&|t| t.nat_gateways.clear(), Way::InternetGateway, Way::Nothing);
    check(&|t| t.internet_gateways.clear(), Way::Nothing, Way::Nothing);
    check(
        &|t| drop(t.internet_gateways.insert("igw-1".into(), "vpc-2".into())),
        Way::Nothing,
        Way::Nothing,
    );
    // A NAT gateway in a private subnet leads nowhere.
    check(
        &|t| {
            let nat = NatGateway { subnet: "subnet-in".into(), public: NAT };
            t.nat_gateways.insert("nat-1".into(), nat);
        },
        Way::InternetGateway,
        Way::Nothing,
    );
    // The main table holds for a subnet that names none.
    check(
        &|t| {
            t.tables[1].subnets.clear();
            t.tables[0].main = true;
        },
        Way::InternetGateway,
        Way::InternetGateway,
    );
    // The longest prefix wins, for the NAT gateway in that subnet as well.
    check(
        &|t| t.tables[0].routes.push(route("198.51.100.0/24", Target::Other)),
        Way::Nothing,
        Way::Nothing,
    );
}

#[test]
fn an_interface_endpoint_takes_its_service_over_and_asks_both_groups() {
    let ssm = services::address("ssm").expect("an address");
    let check = |rules: Vec<Rule>, egress: Vec<Rule>, private_dns: bool, expected: &[Ipv4Addr]| {
        let mut topology = topology();
        topology.groups.insert("sg-vpce".into(), group(rules));
        if let Some(Ok(group)) = topology.groups.get_mut("sg-db") {
            group.egress = egress;
        }
        topology.endpoints.push(Endpoint {
            id: "vpce-1".into(),
            vpc: "vpc-1".into(),
            service: "ssm".into(),
            kind: EndpointKind::Interface {
                subnets: vec!["subnet-in".into()],
                groups: vec!["sg-vpce".into()],
                private_dns,
            },
        });
        let plan = decide(&topology, &hosts());
        let through: Vec<Ipv4Addr> = plan.through.iter().map(|(host, _)| *host).collect();
        assert_eq!(through, expected);
        assert_eq!(plan.replaced.contains(&(cidr("10.20.0.0/16"), ssm)), private_dns);
    };
    let https = |peer| rule(Protocol::Tcp(Ports(443, 443)), peer);
    let vpc = || Peer::Range(cidr("10.20.0.0/16"));
    let open = || vec![rule(Protocol::All, everywhere())];
    check(vec![https(vpc())], open(), true, &[PHONE, DATABASE]);
    check(vec![https(Peer::Group("sg-db".into()))], open(), true, &[DATABASE]);
    check(vec![https(vpc())], vec![https(Peer::Group("sg-vpce".into()))], true, &[PHONE, DATABASE]);
    check(vec![https(vpc())], vec![], true, &[PHONE]);
    check(vec![], open(), true, &[]);
    check(vec![https(vpc())], open(), false, &[]);
}

#[test]
fn a_gateway_endpoint_is_a_way_to_one_service() {
    let s3 = Cidr::host(services::address("s3").expect("an address"));
    let mut topology = topology();
    topology.nat_gateways.clear();
    topology.endpoints.push(Endpoint {
        id: "vpce-1".into(),
        vpc: "vpc-1".into(),
        service: "s3".into(),
        kind: EndpointKind::Gateway(vec!["rtb-in".into()]),
    });
    let plan = decide(&topology, &hosts());
    assert_eq!(plan.ways["subnet-in"][0], (s3, Way::Endpoint));
    assert_eq!(way(&plan, "subnet-in", "198.18.0.11/32"), Way::Nothing);
}

#[test]
fn a_network_acl_stands_where_it_says_more_than_the_default() {
    let all = rule(Protocol::All, everywhere());
    let entry =
        |number, egress, allow, rule: &Rule| AclEntry { number, egress, allow, rule: rule.clone() };
    let default = |egress| [entry(100, egress, true, &all), entry(32767, egress, false, &all)];
    let telnet = rule(Protocol::Tcp(Ports(23, 23)), everywhere());
    let acl = |entries| Acl { id: "acl-1".into(), subnets: vec!["subnet-out".into()], entries };
    let barriers = |entries| {
        let topology = Topology { acls: vec![acl(entries)], ..topology() };
        decide(&topology, &hosts()).acls
    };
    let open: Vec<AclEntry> = default(true).into_iter().chain(default(false)).collect();
    assert_eq!(barriers(Ok(open.clone())), []);
    let mut shut = vec![entry(50, false, false, &telnet)];
    shut.extend(open);
    let found = barriers(Ok(shut));
    assert_eq!(found[0].egress, None);
    assert_eq!(found[0].ingress, Some(vec![(false, telnet), (true, all.clone()), (false, all)]));
    let unreadable = barriers(Err("no rule number".into()));
    assert_eq!(unreadable[0].ingress, Some(vec![]), "nothing enters");
}

#[test]
fn a_lost_network_and_lost_packets_come_before_everything() {
    let mut hosts = hosts();
    hosts[0].trouble = Trouble { lost: true, ..Trouble::default() };
    hosts[1].trouble = Trouble { loss: 3, seed: 7, ..Trouble::default() };
    let text = written(&decide(&topology(), &hosts));
    let line = |chain: &str, number: usize| {
        let body = text.split(&format!("chain {chain} {{")).nth(1).expect("a chain");
        body.lines().nth(number).expect("a line").trim().to_owned()
    };
    assert_eq!(line("leave", 1), "ip saddr 10.20.1.10 drop");
    assert_eq!(line("arrive", 1), "ip daddr 10.20.1.10 goto refuse");
    let loss = line("leave", 2);
    assert!(loss.starts_with("ip saddr 10.20.2.10 numgen inc mod 100 vmap { "), "{loss}");
    assert_eq!(loss.matches(": drop").count(), 3);
    let again = written(&decide(&topology(), &hosts));
    assert_eq!(text, again, "a seed decides which packets are lost");
    hosts[1].trouble.seed = 8;
    assert_ne!(text, written(&decide(&topology(), &hosts)));
}

#[test]
fn an_address_of_another_range_leads_out_and_not_in() {
    let mut hosts = hosts();
    (hosts[0].public, hosts[0].foreign) = (None, true);
    hosts[1].foreign = true;
    let plan = decide(&topology(), &hosts);
    let open: Vec<bool> = plan.hosts.iter().map(|host| host.public).collect();
    assert_eq!(open, [true, false], "the second one is behind a NAT gateway");
    assert!(plan.inward.is_empty());
}

#[test]
fn a_loss_between_two_hosts_leaves_the_rest_alone() {
    let mut plan = decide(&topology(), &hosts());
    let [from, to, public] =
        [[10, 20, 1, 10], [10, 20, 2, 10], [198, 51, 100, 7]].map(Ipv4Addr::from);
    plan.losses = vec![Loss { from, to: vec![to, public], percent: 2, seed: 7 }];
    let text = written(&plan);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("numgen")).collect();
    let [line] = lines[..] else { panic!("{lines:?}") };
    let start = "ip saddr 10.20.1.10 ip daddr { 10.20.2.10, 198.51.100.7 } numgen inc mod 100 vmap";
    assert!(line.trim().starts_with(start), "{line}");
    assert_eq!(line.matches(": drop").count(), 2);
}

#[test]
fn ec2s_answers_are_read() {
    let read = |text: &str| Element::parse(text).expect("XML");
    let mut topology = Topology::default();
    topology.read_tables(&read(
        "<R><routeTableSet><item><routeTableId>rtb-1</routeTableId><vpcId>vpc-1</vpcId>\
         <associationSet><item><main>true</main></item><item><main>false</main><subnetId>subnet-1</subnetId></item></associationSet>\
         <routeSet><item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId></item>\
         <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId></item>\
         <item><destinationPrefixListId>pl-1</destinationPrefixListId><gatewayId>vpce-1</gatewayId></item>\
         <item><destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><gatewayId>igw-1</gatewayId></item>\
         </routeSet></item></routeTableSet></R>",
    ));
    let table = &topology.tables[0];
    assert!(table.main);
    assert_eq!(table.subnets, ["subnet-1"]);
    let targets: Vec<&Target> = table.routes.iter().map(|route| &route.target).collect();
    assert_eq!(
        targets,
        [&Target::Local, &Target::NatGateway("nat-1".into()), &Target::Endpoint("vpce-1".into())]
    );
    topology.read_nat_gateways(&read(
        "<R><natGatewaySet><item><natGatewayId>nat-1</natGatewayId><state>available</state><subnetId>s</subnetId>\
         <natGatewayAddressSet><item><publicIp>198.51.100.9</publicIp></item></natGatewayAddressSet></item>\
         <item><natGatewayId>nat-2</natGatewayId><state>deleted</state>\
         <natGatewayAddressSet><item><publicIp>198.51.100.8</publicIp></item></natGatewayAddressSet></item></natGatewaySet></R>",
    ));
    assert_eq!(topology.nat_gateways.keys().collect::<Vec<_>>(), ["nat-1"]);
    topology.read_acls(&read(
        "<R><networkAclSet><item><networkAclId>acl-1</networkAclId>\
         <associationSet><item><subnetId>subnet-1</subnetId></item></associationSet>\
         <entrySet><item><ruleNumber>200</ruleNumber><protocol>-1</protocol><ruleAction>allow</ruleAction>\
         <egress>false</egress><cidrBlock>0.0.0.0/0</cidrBlock></item>\
         <item><ruleNumber>100</ruleNumber><protocol>6</protocol><ruleAction>deny</ruleAction><egress>false</egress>\
         <cidrBlock>0.0.0.0/0</cidrBlock><portRange><from>22</from><to>22</to></portRange></item>\
         <item><ruleNumber>101</ruleNumber><protocol>-1</protocol><ipv6CidrBlock>::/0</ipv6CidrBlock></item></entrySet></item></networkAclSet></R>",
    ));
    let entries = topology.acls[0].entries.as_ref().expect("readable");
    let numbers: Vec<u32> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [100, 200], "in the order in which they are tried");
    assert_eq!(entries[0].rule.protocol, Protocol::Tcp(Ports(22, 22)));
}
