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
    /// It was asked for and had not happened in time.
    Pending,
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
    let mut deleted = HashSet::new();
    for kind in Kind::ALL {
        let ids: Vec<&str> = plan
            .iter()
            .filter(|orphan| orphan.kind == Some(kind))
            .map(|orphan| orphan.id.as_str())
            .collect();
        if !ids.is_empty() {
            run.delete_kind(kind, ids, &mut deleted).await;
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

enum Step {
    /// Decided.
    Done(Fate),
    /// Look again later.
    Wait(Fate),
}

impl Run<'_> {
    async fn delete_kind(&self, kind: Kind, ids: Vec<&str>, deleted: &mut HashSet<String>) {
        let begun = Instant::now();
        let mut asked: HashSet<String> = HashSet::new();
        let mut waiting = ids;
        while !waiting.is_empty() {
            let known = match self.look(kind).await {
                Ok(known) => known,
                Err(fate) => return waiting.iter().for_each(|id| self.settle(id, fate.clone())),
            };
            let mut next = Vec::new();
            let mut last: BTreeMap<&str, Fate> = BTreeMap::new();
            let before = deleted.len();
            for id in waiting {
                match self.step(kind, id, &known, &mut asked, deleted).await {
                    Step::Done(fate) => {
                        if fate == Fate::Deleted {
                            deleted.insert(id.to_owned());
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
            let progress = deleted.len() > before;
            let patient = kind != Kind::SecurityGroup
                || progress
                || (!deleted.is_empty() && begun.elapsed() < SETTLING);
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
        asked: &mut HashSet<String>,
        deleted: &HashSet<String>,
    ) -> Step {
        if owned.contains(id) {
            return Step::Done(Fate::Spared("a state owns it now".to_owned()));
        }
        let resource = match known.get(id) {
            // EC2 lists a terminated instance for about an hour.
            Some(resource) if resource.gone => return Step::Done(Fate::Deleted),
            Some(resource) if resource.going => return Step::Wait(Fate::Pending),
            Some(resource) => resource,
            None if asked.contains(id) || deleted.contains(id) => return Step::Done(Fate::Deleted),
            None => return Step::Done(Fate::Spared("it is gone, or lost its tags".to_owned())),
        };
        if let Some((key, _)) = resource.tags.iter().find(|(key, _)| key.starts_with("aws:")) {
            return Step::Done(Fate::Spared(format!("managed by AWS now ({key})")));
        }
        // What hung on a deleted instance becomes free some seconds later, or goes with it.
        let freed = resource.holders.iter().any(|holder| deleted.contains(holder));
        if let Some(holder) = resource.holders.first().filter(|_| !freed) {
            let why = format!("in use by {holder}, which is not being deleted");
            return Step::Done(Fate::Blocked { why, exit: Exit::Verdict });
        }
        if asked.contains(id) || freed {
            return Step::Wait(Fate::Pending);
        }
        self.ctx.progress().subject(id, "deleting");
        match self.ec2.delete(kind, id).await {
            // Only an instance takes long enough for others to have to wait for it.
            Ok(()) if kind == Kind::Instance => {
                asked.insert(id.to_owned());
                Step::Wait(Fate::Pending)
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
            Fate::Pending => "asked to delete, still there".to_owned(),
        };
        self.ctx.progress().subject(id, &text);
        self.fates.borrow_mut().insert(id.to_owned(), fate);
    }
}
