//! Deletes what was planned, in an order in which AWS allows it. The only module that changes anything.
//!
//! Before each step the states and the resources are read again: what got an owner or lost its tags meanwhile stays.
//! Nothing is ever detached, and nothing outside the plan is touched.

use crate::ec2::Ec2;
use crate::resource::{Kind, Resource};
use crate::state::Owned;
use crate::survey::Orphan;
use deploy_cli::{Context, Exit, Failure as _};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// AWS needs some time to notice that what used a security group is gone.
const SETTLING: Duration = Duration::from_secs(60);

/// What became of a planned deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Deleted, or gone by itself meanwhile.
    Deleted,
    /// Not deleted, and the reason is not an error: it got an owner or lost its tags.
    Spared(String),
    /// AWS refused, or something outside the plan holds it.
    Blocked {
        /// AWS's words or the holder.
        why: String,
        /// The exit status that this alone would give.
        exit: Exit,
    },
    /// It had not happened in time; what it waits for.
    Pending(String),
}

/// What became of each planned resource, readable also when the deletion is stopped half-way.
pub type Fates = RefCell<BTreeMap<String, Fate>>;

/// How to go about it.
#[derive(Debug, Clone)]
pub struct Pace<'a> {
    /// The states, read again before each type.
    pub states: &'a [PathBuf],
    /// All waiting together.
    pub timeout: Duration,
    /// Between two looks.
    pub poll_interval: Duration,
}

/// Deletes `plan`, type by type. What became of each is in `fates`.
pub async fn delete(ctx: &Context, ec2: &Ec2, plan: &[&Orphan], pace: &Pace<'_>, fates: &Fates) {
    let run = Run { ctx, ec2, pace, fates, deadline: Instant::now() + pace.timeout };
    let mut progress = Gone::default();
    for kind in Kind::ALL {
        let ids: Vec<&str> = plan
            .iter()
            .filter(|orphan| orphan.kind == Some(kind))
            .map(|orphan| orphan.id.as_str())
            .collect();
        if !ids.is_empty() {
            run.delete_kind(kind, ids, &mut progress).await;
        }
    }
}

struct Run<'a> {
    ctx: &'a Context,
    ec2: &'a Ec2,
    pace: &'a Pace<'a>,
    fates: &'a Fates,
    deadline: Instant,
}

/// IDs from the plan, over all types.
#[derive(Debug, Default)]
struct Gone {
    /// Deleted.
    deleted: HashSet<String>,
    /// Asked to be deleted; some of them are not gone yet.
    asked: HashSet<String>,
}

enum Step {
    /// Decided.
    Done(Fate),
    /// Look again later.
    Wait(Fate),
}

