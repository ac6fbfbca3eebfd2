//! What EC2 says about networks, read from its answers.
//!
//! A group or a list that cannot be read is kept as an error of its own, so that only the interfaces that depend on it are
//! closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::cidr::Cidr;
use super::rule::{Peer, Rule};
use crate::xml::Element;

/// Everything that decides who reaches whom.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// Security groups by id; an error when one of the rules cannot be read.
    pub groups: BTreeMap<String, Result<Group, String>>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// Subnets by id.
    pub subnets: BTreeMap<String, Subnet>,
    /// Route tables.
    pub tables: Vec<RouteTable>,
    /// The VPC that each attached internet gateway serves.
    pub internet_gateways: BTreeMap<String, String>,
    /// Public NAT gateways that are available.
    pub nat_gateways: BTreeMap<String, NatGateway>,
    /// VPC endpoints that are available.
    pub endpoints: Vec<Endpoint>,
    /// Entries of prefix lists by id.
    pub lists: BTreeMap<String, Vec<Cidr>>,
    /// Network ACLs.
    pub acls: Vec<Acl>,
}

/// A security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Its VPC.
    pub vpc: String,
    /// Whether it is the VPC's default group.
    pub default: bool,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its primary private address.
    pub address: Ipv4Addr,
    /// Its public address.
    pub public: Option<Ipv4Addr>,
    /// Its security groups.
    pub groups: Vec<String>,
    /// Its VPC.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// The instance that it belongs to.
    pub instance: Option<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its VPC.
    pub vpc: String,
    /// Its range.
    pub range: Cidr,
}

/// A route table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Whether it holds for subnets that name no other.
    pub main: bool,
    /// Subnets that name it.
    pub subnets: Vec<String>,
    /// Its IPv4 routes and those to prefix lists.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Destination,
    /// Through what.
    pub target: Target,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Addresses.
    Range(Cidr),
    /// A prefix list.
    List(String),
}

/// What a route goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The VPC itself.
    Local,
    /// An internet gateway.
    InternetGateway(String),
    /// A NAT gateway.
    NatGateway(String),
    /// A gateway endpoint.
    Endpoint(String),
    /// Anything that the rehearsal cloud does not have.
    Other,
}

/// A NAT gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatGateway {
    /// Where it stands.
    pub subnet: String,
    /// Its Elastic address.
    pub public: Ipv4Addr,
}

/// A VPC endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// The last part of the service's name, e.g. `ssm`.
    pub service: String,
    /// How it is reached.
    pub kind: EndpointKind,
}

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointKind {
    /// By routes of these tables.
    Gateway(Vec<String>),
    /// By interfaces in these subnets with these groups.
    Interface {
        /// Its subnets.
        subnets: Vec<String>,
        /// Its groups.
        groups: Vec<String>,
        /// Whether the service's own name leads to it.
        private_dns: bool,
    },
}

/// A network ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Its id.
    pub id: String,
    /// Subnets that it stands before.
    pub subnets: Vec<String>,
    /// Its entries in the order in which they are tried; an error when one cannot be read.
    pub entries: Result<Vec<AclEntry>, String>,
}

/// One entry of a network ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclEntry {
    /// Its number.
    pub number: u32,
    /// Whether it is about what leaves the subnet.
    pub egress: bool,
    /// Whether it admits.
    pub allow: bool,
    /// What it is about.
    pub rule: Rule,
}

fn text(item: &Element, name: &str) -> String {
    item.text_at(&[name]).unwrap_or_default()
}

fn ids(item: &Element, list: &str, name: &str) -> Vec<String> {
    item.items(&[list]).filter_map(|entry| entry.text_at(&[name])).collect()
}

/// The plain texts of a list.
fn texts(item: &Element, list: &str) -> Vec<String> {
    item.items(&[list]).map(Element::text).collect()
}

