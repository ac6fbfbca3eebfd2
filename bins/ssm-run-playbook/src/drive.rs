//! Sends the run to all hosts, feeds the bundle to those that lack it, waits, collects what they answer, and stops
//! everything when the person or the clock says so. Every invocation is judged by itself.

use crate::error::Error;
use crate::plan::Plan;
use crate::recap::{self, Missing, Recap, State, TaskResult};
use crate::script;
use crate::ssm::{CONSISTENCY, IDS_PER_CALL, Invocation, Order, Ssm};
use deploy_cli::{Context, Exit, human};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// After the deadline a host has this long to end Ansible and to answer.
const DEADLINE_GRACE: Duration = Duration::from_secs(20);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Small side commands: parts of a bundle, progress, slices of a log.
const SIDE_EXECUTION: Duration = Duration::from_secs(60);
const SIDE_DELIVERY: Duration = Duration::from_secs(60);
/// Polling goes on through an outage of this length; hosts do not notice it.
const OUTAGE: Duration = Duration::from_secs(120);
/// GitHub sends SIGTERM 7.5 s after SIGINT.
const CANCEL_BUDGET: Duration = Duration::from_secs(3);
const CANCEL_WATCH: Duration = Duration::from_secs(3);

/// How one host ended.
#[derive(Debug)]
pub(crate) struct HostEnd {
    pub(crate) name: String,
    pub(crate) ending: Ending,
    pub(crate) elapsed: Duration,
    pub(crate) results: Vec<TaskResult>,
    pub(crate) events: Option<String>,
    pub(crate) log: Option<String>,
}

/// What is known of a host at the end.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// It answered.
    Recap(Box<Recap>),
    /// It ran or may have run, and no whole answer came back.
    NoResult(String),
    /// It never ran.
    NotDelivered(String),
    /// No answer came before the deadline.
    TimedOut(String),
    /// A signal stopped this tool.
    Stopped(String),
}

/// How the run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// In the inventory's order.
    pub(crate) hosts: Vec<HostEnd>,
    /// The signal that ended it.
    pub(crate) stopped: Option<Exit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run { with_bundle: bool },
    Part,
    Progress,
}

#[derive(Debug, Clone)]
struct Call {
    command: String,
    kind: Kind,
    waiting: BTreeSet<String>,
    sent: Instant,
}

#[derive(Debug, Clone)]
struct End {
    ending: Ending,
    command: String,
    elapsed: Duration,
}

