//! Address translation between the machine and its hosts: one nftables table per project, written as a whole.
//!
//! What an internet gateway does on AWS happens here, on the machine and not on the host: a host never sees its public
//! address, as on AWS, so a service that forgets to announce it fails the rehearsal too. And the metadata address
//! leads to the daemon without being set on any interface, so that a machine that is itself a cloud instance keeps
//! its own metadata service. What may pass at all ([`crate::reach`]) stands in the same table, so that both change in one
//! step.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::error::Error;
use crate::process::{self, run};
use crate::reach::cidr::Cidr;
use crate::reach::filter;
use crate::reach::plan::Plan;

/// The addresses that stand for the internet: TEST-NET-2 of RFC 5737.
pub const PUBLIC_RANGE: &str = "198.51.100.0/24";
/// The machine's own address in it: what hosts see when the tools call their public address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A VPC's bridge and the ports where the daemon serves its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Name of the bridge.
    pub bridge: String,
    /// The VPC router's address, which is the bridge's own.
    pub address: Ipv4Addr,
    /// The VPC's range.
    pub range: Cidr,
    /// Port of instance metadata.
    pub metadata_port: u16,
    /// Port of the AWS APIs with TLS.
    pub tls_port: u16,
}

/// A public address and the host behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicAddress {
    /// What the API shows.
    pub public: Ipv4Addr,
    /// The host's address in its VPC.
    pub private: Ipv4Addr,
}

/// The table's name of a project.
pub fn table(project: &str) -> String {
    format!("local-cloud-{project}").replace('-', "_")
}

/// Replaces the project's tables by those for these bridges.
pub async fn apply(
    project: &str,
    gateways: &[Gateway],
    resolvers: &[Ipv4Addr],
    plan: &Plan,
) -> Result<(), Error> {
    let text = render(&table(project), gateways, resolvers, plan);
    run("nft", ["-f", "-"], Some(&text)).await.map(drop)
}

/// The project's tables as they are now, for comparison only; `None` where one is missing.
pub async fn as_they_are(project: &str) -> Result<Option<String>, Error> {
    let name = table(project);
    let mut text = String::new();
    for family in ["ip", "ip6", "bridge"] {
        let listed = process::capture("nft", ["list", "table", family, &name], None).await?;
        if !listed.status.success() {
            return Ok(None);
        }
        text.push_str(&listed.stdout);
    }
    Ok(Some(text))
}

/// Removes the project's table, if there is one.
pub async fn remove(project: &str) -> Result<(), Error> {
    let name = table(project);
    for family in ["ip", "ip6", "bridge"] {
        if process::capture("nft", ["list", "table", family, &name], None).await?.status.success() {
            run("nft", ["delete", "table", family, &name], None).await?;
        }
    }
    Ok(())
}

fn render(table: &str, gateways: &[Gateway], resolvers: &[Ipv4Addr], plan: &Plan) -> String {
    let mut out = String::new();
    no_ipv6(&mut out, table, gateways);
    filter::write_bridge(&mut out, table);
    let _ = writeln!(out, "table ip {table}\ndelete table ip {table}\ntable ip {table} {{");
    let map = |name: &str, pairs: Vec<String>| {
        let elements = if pairs.is_empty() {
            String::new()
        } else {
            format!("    elements = {{ {} }}\n", pairs.join(", "))
        };
        format!("  map {name} {{\n    type ipv4_addr : ipv4_addr\n{elements}  }}\n")
    };
    for (name, pairs) in [("inward", &plan.inward), ("outward", &plan.outward)] {
        let pairs = pairs.iter().map(|(from, to)| format!("{from} : {to}")).collect();
        out.push_str(&map(name, pairs));
    }

    out.push_str("  chain prerouting {\n    type nat hook prerouting priority dstnat\n");
    for gateway in gateways {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "    iifname \"{}\" ip daddr 169.254.169.254 tcp dport 80 redirect to :{}",
            gateway.bridge, gateway.metadata_port
        );
        let _ = writeln!(out, "    {}", filter::redirect_apis(gateway));
    }
    out.push_str("    dnat to ip daddr map @inward\n  }\n");
    out.push_str("  chain output {\n    type nat hook output priority -100\n");
    out.push_str("    dnat to ip daddr map @inward\n  }\n");
    // What a host sends to public addresses leaves under its own public address; also when the target, already
    // translated, is a host again, or the sender itself.
    for (chain, hook, target) in [
        ("input", "input priority 100", "ip daddr"),
        ("postrouting", "postrouting priority srcnat", "ct original ip daddr"),
    ] {
        let _ = writeln!(out, "  chain {chain} {{\n    type nat hook {hook}");
        let _ = writeln!(out, "    {target} {PUBLIC_RANGE} snat to ip saddr map @outward\n  }}");
    }
    filter::write(&mut out, gateways, resolvers, plan);
    out.push_str("}\n");
    out
}

/// No network here has IPv6; link-local addresses must not be a way around the groups.
fn no_ipv6(out: &mut String, table: &str, gateways: &[Gateway]) {
    let _ = writeln!(out, "table ip6 {table}\ndelete table ip6 {table}\ntable ip6 {table} {{");
    if !gateways.is_empty() {
        let bridges: Vec<String> = gateways.iter().map(|g| format!("\"{}\"", g.bridge)).collect();
        let _ =
            writeln!(out, "  chain from_hosts {{\n    type filter hook prerouting priority -150");
        let _ = writeln!(out, "    iifname {{ {} }} drop\n  }}", bridges.join(", "));
    }
    out.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_replaces_itself_in_one_step() {
        let gateway = Gateway {
            bridge: "lc1".into(),
            address: Ipv4Addr::new(10, 20, 0, 1),
            range: "10.20.0.0/16".parse().expect("a range"),
            metadata_port: 8001,
            tls_port: 8002,
        };
        let (public, private) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(10, 20, 1, 10));
        let plan = Plan {
            inward: vec![(public, private)],
            outward: vec![(private, public)],
            ..Plan::default()
        };
        insta::assert_snapshot!("table", render(&table("calldata"), &[gateway], &[], &plan));
    }
}
