//! Whether a VPC's range is free on this machine: a bridge with a range that the machine uses or reaches itself would cut
//! it off from what is there.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::process::{capture, last_lines};
use crate::reach::cidr::Cidr;

/// Shorter prefixes stand for the internet at large, as a default route does: a VPN often sets two halves of it.
const SHORTEST: u32 = 8;

#[derive(Debug, Deserialize)]
struct Interface {
    ifname: String,
    addr_info: Vec<InterfaceAddress>,
}

#[derive(Debug, Deserialize)]
struct InterfaceAddress {
    local: Option<Ipv4Addr>,
    prefixlen: u32,
}

/// As `ip -json route` writes it; one with several ways names none of them here.
#[derive(Debug, Deserialize)]
struct Route {
    #[serde(rename = "type", default)]
    kind: String,
    dst: String,
    dev: Option<String>,
}

/// Refuses a range that this machine uses on an interface or reaches by a route of any table.
pub(super) async fn refuse(cidr: &str) -> Result<(), Error> {
    let Ok(wanted) = cidr.parse() else { return Ok(()) };
    let interfaces: Vec<Interface> = ask(["-4", "-json", "address", "show"]).await?;
    let routes: Vec<Route> = ask(["-4", "-json", "route", "show", "table", "all"]).await?;
    match clash(wanted, &interfaces, &routes) {
        None => Ok(()),
        Some(used) => Err(Error::setup(
            "cannot make the VPC's network",
            format!("{cidr} overlaps {used}, which this machine uses itself"),
        )),
    }
}

async fn ask<T: DeserializeOwned, const N: usize>(args: [&str; N]) -> Result<T, Error> {
    let output = capture("ip", args, None).await?;
    // Without a single route it says nothing at all.
    let text = if output.stdout.trim().is_empty() { "[]" } else { &output.stdout };
    serde_json::from_str(text).map_err(|error| {
        Error::setup(
            "cannot read this machine's addresses and routes",
            format!("{error} {}", last_lines(&output.stderr, 1)),
        )
    })
}

/// What the range overlaps, and where that is.
fn clash(wanted: Cidr, interfaces: &[Interface], routes: &[Route]) -> Option<String> {
    let addresses = interfaces.iter().flat_map(|interface| {
        interface.addr_info.iter().filter_map(|address| {
            let range: Cidr = format!("{}/{}", address.local?, address.prefixlen).parse().ok()?;
            Some((range, interface.ifname.as_str()))
        })
    });
    let routes = routes.iter().filter_map(|route| {
        // These lead nowhere, so nothing is behind them.
        if matches!(route.kind.as_str(), "blackhole" | "unreachable" | "prohibit" | "throw") {
            return None;
        }
        let range = match route.dst.parse::<Ipv4Addr>() {
            Ok(address) => Cidr::host(address),
            Err(_) => route.dst.parse().ok()?,
        };
        let way = route.dev.as_deref().unwrap_or("several ways");
        (range.prefix() >= SHORTEST).then_some((range, way))
    });
    addresses
        .chain(routes)
        .find(|(range, _)| range.contains(wanted) || wanted.contains(*range))
        .map(|(range, place)| format!("{range} ({place})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, routes: &str, expected: Option<&str>) {
        let interfaces = r#"[{"ifname": "eth0", "addr_info": [{"local": "10.20.5.9", "prefixlen": 24}]},
            {"ifname": "wg0", "addr_info": [{"prefixlen": 64}]}]"#;
        let interfaces: Vec<Interface> = serde_json::from_str(interfaces).expect("JSON");
        let read: Vec<Route> = serde_json::from_str(routes).expect("JSON");
        let found = clash(wanted.parse().expect("a range"), &interfaces, &read);
        assert_eq!(found.as_deref(), expected, "{wanted} {routes}");
    }

    #[test]
    fn a_range_that_an_interface_uses_is_seen_both_ways() {
        check("10.20.0.0/16", "[]", Some("10.20.5.0/24 (eth0)"));
        check("10.20.5.128/25", "[]", Some("10.20.5.0/24 (eth0)"));
        check("10.21.0.0/16", "[]", None);
    }

    #[test]
    fn a_range_that_a_route_leads_to_is_seen_in_every_table() {
        let of = |more: &str, dst: &str| format!(r#"[{{"dst": "{dst}", "flags": []{more}}}]"#);
        let vpn = |dst: &str| of(r#", "dev": "tun0", "table": "100""#, dst);
        check("10.9.0.0/16", &vpn("10.9.8.0/24"), Some("10.9.8.0/24 (tun0)"));
        check("10.9.0.0/16", &vpn("10.0.0.0/8"), Some("10.0.0.0/8 (tun0)"));
        check("10.9.0.0/16", &vpn("10.9.8.7"), Some("10.9.8.7 (tun0)"));
        check("10.9.0.0/16", &of("", "10.9.0.0/16"), Some("10.9.0.0/16 (several ways)"));
        check("10.9.0.0/16", &vpn("10.8.0.0/16"), None);
    }

    #[test]
    fn a_route_to_everything_or_nothing_is_in_nobodys_way() {
        for (dst, kind) in [
            ("default", "unicast"),
            ("0.0.0.0/1", "unicast"),
            ("10.0.0.0/8", "blackhole"),
            ("10.9.0.0/16", "unreachable"),
        ] {
            let routes = format!(r#"[{{"dst": "{dst}", "type": "{kind}", "dev": "tun0"}}]"#);
            check("10.9.0.0/16", &routes, None);
        }
    }
}
