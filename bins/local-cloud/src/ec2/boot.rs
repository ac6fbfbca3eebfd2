//! Boot faults made true: which files, options and moments make a host's boot go wrong. What they do on the host is
//! real in each case: cloud-init, systemd and the kernel find what is written here, and behave as they do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Ec2;
use super::machine::Reachable;
use crate::error::Error;
use crate::faults::{Faults, Kind, Strike};
use crate::hosts::{HostInfo, HostState};
use crate::image::{Clock, Store};
use crate::log;
use crate::place::make_folder;
use crate::process::{capture, run, run_all};

/// Where `image/boot.sh` looks.
const FAULTS: &str = "etc/rehearsal-faults";
/// A script of cloud-init's last stage, run once per instance whatever the user data says.
const SCRIPT: &str = "var/lib/cloud/scripts/per-instance/50-rehearsal-fault";
/// Faked time for everything but the first process; the loader puts the architecture's folder for `$LIB`.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// What the initramfs of a real Debian says when it does not find its disk.
const NEVER_BOOTS: &str = "\
Begin: Running /scripts/local-block ... done.\n\
Gave up waiting for root file system device.  (rehearsal fault: never-boots)\n\
ALERT!  /dev/xvda1 does not exist.  Dropping to a shell!\n\
(initramfs) ";

/// Faults of a host's first boot. They stay on its disk.
const FIRST: [Kind; 7] = [
    Kind::DiskFull,
    Kind::ClockSkew,
    Kind::CloudInitError,
    Kind::CloudInitDegraded,
    Kind::CloudInitHang,
    Kind::CloudInitDisabled,
    Kind::NoCloudInit,
];

/// What goes wrong with a host from its first boot on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FirstBoot {
    strikes: BTreeMap<Kind, Strike>,
    /// How the host's image can have a wrong clock.
    clock: Option<Clock>,
}

impl FirstBoot {
    pub(super) fn draw(faults: &Faults, host: &HostInfo) -> Self {
        let strike = |kind| Some((kind, faults.strike(kind, Some(host))?));
        Self { strikes: FIRST.into_iter().filter_map(strike).collect(), clock: None }
    }

    fn has(&self, kind: Kind) -> bool {
        self.strikes.contains_key(&kind)
    }

    /// Whether the host's image has no cloud-init.
    pub(super) fn without_cloud_init(&self) -> bool {
        self.has(Kind::NoCloudInit)
    }

    /// Looks at the image where that decides how a fault is made true; says which one cannot be.
    pub(super) async fn settle(
        &mut self,
        id: &str,
        image: &str,
        store: &Store,
    ) -> Result<(), Error> {
        if self.has(Kind::ClockSkew) {
            self.clock = store.clock(image).await?;
            if self.clock.is_none() {
                log::line(format_args!(
                    "{id}: clock-skew cannot be made true: the image has no libfaketime"
                ));
                self.strikes.remove(&Kind::ClockSkew);
            }
        }
        Ok(())
    }

