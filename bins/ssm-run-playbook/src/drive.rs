//! Sends the run to all hosts, feeds the bundle to those that lack it, waits, collects what they answer, and stops
//! everything when the person or the clock says so. Every invocation is judged by itself.

mod agents;
mod collect;
mod ending;
mod poll;
mod stop;
mod waves;

pub(crate) use ending::{CANCELLED, Ending, HostEnd, rebooted};
pub(crate) use waves::Halt;

use crate::error::Error;
use crate::live::Live;
use crate::plan::Plan;
use crate::recap::Stats;
use crate::script::{self, Delivery};
use crate::ssm::{IDS_PER_CALL, Order, Ssm, UNKNOWN_ID};
use crate::store::Store;
use agents::Watch;
use deploy_cli::{Context, Exit, Failure as _, human};
use poll::Hungry;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// After the deadline a host has this long to end Ansible and to answer.
const DEADLINE_GRACE: Duration = Duration::from_secs(20);
/// Between two polls: a twentieth of the run so far, so that the end is seen late by no more than that. A poll takes one
/// call per 50 hosts, so with more hosts it waits so many times as long.
const POLL_EVERY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(25)];
/// The agent pushes once a second; a task shall be seen within three.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// Hosts are asked what they do: early once, so that a person sees that something happens, then every 10 s, and ever more
/// rarely the longer it lasts; more than 50 hosts as much more rarely as the calls are more.
const PROGRESS_FIRST: Duration = Duration::from_secs(3);
const PROGRESS_EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];
/// Small side commands: parts of a bundle, progress, slices of a log.
const SIDE_EXECUTION: Duration = Duration::from_secs(60);
const SIDE_DELIVERY: Duration = Duration::from_secs(60);
/// A question that has no answer after so long was lost with the host's last boot, perhaps: it is asked again.
const SIDE_PATIENCE: Duration = Duration::from_secs(15);
/// So near to the deadline, and after it, hosts are polled twice a second.
const HURRY: Duration = Duration::from_secs(3);
/// When the time is over and AWS does not answer, commands are cancelled for this long; hosts end by themselves.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After that, what hosts wrote which have ended is waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Polling goes on through an outage of this length; hosts do not notice it.
const OUTAGE: Duration = Duration::from_secs(120);

/// How the run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// In the inventory's order.
    pub(crate) hosts: Vec<HostEnd>,
    /// The signal that ended it.
    pub(crate) stopped: Option<Exit>,
    /// Why some hosts were left alone.
    pub(crate) halted: Option<Halt>,
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
    /// What every attempt at sending it carries.
    comment: String,
    kind: Kind,
    waiting: BTreeSet<String>,
    sent: Instant,
}

#[derive(Debug, Clone)]
struct End {
    ending: Ending,
    command: String,
    /// The first characters of what the command printed.
    head: String,
    elapsed: Duration,
}

