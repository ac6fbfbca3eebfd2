//! Address translation between the machine and its hosts: one nftables table per project, written as a whole.
//!
//! What an internet gateway does on AWS happens here, on the machine and not on the host: a host never sees its public
//! address, as on AWS, so a service that forgets to announce it fails the rehearsal too. And the metadata address
//! leads to the daemon without being set on any interface, so that a machine that is itself a cloud instance keeps
//! its own metadata service.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::error::Error;
use crate::process::{self, run};

/// The addresses that stand for the internet: TEST-NET-2 of RFC 5737.
pub const PUBLIC_RANGE: &str = "198.51.100.0/24";
/// The machine's own address in it: what hosts see when the tools call their public address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A VPC's bridge and the ports where the daemon serves its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Name of the bridge.
    pub bridge: String,
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

/// Replaces the project's table by one for these bridges and addresses.
pub async fn apply(
    project: &str,
    gateways: &[Gateway],
    addresses: &[PublicAddress],
) -> Result<(), Error> {
    run("nft", ["-f", "-"], Some(&render(&table(project), gateways, addresses))).await.map(drop)
}

/// Removes the project's table, if there is one.
pub async fn remove(project: &str) -> Result<(), Error> {
    let name = table(project);
    if process::capture("nft", ["list", "table", "ip", &name], None).await?.status.success() {
        run("nft", ["delete", "table", "ip", &name], None).await?;
    }
    Ok(())
}

fn render(table: &str, gateways: &[Gateway], addresses: &[PublicAddress]) -> String {
    let mut out = format!("table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n");
    let map = |name: &str, pairs: Vec<String>| {
        let elements = if pairs.is_empty() {
            String::new()
        } else {
            format!("    elements = {{ {} }}\n", pairs.join(", "))
        };
        format!("  map {name} {{\n    type ipv4_addr : ipv4_addr\n{elements}  }}\n")
    };
    let pairs = addresses.iter().map(|a| format!("{} : {}", a.public, a.private)).collect();
    out.push_str(&map("inward", pairs));
    let pairs = addresses.iter().map(|a| format!("{} : {}", a.private, a.public)).collect();
    out.push_str(&map("outward", pairs));

    out.push_str("  chain prerouting {\n    type nat hook prerouting priority dstnat\n");
    for gateway in gateways {
        for (port, target) in [(80, gateway.metadata_port), (443, gateway.tls_port)] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "    iifname \"{}\" ip daddr 169.254.169.254 tcp dport {port} redirect to :{target}",
                gateway.bridge
            );
        }
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
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_replaces_itself_in_one_step() {
        let gateway = Gateway { bridge: "lc1".into(), metadata_port: 8001, tls_port: 8002 };
        let address = PublicAddress {
            public: Ipv4Addr::new(198, 51, 100, 7),
            private: Ipv4Addr::new(10, 20, 1, 10),
        };
        insta::assert_snapshot!(render(&table("calldata"), &[gateway], &[address]), @r#"
        table ip local_cloud_calldata
        delete table ip local_cloud_calldata
        table ip local_cloud_calldata {
          map inward {
            type ipv4_addr : ipv4_addr
            elements = { 198.51.100.7 : 10.20.1.10 }
          }
          map outward {
            type ipv4_addr : ipv4_addr
            elements = { 10.20.1.10 : 198.51.100.7 }
          }
          chain prerouting {
            type nat hook prerouting priority dstnat
            iifname "lc1" ip daddr 169.254.169.254 tcp dport 80 redirect to :8001
            iifname "lc1" ip daddr 169.254.169.254 tcp dport 443 redirect to :8002
            dnat to ip daddr map @inward
          }
          chain output {
            type nat hook output priority -100
            dnat to ip daddr map @inward
          }
          chain input {
            type nat hook input priority 100
            ip daddr 198.51.100.0/24 snat to ip saddr map @outward
          }
          chain postrouting {
            type nat hook postrouting priority srcnat
            ct original ip daddr 198.51.100.0/24 snat to ip saddr map @outward
          }
        }
        "#);
    }
}