    /// Options of `docker create` beside the usual ones.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.has(Kind::DiskFull) {
            options.extend(["--device", "/dev/loop-control", "--device-cgroup-rule", "b 7:* rwm"]);
        }
        let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
        if self.has(Kind::ClockSkew) {
            // For commands run from outside. The first process drops it.
            for variable in self.fake_time() {
                options.extend(["--env".to_owned(), variable]);
            }
        }
        options
    }

    /// Files of the host, by path, with their modes.
    fn files(&self) -> Vec<(&'static str, String, u32)> {
        let mut files = Vec::new();
        for (kind, strike) in &self.strikes {
            match kind {
                Kind::DiskFull => {
                    files.push((
                        "etc/rehearsal-faults/disk-full",
                        format!("{}\n", strike.percent),
                        0o644,
                    ));
                }
                Kind::ClockSkew => {
                    let offset = format!("{:+}s\n", strike.seconds);
                    files.push(("etc/faketimerc", offset, 0o644));
                    let environment = self.fake_time().join(" ");
                    let manager = format!("[Manager]\nDefaultEnvironment={environment}\n");
                    files.push((
                        "etc/systemd/system.conf.d/50-rehearsal-clock.conf",
                        manager,
                        0o644,
                    ));
                    if self.clock == Some(Clock::Both) {
                        // The service manager's own daemons set their alarms by the time that it measures.
                        let text = "[Service]\nUnsetEnvironment=LD_PRELOAD\n";
                        let path = "etc/systemd/system/systemd-.service.d/50-rehearsal-clock.conf";
                        files.push((path, text.into(), 0o644));
                    }
                    // For `su` and `sudo`, which start with a clean environment.
                    files.push(("etc/environment", self.fake_time().join("\n") + "\n", 0o644));
                }
                Kind::CloudInitError => {
                    let text = "#!/bin/sh\necho 'E: rehearsal fault cloud-init-error: this step failed' >&2\nexit 1\n";
                    files.push((SCRIPT, text.into(), 0o755));
                }
                Kind::CloudInitHang => {
                    let text = "#!/bin/sh\necho 'rehearsal fault cloud-init-hang: waiting for what never comes'\nexec sleep infinity\n";
                    files.push((SCRIPT, text.into(), 0o755));
                }
                Kind::CloudInitDegraded => {
                    let text = "# rehearsal fault cloud-init-degraded: a file that is no YAML\nntp: [enabled\n";
                    files.push((
                        "etc/cloud/cloud.cfg.d/95-rehearsal-fault.cfg",
                        text.into(),
                        0o644,
                    ));
                }
                Kind::CloudInitDisabled => {
                    let text = "rehearsal fault cloud-init-disabled\n";
                    files.push(("etc/cloud/cloud-init.disabled", text.into(), 0o644));
                }
                _ => {}
            }
        }
        files
    }

    /// The environment in which programs find a wrong time.
    fn fake_time(&self) -> Vec<String> {
        let mut variables = vec![format!("LD_PRELOAD={FAKETIME}")];
        if self.clock != Some(Clock::Both) {
            // Older and newer versions name it differently.
            let measuring = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"];
            variables.extend(measuring.map(str::to_owned));
        }
        variables
    }
}

impl Ec2 {
    /// Puts what goes wrong from the first boot on into a host that has not started yet.
    pub(super) async fn spoil(&self, id: &str, first: &FirstBoot) -> Result<(), Error> {
        self.put_files(id, &first.files()).await
    }

    /// Before every boot: draws what goes wrong with this one, and changes the host's disk accordingly.
    pub(super) async fn before_boot(&self, id: &str) -> Result<(), Error> {
        let Some(host) = self.hosts.by_instance(id) else { return Ok(()) };
        let never = self.faults.strike(Kind::NeverBoots, Some(&host)).is_some();
        let before = {
            let mut machines = self.machines();
            let Some(machine) = machines.get_mut(id) else { return Ok(()) };
            machine.panicked = false;
            std::mem::replace(&mut machine.never_boots, never)
        };
        if before == never {
            return Ok(());
        }
        let text = if never { NEVER_BOOTS } else { "" };
        self.put_files(id, &[("etc/rehearsal-faults/never-boots", text.to_owned(), 0o644)]).await
    }