/// One run over all hosts.
#[derive(Debug)]
pub(crate) struct Drive<'a> {
    ctx: &'a Context,
    plan: &'a Plan,
    ssm: Ssm,
    /// Where a large bundle travels.
    store: Option<&'a Store>,
    start: Instant,
    numbers: Cell<u32>,
    /// The comment of a SendCommand whose reply is not here yet.
    sending: RefCell<Option<String>>,
    calls: RefCell<Vec<Call>>,
    ends: RefCell<BTreeMap<String, End>>,
    /// The last that is known of a running host.
    seen: RefCell<BTreeMap<String, String>>,
    /// The last figures that are known of a running host.
    figures: RefCell<BTreeMap<String, Stats>>,
    /// Hosts whose agent took the command.
    started: RefCell<BTreeSet<String>>,
    /// Hosts that a command was sent to.
    sent: RefCell<BTreeSet<String>>,
    /// Hosts that found no bundle where they were told to fetch it.
    asked_again: RefCell<BTreeSet<String>>,
    /// Commands that ended on a host because another of the same comment had begun this run there.
    duplicates: RefCell<BTreeSet<(String, String)>>,
    /// Why the other hosts are left alone.
    halted: RefCell<Option<Halt>>,
    /// What hosts write while they run, with `--log-group`.
    live: Option<Live>,
    /// All hosts have ended; what they wrote is brought home.
    collecting: Cell<bool>,
    /// Whether they cannot be read.
    deaf: Cell<bool>,
    /// Commands whose run a reboot of the host has ended, which AWS does not know, and those hosts.
    lost: RefCell<Vec<(String, String)>>,
    /// Hosts that tell nothing.
    watch: Watch,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(
        ctx: &'a Context,
        plan: &'a Plan,
        ssm: Ssm,
        store: Option<&'a Store>,
        live: Option<Live>,
        start: Instant,
    ) -> Self {
        Self {
            live,
            deaf: Cell::default(),
            watch: Watch::default(),
            lost: RefCell::default(),
            ctx,
            plan,
            ssm,
            store,
            start,
            collecting: Cell::default(),
            numbers: Cell::default(),
            sending: RefCell::default(),
            calls: RefCell::default(),
            ends: RefCell::default(),
            seen: RefCell::default(),
            figures: RefCell::default(),
            started: RefCell::default(),
            sent: RefCell::default(),
            asked_again: RefCell::default(),
            duplicates: RefCell::default(),
            halted: RefCell::default(),
        }
    }

    pub(crate) async fn run(self) -> Result<Outcome, Error> {
        let result = tokio::select! {
            exit = self.ctx.stopped() => return Ok(self.stop(exit).await),
            result = self.all() => result,
            () = self.over() => Ok(None),
        };
        match result {
            Ok(Some(hosts)) => Ok(Outcome { hosts, stopped: None, halted: self.halted.take() }),
            Err(error) if self.any_sent() => Ok(self.break_off(&error).await),
            Err(error) => {
                // A reply that was lost may stand for a command that runs.
                self.cancel_all().await;
                Err(error)
            }
            Ok(None) => Ok(self.give_up().await),
        }
    }

    /// Resolves when the time is over and nothing is to be hoped for: hosts that run get a while to end Ansible and to
    /// answer, as long as AWS answers.
    async fn over(&self) {
        let deadline = self.start + self.plan.timeout;
        sleep_until(deadline).await;
        let has_all = || self.ends.borrow().len() == self.plan.hosts.len();
        while (self.any_running() || has_all() || self.collecting.get())
            && !self.ssm.is_silent()
            && deadline.elapsed() < DEADLINE_GRACE
        {
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// The time is over: cancel, and say what is known.
    async fn give_up(&self) -> Outcome {
        let waited = human(self.plan.timeout);
        let mut reason = format!("the time was over after {waited}");
        if self.ssm.is_silent() {
            reason.push_str(" and AWS did not answer");
            // The supervisor on the host knows the deadline as well.
            let _ = timeout(LAST_WORDS, self.cancel_open()).await;
        } else {
            self.cancel_all().await;
            self.note_agents().await;
        }
        let ending = |seen: &str| Ending::TimedOut(format!("no answer after {waited}{seen}"));
        let mut hosts = self.settle(ending, &reason);
        if !self.ssm.is_silent() {
            // Without it what they did is less well known, and no more.
            let _ = timeout(LAST_ANSWERS, self.bring_home(&mut hosts)).await;
        }
        let halted = self.halted.take().or(Some(Halt { exit: Some(Exit::Timeout), reason }));
        Outcome { hosts, stopped: None, halted }
    }

    /// AWS gives no usable answer any more: cancel as far as that goes, and say what is known.
    async fn break_off(&self, error: &Error) -> Outcome {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.note_logs();
        let reason = deploy_aws::chain(error);
        self.ctx.progress().warn(&format!("the run is broken off: {reason}{hint}"));
        let cancelled = self.cancel_all().await;
        let state = if cancelled {
            "cancelled"
        } else {
            "it may run on, up to `--timeout`; `--lock-wait` waits for it"
        };
        let ending = |seen: &str| Ending::NoResult(format!("{state}{seen}"));
        let mut hosts = self.settle(ending, "the run was broken off");
        if !self.ssm.is_silent() {
            let _ = timeout(LAST_ANSWERS, self.bring_home(&mut hosts)).await;
        }
        let halted = Some(Halt { exit: Some(error.exit()), reason });
        Outcome { hosts, stopped: None, halted }
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
            let names = ids.iter().filter(|id| unreachable.contains_key(*id));
            let others = names.fold(self.plan.pattern.clone(), |all, id| {
                format!("{all}:!{}", self.plan.name(id))
            });
            return Err(Error::Offline { hosts, others });
        }
        if !self.waves().await? {
            return Ok(None);
        }
        self.collecting.set(true);
        self.collect().await.map(Some)
    }

    fn left(&self) -> Duration {
        self.plan.timeout.saturating_sub(self.start.elapsed())
    }

    /// Close to the deadline, and after it, a call that takes seconds is as good as one without an answer.
    fn hurries(&self) -> bool {
        self.left() < HURRY
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
        // A question for the progress ends by itself, also when its reply is lost.
        self.sending.replace((kind != Kind::Progress).then(|| comment.clone()));
        let (execution, delivery) = limits;
        // Only runs have something to tell.
        let log_group = self.plan.log_group.as_deref();
        let log_group = log_group.filter(|_| matches!(kind, Kind::Run { .. }));
        let order = Order { ids, script, comment: &comment, execution, delivery, log_group };
        let command = self.ssm.send(&order).await?;
        self.ctx.progress().debug(&format!("command {command}: {comment}"));
        let waiting = ids.iter().cloned().collect();
        let sent = Instant::now();
        let call = Call { command: command.clone(), comment: comment.clone(), kind, waiting, sent };
        self.calls.borrow_mut().push(call);
        self.sending.replace(None);
        Ok(command)
    }

    async fn send_run(&self, ids: &[String], with_bundle: bool) -> Result<(), Error> {
        let limits = Plan::limits(self.left());
        let url = match self.store.filter(|_| with_bundle) {
            Some(store) => Some(store.offer(&self.plan.bundle.bytes, limits.1).await?),
            None => None,
        };
        let delivery = match (&url, self.plan.parts.last()) {
            (Some(url), _) => Some(Delivery::Address(url)),
            (None, Some(part)) if with_bundle => {
                Some(Delivery::LastPart(self.plan.parts.len(), part))
            }
            _ => None,
        };
        for some in ids.chunks(IDS_PER_CALL) {
            let script = self.plan.run_script(some, self.left(), delivery)?;
            let kind = Kind::Run { with_bundle };
            self.sent.borrow_mut().extend(some.iter().cloned());
            let refused = match self.send(some, kind, "run", &script, limits).await {
                Ok(_) => continue,
                Err(Error::Aws(error)) if error.code() == Some(UNKNOWN_ID) => error,
                Err(error) => {
                    // One whose reply is lost may have arrived.
                    if !matches!(error, Error::Aws(deploy_aws::Error::Unavailable { .. })) {
                        self.sent.borrow_mut().retain(|id| !some.contains(id));
                    }
                    return Err(error);
                }
            };
            // One that is gone since it was asked for lets the command to all others fail as well.
            let rest = self.without_unreachable(some).await?;
            if rest.len() == some.len() {
                return Err(refused.into());
            }
            if !rest.is_empty() {
                let script = self.plan.run_script(&rest, self.left(), delivery)?;
                self.send(&rest, kind, "run", &script, limits).await?;
            }
        }
        for id in ids {
            let text = if with_bundle { "bundle sent" } else { "command sent" };
            self.ctx.progress().subject(self.plan.name(id), text);
        }
        Ok(())
    }

    /// The hosts that can take a command; the others have their end.
    async fn without_unreachable(&self, ids: &[String]) -> Result<Vec<String>, Error> {
        let gone = self.ssm.unreachable(ids).await?;
        for (id, reason) in &gone {
            let ending = Ending::NotDelivered(format!("it cannot take the command: {reason}"));
            let (elapsed, text) = (self.start.elapsed(), String::new());
            self.ctx.progress().subject(self.plan.name(id), crate::report::word(&ending));
            let end = End { ending, command: text.clone(), head: text, elapsed };
            self.ends.borrow_mut().entry(id.clone()).or_insert(end);
        }
        Ok(ids.iter().filter(|id| !gone.contains_key(*id)).cloned().collect())
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
        let begun = Instant::now();
        let mut next_progress = begun + PROGRESS_FIRST;
        let mut hungry = Hungry::default();
        let mut outage: Option<Instant> = None;
        while self.ends.borrow().len() < hosts {
            let commands = (hosts - self.ends.borrow().len()).div_ceil(IDS_PER_CALL);
            let commands = u32::try_from(commands).unwrap_or(u32::MAX);
            sleep(pause(self.start.elapsed(), self.left(), commands, self.live.is_some())).await;
            match self.poll(&mut hungry).await {
                Ok(()) => outage = None,
                // Hosts go on while AWS or the network is away.
                Err(error @ deploy_aws::Error::Unavailable { .. }) => {
                    let since = *outage.get_or_insert_with(Instant::now);
                    if since.elapsed() > OUTAGE {
                        return Err(error.into());
                    }
                    if !self.hurries() {
                        self.ctx.progress().warn(&format!("{error}; asking again"));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let all = self.ends.borrow().len() == hosts;
            if self.left().is_zero() && !self.any_running() && !all {
                return Ok(false);
            }
            if hungry.ripe(begun.elapsed()) || !self.any_asked() {
                self.feed(std::mem::take(&mut hungry)).await?;
            }
            self.follow().await;
            let followed = self.live.is_some() && !self.deaf.get();
            if !followed && Instant::now() >= next_progress {
                let [least, most] = PROGRESS_EVERY;
                next_progress =
                    Instant::now() + (begun.elapsed() / 4).clamp(least, most) * commands;
                self.ask_progress().await?;
            }
            self.look_for_agents(commands).await;
            self.ctx.progress().heartbeat(|| {
                let (done, time) = (self.ends.borrow().len(), human(self.start.elapsed()));
                format!("{done} of {hosts} hosts ended after {time}{}{}", self.doing(), self.away())
            });
        }
        Ok(true)
    }

    /// Whether a command was taken that asks hosts to run.
    fn any_sent(&self) -> bool {
        self.calls.borrow().iter().any(|call| matches!(call.kind, Kind::Run { .. }))
    }

    fn any_running(&self) -> bool {
        let (calls, started) = (self.calls.borrow(), self.started.borrow());
        let mut runs = calls.iter().filter(|call| matches!(call.kind, Kind::Run { .. }));
        runs.any(|call| call.waiting.iter().any(|id| started.contains(id)))
    }

    /// Whether hosts may still say that they lack the bundle, or a part of it.
    fn any_asked(&self) -> bool {
        let asks = |kind| matches!(kind, Kind::Run { with_bundle: false } | Kind::Part);
        self.calls.borrow().iter().any(|call| asks(call.kind) && !call.waiting.is_empty())
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
}

/// How long to wait before the next poll, which takes so many calls.
fn pause(elapsed: Duration, left: Duration, calls: u32, live: bool) -> Duration {
    let [least, most] = POLL_EVERY;
    let most = if live { LIVE_EVERY } else { most };
    let usual = ((elapsed / 20).max(least) * calls).min(most);
    // The deadline is not slept over.
    if left < HURRY { usual.min(2 * least) } else { usual.min(left - HURRY + least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_grow_rare_with_the_run_and_do_not_sleep_over_the_deadline() {
        let timeout = Duration::from_secs(1800);
        let polls_of = |run: Duration, calls: u32| {
            let (mut elapsed, mut polls) = (Duration::ZERO, 0);
            while elapsed < run {
                elapsed += pause(elapsed, timeout - elapsed, calls, false);
                polls += 1;
            }
            let late = (run / 20).max(POLL_EVERY[0]) * calls;
            assert!(elapsed - run <= late, "{run:?}: seen at {elapsed:?}");
            polls
        };
        assert_eq!(polls_of(Duration::from_secs(1), 1), 4);
        assert_eq!(polls_of(Duration::from_secs(30), 1), 57);
        assert_eq!(polls_of(Duration::from_secs(600), 1), 119);
        // 200 hosts, four calls each.
        assert_eq!(polls_of(Duration::from_secs(600), 4), 42);
        let ms = |elapsed: u64, left: u64| {
            pause(Duration::from_secs(elapsed), Duration::from_secs(left), 1, false).as_millis()
        };
        assert_eq!((ms(600, 60), ms(600, 10), ms(600, 2), ms(600, 0)), (25_000, 7_250, 500, 500));
        assert_eq!(pause(timeout, timeout, 1, true), LIVE_EVERY);
    }
}
