//! Writes a [`Plan`] as chains of nftables.
//!
//! Everything a host sends is judged before its addresses are translated, everything it gets after: so egress rules see
//! the address that was asked for and ingress rules the address that it came from, as on AWS. Packets between hosts of one
//! network come by here too, since the bridge hands them to these chains (`nf_call_iptables`).
//!
//! Connection tracking as EC2's user guide has it: an answer passes because its flow is known; but a flow that an open
//! rule admits while the other direction is open as well is not tracked, so each packet needs its rule and the flow ends
//! with it. Two bits of the flow's mark say which end does not track it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::plan::{Barrier, Held, Plan, Profile, Way};
use super::rule::{Direction, Rule, set_name};
use super::services;
use crate::firewall::{Gateway, OUTSIDE, PUBLIC_RANGE};

/// The mark of flows that the end which opened them does not track.
const OPENER: u32 = 0x10_0000;
/// The mark of flows that the end which answers does not track.
const ANSWERER: u32 = 0x20_0000;

/// The packet's mark of what this machine sends itself, and of such a packet that must not arrive.
const OF_MACHINE: u32 = 0x40_0000;
/// See [`OF_MACHINE`].
const REFUSED: u32 = 0x80_0000;

/// The packet's mark of what these rules have looked at. What comes from a host without it goes nowhere
/// ([`crate::guard`]), so that hosts are closed where the rules are missing.
pub const LOOKED_AT: u32 = 0x100_0000;

/// Writes into a table.
struct Writer<'a> {
    out: &'a mut String,
}

impl Writer<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "    {text}");
    }

    fn open(&mut self, chain: &str) {
        let _ = writeln!(self.out, "  chain {chain} {{");
    }

    fn close(&mut self) {
        self.out.push_str("  }\n");
    }
}

/// Writes the sets and chains of a plan for the hosts behind these bridges.
pub fn write(out: &mut String, gateways: &[Gateway], resolvers: &[Ipv4Addr], plan: &Plan) {
    if gateways.is_empty() {
        return;
    }
    for (name, ranges) in &plan.sets {
        let elements = if ranges.is_empty() {
            String::new()
        } else {
            format!("    elements = {{ {} }}\n", join(ranges))
        };
        let _ = write!(
            out,
            "  set {name} {{\n    type ipv4_addr\n    flags interval\n    auto-merge\n{elements}  }}\n"
        );
    }
    let mut w = Writer { out };
    let bridges = gateways.iter().map(|gateway| format!("\"{}\"", gateway.bridge));
    let bridges = bridges.collect::<Vec<_>>().join(", ");

    for (name, hook, side, next) in [
        ("from_hosts", "prerouting priority -150", "iifname", "leave"),
        ("to_hosts", "postrouting priority 300", "oifname", "arrive"),
    ] {
        w.open(name);
        w.line(format_args!("type filter hook {hook}"));
        if side == "iifname" {
            for Gateway { bridge, range, .. } in gateways {
                w.line(format_args!("iifname \"{bridge}\" ip saddr != {range} drop"));
            }
        }
        w.line(format_args!(
            "{side} {{ {bridges} }} meta mark set meta mark or {LOOKED_AT:#x} jump {next}"
        ));
        w.close();
    }
    // The ports at the edge are for hosts: not for what runs on this machine, nor for other networks on it.
    w.open("edge");
    w.line(format_args!("type filter hook input priority -10"));
    for Gateway { bridge, address, metadata_port, tls_port, .. } in gateways {
        w.line(format_args!(
            "iifname != \"{bridge}\" ip daddr {address} tcp dport {{ {metadata_port}, {tls_port} }} drop"
        ));
    }
    w.close();
    // Private addresses cannot be reached from outside, and this machine is outside.
    w.open("from_machine");
    w.line(format_args!("type filter hook output priority 0"));
    w.line(format_args!("oifname {{ {bridges} }} meta mark set meta mark or {OF_MACHINE:#x}"));
    w.line(format_args!(
        "oifname {{ {bridges} }} ct state new ct original ip daddr != {PUBLIC_RANGE} \
         meta mark set meta mark or {REFUSED:#x}"
    ));
    w.close();
    // A sender on this machine would be told of a dropped packet ("operation not permitted"), which nobody outside
    // would be. So its packets go on until the bridge, where nobody hears of their end.
    w.open("refuse");
    w.line(format_args!(
        "meta mark and {OF_MACHINE:#x} != 0x0 meta mark set meta mark or {REFUSED:#x} accept"
    ));
    w.line(format_args!("drop"));
    w.close();

    leave(&mut w, resolvers, plan);
    arrive(&mut w, resolvers, plan);
    for (chain, bit) in [("untracked_out", OPENER), ("untracked_in", ANSWERER)] {
        w.open(chain);
        w.line(format_args!("ct state new ct mark set ct mark or {bit:#x}"));
        w.line(format_args!("accept"));
        w.close();
    }
    for (subnet, ways) in &plan.ways {
        route(&mut w, subnet, ways, plan);
    }
    for (number, profile) in plan.profiles.iter().enumerate() {
        rules(&mut w, number, profile, Direction::Egress);
        rules(&mut w, number, profile, Direction::Ingress);
    }
    for (number, barrier) in plan.acls.iter().enumerate() {
        for (direction, entries) in
            [(Direction::Egress, &barrier.egress), (Direction::Ingress, &barrier.ingress)]
        {
            let Some(entries) = entries else { continue };
            w.open(&format!("acl_{}_{number}", short(direction)));
            for (allow, rule) in entries {
                let verdict = if *allow { "return" } else { refused(direction) };
                w.line(format_args!("{}{verdict}", rule.matches(direction)));
            }
            w.line(format_args!("{}", refused(direction)));
            w.close();
        }
    }
}