impl Topology {
    /// Reads `DescribeSecurityGroups`.
    pub fn read_groups(&mut self, root: &Element) {
        for item in root.items(&["securityGroupInfo"]) {
            let group = || -> Result<Group, String> {
                Ok(Group {
                    vpc: text(item, "vpcId"),
                    default: text(item, "groupName") == "default",
                    ingress: Rule::read_all(item.child("ipPermissions"))?,
                    egress: Rule::read_all(item.child("ipPermissionsEgress"))?,
                })
            };
            self.groups.insert(text(item, "groupId"), group());
        }
    }

    /// Reads `DescribeNetworkInterfaces`.
    pub fn read_interfaces(&mut self, root: &Element) {
        self.interfaces = root
            .items(&["networkInterfaceSet"])
            .filter_map(|item| {
                Some(Interface {
                    address: text(item, "privateIpAddress").parse().ok()?,
                    public: item.text_at(&["association", "publicIp"]).and_then(|t| t.parse().ok()),
                    groups: ids(item, "groupSet", "groupId"),
                    vpc: text(item, "vpcId"),
                    subnet: text(item, "subnetId"),
                    instance: item.text_at(&["attachment", "instanceId"]),
                })
            })
            .collect();
    }

    /// Reads `DescribeSubnets`.
    pub fn read_subnets(&mut self, root: &Element) {
        self.subnets = root
            .items(&["subnetSet"])
            .filter_map(|item| {
                let range = text(item, "cidrBlock").parse().ok()?;
                Some((text(item, "subnetId"), Subnet { vpc: text(item, "vpcId"), range }))
            })
            .collect();
    }

    /// Reads `DescribeRouteTables`.
    pub fn read_tables(&mut self, root: &Element) {
        self.tables = root
            .items(&["routeTableSet"])
            .map(|item| RouteTable {
                id: text(item, "routeTableId"),
                vpc: text(item, "vpcId"),
                main: item
                    .items(&["associationSet"])
                    .any(|association| text(association, "main") == "true"),
                subnets: ids(item, "associationSet", "subnetId"),
                routes: item.items(&["routeSet"]).filter_map(read_route).collect(),
            })
            .collect();
    }

    /// Reads `DescribeInternetGateways`.
    pub fn read_internet_gateways(&mut self, root: &Element) {
        for item in root.items(&["internetGatewaySet"]) {
            for attachment in item.items(&["attachmentSet"]) {
                if matches!(text(attachment, "state").as_str(), "available" | "attached") {
                    let vpc = text(attachment, "vpcId");
                    self.internet_gateways.insert(text(item, "internetGatewayId"), vpc);
                }
            }
        }
    }

    /// Reads `DescribeNatGateways`.
    pub fn read_nat_gateways(&mut self, root: &Element) {
        for item in root.items(&["natGatewaySet"]) {
            let public = item
                .items(&["natGatewayAddressSet"])
                .find_map(|a| text(a, "publicIp").parse().ok());
            if let (Some(public), "available") = (public, text(item, "state").as_str()) {
                let nat = NatGateway { subnet: text(item, "subnetId"), public };
                self.nat_gateways.insert(text(item, "natGatewayId"), nat);
            }
        }
    }

    /// Reads `DescribeVpcEndpoints`.
    pub fn read_endpoints(&mut self, root: &Element) {
        let of = |item: &Element| {
            let kind = match text(item, "vpcEndpointType").to_ascii_lowercase().as_str() {
                "" | "gateway" => EndpointKind::Gateway(texts(item, "routeTableIdSet")),
                "interface" => EndpointKind::Interface {
                    subnets: texts(item, "subnetIdSet"),
                    groups: ids(item, "groupSet", "groupId"),
                    private_dns: text(item, "privateDnsEnabled") == "true",
                },
                _ => return None,
            };
            let service = text(item, "serviceName");
            let service = service.rsplit('.').next().unwrap_or_default().to_owned();
            let id = text(item, "vpcEndpointId");
            Some(Endpoint { id, vpc: text(item, "vpcId"), service, kind })
        };
        self.endpoints = root
            .items(&["vpcEndpointSet"])
            .filter(|item| text(item, "state").eq_ignore_ascii_case("available"))
            .filter_map(of)
            .collect();
    }

