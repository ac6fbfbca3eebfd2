//! The container of an instance: how it is made, and its first touch from outside when it runs.

use super::Ec2;
use super::boot::FirstBoot;
use super::machine::{Machine, Seen};
use crate::docker::INSTANCE_LABEL;
use crate::error::Error;
use crate::process::run_all;
use crate::reach::services;

/// Options that every host has.
const OPTIONS: [&str; 23] = [
    "create",
    "--tty",
    "--stop-signal",
    "SIGRTMIN+3",
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_BOOT",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/run/lock",
    "--tmpfs",
    "/tmp",
    "--env",
    "container=docker",
    "--log-opt=max-size=5m",
];

impl Ec2 {
    pub(super) fn container_arguments(
        &self,
        machine: &Machine,
        image: &str,
        first: &FirstBoot,
    ) -> Vec<String> {
        let Seen { instance_id, vpc_id, private_ip, .. } = &machine.seen;
        let region = &self.settings.region;
        let private_dns = machine.private_dns(region);
        let hostname = private_dns.split('.').next().unwrap_or_default();
        let mut args: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--name", self.docker.container(instance_id));
        option("--hostname", hostname.to_owned());
        option("--network", self.networks.name(vpc_id));
        option("--ip", private_ip.map(|ip| ip.to_string()).unwrap_or_default());
        option("--label", self.docker.label());
        option("--label", format!("{INSTANCE_LABEL}={instance_id}"));
        for (name, address) in services::names(region) {
            option("--add-host", format!("{name}:{address}"));
        }
        if self.settings.unified_cgroup {
            option("--cgroupns", "private".into());
        } else {
            option("--cgroupns", "host".into());
            option("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw".into());
        }
        args.extend(first.options());
        args.extend([image.to_owned(), "/usr/sbin/rehearsal-boot".to_owned()]);
        if self.settings.unified_cgroup {
            args.push("unified-cgroup".to_owned());
        }
        args
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.before_boot(id).await?;
        self.engine.start(&self.docker.container(id)).await
    }

    /// Gives a started host's interface the hardware address that the API shows, and tells the host's first process.
    /// From outside, since older engines cannot set it for a network of one's own.
    pub(super) async fn settle(&self, id: &str) -> Result<u32, Error> {
        let container = self.engine.inspect(&self.docker.container(id)).await?;
        let Some(pid) = container.filter(|found| found.running).map(|found| found.pid) else {
            // It ended already; whoever needs it alive finds out by this number, which no process has.
            return Ok(0);
        };
        let Some(Seen { mac, vpc_id, .. }) = self.machine(id).map(|machine| machine.seen) else {
            return Ok(pid);
        };
        self.networks.open_hairpin(&vpc_id).await?;
        if !mac.is_empty() {
            let pid = pid.to_string();
            let command = ["ip", "link", "set", "dev", "eth0", "address", &mac];
            let mut args = vec!["--target", &pid, "--net"];
            args.extend(command);
            run_all("nsenter", &args, None).await?;
        }
        Ok(pid)
    }

    /// The last 64 KiB of a host's console, as `GetConsoleOutput` keeps them.
    pub(crate) async fn console(&self, id: &str) -> String {
        const KEPT: usize = 64 * 1024;
        let Ok(text) = self.engine.console(&self.docker.container(id), 2000).await else {
            return String::new();
        };
        let mut start = text.len().saturating_sub(KEPT);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }
}
