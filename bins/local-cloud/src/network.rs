//! Networks: one Docker network per VPC with the VPC's own address range, and what its hosts find at its edge.
//!
//! What passes between hosts and out of the network is decided elsewhere ([`crate::reach`]) and held here.

mod keep;
mod overlap;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use crate::docker::Docker;
use crate::edge::Edge;
use crate::error::Error;
use crate::firewall::{self, Gateway, OUTSIDE, PublicAddress};
use crate::guard::{self, Guard};
use crate::log;
use crate::process::{capture, run};
use crate::reach::cidr::Cidr;
use crate::reach::plan::Plan;

/// The networks of a project and the public addresses that lead into them.
#[derive(Debug)]
pub struct Networks {
    project: String,
    docker: Docker,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    networks: BTreeMap<String, Network>,
    addresses: Vec<Lead>,
    plan: Plan,
    /// Whether the bridges were taken down since no rules could be written.
    cut: bool,
    /// The tables as they were when they had been written; `None` where somebody had removed one by then.
    written: Option<String>,
    guard: Option<Guard>,
}

#[derive(Debug)]
struct Network {
    gateway: Gateway,
    listeners: Vec<AbortHandle>,
}

/// A public address that leads to a host of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// The VPC.
    pub vpc: String,
    /// The addresses.
    pub address: PublicAddress,
}

impl Networks {
    /// No networks yet.
    pub fn new(project: &str) -> Self {
        Self { project: project.into(), docker: Docker::new(project), made: Mutex::default() }
    }

    /// Docker's name of a VPC's network.
    pub fn name(&self, vpc: &str) -> String {
        format!("{}-{vpc}", self.project)
    }

    /// Makes the VPC's network unless it is there, and serves metadata and AWS APIs at its edge.
    pub async fn ensure(&self, vpc: &str, cidr: &str, edge: &Edge) -> Result<(), Error> {
        let mut made = self.made.lock().await;
        if made.networks.contains_key(vpc) {
            return Ok(());
        }
        let gateway = first_address(cidr)
            .ok_or_else(|| Error::setup("cannot use the VPC's address range", cidr))?;
        overlap::refuse(cidr).await?;
        let (name, bridge) = (self.name(vpc), bridge_name(&self.project, vpc));
        let bridge_option = format!("com.docker.network.bridge.name={bridge}");
        let (label, gateway_text) = (self.docker.label(), gateway.to_string());
        run(
            "docker",
            [
                "network",
                "create",
                "--driver",
                "bridge",
                "--subnet",
                cidr,
                "--gateway",
                &gateway_text,
                "--opt",
                &bridge_option,
                "--label",
                &label,
                &name,
            ],
            None,
        )
        .await?;
        match self.serve(vpc, cidr, gateway, edge).await {
            Ok(network) => {
                made.networks.insert(vpc.to_owned(), network);
                self.write_firewall(&mut made).await
            }
            Err(error) => {
                run("docker", ["network", "rm", &name], None).await?;
                guard::open_routes(&bridge).await?;
                Err(error)
            }
        }
    }

    async fn serve(
        &self,
        vpc: &str,
        cidr: &str,
        gateway: Ipv4Addr,
        edge: &Edge,
    ) -> Result<Network, Error> {
        let bridge = &bridge_name(&self.project, vpc);
        let range =
            cidr.parse().map_err(|()| Error::setup("cannot use the VPC's address range", cidr))?;
        guard::close_routes(bridge).await?;
        let outside = format!("{OUTSIDE}/32");
        run("ip", ["address", "add", &outside, "dev", bridge], None).await?;
        hand_over_packets(bridge)?;
        // Hosts that call each other by public address go through here on purpose; they must not be told a shorter way.
        let redirects = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{bridge}/send_redirects"));
        std::fs::write(&redirects, "0").map_err(|source| Error::File {
            doing: "write",
            path: redirects,
            source,
        })?;
        let bind = || async {
            TcpListener::bind((gateway, 0))
                .await
                .and_then(|listener| Ok((listener.local_addr()?.port(), listener)))
                .map_err(|error| Error::setup("cannot listen at the edge of the VPC", error))
        };
        let ((metadata_port, metadata), (tls_port, tls)) = (bind().await?, bind().await?);
        let listeners = vec![edge.serve_metadata(metadata, vpc), edge.serve_tls(tls, vpc)];
        let gateway =
            Gateway { bridge: bridge.clone(), address: gateway, range, metadata_port, tls_port };
        Ok(Network { gateway, listeners })
    }

    /// Removes a VPC's network, if it was ever made.
    pub async fn remove(&self, vpc: &str) -> Result<(), Error> {
        let mut made = self.made.lock().await;
        let Some(network) = made.networks.remove(vpc) else { return Ok(()) };
        for listener in network.listeners {
            listener.abort();
        }
        self.write_firewall(&mut made).await?;
        run("docker", ["network", "rm", &self.name(vpc)], None).await?;
        guard::open_routes(&network.gateway.bridge).await
    }

