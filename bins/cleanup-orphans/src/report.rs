//! The result for people and for files: one subject per orphan, kept resource and unknown type.

use crate::deletion::Fate;
use crate::survey::{Orphan, Survey};
use deploy_cli::{Exit, Failure as _};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the run was asked to do, as far as the words depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Orphans are a verdict.
    pub check: bool,
    /// Deleting was asked for.
    pub delete: bool,
    /// What is younger stays.
    pub older_than: Duration,
}

/// How the run ends.
pub fn exit(survey: &Survey, fates: &BTreeMap<String, Fate>, asked: Asked) -> Exit {
    // What could not be listed weighs most: everything else is only part of the answer.
    if let Some(unknown) = survey.unknown.first() {
        return unknown.error.exit();
    }
    let mut worst = Exit::Success;
    for fate in fates.values() {
        match fate {
            Fate::Blocked { exit, .. } if *exit != Exit::Verdict => return *exit,
            Fate::Blocked { .. } => worst = Exit::Verdict,
            Fate::Pending(_) if worst == Exit::Success => worst = Exit::Timeout,
            Fate::Pending(_) | Fate::Deleted | Fate::Spared(_) => {}
        }
    }
    let left = survey.orphans.iter().any(|orphan| fates.get(&orphan.id) != Some(&Fate::Deleted));
    if asked.check && left && worst == Exit::Success { Exit::Verdict } else { worst }
}

/// One line that says it all.
pub fn title(survey: &Survey, fates: &BTreeMap<String, Fate>, asked: Asked) -> String {
    let mut parts = vec![match survey.orphans.len() {
        0 => "no orphans".to_owned(),
        1 => "1 orphan".to_owned(),
        count => format!("{count} orphans"),
    }];
    if asked.delete {
        let deleted = fates.values().filter(|fate| **fate == Fate::Deleted).count();
        parts.push(format!("{deleted} deleted"));
    }
    parts.push(format!("{} owned", survey.owned));
    if !survey.kept.is_empty() {
        parts.push(format!("{} kept", survey.kept.len()));
    }
    if !survey.unknown.is_empty() {
        let names: Vec<&str> =
            survey.unknown.iter().map(|unknown| unknown.type_name.as_str()).collect();
        let nothing = if asked.delete { "; nothing was deleted" } else { "" };
        parts.push(format!("not known: {}{nothing}", names.join(", ")));
    }
    parts.join(", ")
}

/// All subjects, in the order of the survey.
pub fn subjects(survey: &Survey, fates: &BTreeMap<String, Fate>, asked: Asked) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for unknown in &survey.unknown {
        let detail = format!("could not be listed: {}", unknown.error);
        subjects.push(Subject::new(
            "resource",
            &unknown.type_name,
            SubjectOutcome::Unknown,
            detail,
        ));
    }
    subjects.extend(
        survey.orphans.iter().map(|orphan| orphan_subject(orphan, fates.get(&orphan.id), asked)),
    );
    subjects.extend(survey.kept.iter().map(|kept| {
        Subject::new(
            "resource",
            &kept.id,
            SubjectOutcome::Skipped,
            format!("{}, kept: {}", kept.type_name, kept.why),
        )
        .data(json!({ "type": kept.type_name, "fate": "kept" }))
    }));
    subjects
}

fn orphan_subject(orphan: &Orphan, fate: Option<&Fate>, asked: Asked) -> Subject {
    let mut detail = orphan.type_name.clone();
    if let Some(name) = &orphan.name {
        detail.push_str(&format!(" \"{name}\""));
    }
    detail.push_str(", in no state, ");
    match orphan.age {
        Some(age) => detail.push_str(&age_words(age)),
        None => detail.push_str("age not known"),
    }
    let found = if asked.check { SubjectOutcome::Failed } else { SubjectOutcome::Warned };
    let (outcome, word, more) = match fate {
        None if asked.delete => {
            (found, "left", Some(orphan.spared(asked.older_than).unwrap_or("not tried").to_owned()))
        }
        None => (found, "listed", orphan.spared(asked.older_than).map(str::to_owned)),
        Some(Fate::Deleted) => (SubjectOutcome::Success, "deleted", Some("deleted".to_owned())),
        Some(Fate::Spared(why)) => (SubjectOutcome::Skipped, "kept", Some(format!("kept: {why}"))),
        Some(Fate::Blocked { why, .. }) => {
            (SubjectOutcome::Failed, "blocked", Some(format!("not deleted: {why}")))
        }
        Some(Fate::Pending(why)) => (SubjectOutcome::Unknown, "pending", Some(why.clone())),
    };
    if let Some(more) = more {
        detail.push_str("; ");
        detail.push_str(&more);
    }
    Subject::new("resource", &orphan.id, outcome, detail).data(json!({
        "type": orphan.type_name,
        "name": orphan.name,
        "age_ms": orphan.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "fate": word,
    }))
}

fn age_words(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} min old"),
        120..2880 => format!("{} h old", minutes / 60),
        _ => format!("{} days old", minutes / 1440),
    }
}