impl Run<'_> {
    async fn delete_kind(&self, kind: Kind, ids: Vec<&str>, gone: &mut Gone) {
        let begun = Instant::now();
        let mut waiting = ids;
        while !waiting.is_empty() {
            let known = match self.look(kind).await {
                Ok(known) => known,
                Err(fate) => return waiting.iter().for_each(|id| self.settle(id, fate.clone())),
            };
            let mut next = Vec::new();
            let mut last: BTreeMap<&str, Fate> = BTreeMap::new();
            let before = gone.deleted.len();
            for id in waiting {
                match self.step(kind, id, &known, gone).await {
                    Step::Done(fate) => {
                        if fate == Fate::Deleted {
                            gone.deleted.insert(id.to_owned());
                        }
                        self.settle(id, fate);
                    }
                    Step::Wait(fate) => {
                        last.insert(id, fate);
                        next.push(id);
                    }
                }
            }
            waiting = next;
            // Groups refer to each other: as long as one more goes, the others may follow.
            let progress = gone.deleted.len() > before;
            let patient = kind != Kind::SecurityGroup
                || progress
                || (!gone.deleted.is_empty() && begun.elapsed() < SETTLING);
            if !waiting.is_empty()
                && (!patient || Instant::now() + self.pace.poll_interval > self.deadline)
            {
                for (id, fate) in last {
                    let fate = self.name_users(kind, id, fate).await;
                    self.settle(id, fate);
                }
                return;
            }
            if !waiting.is_empty() {
                self.ctx.progress().heartbeat(|| format!("waiting for {}", waiting.join(", ")));
                tokio::time::sleep(self.pace.poll_interval).await;
            }
        }
    }

    /// States and resources as they are now.
    async fn look(&self, kind: Kind) -> Result<(Owned, BTreeMap<String, Resource>), Fate> {
        let owned = Owned::of_files(self.pace.states).map_err(|error| Fate::Blocked {
            why: format!("not deleted, because {error}"),
            exit: Exit::Usage,
        })?;
        let found = self
            .ec2
            .describe(kind)
            .await
            .map_err(|error| Fate::Blocked { why: error.to_string(), exit: error.exit() })?;
        Ok((owned, found.into_iter().map(|resource| (resource.id.clone(), resource)).collect()))
    }

    async fn step(
        &self,
        kind: Kind,
        id: &str,
        (owned, known): &(Owned, BTreeMap<String, Resource>),
        gone: &mut Gone,
    ) -> Step {
        if owned.contains(id) {
            return Step::Done(Fate::Spared("a state owns it now".to_owned()));
        }
        let resource = match known.get(id) {
            // EC2 lists a terminated instance for about an hour.
            Some(resource) if resource.gone => return Step::Done(Fate::Deleted),
            Some(resource) if resource.going => return Step::Wait(still_there()),
            Some(resource) => resource,
            None if gone.asked.contains(id) || gone.deleted.contains(id) => {
                return Step::Done(Fate::Deleted);
            }
            None => return Step::Done(Fate::Spared("it is gone, or lost its tags".to_owned())),
        };
        if let Some((key, _)) = resource.tags.iter().find(|(key, _)| key.starts_with("aws:")) {
            return Step::Done(Fate::Spared(format!("managed by AWS now ({key})")));
        }
        // What hung on a deleted instance becomes free some seconds later, or goes with it.
        let freed = resource.holders.iter().any(|holder| gone.deleted.contains(holder));
        if let Some(holder) = resource.holders.first().filter(|_| !freed) {
            // The time was over before the instance had ended; more waiting will not fit in either.
            if let Some(ending) =
                resource.holders.iter().find(|holder| gone.asked.contains(*holder))
            {
                return Step::Done(Fate::Pending(format!(
                    "not tried: {ending} is still being deleted"
                )));
            }
            let why = format!("in use by {holder}, which is not being deleted");
            return Step::Done(Fate::Blocked { why, exit: Exit::Verdict });
        }
        if gone.asked.contains(id) || freed {
            return Step::Wait(still_there());
        }
        self.ctx.progress().subject(id, "deleting");
        match self.ec2.delete(kind, id).await {
            // Only an instance takes long enough for others to have to wait for it.
            Ok(()) if kind == Kind::Instance => {
                gone.asked.insert(id.to_owned());
                Step::Wait(still_there())
            }
            Ok(()) => Step::Done(Fate::Deleted),
            Err(error) if error.code() == Some("DependencyViolation") => {
                Step::Wait(Fate::Blocked { why: error.to_string(), exit: Exit::Verdict })
            }
            Err(error) => {
                let exit = if error.exit() == Exit::Usage { Exit::Verdict } else { error.exit() };
                Step::Done(Fate::Blocked { why: error.to_string(), exit })
            }
        }
    }

    /// AWS says "has a dependent object" and not which; the interfaces that use a group are what a person needs.
    async fn name_users(&self, kind: Kind, id: &str, fate: Fate) -> Fate {
        match fate {
            Fate::Blocked { why, exit } if kind == Kind::SecurityGroup => {
                match self.ec2.users_of_group(id).await {
                    Ok(users) if users.is_empty() => Fate::Blocked {
                        why: format!("{why}; a rule of another group may refer to it"),
                        exit,
                    },
                    Ok(users) => {
                        Fate::Blocked { why: format!("{why}; used by {}", users.join(", ")), exit }
                    }
                    Err(error) => Fate::Blocked {
                        why: format!("{why}; who uses it is not known: {error}"),
                        exit,
                    },
                }
            }
            fate => fate,
        }
    }

    fn settle(&self, id: &str, fate: Fate) {
        let text = match &fate {
            Fate::Deleted => "deleted".to_owned(),
            Fate::Spared(why) => format!("kept: {why}"),
            Fate::Blocked { why, .. } => format!("not deleted: {why}"),
            Fate::Pending(why) => why.clone(),
        };
        self.ctx.progress().subject(id, &text);
        self.fates.borrow_mut().insert(id.to_owned(), fate);
    }
}

fn still_there() -> Fate {
    Fate::Pending("being deleted, still there at the end".to_owned())
}
