//! The life of an instance after its launch: start, stop, reboot, terminate, and its end in the lists.
//!
//! A call changes the state at once and is answered; a task of its own makes it true. What works on one container
//! waits for its turn ([`super::machine::Machine::work`]) and then looks whether the state still asks for it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use jiff::Timestamp;
use tokio::time::Instant;

use super::answers::{self, Refusal};
use super::reason::{Change, Reason, unknown};
use super::{Ec2, Request};
use crate::hosts::HostState;
use crate::log;
use crate::operation::Form;

impl Ec2 {
    /// Start, stop, reboot and terminate: all instances of a call or none, answered at once.
    pub(super) async fn change_states(
        self: &Arc<Self>,
        change: Change,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        if request.region != self.settings.region {
            return Ok(self.pass(request).await?.into_response());
        }
        let mut ids: Vec<String> = Vec::new();
        for id in request.form.list("InstanceId") {
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
        let missing: Vec<&str> =
            ids.iter().map(String::as_str).filter(|id| self.state(id).is_none()).collect();
        if !missing.is_empty() {
            return Err(unknown(&missing));
        }
        let mut changes = Vec::new();
        for id in &ids {
            let before = self.state(id).unwrap_or(HostState::Terminated);
            let ran_before = self.machine(id).is_some_and(|machine| machine.ran_before);
            changes.push((id.clone(), before, change.next(id, before, ran_before)?));
        }
        let _turn = if change == Change::Start { Some(self.quota.turn().await) } else { None };
        if change == Change::Start {
            let starting = changes.iter().filter(|(_, _, next)| next.is_some());
            self.start_within_quota(&starting.map(|(id, ..)| id.as_str()).collect::<Vec<_>>())
                .await?;
        }
        let refusal = self.unprotected(change, &mut changes).await?;
        let asked =
            changes.iter().filter_map(|(id, _, next)| next.is_some().then_some(id.as_str()));
        self.tell(change, asked).await?;
        let now = Timestamp::now();
        for (id, _, next) in &changes {
            if let Some(next) = *next {
                self.begin_change(change, id, next, now);
            }
        }
        if change == Change::Start && changes.iter().any(|(_, _, next)| next.is_some()) {
            // A new public address leads there before the host is up.
            self.refresh().await?;
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let shown: Vec<(String, HostState, HostState)> = changes
            .into_iter()
            .map(|(id, before, next)| (id, before, next.unwrap_or(before)))
            .collect();
        Ok(answers::state_changes(change, &shown))
    }

    fn begin_change(self: &Arc<Self>, change: Change, id: &str, next: HostState, now: Timestamp) {
        let reason = match change {
            Change::Stop | Change::Terminate => Some(Reason::user(now)),
            Change::Start | Change::Reboot => None,
        };
        if change != Change::Reboot {
            self.set_reason(id, reason);
            self.set_state(id, next);
        }
        if change == Change::Start {
            // "The time that the instance was last launched" (API reference, `Instance`).
            self.hosts.update(id, |host| host.launched = now);
        }
        let (ec2, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            match change {
                Change::Start => ec2.start(&id).await,
                Change::Stop => ec2.stop(&id).await,
                Change::Reboot => ec2.reboot(&id).await,
                Change::Terminate => ec2.terminate(&id).await,
            }
        });
    }

    /// Takes out what must not be changed, and gives the refusal. A protected instance protects those of its zone in the
    /// same call; the others of the call are terminated (API reference, `TerminateInstances`).
    async fn unprotected(
        &self,
        change: Change,
        changes: &mut [(String, HostState, Option<HostState>)],
    ) -> Result<Option<Refusal>, Refusal> {
        let attributes: &[&str] = match change {
            Change::Stop => &["disableApiStop"],
            // "Stop protection also protects your instance from accidental termination" (user guide).
            Change::Terminate => &["disableApiTermination", "disableApiStop"],
            Change::Start | Change::Reboot => return Ok(None),
        };
        let mut refusal = None;
        let mut zones = Vec::new();
        for (id, ..) in changes.iter().filter(|(_, _, next)| next.is_some()) {
            for attribute in attributes {
                if self.attribute(id, attribute).await?.as_deref() != Some("true") {
                    continue;
                }
                let done = if change == Change::Stop { "stopped" } else { "terminated" };
                let message = format!(
                    "The instance '{id}' may not be {done}. Modify its '{attribute}' instance attribute and try again."
                );
                let new = Refusal::client("OperationNotPermitted", message);
                if change == Change::Stop {
                    return Err(new);
                }
                zones.push(self.machine(id).map(|machine| machine.seen.zone).unwrap_or_default());
                refusal.get_or_insert(new);
            }
        }
        for (id, _, next) in changes {
            if self.machine(id).is_none_or(|machine| zones.contains(&machine.seen.zone)) {
                *next = None;
            }
        }
        Ok(refusal)
    }

    /// An attribute of an instance, as the emulator keeps it.
    pub(super) async fn attribute(&self, id: &str, name: &str) -> Result<Option<String>, Refusal> {
        let form = Form::new([
            ("Action", "DescribeInstanceAttribute"),
            ("Version", "2016-11-15"),
            ("InstanceId", id),
            ("Attribute", name),
        ]);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        Ok(root.text_at(&[name, "value"]))
    }

    /// Tells the emulator of a change.
    async fn tell(&self, change: Change, ids: impl Iterator<Item = &str>) -> Result<(), Refusal> {
        let mut form = Form::new([("Action", change.name()), ("Version", "2016-11-15")]);
        let mut any = false;
        for (number, id) in ids.enumerate() {
            form.push(format!("InstanceId.{}", number + 1), id);
            any = true;
        }
        if any {
            self.upstream.ask("ec2", &self.settings.region, &form).await?;
        }
        Ok(())
    }

    async fn start(self: &Arc<Self>, id: &str) {
        let begun = Instant::now();
        let Some(machine) = self.machine(id) else { return };
        let started = {
            let _work = machine.work.lock().await;
            let Ok(_place) = self.launching.acquire().await else { return };
            if self.state(id) != Some(HostState::Pending) {
                return;
            }
            self.start_container(id).await
        };
        let started = match started {
            Ok(()) => self.run(id, begun).await,
            Err(error) => Err(error),
        };
        let Err(error) = started else { return };
        log::line(format_args!("{id} cannot be started: {error}"));
        if self.state(id) != Some(HostState::Pending) {
            return;
        }
        self.tell_or_log(Change::Stop, id).await;
        self.set_reason(id, Some(Reason::failed(&error.to_string())));
        self.advance(id, HostState::Pending, HostState::Stopped);
        self.refresh_or_log(id).await;
    }

    async fn stop(&self, id: &str) {
        let begun = Instant::now();
        let Some(machine) = self.machine(id) else { return };
        {
            let _work = machine.work.lock().await;
            if self.state(id) != Some(HostState::Stopping) {
                return;
            }
            self.end_boot(id);
            self.shut_down(id).await;
        }
        tokio::time::sleep_until(begun + self.settings.timing.stopping).await;
        self.advance(id, HostState::Stopping, HostState::Stopped);
        self.refresh_or_log(id).await;
    }

    async fn shut_down(&self, id: &str) {
        let patience = self.settings.timing.shutdown_patience;
        if let Err(error) = self.engine.stop(&self.docker.container(id), patience).await {
            log::line(format_args!("{id}: {error}"));
        }
    }

    async fn reboot(self: &Arc<Self>, id: &str) {
        let Some(machine) = self.machine(id) else { return };
        let _work = machine.work.lock().await;
        if self.state(id) != Some(HostState::Running) {
            return;
        }
        log::line(format_args!("{id} reboots"));
        self.set_rebooting(id, true);
        self.shut_down(id).await;
        self.boot_again(id).await;
        self.set_rebooting(id, false);
    }

    /// Boots a host that runs, as EC2 sees it, and has ended. Whoever calls it holds the host's turn.
    pub(super) async fn boot_again(self: &Arc<Self>, id: &str) {
        self.end_boot(id);
        if self.state(id) != Some(HostState::Running) {
            return;
        }
        let booted = match self.start_container(id).await {
            Ok(()) => self.settle(id).await,
            Err(error) => Err(error),
        };
        match booted {
            Ok(pid) => {
                self.watch_boot(id, pid);
                self.after_start(id);
            }
            Err(error) => {
                log::line(format_args!("{id} does not come back: {error}"));
                self.watch_boot(id, 0);
            }
        }
    }

    fn set_rebooting(&self, id: &str, rebooting: bool) {
        if let Some(machine) = self.machines().get_mut(id) {
            machine.rebooting = rebooting;
        }
    }

    pub(super) fn end_boot(&self, id: &str) {
        if let Some(machine) = self.machines().get_mut(id) {
            machine.end_boot();
        }
    }

    /// Ends an instance that is `shutting-down`.
    pub(super) async fn terminate(self: &Arc<Self>, id: &str) {
        let begun = Instant::now();
        let Some(machine) = self.machine(id) else { return };
        self.end_boot(id);
        {
            let _work = machine.work.lock().await;
            self.shut_down(id).await;
            let console = self.console(id).await;
            if let Err(error) = self.engine.remove(&self.docker.container(id)).await {
                log::line(format_args!("{id}: {error}"));
            }
            if let Some(machine) = self.machines().get_mut(id) {
                machine.last_console = Some(console);
            }
        }
        tokio::time::sleep_until(begun + self.settings.timing.shutting_down).await;
        self.advance(id, HostState::ShuttingDown, HostState::Terminated);
        self.refresh_or_log(id).await;
        let (ec2, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(ec2.settings.timing.listed).await;
            ec2.forget(&id).await;
        });
    }

