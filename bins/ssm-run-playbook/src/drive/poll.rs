//! Asks how the open commands stand and takes note of what ended.

use super::ending::{believe, lost, progress_figures, progress_text, without_recap};
use super::{Call, Drive, End, Ending, Kind, SIDE_DELIVERY, SIDE_EXECUTION, SIDE_PATIENCE};
use crate::error::Error;
use crate::recap::{self, Recap, State};
use crate::script;
use crate::ssm::{CONSISTENCY, IDS_PER_CALL, Invocation, NOT_REGISTERED};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// So many tasks, and so many hosts of each, a heartbeat names.
const DOINGS: usize = 3;

/// Hosts that asked for the bundle, and hosts that have all parts but the last.
#[derive(Debug, Default)]
pub(super) struct Hungry {
    pub(super) empty: Vec<String>,
    pub(super) complete: Vec<String>,
    since: Option<Instant>,
}

impl Hungry {
    /// Whether they should wait no longer for others that one command could serve as well: not for more than half of the
    /// time that the first of them took.
    pub(super) fn ripe(&self, elapsed: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() * 3 >= elapsed)
    }
}

impl Drive<'_> {
    /// Asks once how every open call stands, and adds the hosts that lack something.
    pub(super) async fn poll(&self, hungry: &mut Hungry) -> Result<(), deploy_aws::Error> {
        let open: Vec<Call> =
            self.calls.borrow().iter().filter(|call| !call.waiting.is_empty()).cloned().collect();
        for call in open {
            let invocations = self.ssm.invocations(&call.command, !self.hurries()).await?;
            for id in &call.waiting {
                let invocation = invocations.iter().find(|invocation| invocation.id == *id);
                if let Some(invocation) = invocation.filter(|invocation| invocation.ended)
                    && is_duplicate(&call, invocation)
                    && self.follow_other(&call, id).await?
                {
                    continue;
                }
                match invocation {
                    Some(invocation) if invocation.ended => {
                        self.ended(&call, invocation, hungry);
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
        let lost = self.lost.take();
        for (command, id) in lost {
            if let Err(error) = self.ssm.cancel(&command, &[id]).await {
                let text = format!("cannot cancel command {command}: {error}");
                self.ctx.progress().warn(&text);
            }
        }
        if !hungry.empty.is_empty() || !hungry.complete.is_empty() {
            hungry.since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// A command whose reply was lost was sent once more and both arrived: the run is the other's, and so is its result.
    /// False when Systems Manager lists no other after all; it lists new commands with a delay.
    async fn follow_other(&self, call: &Call, id: &str) -> Result<bool, deploy_aws::Error> {
        self.duplicates.borrow_mut().insert((id.to_owned(), call.command.clone()));
        let others = self.ssm.find(&call.comment).await?;
        let is_new =
            |other: &String| !self.duplicates.borrow().contains(&(id.to_owned(), other.clone()));
        let Some(command) = others.into_iter().find(is_new) else {
            return Ok(call.sent.elapsed() <= CONSISTENCY);
        };
        self.forget(call, id);
        let name = self.plan.name(id);
        let text = format!("the command arrived twice; following {command}");
        self.ctx.progress().subject(name, &text);
        let mut calls = self.calls.borrow_mut();
        match calls.iter_mut().find(|known| known.command == command) {
            Some(known) => {
                known.waiting.insert(id.to_owned());
            }
            None => {
                let waiting = [id.to_owned()].into();
                calls.push(Call { command, waiting, ..call.clone() });
            }
        }
        Ok(true)
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
                self.note_progress(id, &invocation.output);
                if let Some(text) = lost(&invocation.output) {
                    self.end_lost(id, text);
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
            // With the bundle in a bucket: another run has taken its object away in the meantime.
            (Kind::Run { with_bundle }, Ok(Recap { state: State::NeedBundle, .. }))
                if !with_bundle
                    || (self.store.is_some()
                        && self.asked_again.borrow_mut().insert(id.clone())) =>
            {
                self.forget(call, id);
                hungry.empty.push(id.clone());
            }
            (Kind::Run { .. } | Kind::Part, Ok(recap)) => {
                self.end_with(call, id, believe(recap, invocation), &invocation.output);
            }
            (Kind::Run { .. } | Kind::Part, Err(missing)) => {
                let ending = without_recap(&missing, invocation, call.sent.elapsed(), self.plan);
                self.end(call, id, ending);
            }
        }
    }

    /// A run that the host says it has lost: for AWS its command runs on until its time is over.
    fn end_lost(&self, id: &str, text: String) {
        let runs =
            |call: &&Call| matches!(call.kind, Kind::Run { .. }) && call.waiting.contains(id);
        let call = self.calls.borrow().iter().find(runs).cloned();
        if let Some(call) = call {
            self.end(&call, id, Ending::NoResult(text));
            self.lost.borrow_mut().push((call.command, id.to_owned()));
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
        self.end_with(call, id, ending, "");
    }

    fn end_with(&self, call: &Call, id: &str, ending: Ending, head: &str) {
        self.forget(call, id);
        self.ctx.progress().subject(self.plan.name(id), crate::report::word(&ending));
        let (command, elapsed) = (call.command.clone(), self.start.elapsed());
        let end = End { ending, command, head: head.to_owned(), elapsed };
        self.ends.borrow_mut().entry(id.to_owned()).or_insert(end);
    }

    /// Reads what hosts write while they run. A courtesy: what fails is said once, then hosts are asked as without it.
    pub(super) async fn follow(&self) {
        let Some(live) = self.live.as_ref().filter(|_| !self.deaf.get()) else { return };
        let open: Vec<Call> = {
            let calls = self.calls.borrow();
            let runs = calls.iter().filter(|call| matches!(call.kind, Kind::Run { .. }));
            runs.filter(|call| !call.waiting.is_empty()).cloned().collect()
        };
        for call in open {
            match live.news(&call.command).await {
                Ok(lines) => {
                    for (id, line) in lines {
                        self.note_progress(&id, &line);
                    }
                }
                Err(deploy_aws::Error::Unavailable { .. }) => {}
                Err(error) => {
                    self.deaf.set(true);
                    self.ctx.progress().warn(&format!("hosts cannot be followed: {error}"));
                    return;
                }
            }
        }
    }

    fn note_progress(&self, id: &str, output: &str) {
        if let Some(text) = progress_text(output) {
            self.hear(id);
            if !self.ends.borrow().contains_key(id) {
                self.ctx.progress().subject(self.plan.name(id), &text);
            }
            self.seen.borrow_mut().insert(id.to_owned(), text);
            // Older figures would belie newer words.
            match progress_figures(output) {
                Some(figures) => self.figures.borrow_mut().insert(id.to_owned(), figures),
                None => self.figures.borrow_mut().remove(id),
            };
        }
    }

    /// For the heartbeat: what the hosts that run were last known to do.
    pub(super) fn doing(&self) -> String {
        let (ends, seen) = (self.ends.borrow(), self.seen.borrow());
        let open = seen.iter().filter(|(id, _)| !ends.contains_key(*id));
        doing(open.map(|(id, text)| (self.plan.name(id), text.as_str())))
    }

    /// Ends the runs on hosts that Systems Manager does not know any more: no answer of theirs will ever come.
    pub(super) fn end_gone(&self, unreachable: &HashMap<String, String>) {
        for (id, reason) in unreachable {
            let runs =
                |call: &&Call| matches!(call.kind, Kind::Run { .. }) && call.waiting.contains(id);
            let call = self.calls.borrow().iter().find(runs).cloned();
            if let Some(call) = call.filter(|_| *reason == NOT_REGISTERED) {
                let text =
                    format!("it is {reason} any more; was its instance stopped or terminated?");
                self.end(&call, id, Ending::NoResult(text));
            }
        }
    }

    /// Asks hosts whose run is open what they are doing, unless they were asked and have not answered.
    pub(super) async fn ask_progress(&self) -> Result<(), Error> {
        let ids: Vec<String> = {
            let calls = self.calls.borrow();
            let asked = |id: &String| {
                calls.iter().any(|call| {
                    call.kind == Kind::Progress
                        && call.waiting.contains(id)
                        && call.sent.elapsed() < SIDE_PATIENCE
                })
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
                // One that is gone lets the question to all others fail as well.
                Err(Error::Aws(deploy_aws::Error::Refused { .. })) => {
                    self.end_gone(&self.ssm.unreachable(some).await?);
                }
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a run ended because this run's folder was there already.
fn is_duplicate(call: &Call, invocation: &Invocation) -> bool {
    let answer = recap::parse(&invocation.output);
    matches!(call.kind, Kind::Run { .. })
        && answer.is_ok_and(|recap| recap.state == State::Duplicate)
}

/// Hosts by what they do, those first that most do.
fn doing<'a>(hosts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, text) in hosts {
        // How many results there are differs from host to host.
        let text = text.split_once(", at task: ").map_or(text, |(_, task)| task);
        known.entry(text).or_default().push(name);
    }
    let mut groups: Vec<(&str, Vec<&str>)> = known.into_iter().collect();
    groups.sort_by_key(|(_, names)| Reverse(names.len()));
    let others = groups.len().saturating_sub(DOINGS);
    let mut out = String::new();
    for (text, names) in groups.into_iter().take(DOINGS) {
        let (shown, more) = (names[..names.len().min(DOINGS)].join(", "), names.len());
        let more =
            if more > DOINGS { format!(" and {} more", more - DOINGS) } else { String::new() };
        out.push_str(&format!("; {shown}{more}: {text}"));
    }
    if others > 0 {
        out.push_str(&format!("; {others} other tasks"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::doing;

    #[test]
    fn a_heartbeat_names_the_tasks_and_stays_short() {
        assert_eq!(doing([].into_iter()), "");
        let one = [("sip-1", "7 results, at task: common : Install")];
        assert_eq!(doing(one.into_iter()), "; sip-1: common : Install");
        let many = [
            ("a", "1 result, at task: x"),
            ("b", "2 results, at task: x"),
            ("c", "1 result, at task: x"),
            ("d", "1 result, at task: x"),
            ("e", "no task has begun"),
            ("f", "1 result, at task: y"),
            ("g", "1 result, at task: z"),
        ];
        let said = "; a, b, c and 1 more: x; e: no task has begun; f: y; 1 other tasks";
        assert_eq!(doing(many.into_iter()), said);
    }
}
