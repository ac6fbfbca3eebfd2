//! The waiting: rounds of batched calls until every host is judged, one has failed for good, or the deadline passes.

use crate::aws::{Aws, Invocation, InvocationState, SSM_IDS};
use crate::host::{Agent, Checks, Console, HostWait};
use crate::probe::{self, WINDOW};
use crate::quote;
use crate::repeats::Repeats;
use crate::report;
use crate::{Args, Error, StatusChecks};
use deploy_cli::Context;
use futures_util::future::join_all;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Between two rounds after something changed.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between two rounds when nothing changes; a verdict comes this much after the truth, and the way of an answer.
const LONGEST: Duration = Duration::from_secs(3);
/// How often EC2 is asked again about an instance that was running with good checks.
const RECHECK: Duration = Duration::from_secs(5);
/// The first window on a host, so that its stage is known soon.
const FIRST_WINDOW: Duration = Duration::from_secs(2);
/// Probes that are out are cancelled within this time: the deadline is overrun by less than 1 s, a signal answered
/// within 2 s (GitHub kills a cancelled step after 7.5 s).
const CANCELLING: Duration = Duration::from_millis(700);
/// An answer may come so long after its host's own waiting: a host that boots can be very busy.
const LISTENING: Duration = Duration::from_secs(180);
/// So long before the deadline the consoles of silent hosts are read, to say why.
const EXPLAINING: Duration = Duration::from_secs(4);
/// The consoles of so many hosts are read; more of them rarely have more than one cause.
const CONSOLES: usize = 8;

/// One probe that some hosts have not answered yet.
#[derive(Debug)]
struct Probe {
    command: String,
    ids: BTreeSet<String>,
    /// When its hosts stop waiting for their cloud-init: they are asked again by then, so that nobody waits in between.
    again: Instant,
    /// When it counts as lost; a late answer counts all the same.
    overdue: Instant,
    /// When it is forgotten.
    expires: Instant,
    /// Whether it was overdue.
    late: bool,
}