    /// Takes an instance out of all lists.
    pub(super) async fn forget(&self, id: &str) {
        self.gone.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id.to_owned());
        self.machines().remove(id);
        self.hosts.remove(id);
        self.tell_emulator(&format!("forget {id}")).await;
        log::line(format_args!("{id} is not listed any more"));
    }

    /// Whether an instance was terminated so long ago that nothing lists it.
    pub(super) fn vanished(&self, id: &str) -> bool {
        self.gone.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(id)
    }

    /// Ids that a request names and that are in no list any more.
    pub(super) fn refuse_vanished(&self, form: &Form) -> Result<(), Refusal> {
        let named = form.list("InstanceId").into_iter().chain(form.get("InstanceId"));
        let gone: Vec<&str> = named.filter(|id| self.vanished(id)).collect();
        if gone.is_empty() { Ok(()) } else { Err(unknown(&gone)) }
    }

    pub(super) async fn refresh_or_log(&self, id: &str) {
        if let Err(refusal) = self.refresh().await {
            log::line(format_args!("{id}: {}", refusal.message));
        }
    }

    pub(super) async fn tell_or_log(&self, change: Change, id: &str) {
        if let Err(refusal) = self.tell(change, std::iter::once(id)).await {
            log::line(format_args!("{id}: {}", refusal.message));
        }
    }
}
