//! Ends what still runs on the hosts, within the seconds that a cancelled job has, and settles what is known.

use super::ending::CANCELLED;
use super::poll::Hungry;
use super::{Call, Drive, End, Ending, HostEnd, Kind, Outcome};
use crate::ssm::IDS_PER_CALL;
use deploy_cli::Exit;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// GitHub sends SIGTERM 7.5 s after SIGINT.
const CANCEL_BUDGET: Duration = Duration::from_secs(3);
const CANCEL_WATCH: Duration = Duration::from_secs(3);
const STOP_BUDGET: Duration = Duration::from_millis(6500);

impl Drive<'_> {
    /// A signal came: cancel, watch for a moment, say what is known.
    pub(super) async fn stop(&self, exit: Exit) -> Outcome {
        let end = Instant::now() + STOP_BUDGET;
        self.ctx.progress().step("stopping: cancelling what runs on the hosts; a running task has 10 s more to end, until then its host is locked");
        self.note_logs();
        let remove = async {
            if let Some(store) = self.store {
                store.remove(self.ctx).await;
            }
        };
        tokio::join!(self.cancel_all(), remove);
        let ending = |seen: &str| Ending::Stopped(format!("cancelled{seen}"));
        let mut hosts = self.settle(ending, "the run was stopped");
        // What hosts wrote that had ended, or have ended now, as far as the time goes.
        let _ = timeout_at(end, self.bring_home(&mut hosts)).await;
        Outcome { hosts, stopped: Some(exit), halted: self.halted.take() }
    }

    /// Where to look for what does not come home.
    pub(super) fn note_logs(&self) {
        let (folder, run) = (&self.plan.host_folder, &self.plan.run);
        self.ctx.progress().note(&format!("each host keeps the log in {folder}/runs/{run}"));
    }

    /// Cancels every open command and watches them end, both for a few seconds at most. False when some command could
    /// not be cancelled.
    pub(super) async fn cancel_all(&self) -> bool {
        let cancelled = timeout(CANCEL_BUDGET, self.cancel_open()).await;
        if cancelled.is_err() {
            self.ctx.progress().warn("not every command could be cancelled in time");
        }
        let watching = async {
            // What had run is said as well as it is known.
            if self.ask_progress().await.is_err() {
                return;
            }
            loop {
                if !self.may_answer() || self.poll(&mut Hungry::default()).await.is_err() {
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
        cancelled.unwrap_or(false)
    }

    /// Whether a run is open, or a question that an agent may still answer: none that never took the run.
    fn may_answer(&self) -> bool {
        let (calls, started) = (self.calls.borrow(), self.started.borrow());
        calls.iter().any(|call| {
            let asks = call.kind == Kind::Progress;
            call.waiting.iter().any(|id| !asks || started.contains(id))
        })
    }

    /// False when some command could not be cancelled.
    pub(super) async fn cancel_open(&self) -> bool {
        let lost = self.sending.take();
        if let Some(comment) = lost
            && let Ok(commands) = self.ssm.find(&comment).await
        {
            for command in commands {
                let waiting = self.plan.hosts.iter().map(|host| host.id.clone()).collect();
                let (comment, kind) = (comment.clone(), Kind::Run { with_bundle: true });
                let call = Call { command, comment, kind, waiting, sent: Instant::now() };
                self.calls.borrow_mut().push(call);
            }
        }
        let open: Vec<Call> = self.calls.borrow().clone();
        // A question for the progress ends by itself.
        let lasting = |call: &&Call| call.kind != Kind::Progress && !call.waiting.is_empty();
        let mut all = true;
        for call in open.iter().filter(lasting) {
            let ids: Vec<String> = call.waiting.iter().cloned().collect();
            for some in ids.chunks(IDS_PER_CALL) {
                if let Err(error) = self.ssm.cancel(&call.command, some).await {
                    all = false;
                    let text = format!("cannot cancel command {}: {error}", call.command);
                    self.ctx.progress().warn(&text);
                }
            }
        }
        all
    }

    /// Where no answer came, what is known of the agent says why.
    pub(super) async fn note_agents(&self) {
        let open: Vec<String> = {
            let ends = self.ends.borrow();
            // What we cancelled has not answered either.
            let answered = |id: &String| {
                ends.get(id).is_some_and(
                    |end| !matches!(&end.ending, Ending::NoResult(text) if text == CANCELLED),
                )
            };
            let ids = self.plan.hosts.iter().map(|host| host.id.clone());
            ids.filter(|id| !answered(id)).collect()
        };
        let asked = timeout(CANCEL_WATCH, self.ssm.unreachable(&open)).await;
        let reasons = asked.ok().and_then(Result::ok).unwrap_or_default();
        let mut seen = self.seen.borrow_mut();
        for id in open {
            let started = self.started.borrow().contains(&id);
            let waits = (!started).then(|| "its agent has not taken the command".to_owned());
            let known = [seen.remove(&id), waits, reasons.get(&id).cloned()];
            let known: Vec<String> = known.into_iter().flatten().collect();
            if !known.is_empty() {
                seen.insert(id, known.join("; "));
            }
        }
    }

    /// Every host in the inventory's order; `open` names the ending of those without one, `over` why no command was sent
    /// to the others.
    pub(super) fn settle(&self, open: impl Fn(&str) -> Ending, over: &str) -> Vec<HostEnd> {
        let halted = self.halted.borrow();
        let over = halted.as_ref().map_or(over, |halt| &halt.reason);
        let (ends, seen) = (self.ends.borrow(), self.seen.borrow());
        self.plan
            .hosts
            .iter()
            .map(|host| {
                let known = seen.get(&host.id).map(|text| format!("; {text}")).unwrap_or_default();
                let end = ends.get(&host.id);
                let untouched = !self.sent.borrow().contains(&host.id);
                let open = |known: &str| {
                    if untouched { Ending::NotTouched(over.to_owned()) } else { open(known) }
                };
                let cancelled = |end: &End| match &end.ending {
                    // The agent's word for what we asked for says less than we know.
                    Ending::NoResult(text) if text == CANCELLED => open(&known),
                    ending => ending.clone(),
                };
                HostEnd {
                    name: host.name.clone(),
                    ending: end.map_or_else(|| open(&known), cancelled),
                    elapsed: match end {
                        Some(end) => end.elapsed,
                        None if untouched => Duration::ZERO,
                        None => self.start.elapsed(),
                    },
                    figures: self.figures.borrow().get(&host.id).copied(),
                    results: Vec::new(),
                    events: None,
                    log: None,
                }
            })
            .collect()
    }
}