    /// After every start: sees to it that what happens later happens, unless this boot is over by then.
    pub(super) fn after_start(self: &Arc<Self>, id: &str) {
        let Some(host) = self.hosts.by_instance(id) else { return };
        let Some(boot) = self.machine(id).map(|machine| machine.boots) else { return };
        if let Some(strike) = self.faults.strike(Kind::KernelPanic, Some(&host)) {
            let (ec2, id) = (Arc::clone(self), id.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(strike.delay).await;
                ec2.panic(&id, boot, strike.delay).await;
            });
        }
        if let Some(strike) = self.faults.strike(Kind::HostReboot, Some(&host)) {
            let (ec2, id) = (Arc::clone(self), id.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(strike.delay).await;
                ec2.reboot_itself(&id, boot).await;
            });
        }
    }

    fn still(&self, id: &str, boot: u32) -> bool {
        self.state(id) == Some(HostState::Running)
            && self.machine(id).is_some_and(|machine| machine.boots == boot && !machine.panicked)
    }

    /// A panicked machine runs, as EC2 sees it, and nothing on it does: its console ends with the kernel's words, its
    /// network is silent. Only a reboot, or a stop and start, brings it back.
    async fn panic(&self, id: &str, boot: u32, after: Duration) {
        let Some(machine) = self.machine(id) else { return };
        // Its turn, or it would strike the boot that somebody asked for meanwhile.
        let _work = machine.work.lock().await;
        if !self.still(id, boot) {
            return;
        }
        let name = self.docker.container(id);
        let text = panic_text(after);
        let args = ["exec", "--interactive", &name, "/bin/sh", "-c", "cat >/dev/console"];
        if let Err(error) = capture("docker", args, Some(&text)).await {
            log::line(format_args!("{id}: {error}"));
        }
        self.set_reachable(id, boot, Reachable::Impaired);
        if let Some(machine) = self.machines().get_mut(id).filter(|machine| machine.boots == boot) {
            machine.panicked = true;
            // Nobody who watches this boot has anything to say any more.
            machine.boots += 1;
        }
        log::line(format_args!("{id} panicked"));
        if let Err(error) = run("docker", ["kill", &name], None).await {
            log::line(format_args!("{id}: {error}"));
        }
    }

    async fn reboot_itself(&self, id: &str, boot: u32) {
        let Some(machine) = self.machine(id) else { return };
        let _work = machine.work.lock().await;
        if !self.still(id, boot) {
            return;
        }
        log::line(format_args!("{id} reboots by itself"));
        if let Err(error) = self.docker.exec(id, &["systemctl", "reboot"]).await {
            log::line(format_args!("{id}: {error}"));
        }
    }

    /// Copies files into a container that does not run.
    async fn put_files(&self, id: &str, files: &[(&str, String, u32)]) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        if files.is_empty() {
            return Ok(());
        }
        let folder = tempfile::tempdir()
            .map_err(|error| Error::setup("cannot make a folder for the host's files", error))?;
        make_folder(&folder.path().join(FAULTS))?;
        for (path, text, mode) in files {
            let path = folder.path().join(path);
            if let Some(parent) = path.parent() {
                make_folder(parent)?;
            }
            std::fs::write(&path, text)
                .and_then(|()| {
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))
                })
                .map_err(|source| Error::File { doing: "write", path: path.clone(), source })?;
        }
        // By way of tar, which can say that the files are root's and leave the folders that there are as they are.
        let archive = folder.path().join("files.tar");
        let mut args = vec!["--create".to_owned(), format!("--file={}", archive.display())];
        args.extend(["--owner=0", "--group=0", "--numeric-owner"].map(str::to_owned));
        args.push(format!("--directory={}", folder.path().display()));
        args.extend(files.iter().map(|(path, ..)| (*path).to_owned()));
        run_all("tar", &args, None).await?;
        self.docker.copy_archive(id, &archive).await
    }
}

/// As a kernel says it (`kernel/panic.c`), and that it is a rehearsal.
fn panic_text(after: Duration) -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let at = format!("[{:>12.6}]", after.as_secs_f64());
    format!(
        "\r\n{at} Kernel panic - not syncing: Fatal exception in interrupt (rehearsal fault: kernel-panic)\r\n\
         {at} CPU: 0 PID: 0 Comm: swapper/0 Not tainted {}\r\n\
         {at} ---[ end Kernel panic - not syncing: Fatal exception in interrupt (rehearsal fault: kernel-panic) ]---\r\n",
        release.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Spec;

    fn host(role: &str) -> HostInfo {
        HostInfo {
            instance_id: format!("i-{role}"),
            name: None,
            private_ip: "10.32.1.4".parse().expect("address"),
            state: HostState::Pending,
            tags: BTreeMap::from([("Role".into(), role.into())]),
            launched: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_first_boot_has_the_faults_of_its_scope_and_no_others() {
        let faults = Faults::default();
        assert_eq!(FirstBoot::draw(&faults, &host("db")), FirstBoot::default());
        let spec = Spec { host: Some("tag:Role=db".into()), ..Spec::of(Kind::CloudInitHang) };
        faults.add(spec).expect("a fault");
        let first = FirstBoot::draw(&faults, &host("db"));
        assert_eq!(first.files().len(), 1);
        assert!(first.options().is_empty());
        assert_eq!(FirstBoot::draw(&faults, &host("web")), FirstBoot::default());
    }

    #[test]
    fn a_clock_may_be_behind() {
        let faults = Faults::default();
        faults.add(Spec { seconds: Some(-90), ..Spec::of(Kind::ClockSkew) }).expect("a fault");
        let first = FirstBoot::draw(&faults, &host("db"));
        assert!(first.files().contains(&("etc/faketimerc", "-90s\n".into(), 0o644)));
        assert!(first.options().iter().any(|option| option.starts_with("LD_PRELOAD=")));
    }

    #[test]
    fn every_first_fault_changes_something() {
        for kind in FIRST {
            let faults = Faults::default();
            faults.add(Spec::of(kind)).expect("a fault");
            let first = FirstBoot::draw(&faults, &host("db"));
            assert!(!first.files().is_empty() || first.without_cloud_init(), "{kind:?}");
        }
    }

    #[test]
    fn a_panic_is_one_for_whoever_looks_for_the_kernels_words() {
        assert!(panic_text(Duration::from_secs(2)).contains("Kernel panic - not syncing"));
    }
}