/// One run over all hosts.
#[derive(Debug)]
pub(crate) struct Drive<'a> {
    ctx: &'a Context,
    plan: &'a Plan,
    ssm: Ssm,
    start: Instant,
    numbers: Cell<u32>,
    /// The comment of a SendCommand whose reply is not here yet.
    sending: RefCell<Option<String>>,
    calls: RefCell<Vec<Call>>,
    ends: RefCell<BTreeMap<String, End>>,
    /// The last that is known of a running host.
    seen: RefCell<BTreeMap<String, String>>,
    /// Hosts whose agent took the command.
    started: RefCell<BTreeSet<String>>,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(ctx: &'a Context, plan: &'a Plan, ssm: Ssm) -> Self {
        Self {
            ctx,
            plan,
            ssm,
            start: Instant::now(),
            numbers: Cell::default(),
            sending: RefCell::default(),
            calls: RefCell::default(),
            ends: RefCell::default(),
            seen: RefCell::default(),
            started: RefCell::default(),
        }
    }

    pub(crate) async fn run(self) -> Result<Outcome, Error> {
        let until = self.start + self.plan.timeout + DEADLINE_GRACE;
        let result = tokio::select! {
            exit = self.ctx.stopped() => return Ok(self.stop(exit).await),
            result = timeout_at(until, self.all()) => result,
        };
        match result {
            Ok(Ok(Some(hosts))) => Ok(Outcome { hosts, stopped: None }),
            Ok(Err(error)) => {
                self.cancel_all().await;
                Err(error)
            }
            Ok(Ok(None)) | Err(_) => {
                self.cancel_all().await;
                let waited = human(self.plan.timeout);
                let ending =
                    |seen: &str| Ending::TimedOut(format!("no answer after {waited}{seen}"));
                Ok(Outcome { hosts: self.settle(ending), stopped: None })
            }
        }
    }

    /// `None` when the time is over and no host had started.
    async fn all(&self) -> Result<Option<Vec<HostEnd>>, Error> {
        let ids: Vec<String> = self.plan.hosts.iter().map(|host| host.id.clone()).collect();
        let unreachable = self.ssm.unreachable(&ids).await?;
        if !unreachable.is_empty() {
            let hosts = ids
                .iter()
                .filter_map(|id| {
                    let reason = unreachable.get(id)?;
                    Some(format!("{} ({id}): {reason}", self.plan.name(id)))
                })
                .collect();
            return Err(Error::Offline { hosts });
        }
        self.send_run(&ids, false).await?;
        if self.wait(ids.len()).await? { self.collect().await.map(Some) } else { Ok(None) }
    }

    fn left(&self) -> Duration {
        self.plan.timeout.saturating_sub(self.start.elapsed())
    }

    /// Sends one script to at most 50 hosts at a time and keeps the calls.
    async fn send(
        &self,
        ids: &[String],
        kind: Kind,
        what: &str,
        script: &str,
        limits: (Duration, Duration),
    ) -> Result<String, Error> {
        self.numbers.set(self.numbers.get() + 1);
        let comment = format!("ssm-run-playbook {} #{} {what}", self.plan.run, self.numbers.get());
        self.sending.replace(Some(comment.clone()));
        let (execution, delivery) = limits;
        let order = Order { ids, script, comment: &comment, execution, delivery };
        let command = self.ssm.send(&order).await?;
        self.ctx.progress().debug(&format!("command {command}: {comment}"));
        let waiting = ids.iter().cloned().collect();
        let call = Call { command: command.clone(), kind, waiting, sent: Instant::now() };
        self.calls.borrow_mut().push(call);
        self.sending.replace(None);
        Ok(command)
    }

    async fn send_run(&self, ids: &[String], with_bundle: bool) -> Result<(), Error> {
        for some in ids.chunks(IDS_PER_CALL) {
            let script = self.plan.run_script(some, self.left(), with_bundle)?;
            let limits = Plan::limits(self.left());
            self.send(some, Kind::Run { with_bundle }, "run", &script, limits).await?;
        }
        for id in ids {
            let text = if with_bundle { "bundle sent, running" } else { "command sent" };
            self.ctx.progress().subject(self.plan.name(id), text);
        }
        Ok(())
    }

    async fn send_parts(&self, ids: &[String]) -> Result<(), Error> {
        let count = self.plan.parts.len();
        for some in ids.chunks(IDS_PER_CALL) {
            for (number, part) in self.plan.parts[..count - 1].iter().enumerate() {
                let number = number + 1;
                let script =
                    script::keep_part(&self.plan.host_folder, &self.plan.run, number, part);
                let what = format!("part {number}/{count}");
                self.send(some, Kind::Part, &what, &script, (SIDE_EXECUTION, SIDE_DELIVERY))
                    .await?;
            }
        }
        for id in ids {
            let text = format!("sending the bundle in {count} parts");
            self.ctx.progress().subject(self.plan.name(id), &text);
        }
        Ok(())
    }

    /// Polls until every host has an end. False when the time is over and there is nothing to wait for, because none
    /// of the rest has started.
    async fn wait(&self, hosts: usize) -> Result<bool, Error> {
        let mut last_progress = Instant::now();
        let mut outage: Option<Instant> = None;
        while self.ends.borrow().len() < hosts {
            let pause = (self.start.elapsed() / 20)
                .clamp(Duration::from_millis(250), Duration::from_secs(2));
            sleep(pause).await;
            let hungry = match self.poll().await {
                Ok(hungry) => {
                    outage = None;
                    hungry
                }
                // Hosts go on while AWS or the network is away.
                Err(error @ deploy_aws::Error::Unavailable { .. }) => {
                    let since = *outage.get_or_insert_with(Instant::now);
                    if since.elapsed() > OUTAGE {
                        return Err(error.into());
                    }
                    self.ctx.progress().warn(&format!("{error}; asking again"));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if self.left().is_zero() && !self.any_running() {
                return Ok(false);
            }
            self.feed(hungry).await?;
            if last_progress.elapsed() >= PROGRESS_EVERY {
                last_progress = Instant::now();
                self.ask_progress().await?;
            }
            self.ctx.progress().heartbeat(|| {
                let done = self.ends.borrow().len();
                format!("{done} of {hosts} hosts ended after {}", human(self.start.elapsed()))
            });
        }
        Ok(true)
    }

    fn any_running(&self) -> bool {
        let (calls, started) = (self.calls.borrow(), self.started.borrow());
        let mut runs = calls.iter().filter(|call| matches!(call.kind, Kind::Run { .. }));
        runs.any(|call| call.waiting.iter().any(|id| started.contains(id)))
    }

    /// Gives the bundle, or its last part and the run, to hosts that wait for it.
    async fn feed(&self, hungry: Hungry) -> Result<(), Error> {
        let mut complete = hungry.complete;
        if !hungry.empty.is_empty() {
            if self.plan.parts.len() > 1 {
                self.send_parts(&hungry.empty).await?;
            } else {
                complete.extend(hungry.empty);
            }
        }
        if complete.is_empty() { Ok(()) } else { self.send_run(&complete, true).await }
    }

    /// Asks once how every open call stands.
    async fn poll(&self) -> Result<Hungry, deploy_aws::Error> {
        let mut hungry = Hungry::default();
        let open: Vec<Call> =
            self.calls.borrow().iter().filter(|call| !call.waiting.is_empty()).cloned().collect();
        for call in open {
            let invocations = self.ssm.invocations(&call.command).await?;
            for id in &call.waiting {
                match invocations.iter().find(|invocation| invocation.id == *id) {
                    Some(invocation) if invocation.ended => {
                        self.ended(&call, invocation, &mut hungry);
                    }
                    Some(invocation) => self.running(&call, invocation),
                    None if call.sent.elapsed() > CONSISTENCY => {
                        let text = "Systems Manager lists no invocation for it".to_owned();
                        self.end(&call, id, Ending::NotDelivered(text));
                    }
                    None => {}
                }
            }
        }
        Ok(hungry)
    }

    fn running(&self, call: &Call, invocation: &Invocation) {
        if invocation.details == "InProgress" {
            self.started.borrow_mut().insert(invocation.id.clone());
        }
        if matches!(call.kind, Kind::Run { .. }) && !self.seen.borrow().contains_key(&invocation.id)
        {
            let text = match invocation.details.as_str() {
                "InProgress" => "running",
                "Pending" | "Delayed" => "waiting for its agent",
                other => other,
            };
            self.ctx.progress().subject(self.plan.name(&invocation.id), text);
        }
    }

    /// Takes note of an invocation that has ended.
    fn ended(&self, call: &Call, invocation: &Invocation, hungry: &mut Hungry) {
        let id = &invocation.id;
        let answer = recap::parse(&invocation.output);
        match (call.kind, answer) {
            (Kind::Progress, _) => {
                self.forget(call, id);
                let over = self.ends.borrow().contains_key(id);
                if let Some(text) = progress_text(&invocation.output) {
                    if !over {
                        self.ctx.progress().subject(self.plan.name(id), &text);
                    }
                    self.seen.borrow_mut().insert(id.clone(), text);
                }
            }
            (Kind::Part, Ok(Recap { state: State::Part, .. })) => {
                self.forget(call, id);
                let parts_left = self
                    .calls
                    .borrow()
                    .iter()
                    .any(|call| call.kind == Kind::Part && call.waiting.contains(id));
                if !parts_left && !self.ends.borrow().contains_key(id) {
                    hungry.complete.push(id.clone());
                }
            }
            (Kind::Run { with_bundle: false }, Ok(Recap { state: State::NeedBundle, .. })) => {
                self.forget(call, id);
                hungry.empty.push(id.clone());
            }
            (Kind::Run { .. } | Kind::Part, Ok(recap)) => {
                self.end(call, id, believe(recap, invocation));
            }
            (Kind::Run { .. } | Kind::Part, Err(missing)) => {
                let ending = without_recap(&missing, invocation, call.sent.elapsed(), self.plan);
                self.end(call, id, ending);
            }
        }
    }

    fn forget(&self, call: &Call, id: &str) {
        for known in self.calls.borrow_mut().iter_mut() {
            if known.command == call.command {
                known.waiting.remove(id);
            }
        }
    }

    fn end(&self, call: &Call, id: &str, ending: Ending) {
        self.forget(call, id);
        self.ctx.progress().subject(self.plan.name(id), crate::report::word(&ending));
        let end = End { ending, command: call.command.clone(), elapsed: self.start.elapsed() };
        self.ends.borrow_mut().entry(id.to_owned()).or_insert(end);
    }

    /// Asks hosts whose run is open what they are doing, unless they were asked and have not answered.
    async fn ask_progress(&self) -> Result<(), Error> {
        let ids: Vec<String> = {
            let calls = self.calls.borrow();
            let asked = |id: &String| {
                calls.iter().any(|call| call.kind == Kind::Progress && call.waiting.contains(id))
            };
            let running = calls.iter().filter(|call| matches!(call.kind, Kind::Run { .. }));
            running.flat_map(|call| &call.waiting).filter(|id| !asked(id)).cloned().collect()
        };
        let script = script::progress(&self.plan.host_folder, &self.plan.run);
        for some in ids.chunks(IDS_PER_CALL) {
            let limits = (SIDE_EXECUTION, SIDE_DELIVERY);
            match self.send(some, Kind::Progress, "progress", &script, limits).await {
                // Progress is a courtesy: the run itself is judged by its own command.
                Err(Error::Aws(deploy_aws::Error::Unavailable { .. })) => {}
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Fetches events and logs where somebody will want to read them.
    async fn collect(&self) -> Result<Vec<HostEnd>, Error> {
        let mut hosts = self.settle(|_| Ending::NoResult("no answer".to_owned()));
        for (host, planned) in hosts.iter_mut().zip(&self.plan.hosts) {
            let Ending::Recap(recap) = &host.ending else { continue };
            let green = recap.rc == Some(0) && recap.stats.is_some_and(|stats| stats.changed == 0);
            if green && !self.plan.wants_log {
                continue;
            }
            let command = self.ends.borrow().get(&planned.id).map(|end| end.command.clone());
            let Some(command) = command else { continue };
            match self.fetch(&planned.id, &command, recap).await {
                Ok((events, log)) => {
                    host.results = events.as_deref().map(recap::results).unwrap_or_default();
                    (host.events, host.log) = (events, log);
                }
                Err(Fetch::Aws(error)) => return Err(error),
                Err(Fetch::Missing(missing)) => {
                    let text = format!("{missing}, although a recap came back");
                    host.ending = Ending::NoResult(text);
                }
            }
        }
        Ok(hosts)
    }

    async fn fetch(
        &self,
        id: &str,
        command: &str,
        recap: &Recap,
    ) -> Result<(Option<String>, Option<String>), Fetch> {
        let (stdout, _) = self.ssm.output(command, id).await.map_err(|e| Fetch::Aws(e.into()))?;
        let events = match &recap.events {
            Some(expected) => Some(self.whole(id, &stdout, "events", expected).await?),
            None => None,
        };
        let log = match &recap.log {
            Some(expected) if self.plan.wants_log => {
                Some(self.whole(id, &stdout, "log", expected).await?)
            }
            _ => None,
        };
        Ok((events, log))
    }

    /// What did not fit into the answer is read in slices.
    async fn whole(
        &self,
        id: &str,
        stdout: &str,
        name: &'static str,
        expected: &(usize, String),
    ) -> Result<String, Fetch> {
        let mut packed = recap::inline(stdout, name).to_owned();
        while packed.len() < expected.0 {
            let script = script::slice(&self.plan.host_folder, &self.plan.run, name, packed.len());
            let slice = self.ask(id, &format!("{name} from {}", packed.len()), &script).await;
            let slice = slice.map_err(Fetch::Aws)?;
            if slice.trim().is_empty() {
                break;
            }
            packed.push_str(slice.trim());
        }
        recap::unpack(&packed, expected, name).map_err(Fetch::Missing)
    }

    /// Runs a small script on one host and returns what it printed.
    async fn ask(&self, id: &str, what: &str, script: &str) -> Result<String, Error> {
        let ids = [id.to_owned()];
        let order_limits = (SIDE_EXECUTION, SIDE_DELIVERY);
        let command = self.send(&ids, Kind::Progress, what, script, order_limits).await?;
        let start = Instant::now();
        loop {
            sleep(Duration::from_millis(250)).await;
            let invocations = self.ssm.invocations(&command).await?;
            if invocations.iter().any(|invocation| invocation.ended) {
                self.calls.borrow_mut().retain(|call| call.command != command);
                return Ok(self.ssm.output(&command, id).await?.0);
            }
            if start.elapsed() > SIDE_EXECUTION + SIDE_DELIVERY {
                return Ok(String::new());
            }
        }
    }

    /// A signal came: cancel, watch for a moment, say what is known.
    async fn stop(&self, exit: Exit) -> Outcome {
        self.ctx.progress().step("stopping: cancelling what runs on the hosts");
        self.cancel_all().await;
        let ending = |seen: &str| Ending::Stopped(format!("cancelled{seen}"));
        Outcome { hosts: self.settle(ending), stopped: Some(exit) }
    }

    /// Cancels every open command and watches them end, both for a few seconds at most.
    async fn cancel_all(&self) {
        let cancelling = async {
            let lost = self.sending.take();
            if let Some(comment) = lost
                && let Ok(Some(command)) = self.ssm.find(&comment).await
            {
                let waiting = self.plan.hosts.iter().map(|host| host.id.clone()).collect();
                let kind = Kind::Run { with_bundle: true };
                let call = Call { command, kind, waiting, sent: Instant::now() };
                self.calls.borrow_mut().push(call);
            }
            let open: Vec<Call> = self.calls.borrow().clone();
            for call in open.iter().filter(|call| !call.waiting.is_empty()) {
                let ids: Vec<String> = call.waiting.iter().cloned().collect();
                for some in ids.chunks(IDS_PER_CALL) {
                    if let Err(error) = self.ssm.cancel(&call.command, some).await {
                        let text = format!("cannot cancel command {}: {error}", call.command);
                        self.ctx.progress().warn(&text);
                    }
                }
            }
        };
        if timeout(CANCEL_BUDGET, cancelling).await.is_err() {
            self.ctx.progress().warn("not every command could be cancelled in time");
        }
        let watching = async {
            // What had run is said as well as it is known.
            if self.ask_progress().await.is_err() {
                return;
            }
            loop {
                let open = self.calls.borrow().iter().any(|call| !call.waiting.is_empty());
                if !open || self.poll().await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(250)).await;
            }
        };
        if timeout(CANCEL_WATCH, watching).await.is_err() {
            for call in self.calls.borrow().iter() {
                let runs = matches!(call.kind, Kind::Run { .. });
                for id in call.waiting.iter().filter(|_| runs) {
                    let name = self.plan.name(id);
                    let command = &call.command;
                    let text = format!("{name} has not confirmed the end of command {command}");
                    self.ctx.progress().warn(&text);
                }
            }
        }
    }

    /// Every host in the inventory's order; `open` names the ending of those without one.
    fn settle(&self, open: impl Fn(&str) -> Ending) -> Vec<HostEnd> {
        let (ends, seen) = (self.ends.borrow(), self.seen.borrow());
        self.plan
            .hosts
            .iter()
            .map(|host| {
                let known = seen.get(&host.id).map(|text| format!("; {text}")).unwrap_or_default();
                let end = ends.get(&host.id);
                let cancelled = |end: &End| match &end.ending {
                    // The agent's word for what we asked for says less than we know.
                    Ending::NoResult(text) if text == CANCELLED => open(&known),
                    ending => ending.clone(),
                };
                HostEnd {
                    name: host.name.clone(),
                    ending: end.map_or_else(|| open(&known), cancelled),
                    elapsed: end.map_or_else(|| self.start.elapsed(), |end| end.elapsed),
                    results: Vec::new(),
                    events: None,
                    log: None,
                }
            })
            .collect()
    }
}

enum Fetch {
    Aws(Error),
    Missing(Missing),
}

/// Hosts that asked for the bundle, and hosts that have all parts but the last.
#[derive(Debug, Default)]
struct Hungry {
    empty: Vec<String>,
    complete: Vec<String>,
}

pub(crate) const CANCELLED: &str = "its command was cancelled";

/// A green recap counts only when Systems Manager saw the command succeed as well.
fn believe(recap: Recap, invocation: &Invocation) -> Ending {
    let green = recap.state == State::Done && recap.rc == Some(0);
    if green && invocation.details != "Success" {
        return Ending::NoResult(format!(
            "the recap is good, but Systems Manager says {}",
            invocation.details
        ));
    }
    Ending::Recap(Box::new(recap))
}

/// What a missing recap means: <https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html>.
fn without_recap(
    missing: &Missing,
    invocation: &Invocation,
    elapsed: Duration,
    plan: &Plan,
) -> Ending {
    let not_delivered = |text: &str| Ending::NotDelivered(text.to_owned());
    match invocation.details.as_str() {
        "DeliveryTimedOut" => not_delivered("its agent did not take the command in time"),
        "Undeliverable" => not_delivered("the command could not be delivered"),
        "Terminated" => not_delivered("Systems Manager ended the command before it was sent"),
        "InvalidPlatform" => not_delivered("the document does not run on its platform"),
        "AccessDenied" => not_delivered("Systems Manager was denied access to it"),
        "Cancelled" => Ending::NoResult(CANCELLED.to_owned()),
        // The agent takes status 137 for a timeout, also when the kernel killed the process.
        "ExecutionTimedOut" | "TimedOut" if elapsed < plan.timeout => {
            Ending::NoResult("the run was killed on the host; out of memory?".to_owned())
        }
        "ExecutionTimedOut" | "TimedOut" => {
            Ending::TimedOut("the agent killed the run when its time was over".to_owned())
        }
        details => {
            let output = invocation.output.trim();
            let tail: String = output.chars().take(300).collect();
            let said = if tail.is_empty() { String::new() } else { format!(": {tail}") };
            Ending::NoResult(format!("{missing} (Systems Manager says {details}){said}"))
        }
    }
}

/// `12 {"e":"task",…}` as a sentence.
fn progress_text(output: &str) -> Option<String> {
    let (results, event) = output.trim().split_once(' ')?;
    let count: u64 = results.parse().ok()?;
    let task: serde_json::Value = serde_json::from_str(event.lines().next()?).ok()?;
    let name = task.get("name")?.as_str()?;
    Some(format!("{count} results, at task: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(details: &str, output: &str) -> Invocation {
        Invocation { id: "i-1".into(), details: details.into(), ended: true, output: output.into() }
    }

    #[test]
    fn a_green_recap_needs_a_green_command() {
        let recap = |rc: i32| {
            let text = format!("ssm-run-playbook/1 {{\"state\":\"done\",\"rc\":{rc}}}");
            recap::parse(&text).unwrap()
        };
        let believed =
            |rc, details| matches!(believe(recap(rc), &invocation(details, "")), Ending::Recap(_));
        assert!(believed(0, "Success") && believed(2, "Failed") && !believed(0, "Failed"));
    }

    #[test]
    fn progress_is_read_and_noise_is_not() {
        let line = "7 {\"e\":\"task\",\"name\":\"common : Install\"}\n";
        assert_eq!(progress_text(line).as_deref(), Some("7 results, at task: common : Install"));
        for noise in ["", "0 ", "0", "x {}", "3 {\"e\":"] {
            assert_eq!(progress_text(noise), None, "{noise}");
        }
    }
}