/// A wait in progress.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    args: &'a Args,
    ctx: &'a Context,
    aws: &'a Aws,
    region: String,
    pub(crate) hosts: Vec<HostWait>,
    probes: Vec<Probe>,
    start: Instant,
    deadline: Instant,
    /// When EC2 was last asked about instances whose checks were good.
    rechecked: Instant,
    /// Whether a whole round of calls was answered.
    heard: bool,
    /// The error of the last round, if that one failed.
    failed_call: Option<deploy_aws::Error>,
    repeats: Repeats,
    failed_at: Option<Instant>,
    /// When the consoles of silent hosts are read; `None` when they were.
    explain_at: Option<Instant>,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(
        args: &'a Args,
        ctx: &'a Context,
        aws: &'a Aws,
        region: String,
        hosts: Vec<HostWait>,
    ) -> Self {
        let start = Instant::now();
        let deadline = start + args.timeout;
        let (probes, heard, failed_at) = (Vec::new(), false, None);
        let explain_at = Some(deadline - EXPLAINING.min(args.timeout / 3));
        Self {
            args,
            ctx,
            aws,
            region,
            hosts,
            probes,
            start,
            deadline,
            rechecked: start,
            heard,
            failed_call: None,
            repeats: Repeats::default(),
            failed_at,
            explain_at,
        }
    }

    /// Runs until every host has its finding.
    pub(crate) async fn run(&mut self) -> Result<(), Error> {
        let mut pause = SHORTEST;
        loop {
            let before: Vec<String> = self.hosts.iter().map(HostWait::words).collect();
            match timeout_at(self.deadline, self.round()).await {
                Err(_) => return self.expire(),
                Ok(Ok(())) => {
                    self.heard = true;
                    self.failed_call = None;
                }
                Ok(Err(Error::Aws(error @ deploy_aws::Error::Unavailable { .. }))) => {
                    // Nobody is there: no region, no route, the rehearsal cloud is down.
                    if !self.heard && error.code().is_none() {
                        return Err(error.into());
                    }
                    if let Some(words) = self.repeats.words(&error, Instant::now()) {
                        self.ctx.progress().warn(&words);
                    }
                    self.failed_call = Some(error);
                }
                Ok(Err(error)) => return Err(error),
            }
            self.judge();
            if self.hosts.iter().all(|host| host.finding.is_some()) {
                return Ok(());
            }
            let until = self
                .failed_at
                .map(|at| at + self.args.linger)
                .map_or(self.deadline, |end| end.min(self.deadline));
            if Instant::now() >= until {
                return if until == self.deadline { self.expire() } else { self.abandon() };
            }
            let changed =
                before.iter().ne(self.hosts.iter().map(HostWait::words).collect::<Vec<_>>().iter());
            pause = if changed { SHORTEST } else { pause.mul_f64(1.5).min(LONGEST) };
            self.ctx.progress().heartbeat(|| report::standing(&self.hosts));
            if self.explain_at.is_some_and(|at| Instant::now() >= at) {
                self.explain_at = None;
                // What takes longer than the deadline is not said.
                let _ = timeout_at(self.deadline, self.read_consoles()).await;
            }
            let now = Instant::now();
            let again = self.probes.iter().map(|probe| probe.again).filter(|at| *at > now);
            let wake = again.chain(self.explain_at).chain([until, now + pause]).min();
            sleep_until(wake.unwrap_or(until)).await;
        }
    }

    /// Ends the wait for hosts without a finding, because somebody stopped it.
    pub(crate) fn abandon(&mut self) -> Result<(), Error> {
        let now = Timestamp::now();
        self.hosts.iter_mut().for_each(|host| host.abandon(now));
        Ok(())
    }

    /// Ends the wait at its deadline.
    fn expire(&mut self) -> Result<(), Error> {
        if !self.hosts.iter().any(|host| host.ec2_answered) {
            return Err(self.failed_call.take().unwrap_or_else(|| self.no_answer()).into());
        }
        self.refuse_unknown()?;
        let now = Timestamp::now();
        let failed = self.failed_call.as_ref().map(|error| quote::message(&error.to_string()));
        self.hosts.iter_mut().for_each(|host| host.expire(now, failed.as_deref()));
        Ok(())
    }

    /// The first call was still being repeated when the deadline passed.
    fn no_answer(&self) -> deploy_aws::Error {
        deploy_aws::Error::Unavailable {
            operation: "ec2:DescribeInstances",
            code: None,
            message: format!("none within {}", deploy_cli::human(self.args.timeout)),
        }
    }

    /// An error when EC2 answered and does not know an instance.
    fn refuse_unknown(&self) -> Result<(), Error> {
        let unknown = self.hosts.iter().filter(|host| host.ec2_answered && host.instance.is_none());
        let instances: Vec<String> =
            unknown.map(|host| format!("`{}` (host `{}`)", host.id, host.name)).collect();
        if instances.is_empty() {
            return Ok(());
        }
        Err(Error::Unknown { region: self.region.clone(), instances })
    }

    /// Stops the probes that are still out. What cannot be cancelled ends by itself and changes nothing on the host.
    pub(crate) async fn cancel_probes(&mut self) {
        let probes = std::mem::take(&mut self.probes);
        let cancelling = join_all(probes.iter().map(async |probe| {
            if let Err(error) = self.aws.cancel(&probe.command).await {
                self.ctx.progress().warn(&format!(
                    "the probe {} could not be cancelled; it ends by itself: {error}",
                    probe.command
                ));
            }
        }));
        if timeout(CANCELLING, cancelling).await.is_err() {
            let commands: Vec<&str> = probes.iter().map(|probe| probe.command.as_str()).collect();
            self.ctx.progress().warn(&format!(
                "not cancelled in time, they end by themselves: {}",
                commands.join(", ")
            ));
        }
    }

    /// Reads the consoles of hosts whose agent is not there: nothing else can be seen of them. A refusal is no error of
    /// the wait, but is named in their findings.
    async fn read_consoles(&mut self) {
        let ids: Vec<String> = self
            .hosts
            .iter()
            .filter(|host| host.is_silent())
            .map(|host| host.id.clone())
            .take(CONSOLES)
            .collect();
        let consoles = join_all(ids.iter().map(|id| self.aws.console(id))).await;
        for (id, console) in ids.iter().zip(consoles) {
            if let Some(host) = self.host(id) {
                host.console = match console {
                    Ok(lines) => Console::Tail(lines),
                    Err(error) => Console::Unreadable(error.to_string()),
                };
            }
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        self.collect().await?;
        self.look_at_instances().await?;
        self.look_at_agents().await?;
        self.ask().await
    }

    fn judge(&mut self) {
        let checks_count = self.args.status_checks == StatusChecks::Wait;
        for host in &mut self.hosts {
            if host.finding.is_none() {
                host.decide(checks_count);
                if host.finding.is_some() {
                    host.decided_after = Some(self.start.elapsed());
                }
            }
            let failed =
                host.finding.as_ref().is_some_and(|finding| report::fails(finding, self.args));
            match host.finding {
                Some(_) => self.ctx.progress().settled(&host.name, !failed, &host.words()),
                None => self.ctx.progress().subject(&host.name, &host.words()),
            }
            if failed && self.failed_at.is_none() {
                self.failed_at = Some(Instant::now());
            }
        }
    }

    fn ids(&self, chosen: impl Fn(&HostWait) -> bool) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|host| host.finding.is_none() && chosen(host));
        hosts.map(|host| host.id.clone()).collect()
    }

    fn host(&mut self, id: &str) -> Option<&mut HostWait> {
        self.hosts.iter_mut().find(|host| host.id == id)
    }

    async fn look_at_instances(&mut self) -> Result<(), Error> {
        self.describe(self.ids(|host| !host.is_running())).await?;
        if self.start.elapsed() >= self.args.unknown_grace {
            self.refuse_unknown()?;
        }
        let all = self.rechecked.elapsed() >= RECHECK;
        let running = self.ids(|host| host.is_running() && (all || host.checks != Checks::Ok));
        if all {
            self.rechecked = Instant::now();
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut left = Vec::new();
        for (id, (state, checks)) in self.aws.statuses(&running).await? {
            if let Some(host) = self.host(&id) {
                host.checks = checks;
                if state != "running" {
                    left.push(id);
                }
            }
        }
        // Only this call says why an instance left its state.
        self.describe(left).await
    }

    async fn describe(&mut self, ids: Vec<String>) -> Result<(), Error> {
        if !ids.is_empty() {
            let now = Timestamp::now();
            let found = self.aws.instances(&ids).await?;
            for host in self.hosts.iter_mut().filter(|host| ids.contains(&host.id)) {
                host.ec2_answered = true;
            }
            for (id, instance) in found {
                if let Some(host) = self.host(&id) {
                    host.saw_instance(instance, now);
                }
            }
        }
        Ok(())
    }

    fn is_asked(&self, id: &str) -> bool {
        let now = Instant::now();
        let mut asked = self.probes.iter().rev().filter(|probe| probe.ids.contains(id));
        match (asked.next(), asked.next()) {
            (None, _) => false,
            (Some(only), None) => now < only.again,
            // A host that is too busy to answer is not asked more and more.
            (Some(newest), Some(_)) => now < newest.overdue,
        }
    }

    async fn look_at_agents(&mut self) -> Result<(), Error> {
        let ids = self.ids(|host| {
            host.is_running()
                && host.agent != Agent::Online
                && !host.is_settled()
                && !self.is_asked(&host.id)
        });
        if ids.is_empty() {
            return Ok(());
        }
        let mut found = self.aws.agents(&ids).await?;
        let now = Timestamp::now();
        for id in ids {
            let agent = found.remove(&id).unwrap_or_default();
            if let Some(host) = self.host(&id) {
                host.saw_agent(agent, now);
            }
        }
        Ok(())
    }

    /// Asks the hosts whose agent is online and that have nothing to answer yet.
    async fn ask(&mut self) -> Result<(), Error> {
        let ids = self.ids(|host| {
            host.is_running()
                && host.agent == Agent::Online
                && !host.is_settled()
                && !self.is_asked(&host.id)
        });
        for some in ids.chunks(SSM_IDS) {
            if !self.send(some).await? && some.len() > 1 {
                // One of them is not taken; the others must not wait for it.
                for id in some {
                    self.send(std::slice::from_ref(id)).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether Systems Manager took it.
    async fn send(&mut self, ids: &[String]) -> Result<bool, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let asked = || self.hosts.iter().filter(|host| ids.contains(&host.id));
        let fresh = asked().any(|host| host.reading.is_none());
        let window = if fresh { FIRST_WINDOW } else { WINDOW }.min(left).max(SHORTEST);
        let patience = asked().map(HostWait::patience).max().unwrap_or_default();
        let now = Instant::now();
        let again = now + window;
        let (overdue, expires) = (again + patience, again + LISTENING);
        match self.aws.send(ids, &probe::script(window), window + LISTENING).await? {
            Some(command) => {
                let ids = ids.iter().cloned().collect();
                self.probes.push(Probe { command, ids, again, overdue, expires, late: false });
                Ok(true)
            }
            None => {
                if let [id] = ids
                    && let Some(host) = self.host(id)
                {
                    host.lost_probe("Systems Manager does not take commands for it");
                }
                Ok(false)
            }
        }
    }

    /// Takes in the answers that have come.
    async fn collect(&mut self) -> Result<(), Error> {
        for at in 0..self.probes.len() {
            let command = self.probes[at].command.clone();
            for invocation in self.aws.invocations(&command).await? {
                self.answer(at, &command, invocation).await?;
            }
            let probe = &mut self.probes[at];
            if !probe.late && Instant::now() >= probe.overdue {
                probe.late = true;
                for id in probe.ids.clone() {
                    if let Some(host) = self.host(&id) {
                        host.lost_probe("no answer came in time");
                    }
                }
            }
        }
        let hosts = &self.hosts;
        let now = Instant::now();
        self.probes.retain_mut(|probe| {
            probe.ids.retain(|id| {
                hosts
                    .iter()
                    .any(|host| host.id == *id && host.finding.is_none() && !host.is_settled())
            });
            !probe.ids.is_empty() && now < probe.expires
        });
        Ok(())
    }

    async fn answer(
        &mut self,
        at: usize,
        command: &str,
        invocation: Invocation,
    ) -> Result<(), Error> {
        let Invocation { id, state, output } = invocation;
        if state == InvocationState::Waiting || !self.probes[at].ids.contains(&id) {
            return Ok(());
        }
        let mut reading = probe::parse(&output);
        if reading.is_none() && state == InvocationState::Ended {
            reading = probe::parse(&self.aws.whole_output(command, &id).await?);
        }
        self.probes[at].ids.remove(&id);
        let late = self.probes[at].late;
        let Some(host) = self.host(&id) else { return Ok(()) };
        match (reading, state) {
            (Some(reading), _) => host.saw_reading(reading),
            // Its host has been asked again.
            (None, _) if late => {}
            (None, InvocationState::Lost(words)) => host.lost_probe(&words),
            (None, InvocationState::Failed(words)) => host.failed_probe(&words),
            (None, _) => host.failed_probe("its answer cannot be read"),
        }
        Ok(())
    }
}