fn leave(w: &mut Writer<'_>, resolvers: &[Ipv4Addr], plan: &Plan) {
    w.open("leave");
    faults(w, &plan.hosts, Direction::Egress);
    for loss in &plan.losses {
        let drops = drops(loss.percent, loss.seed, "drop");
        let (from, to) = (loss.from, join(&loss.to));
        w.line(format_args!("ip saddr {from} ip daddr {{ {to} }} {drops}"));
    }
    // Instance metadata and the VPC's resolver are subject to nothing (VPC user guide, "Security groups").
    w.line(format_args!("ip daddr 169.254.169.254 tcp dport 80 accept"));
    if !resolvers.is_empty() {
        let resolvers = join(resolvers);
        w.line(format_args!(
            "ip daddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
        ));
    }
    // The router itself answers nothing, nor does this machine at any other of its addresses: it is outside only at the
    // one that stands for the internet.
    w.line(format_args!("ip daddr != {OUTSIDE} fib daddr type local drop"));
    barriers(w, &plan.acls, Direction::Egress);
    if !plan.through.is_empty() {
        let pairs: Vec<String> =
            plan.through.iter().map(|(host, service)| format!("{host} . {service}")).collect();
        w.line(format_args!("ip saddr . ip daddr {{ {} }} tcp dport 443 accept", pairs.join(", ")));
    }
    for (range, service) in &plan.replaced {
        w.line(format_args!("ip saddr {range} ip daddr {service} drop"));
    }
    only_known(w, Direction::Egress, &plan.hosts);
    by_host(w, "saddr", &plan.hosts, |host| format!("jump {}", set_name("route", &host.subnet)));
    w.line(format_args!(
        "ct state established,related ct direction original ct mark and {OPENER:#x} == 0x0 accept"
    ));
    w.line(format_args!(
        "ct state established,related ct direction reply ct mark and {ANSWERER:#x} == 0x0 accept"
    ));
    by_host(w, "saddr", &plan.hosts, |host| format!("goto out_{}", host.profile));
    w.line(format_args!("drop"));
    w.close();
}

