//! The list: everything with both tags, sorted into owned, kept and orphaned. Makes no call that changes anything.

use crate::ec2::Ec2;
use crate::resource::{Kind, Resource, Standing, judge};
use crate::state::Owned;
use deploy_cli::Context;
use jiff::Timestamp;
use std::time::Duration;

/// Something that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// EC2's name of its type.
    pub type_name: String,
    /// Its ID.
    pub id: String,
    /// The tag `Name`.
    pub name: Option<String>,
    /// How old it is; absent where EC2 does not say.
    pub age: Option<Duration>,
    /// Its type, where this tool describes it; otherwise only its tags were seen.
    pub kind: Option<Kind>,
}

/// Something that is there and stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// EC2's name of its type.
    pub type_name: String,
    /// Its ID.
    pub id: String,
    /// Why.
    pub why: String,
}

/// A type of which EC2 did not give a whole list.
#[derive(Debug)]
pub struct Unknown {
    /// EC2's name of it.
    pub type_name: String,
    /// Why.
    pub error: deploy_aws::Error,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What nobody owns, by type in the order of deletion, then by ID.
    pub orphans: Vec<Orphan>,
    /// What nobody owns and stays.
    pub kept: Vec<Kept>,
    /// How many a state owns.
    pub owned: usize,
    /// Types that could not be listed.
    pub unknown: Vec<Unknown>,
}

/// How old something must be and which types count.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Younger things are kept.
    pub older_than: Duration,
    /// EC2's names; all when empty.
    pub types: &'a [String],
    /// The wall clock.
    pub now: Timestamp,
}

/// Looks at everything with both tags. A type whose IDs are all in a state costs no further call.
///
/// # Errors
/// When EC2 does not say what carries the tags. A type that cannot be described is no error here but unknown.
pub async fn survey(
    ctx: &Context,
    ec2: &Ec2,
    owned: &Owned,
    wanted: &Wanted<'_>,
) -> Result<Survey, deploy_aws::Error> {
    let mut survey = Survey::default();
    let mut tagged = ec2.tagged().await?;
    tagged.retain(|type_name, _| wanted.types.is_empty() || wanted.types.contains(type_name));
    for kind in Kind::ALL {
        let Some(ids) = tagged.remove(kind.name()) else { continue };
        let strangers = ids.iter().filter(|id| !owned.contains(id)).count();
        survey.owned += ids.len() - strangers;
        if strangers == 0 {
            continue;
        }
        ctx.progress().debug(&format!("{strangers} of type {} in no state", kind.name()));
        match ec2.describe(kind).await {
            // What EC2 no longer describes has only its tags left for a while.
            Ok(found) => found.iter().for_each(|resource| survey.add(resource, owned, wanted)),
            Err(error) => {
                let type_name = kind.name().to_owned();
                survey.unknown.push(Unknown { type_name, error });
            }
        }
    }
    for (type_name, ids) in tagged {
        for id in ids {
            if owned.contains(&id) {
                survey.owned += 1;
            } else {
                let type_name = type_name.clone();
                survey.orphans.push(Orphan { type_name, id, name: None, age: None, kind: None });
            }
        }
    }
    Ok(survey)
}

impl Survey {
    fn add(&mut self, resource: &Resource, owned: &Owned, wanted: &Wanted<'_>) {
        let (type_name, id) = (resource.kind.name().to_owned(), resource.id.clone());
        match judge(resource, owned, wanted.now, wanted.older_than) {
            // Counted by its ID already.
            Standing::Owned | Standing::Gone => {}
            Standing::Kept(why) => self.kept.push(Kept { type_name, id, why }),
            Standing::Orphan(age) => {
                let name = resource.name().map(str::to_owned);
                self.orphans.push(Orphan { type_name, id, name, age, kind: Some(resource.kind) });
            }
        }
    }
}

impl Orphan {
    /// Why `--delete` leaves it alone; `None` when it does not.
    pub fn spared(&self, older_than: Duration) -> Option<&'static str> {
        match (self.kind, self.age) {
            (None, _) => Some("not deleted by this version, which sees only its tags"),
            (Some(kind), _) if !kind.is_deletable() => Some("not deleted by this version"),
            // AWS does not tell the age of these, and an apply may be making them right now.
            (Some(_), None) if !older_than.is_zero() => Some("deleted only with `--older-than 0s`"),
            _ => None,
        }
    }
}
