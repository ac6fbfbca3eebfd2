//! One rule of a security group: what it says, what nftables has to match for it, and whether it admits a given peer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cidr::Cidr;
use crate::xml::Element;

/// A direction, seen from the interface that has the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the interface.
    Ingress,
    /// From the interface.
    Egress,
}

/// What a rule admits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Which packets.
    pub protocol: Protocol,
    /// From or to whom.
    pub peer: Peer,
}

/// Packets of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// All traffic (`-1`).
    All,
    /// TCP to these ports.
    Tcp(Ports),
    /// UDP to these ports.
    Udp(Ports),
    /// ICMP of a type and code; `None`: any.
    Icmp(Option<u8>, Option<u8>),
    /// Another protocol by its number.
    Other(u8),
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports(pub u16, pub u16);

impl Ports {
    /// Every port.
    pub const ALL: Self = Self(0, u16::MAX);
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Addresses.
    Range(Cidr),
    /// The members of a group.
    Group(String),
    /// A prefix list.
    List(String),
}

impl Rule {
    /// The IPv4 rules of an `ipPermissions` or `ipPermissionsEgress` set. What only concerns IPv6 is left out: no network
    /// here has any.
    pub fn read_all(set: Option<&Element>) -> Result<Vec<Self>, String> {
        let mut rules = Vec::new();
        for item in set.into_iter().flat_map(|set| set.children.iter()) {
            let Some(protocol) = Protocol::read(item)? else { continue };
            let mut add = |peer| rules.push(Self { protocol, peer });
            for range in item.items(&["ipRanges"]) {
                let text = range.text_at(&["cidrIp"]).unwrap_or_default();
                add(Peer::Range(text.parse().map_err(|()| format!("`{text}` is no range"))?));
            }
            for group in item.items(&["groups"]) {
                let id = group.text_at(&["groupId"]).ok_or("a referenced group without id")?;
                add(Peer::Group(id));
            }
            for list in item.items(&["prefixListIds"]) {
                let id = list.text_at(&["prefixListId"]).ok_or("a prefix list without id")?;
                add(Peer::List(id));
            }
        }
        Ok(rules)
    }

    /// The match of nftables; `names` writes sets of groups and lists.
    pub fn matches(&self, direction: Direction) -> String {
        let side = match direction {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        };
        let mut out = match &self.peer {
            Peer::Range(Cidr::ALL) => String::new(),
            Peer::Range(cidr) => format!("ip {side} {cidr} "),
            Peer::Group(id) => format!("ip {side} @{} ", set_name("members", id)),
            Peer::List(id) => format!("ip {side} @{} ", set_name("list", id)),
        };
        let ports = |out: &mut String, name: &str, ports: Ports| {
            // Writing to a String cannot fail.
            let _ = match ports {
                Ports::ALL => write!(out, "ip protocol {name} "),
                Ports(from, to) if from == to => write!(out, "{name} dport {from} "),
                Ports(from, to) => write!(out, "{name} dport {from}-{to} "),
            };
        };
        match self.protocol {
            Protocol::All => {}
            Protocol::Tcp(range) => ports(&mut out, "tcp", range),
            Protocol::Udp(range) => ports(&mut out, "udp", range),
            Protocol::Icmp(None, _) => out.push_str("ip protocol icmp "),
            Protocol::Icmp(Some(kind), code) => {
                let _ = write!(out, "icmp type {kind} ");
                if let Some(code) = code {
                    let _ = write!(out, "icmp code {code} ");
                }
            }
            Protocol::Other(number) => {
                let _ = write!(out, "ip protocol {number} ");
            }
        }
        out
    }

    /// Whether it admits TCP to this port with a peer of this range and these groups.
    pub fn admits_tcp(
        &self,
        port: u16,
        range: Cidr,
        groups: &[String],
        lists: &BTreeMap<String, Vec<Cidr>>,
    ) -> bool {
        let protocol = match self.protocol {
            Protocol::All => true,
            Protocol::Tcp(Ports(from, to)) => (from..=to).contains(&port),
            Protocol::Other(number) => number == 6,
            Protocol::Udp(_) | Protocol::Icmp(..) => false,
        };
        protocol
            && match &self.peer {
                Peer::Range(cidr) => cidr.contains(range),
                Peer::Group(id) => groups.contains(id),
                Peer::List(id) => lists
                    .get(id)
                    .is_some_and(|entries| entries.iter().any(|cidr| cidr.contains(range))),
            }
    }

    /// Whether a flow that it admits is left untracked when the other direction admits all answers: TCP or UDP from or to
    /// every address (EC2 user guide, "Security group connection tracking", "Untracked connections").
    pub fn is_open(&self) -> bool {
        self.peer == Peer::Range(Cidr::ALL)
            && matches!(self.protocol, Protocol::All | Protocol::Tcp(_) | Protocol::Udp(_))
    }