fn arrive(w: &mut Writer<'_>, resolvers: &[Ipv4Addr], plan: &Plan) {
    w.open("arrive");
    faults(w, &plan.hosts, Direction::Ingress);
    w.line(format_args!("ip saddr 169.254.169.254 tcp sport 80 ct direction reply accept"));
    if !resolvers.is_empty() {
        let resolvers = join(resolvers);
        w.line(format_args!(
            "ip saddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th sport 53 ct direction reply accept"
        ));
    }
    barriers(w, &plan.acls, Direction::Ingress);
    only_known(w, Direction::Ingress, &plan.hosts);
    w.line(format_args!(
        "ct state established,related ct direction original ct mark and {ANSWERER:#x} == 0x0 accept"
    ));
    w.line(format_args!(
        "ct state established,related ct direction reply ct mark and {OPENER:#x} == 0x0 accept"
    ));
    by_host(w, "daddr", &plan.hosts, |host| format!("goto in_{}", host.profile));
    w.line(format_args!("{}", refused(Direction::Ingress)));
    w.close();
}

fn faults(w: &mut Writer<'_>, hosts: &[Held], direction: Direction) {
    let (own, refused) = (own_side(direction), refused(direction));
    for host in hosts {
        if host.trouble.lost {
            w.line(format_args!("ip {own} {} {refused}", host.address));
        } else if host.trouble.loss > 0 {
            let drops = drops(host.trouble.loss, host.trouble.seed, refused);
            w.line(format_args!("ip {own} {} {drops}", host.address));
        }
    }
}

/// What ends so many of each hundred packets.
fn drops(percent: u8, seed: u64, verdict: &str) -> String {
    let lost: Vec<String> =
        lost_of_hundred(percent, seed).map(|number| format!("{number} : {verdict}")).collect();
    format!("numgen inc mod 100 vmap {{ {} }}", lost.join(", "))
}

/// Which of each hundred packets are lost: as many as asked for, spread by a shuffle that the seed decides.
fn lost_of_hundred(percent: u8, seed: u64) -> impl Iterator<Item = u8> {
    let mut numbers: Vec<u8> = (0..100).collect();
    let mut state = seed;
    for last in (1..100_u8).rev() {
        // SplitMix64: any well-mixed sequence does, and it has to stay the same.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let other = usize::try_from(mixed % (u64::from(last) + 1)).unwrap_or(0);
        numbers.swap(usize::from(last), other);
    }
    numbers.truncate(usize::from(percent.min(100)));
    numbers.sort_unstable();
    numbers.into_iter()
}

fn barriers(w: &mut Writer<'_>, acls: &[Barrier], direction: Direction) {
    for (number, barrier) in acls.iter().enumerate() {
        let range = barrier.range;
        let (own, other, entries) = match direction {
            Direction::Egress => ("saddr", "daddr", &barrier.egress),
            Direction::Ingress => ("daddr", "saddr", &barrier.ingress),
        };
        if entries.is_some() {
            w.line(format_args!(
                "ip {own} {range} ip {other} != {range} jump acl_{}_{number}",
                short(direction)
            ));
        }
    }
}

/// Whoever is not in the plan is closed, for flows that are known already as well.
fn only_known(w: &mut Writer<'_>, direction: Direction, hosts: &[Held]) {
    let (own, refused) = (own_side(direction), refused(direction));
    if hosts.is_empty() {
        w.line(format_args!("{refused}"));
    } else {
        let known: Vec<Ipv4Addr> = hosts.iter().map(|host| host.address).collect();
        w.line(format_args!("ip {own} != {{ {} }} {refused}", join(&known)));
    }
}

/// One map instead of a rule per host. Who is not in it goes on to what follows.
fn by_host(w: &mut Writer<'_>, side: &str, hosts: &[Held], verdict: impl Fn(&Held) -> String) {
    let verdicts: BTreeMap<Ipv4Addr, String> =
        hosts.iter().map(|host| (host.address, verdict(host))).collect();
    if !verdicts.is_empty() {
        let pairs: Vec<String> = verdicts.iter().map(|(a, v)| format!("{a} : {v}")).collect();
        w.line(format_args!("ip {side} vmap {{ {} }}", pairs.join(", ")));
    }
}