    /// Of all lists of `DescribeManagedPrefixLists` those that a rule or a route names, with their names.
    pub fn used_lists(&self, root: &Element) -> Vec<(String, String)> {
        let rules = self.groups.values().filter_map(|group| group.as_ref().ok());
        let in_rules = rules
            .flat_map(|group| group.ingress.iter().chain(&group.egress))
            .filter_map(|rule| match &rule.peer {
                Peer::List(id) => Some(id),
                _ => None,
            });
        let routes = self.tables.iter().flat_map(|table| &table.routes);
        let in_routes = routes.filter_map(|route| match &route.to {
            Destination::List(id) => Some(id),
            Destination::Range(_) => None,
        });
        let used: BTreeSet<&String> = in_rules.chain(in_routes).collect();
        root.items(&["prefixListSet"])
            .map(|item| (text(item, "prefixListId"), text(item, "prefixListName")))
            .filter(|(id, _)| used.contains(id))
            .collect()
    }

    /// Reads `DescribeNetworkAcls`.
    pub fn read_acls(&mut self, root: &Element) {
        self.acls = root
            .items(&["networkAclSet"])
            .map(|item| {
                let entries = item.items(&["entrySet"]).filter_map(read_acl_entry).collect();
                let sorted = |mut entries: Vec<AclEntry>| {
                    entries.sort_by_key(|entry| entry.number);
                    entries
                };
                Acl {
                    id: text(item, "networkAclId"),
                    subnets: ids(item, "associationSet", "subnetId"),
                    entries: Result::map(entries, sorted),
                }
            })
            .collect();
    }
}

fn read_route(item: &Element) -> Option<Route> {
    let to = match item.text_at(&["destinationPrefixListId"]) {
        Some(list) => Destination::List(list),
        None => Destination::Range(text(item, "destinationCidrBlock").parse().ok()?),
    };
    let (gateway, nat) = (text(item, "gatewayId"), text(item, "natGatewayId"));
    let target = if gateway == "local" {
        Target::Local
    } else if gateway.starts_with("igw-") {
        Target::InternetGateway(gateway)
    } else if gateway.starts_with("vpce-") {
        Target::Endpoint(gateway)
    } else if !nat.is_empty() {
        Target::NatGateway(nat)
    } else {
        Target::Other
    };
    Some(Route { to, target })
}

/// `None`: an entry about IPv6. The shape of its protocol is that of a group's rule, but for the names of its fields.
fn read_acl_entry(item: &Element) -> Option<Result<AclEntry, String>> {
    let range = item.text_at(&["cidrBlock"])?;
    let field = |path: &[&str]| item.text_at(path).unwrap_or_else(|| "-1".to_owned());
    let icmp = matches!(text(item, "protocol").as_str(), "1" | "icmp");
    let (from, to) = if icmp {
        (field(&["icmpTypeCode", "type"]), field(&["icmpTypeCode", "code"]))
    } else {
        (field(&["portRange", "from"]), field(&["portRange", "to"]))
    };
    let range = Element::node("item", vec![Element::leaf("cidrIp", &range)]);
    let permission = Element::node(
        "item",
        vec![
            Element::leaf("ipProtocol", &text(item, "protocol")),
            Element::leaf("fromPort", &from),
            Element::leaf("toPort", &to),
            Element::node("ipRanges", vec![range]),
        ],
    );
    let number = text(item, "ruleNumber");
    let entry = Rule::read_all(Some(&Element::node("set", vec![permission]))).and_then(|rules| {
        Ok(AclEntry {
            number: number.parse().map_err(|_| format!("`{number}` is no rule number"))?,
            egress: text(item, "egress") == "true",
            allow: text(item, "ruleAction") == "allow",
            rule: rules.into_iter().next().ok_or("an entry without a rule")?,
        })
    });
    Some(entry)
}
