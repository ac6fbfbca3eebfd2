//! Hosts that tell nothing for a while, and whether their agents are there. A courtesy: no host is judged by its agent's
//! absence, since an agent that comes back brings the result of a run that went on.

use super::{Drive, Kind};
use deploy_cli::human;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Hosts without `--log-group` are asked twice a minute, and more than 50 as much more rarely. One that has told nothing for
/// so long may have lost its agent, and so often that is asked; AWS itself knows of it after five minutes.
const SILENT: Duration = Duration::from_secs(60);

/// What is known of silent hosts.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When a host last told what it does.
    heard: RefCell<BTreeMap<String, Instant>>,
    /// Hosts whose agents are away.
    away: RefCell<BTreeSet<String>>,
    /// When agents were last asked for.
    looked: Cell<Option<Instant>>,
}

impl Drive<'_> {
    /// Takes note that a host told what it does.
    pub(super) fn hear(&self, id: &str) {
        self.watch.heard.borrow_mut().insert(id.to_owned(), Instant::now());
        self.is_back(id);
    }

    fn is_back(&self, id: &str) {
        if self.watch.away.borrow_mut().remove(id) {
            self.ctx.progress().note(&format!("{}: its agent is back", self.plan.name(id)));
        }
    }

    /// Asks for the agents of silent hosts, and says once which of them are away. `commands`: how many it takes to ask all.
    pub(super) async fn look_for_agents(&self, commands: u32) {
        // With a short deadline a minute would be too late.
        let patience = (SILENT * commands).min(self.plan.timeout / 4);
        let silent = self.silent(patience);
        let rests = |looked: Instant| looked.elapsed() < patience;
        if silent.is_empty() || self.watch.looked.get().is_some_and(rests) {
            return;
        }
        self.watch.looked.set(Some(Instant::now()));
        // What keeps AWS from answering is said of the polls.
        let Ok(reasons) = self.ssm.unreachable(&silent).await else { return };
        self.end_gone(&reasons);
        let mut news = Vec::new();
        for id in silent.iter().filter(|id| !self.ends.borrow().contains_key(*id)) {
            match reasons.get(id) {
                Some(reason) if self.watch.away.borrow_mut().insert(id.clone()) => {
                    news.push(format!("{} ({reason})", self.plan.name(id)));
                }
                Some(_) => {}
                None => self.is_back(id),
            }
        }
        if !news.is_empty() {
            let (silence, hosts) = (human(patience), news.join(", "));
            self.ctx.progress().warn(&format!(
                "nothing heard for {silence} of {hosts}; nothing is lost if the agent comes back"
            ));
        }
    }

    /// Hosts whose run is open and that have told nothing for so long.
    fn silent(&self, patience: Duration) -> Vec<String> {
        let (calls, heard) = (self.calls.borrow(), self.watch.heard.borrow());
        let runs = calls.iter().filter(|call| matches!(call.kind, Kind::Run { .. }));
        let silent = runs.flat_map(|call| {
            let last = |id: &String| heard.get(id).map_or(call.sent, |at| call.sent.max(*at));
            call.waiting.iter().filter(move |id| last(id).elapsed() >= patience)
        });
        silent.cloned().collect()
    }

    /// For the heartbeat: hosts whose agents are away.
    pub(super) fn away(&self) -> String {
        let (away, ends) = (self.watch.away.borrow(), self.ends.borrow());
        let open = away.iter().filter(|id| !ends.contains_key(*id));
        let names: Vec<&str> = open.map(|id| self.plan.name(id)).collect();
        if names.is_empty() { String::new() } else { format!("; away: {}", names.join(", ")) }
    }
}