fn route(w: &mut Writer<'_>, subnet: &str, ways: &[(super::cidr::Cidr, Way)], plan: &Plan) {
    let mine = |host: &&Held| host.subnet == subnet && host.public;
    let public: Vec<Ipv4Addr> = plan.hosts.iter().filter(mine).map(|host| host.address).collect();
    let own: Vec<_> = ways.iter().filter(|(_, way)| *way == Way::Local).map(|(r, _)| *r).collect();
    w.open(&set_name("route", subnet));
    for other in plan.vpcs.iter().filter(|range| !own.contains(range)) {
        w.line(format_args!("ip daddr {other} drop"));
    }
    for (range, way) in ways {
        match way {
            Way::Local | Way::Endpoint | Way::Nat(_) => {
                w.line(format_args!("ip daddr {range} return"))
            }
            Way::InternetGateway if !public.is_empty() => {
                w.line(format_args!("ip daddr {range} ip saddr {{ {} }} return", join(&public)));
                w.line(format_args!("ip daddr {range} drop"));
            }
            Way::InternetGateway | Way::Nothing => w.line(format_args!("ip daddr {range} drop")),
        }
    }
    w.line(format_args!("drop"));
    w.close();
}

fn rules(w: &mut Writer<'_>, number: usize, profile: &Profile, direction: Direction) {
    let (own, answers) = match direction {
        Direction::Ingress => (&profile.ingress, &profile.egress),
        Direction::Egress => (&profile.egress, &profile.ingress),
    };
    let answered = |protocol: u8| answers.iter().any(|rule| rule.admits_all_answers(protocol));
    let untracked = format!("untracked_{}", short(direction));
    w.open(&format!("{}_{number}", short(direction)));
    // What is not tracked comes first: a narrower rule beside an open one does not make a flow tracked.
    for rule in own.iter().filter(|rule| rule.is_open()) {
        for (protocol, name) in [(6, "tcp"), (17, "udp")] {
            if rule.covers(protocol) && answered(protocol) {
                let matches = rule.matches(direction);
                let matches =
                    if matches.is_empty() { format!("ip protocol {name} ") } else { matches };
                w.line(format_args!("{matches}goto {untracked}"));
            }
        }
    }
    for rule in own {
        w.line(format_args!("{}accept", rule.matches(direction)));
    }
    w.line(format_args!("{}", refused(direction)));
    w.close();
}

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

/// The address of the host whose packets are judged.
fn own_side(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "daddr",
        Direction::Egress => "saddr",
    }
}

/// The end of a packet that may not pass.
fn refused(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "goto refuse",
        Direction::Egress => "drop",
    }
}

/// The table of the bridge family, where packets of this machine end that may not arrive.
pub fn write_bridge(out: &mut String, table: &str) {
    let _ =
        writeln!(out, "table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{");
    let _ = writeln!(out, "  chain refused {{\n    type filter hook output priority 0");
    let _ = writeln!(out, "    meta mark and {REFUSED:#x} != 0x0 drop\n  }}\n}}");
}

fn join<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The rule that leads hosts' calls of AWS's APIs to the daemon.
pub fn redirect_apis(gateway: &Gateway) -> String {
    format!(
        "iifname \"{}\" ip daddr {} tcp dport 443 redirect to :{}",
        gateway.bridge,
        services::RANGE,
        gateway.tls_port
    )
}

impl Rule {
    fn covers(&self, protocol: u8) -> bool {
        use super::rule::Protocol;
        match self.protocol {
            Protocol::All => true,
            Protocol::Tcp(_) => protocol == 6,
            Protocol::Udp(_) => protocol == 17,
            _ => false,
        }
    }
}