    /// Lets hosts of a VPC reach their own public address: the bridge hands a frame back to the port it came from.
    pub async fn open_hairpin(&self, vpc: &str) -> Result<(), Error> {
        let made = self.made.lock().await;
        let Some(network) = made.networks.get(vpc) else { return Ok(()) };
        let ports = format!("/sys/class/net/{}/brif", network.gateway.bridge);
        let failed = |source| Error::File {
            doing: "open the hairpin of",
            path: PathBuf::from(&ports),
            source,
        };
        for port in std::fs::read_dir(&ports).map_err(failed)? {
            let mode = port.map_err(failed)?.path().join("hairpin_mode");
            match std::fs::write(&mode, "1") {
                // The port of another host that has just ended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                written => written.map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Makes exactly these public addresses lead to hosts, and these packets pass.
    pub async fn hold(&self, wanted: Vec<Lead>, plan: Plan) -> Result<(), Error> {
        let mut made = self.made.lock().await;
        let wanted: Vec<Lead> =
            wanted.into_iter().filter(|lead| made.networks.contains_key(&lead.vpc)).collect();
        if made.addresses == wanted && made.plan == plan && !made.cut {
            return Ok(());
        }
        for old in made.addresses.iter().filter(|lead| !wanted.contains(lead)) {
            let target = format!("{}/32", old.address.public);
            // It went with its bridge when the VPC was deleted.
            capture("ip", ["route", "delete", target.as_str()], None).await?;
        }
        made.plan = plan;
        self.write_firewall(&mut made).await?;
        // A route goes with its bridge; so all are set, not only the new ones.
        for lead in &wanted {
            let Some(network) = made.networks.get(&lead.vpc) else { continue };
            let (target, via) =
                (format!("{}/32", lead.address.public), lead.address.private.to_string());
            let (bridge, source) = (network.gateway.bridge.clone(), OUTSIDE.to_string());
            let route = ["route", "replace", &target, "via", &via, "dev", &bridge, "src", &source];
            run("ip", route, None).await?;
        }
        made.addresses = wanted;
        Ok(())
    }

    /// Writes the tables. When that fails nothing may pass, so the bridges go down until it works again.
    async fn write_firewall(&self, made: &mut Made) -> Result<(), Error> {
        let gateways: Vec<Gateway> = made.networks.values().map(|n| n.gateway.clone()).collect();
        let bridges = gateways.iter().map(|gateway| gateway.bridge.clone()).collect();
        let written = async {
            firewall::apply(&self.project, &gateways, &nameservers(), &made.plan).await?;
            made.written = firewall::as_they_are(&self.project).await?;
            guard::hold(&mut made.guard, &self.project, bridges).await
        }
        .await;
        let cut = written.is_err();
        if cut != made.cut {
            let state = if cut { "down" } else { "up" };
            log::line(format_args!("all networks go {state}"));
            for gateway in &gateways {
                run("ip", ["link", "set", "dev", &gateway.bridge, state], None).await?;
            }
            made.cut = cut;
        }
        written
    }
}

/// Packets between hosts of one network pass the machine's packet rules as well: those hold what a host itself could undo.
fn hand_over_packets(bridge: &str) -> Result<(), Error> {
    let path = PathBuf::from(format!("/sys/class/net/{bridge}/bridge"));
    for switch in ["nf_call_iptables", "nf_call_ip6tables"] {
        let path = path.join(switch);
        std::fs::write(&path, "1").map_err(|source| Error::File {
            doing: "write",
            path,
            source,
        })?;
    }
    Ok(())
}

/// The name servers that hosts use: those of this machine, which stand for the VPC's resolver.
fn nameservers() -> Vec<Ipv4Addr> {
    // The first is what Docker hands on; where it names only a stub, Docker takes the second.
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| nameservers_of(&text))
        .collect()
}

fn nameservers_of(text: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| {
        let address: Ipv4Addr = line.trim().strip_prefix("nameserver")?.trim().parse().ok()?;
        (!address.is_loopback()).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// The bridge of a network of a project, by Docker's name of the network.
pub fn bridge_of(project: &str, network: &str) -> Option<String> {
    let vpc = network.strip_prefix(project)?.strip_prefix('-')?;
    Some(bridge_name(project, vpc))
}

/// A bridge's name: at most 15 characters, so a hash stands for project and VPC.
fn bridge_name(project: &str, vpc: &str) -> String {
    let hash = hex::encode(Sha256::digest(format!("{project}/{vpc}")));
    format!("lc{}", &hash[..10])
}

/// The VPC router's address: the first one of the range, as on AWS.
fn first_address(cidr: &str) -> Option<Ipv4Addr> {
    let range: Cidr = cidr.parse().ok()?;
    (range.prefix() <= 28).then(|| range.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_has_the_first_address_of_the_range() {
        assert_eq!(first_address("10.20.0.0/16"), Some(Ipv4Addr::new(10, 20, 0, 1)));
        assert_eq!(first_address("10.20.3.7/24"), Some(Ipv4Addr::new(10, 20, 3, 1)));
        for bad in ["10.20.0.0", "10.20.0.0/33", "x/16", "10.0.0.0/31"] {
            assert_eq!(first_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn name_servers_of_the_machine_itself_are_no_ones_resolver() {
        let text =
            "# x\nnameserver 127.0.0.53\nnameserver 10.1.2.3\nnameserver fe80::1\nsearch a.b\n";
        assert_eq!(nameservers_of(text), [Ipv4Addr::new(10, 1, 2, 3)]);
    }

    #[test]
    fn a_bridge_name_fits_the_kernel() {
        let name = bridge_name("calldata-with-a-long-name", "vpc-0123456789abcdef0");
        assert!(name.len() <= 15, "{name}");
    }
}