    /// Whether it admits all answers of this protocol, TCP (6) or UDP (17): every address and port.
    pub fn admits_all_answers(&self, number: u8) -> bool {
        self.peer == Peer::Range(Cidr::ALL)
            && match self.protocol {
                Protocol::All => true,
                Protocol::Tcp(ports) => number == 6 && ports == Ports::ALL,
                Protocol::Udp(ports) => number == 17 && ports == Ports::ALL,
                Protocol::Other(own) => own == number,
                Protocol::Icmp(..) => false,
            }
    }
}

impl Protocol {
    /// `None`: a protocol of IPv6 only.
    fn read(item: &Element) -> Result<Option<Self>, String> {
        let name = item.text_at(&["ipProtocol"]).unwrap_or_default();
        let number = |field: &str| -> Result<i64, String> {
            match item.text_at(&[field]) {
                None => Ok(-1),
                Some(text) => text.parse().map_err(|_| format!("`{text}` is no port")),
            }
        };
        let (from, to) = (number("fromPort")?, number("toPort")?);
        let port = |value: i64| u16::try_from(value).map_err(|_| format!("`{value}` is no port"));
        let ports = || -> Result<Ports, String> {
            match (from, to) {
                (-1, _) => Ok(Ports::ALL),
                (from, -1) => Ok(Ports(port(from)?, u16::MAX)),
                (from, to) => Ok(Ports(port(from)?, port(to)?)),
            }
        };
        Ok(Some(match name.to_ascii_lowercase().as_str() {
            "-1" | "all" => Self::All,
            "tcp" | "6" => Self::Tcp(ports()?),
            "udp" | "17" => Self::Udp(ports()?),
            "icmp" | "1" => Self::Icmp(u8::try_from(from).ok(), u8::try_from(to).ok()),
            "icmpv6" | "58" => return Ok(None),
            other => Self::Other(other.parse().map_err(|_| format!("`{other}` is no protocol"))?),
        }))
    }
}

/// The name of a set of nftables for an id of EC2.
pub fn set_name(kind: &str, id: &str) -> String {
    format!("{kind}_{}", id.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inner: &str) -> Result<Vec<Rule>, String> {
        let set = Element::parse(&format!("<s><item>{inner}</item></s>")).expect("XML");
        Rule::read_all(Some(&set))
    }

    #[test]
    fn a_rule_becomes_a_match() {
        let check = |inner: &str, direction, expected: &[&str]| {
            let rules = read(inner).expect("rules");
            let found: Vec<String> =
                rules.iter().map(|r| r.matches(direction).trim_end().to_owned()).collect();
            assert_eq!(found, expected, "{inner}");
        };
        let any = "<ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges>";
        check(&format!("<ipProtocol>-1</ipProtocol>{any}"), Direction::Egress, &[""]);
        check(
            &format!(
                "<ipProtocol>udp</ipProtocol><fromPort>5060</fromPort><toPort>5061</toPort>\
                 <groups><item><groupId>sg-1</groupId></item></groups>{any}"
            ),
            Direction::Ingress,
            &["udp dport 5060-5061", "ip saddr @members_sg_1 udp dport 5060-5061"],
        );
        check(
            "<ipProtocol>tcp</ipProtocol><fromPort>443</fromPort><toPort>443</toPort>\
             <prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds>",
            Direction::Egress,
            &["ip daddr @list_pl_1 tcp dport 443"],
        );
        check(
            "<ipProtocol>tcp</ipProtocol><fromPort>0</fromPort><toPort>65535</toPort>\
             <ipRanges><item><cidrIp>10.1.2.3/8</cidrIp></item></ipRanges>",
            Direction::Ingress,
            &["ip saddr 10.0.0.0/8 ip protocol tcp"],
        );
        let icmp = |from: &str, to: &str| {
            format!(
                "<ipProtocol>icmp</ipProtocol><fromPort>{from}</fromPort><toPort>{to}</toPort>{any}"
            )
        };
        check(&icmp("8", "-1"), Direction::Ingress, &["icmp type 8"]);
        check(&icmp("3", "4"), Direction::Ingress, &["icmp type 3 icmp code 4"]);
        check(&icmp("-1", "-1"), Direction::Ingress, &["ip protocol icmp"]);
        check(
            &format!("<ipProtocol>50</ipProtocol>{any}"),
            Direction::Ingress,
            &["ip protocol 50"],
        );
        check(
            "<ipProtocol>icmpv6</ipProtocol><ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges>",
            Direction::Ingress,
            &[],
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_never_an_open_door() {
        for bad in [
            "<ipProtocol>warp</ipProtocol>",
            "<ipProtocol>tcp</ipProtocol><fromPort>x</fromPort>",
            "<ipProtocol>tcp</ipProtocol><fromPort>70000</fromPort><toPort>70000</toPort>",
            "<ipProtocol>-1</ipProtocol><ipRanges><item><cidrIp>10.0.0.0</cidrIp></item></ipRanges>",
            "<ipProtocol>-1</ipProtocol><groups><item><groupName>x</groupName></item></groups>",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
