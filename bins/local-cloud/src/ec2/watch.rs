//! What hosts do by themselves: come up, reboot, power off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Ec2;
use super::launch::is_alive;
use super::machine::Reachable;
use super::reason::{Change, Reason};
use crate::engine::Death;
use crate::error::Error;
use crate::hosts::HostState;
use crate::log;
use crate::process::last_lines;

/// How a container ends when its own service manager reboots: by SIGHUP (`reboot(2)`, in a PID namespace).
const ENDED_BY_REBOOT: &str = "129";
/// How a container ends when its own service manager powers off: by SIGINT. Any other end is its first process's own.
const ENDED_BY_POWER_OFF: &str = "130";
/// How often a booting host is looked at; one look is a look at a file.
const LOOK: Duration = Duration::from_millis(200);

impl Ec2 {
    /// Watches a boot that has just begun, until it is over or the host is up.
    pub(super) fn watch_boot(self: &Arc<Self>, id: &str, pid: u32) {
        let (ec2, id) = (Arc::clone(self), id.to_owned());
        let boot = {
            let mut machines = self.machines();
            let Some(machine) = machines.get_mut(&id) else { return };
            machine.end_boot();
            machine.boots
        };
        tokio::spawn(async move {
            let begun = Instant::now();
            let patience = ec2.settings.timing.impaired;
            let mut told = false;
            while !is_up(pid) {
                tokio::time::sleep(LOOK).await;
                if ec2.machine(&id).is_none_or(|machine| machine.boots != boot) {
                    return;
                }
                if !told && begun.elapsed() > patience {
                    told = true;
                    ec2.set_reachable(&id, boot, Reachable::Impaired);
                }
            }
            ec2.set_reachable(&id, boot, Reachable::Ok);
        });
    }

    pub(super) fn set_reachable(&self, id: &str, boot: u32, reachable: Reachable) {
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(id).filter(|machine| machine.boots == boot) else {
            return;
        };
        machine.reachable = reachable;
        machine.impaired_since = (reachable == Reachable::Impaired).then(jiff::Timestamp::now);
        drop(machines);
        let said = if reachable == Reachable::Ok { "is reachable" } else { "did not come up" };
        log::line(format_args!("{id} {said}"));
    }

    /// Follows hosts that end by themselves: a reboot boots them again, a power-off stops or terminates the instance.
    pub async fn watch_hosts(self: Arc<Self>) -> Result<(), Error> {
        let (tell, mut deaths) = mpsc::unbounded_channel();
        let label = self.docker.label();
        let handled = async {
            while let Some(Death { instance_id, status }) = deaths.recv().await {
                let ec2 = Arc::clone(&self);
                tokio::spawn(async move { ec2.ended_by_itself(&instance_id, &status).await });
            }
            std::future::pending::<Error>().await
        };
        Err(tokio::select! {
            error = self.engine.deaths(&label, tell) => error,
            never = handled => never,
        })
    }

    async fn ended_by_itself(self: &Arc<Self>, id: &str, status: &str) {
        let by_itself = |machine: &super::machine::Machine| !machine.rebooting && !machine.panicked;
        let runs = || {
            self.state(id) == Some(HostState::Running)
                && self.machine(id).is_some_and(|machine| by_itself(&machine))
        };
        // Before waiting for its turn: what holds the turn now may be what ended it.
        if !runs() {
            return;
        }
        let Some(machine) = self.machine(id) else { return };
        let work = machine.work.lock().await;
        if !runs() || self.runs_again(id).await {
            return;
        }
        if status == ENDED_BY_REBOOT {
            log::line(format_args!("{id} reboots by itself"));
            return self.boot_again(id).await;
        }
        if status == ENDED_BY_POWER_OFF {
            log::line(format_args!("{id} powered itself off"));
        } else {
            let said = last_lines(&self.console(id).await, 2);
            log::line(format_args!("{id} ended with status {status}: {said}"));
        }
        self.end_boot(id);
        self.set_reason(id, Some(Reason::instance()));
        let behaviour = self.attribute(id, "instanceInitiatedShutdownBehavior").await;
        if matches!(&behaviour, Ok(Some(text)) if text == "terminate") {
            drop(work);
            if self.advance(id, HostState::Running, HostState::ShuttingDown) {
                // Protection holds for calls, not for the host itself (user guide, "Change termination protection").
                self.unprotect(id).await;
                self.tell_or_log(Change::Terminate, id).await;
                self.terminate(id).await;
            }
            return;
        }
        self.tell_or_log(Change::Stop, id).await;
        if self.advance(id, HostState::Running, HostState::Stopping) {
            self.advance(id, HostState::Stopping, HostState::Stopped);
        }
        drop(work);
        self.refresh_or_log(id).await;
    }

    async fn runs_again(&self, id: &str) -> bool {
        let container = self.engine.inspect(&self.docker.container(id)).await;
        container.is_ok_and(|found| found.is_some_and(|found| found.running))
    }
}

/// Whether a host's service manager has come so far that services can be reached: its message bus listens, which
/// `basic.target` waits for. Where there is none, that the manager itself answers.
fn is_up(pid: u32) -> bool {
    if !is_alive(pid) {
        return false;
    }
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let there = |path: &str| root.join(path).symlink_metadata().is_ok();
    let bus = ["usr/lib/systemd/system/dbus.socket", "lib/systemd/system/dbus.socket"];
    if bus.iter().any(|unit| there(unit)) {
        there("run/dbus/system_bus_socket")
    } else {
        there("run/systemd/private")
    }
}
