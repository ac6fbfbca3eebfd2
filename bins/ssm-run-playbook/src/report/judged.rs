//! What a host's end means: its outcome, the exit status that it asks for, the tasks to tell of. Pure.

use crate::drive::{Ending, HostEnd};
use crate::plan::Plan;
use crate::playbook::short;
use crate::recap::{self, FailedTask, Recap, State, Stats, TaskResult};
use deploy_cli::{Exit, human};
use deploy_report::SubjectOutcome;
use std::path::Path;
use std::time::Duration;

pub(super) const SLOWEST: usize = 5;

/// A host as the report shows it.
pub(super) struct Judged<'a> {
    pub(super) end: &'a HostEnd,
    pub(super) outcome: SubjectOutcome,
    pub(super) exit: Exit,
    /// One line, figures included.
    pub(super) detail: String,
    /// What became of a bad host, without what its failed tasks and its figures say already; perhaps several lines.
    pub(super) problem: String,
    /// What is known of them.
    pub(super) stats: Option<Stats>,
    pub(super) failed: Vec<FailedTask>,
    pub(super) slowest: Vec<(String, u64)>,
    pub(super) changed: Vec<FailedTask>,
    /// Failures that the playbook goes on after, each with `ignored` or `rescued`.
    pub(super) survived: Vec<(&'static str, FailedTask)>,
}

impl Judged<'_> {
    /// Left alone on purpose.
    pub(super) fn is_untouched(&self) -> bool {
        self.outcome == SubjectOutcome::Skipped
    }

    /// Whether nothing ran but what Ansible does by itself when a play begins, and does with any tags; its
    /// `executor/play_iterator.py` gives that task its name.
    pub(super) fn has_only_gathered_facts(&self) -> bool {
        let results = &self.end.results;
        let is_own = |result: &TaskResult| {
            let module = result.module.as_deref().map(short);
            result.task == "Gathering Facts" && module == Some("gather_facts")
        };
        !results.is_empty() && results.iter().all(is_own)
    }

    /// How long it took on the host; where that is not known, since the tool's start.
    pub(super) fn elapsed(&self) -> Duration {
        match &self.end.ending {
            Ending::Recap(recap) if recap.ms > 0 => Duration::from_millis(recap.ms),
            _ => self.end.elapsed,
        }
    }

    pub(super) fn is_bad(&self) -> bool {
        !matches!(self.outcome, SubjectOutcome::Success | SubjectOutcome::Skipped)
    }
}

pub(super) fn judge<'a>(end: &'a HostEnd, plan: &Plan) -> Judged<'a> {
    judge_in(end, &plan.shown_folder)
}

pub(super) fn judge_in<'a>(end: &'a HostEnd, shown_folder: &Path) -> Judged<'a> {
    let (outcome, exit, detail) = match &end.ending {
        Ending::Recap(recap) => judge_recap(recap),
        Ending::NoResult(text) => (SubjectOutcome::Unknown, Exit::Unavailable, text.clone()),
        Ending::NotDelivered(text) => (SubjectOutcome::Unknown, Exit::Unavailable, text.clone()),
        Ending::NotTouched(text) => {
            (SubjectOutcome::Skipped, Exit::Success, format!("not touched: {text}"))
        }
        Ending::TimedOut(text) => (SubjectOutcome::Unknown, Exit::Timeout, text.clone()),
        Ending::Stopped(text) => (SubjectOutcome::Unknown, Exit::Interrupted, text.clone()),
    };
    let recap = match &end.ending {
        Ending::Recap(recap) => Some(recap),
        _ => None,
    };
    let mut failed = tasks(end, &["failed", "unreachable"]);
    if failed.is_empty() {
        failed.extend(recap.and_then(|recap| recap.failure.clone()));
    }
    let mut problem = detail.clone();
    if let Some(recap) = recap
        && let Some(text) = broke_off(recap)
    {
        problem = text;
        failed.extend(refusal(recap));
    } else if let Some(recap) = recap
        && recap.stats.is_some()
        && !failed.is_empty()
    {
        problem = "failed".to_owned() + &reboots(recap);
    }
    let mut changed = tasks(end, &["changed"]);
    let mut survived = Vec::new();
    for status in ["ignored", "rescued"] {
        survived.extend(tasks(end, &[status]).into_iter().map(|task| (status, task)));
    }
    let others = survived.iter_mut().map(|(_, task)| task);
    for task in failed.iter_mut().chain(&mut changed).chain(others) {
        let shown = task.file.as_ref().map(|file| shown_folder.join(file));
        task.file = shown.map(|path| path.display().to_string());
    }
    let mut slowest: Vec<(String, u64)> =
        end.results.iter().map(|result| (result.task.clone(), result.ms)).collect();
    if slowest.is_empty() {
        slowest = recap.map(|recap| recap.slowest.clone()).unwrap_or_default();
    }
    slowest.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    slowest.truncate(SLOWEST);
    let stats = recap.map_or(end.figures, |recap| {
        // Of the only task that began nothing is known.
        let nothing = recap.state == State::Done && recap.open && recap.tasks == 0;
        recap.stats.or(recap.so_far.filter(|_| !nothing))
    });
    let detail = detail.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    Judged { end, outcome, exit, detail, problem, stats, failed, slowest, changed, survived }
}

fn judge_recap(recap: &Recap) -> (SubjectOutcome, Exit, String) {
    let error = || recap.error.as_deref().unwrap_or("no reason given").trim().to_owned();
    let at = recap.last.as_deref().unwrap_or("the first task");
    match (recap.state, recap.rc, recap.stats) {
        (State::Done, Some(0), Some(stats)) => {
            (SubjectOutcome::Success, Exit::Success, figures(stats) + &reboots(recap))
        }
        (State::Done, _, Some(stats)) => {
            let what = recap.failure.as_ref().map(|failure| format!(", at {}", failure.task));
            let detail = figures(stats) + &reboots(recap) + &what.unwrap_or_default();
            (SubjectOutcome::Failed, Exit::Verdict, detail)
        }
        (State::Done, Some(0), None) => {
            let text = "ansible-playbook ended without its own recap".to_owned();
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::Done, _, None) => {
            let problem = broke_off(recap).unwrap_or_default();
            let error = error();
            // Ansible's error has its gist first; of a log that just ends the end tells most.
            let gist = if error.starts_with("ERROR!") || error.starts_with("[ERROR]") {
                error.lines().next()
            } else {
                error.lines().last()
            };
            let exit = if cannot_start(recap) { Exit::Usage } else { Exit::Verdict };
            (SubjectOutcome::Failed, exit, format!("{problem}: {}", gist.unwrap_or_default()))
        }
        (State::Timeout, ..) => {
            let ran =
                format!("ended at the deadline after {}, at {at}", recap::counted(recap.tasks));
            let text = match &recap.lock {
                Some((_, holder)) if recap.tasks == 0 && recap.last.is_none() => {
                    format!("waited until the deadline for the lock of another run ({holder})")
                }
                // A short wait explains nothing.
                Some((ms, holder)) if ms * 10 >= recap.ms => {
                    let waited = human(Duration::from_millis(*ms));
                    format!(
                        "{ran}; before, it waited {waited} for the lock of another run ({holder})"
                    )
                }
                _ => ran,
            };
            (SubjectOutcome::Failed, Exit::Timeout, text)
        }
        (State::Cancelled, ..) => {
            let text = format!("cancelled after {}, at {at}", recap::counted(recap.tasks));
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::WentDown, ..) => {
            (SubjectOutcome::Unknown, Exit::Unavailable, crate::drive::rebooted(None))
        }
        (State::Locked, ..) => {
            let text = format!(
                "locked by another run ({}); wait for it, or cancel its command, which has that ID in its comment",
                error()
            );
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::NoAnsible, ..) => {
            let fix = "pass `--install-ansible`, or install ansible-core in the host's user data";
            (SubjectOutcome::Failed, Exit::Verdict, format!("{}; {fix}", error()))
        }
        (State::InstallFailed, ..) => {
            let text = format!("Ansible cannot be installed: {}", error());
            (SubjectOutcome::Failed, Exit::Verdict, text)
        }
        (State::ReferenceDenied, ..) => {
            let text = format!("the instance role may not read {}", error());
            (SubjectOutcome::Failed, Exit::Denied, text)
        }
        (State::ReferenceMissing, ..) => (SubjectOutcome::Failed, Exit::Usage, error()),
        (State::ReferenceFailed, ..) => {
            let text = format!("a secret cannot be read: {}", error());
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::Duplicate | State::Broken | State::NeedBundle | State::Part, ..) => {
            (SubjectOutcome::Unknown, Exit::Unavailable, format!("cannot run: {}", error()))
        }
    }
}

/// Ansible's 1, 4 and 5 before any task began: it could not read the playbook or its options.
fn cannot_start(recap: &Recap) -> bool {
    let refused = matches!((recap.state, recap.rc), (State::Done, Some(1 | 4 | 5)));
    refused && recap.stats.is_none() && recap.tasks == 0 && recap.last.is_none()
}

/// How Ansible ended when it did not come to its own recap.
fn broke_off(recap: &Recap) -> Option<String> {
    if recap.state != State::Done || recap.stats.is_some() || recap.rc == Some(0) {
        return None;
    }
    if cannot_start(recap) {
        return Some(format!("Ansible cannot start{}", missing_module(recap.error.as_deref())));
    }
    let rc = match recap.rc {
        // 128 and SIGKILL: somebody ended it from outside, most often the kernel.
        Some(137) => "status 137 (killed; out of memory?)".to_owned(),
        Some(rc) => format!("status {rc}"),
        None => "no status".to_owned(),
    };
    let at = recap.last.as_deref().unwrap_or("the first task");
    let unknown = if recap.open { "; what this task did is not known" } else { "" };
    Some(format!("ansible-playbook ended with {rc} at {at}{unknown}"))
}

/// What Ansible says of a playbook that it cannot read, with its place and Ansible's excerpt of it.
fn refusal(recap: &Recap) -> Option<FailedTask> {
    let text = recap.error.as_deref()?;
    let (file, line) = recap::error_place(text).unzip();
    let (task, message) = ("ansible-playbook".to_owned(), text.trim().to_owned());
    Some(FailedTask { task, file, line, module: None, message })
}

/// What to do about a module that the host does not have, when that is what Ansible says.
fn missing_module(error: Option<&str>) -> String {
    let name = error
        .and_then(|error| error.split_once("couldn't resolve module/action '"))
        .and_then(|(_, rest)| rest.split_once('\''));
    let Some((name, _)) = name else { return String::new() };
    match name.split('.').collect::<Vec<_>>().as_slice() {
        // Ansible itself has these two.
        ["ansible", "builtin" | "legacy", ..] | [_] => {
            format!("; there is no such module: `{name}`")
        }
        [namespace, collection, ..] => format!(
            "; the collection {namespace}.{collection} is not on the host: install it there, or let it travel \
             (`ansible-galaxy collection install {namespace}.{collection} -p collections` in the Ansible folder)"
        ),
        [] => String::new(),
    }
}

fn figures(stats: Stats) -> String {
    format!(
        "ok={} changed={} failed={} skipped={} unreachable={}",
        stats.ok, stats.changed, stats.failed, stats.skipped, stats.unreachable
    )
}

pub(super) fn reboots(recap: &Recap) -> String {
    match recap.reboots {
        0 => String::new(),
        1 => ", rebooted once".to_owned(),
        times => format!(", rebooted {times} times"),
    }
}

fn tasks(end: &HostEnd, statuses: &[&str]) -> Vec<FailedTask> {
    end.results
        .iter()
        .filter(|result| statuses.contains(&result.status.as_str()))
        .map(|result| FailedTask {
            task: result.task.clone(),
            file: result.file.clone(),
            line: result.line,
            module: result.module.clone(),
            message: result.message.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recap(json: &str) -> Recap {
        recap::parse(&format!("ssm-run-playbook/1 {json}")).unwrap()
    }

    #[test]
    fn every_answer_has_its_exit_and_only_a_whole_one_is_green() {
        let check = |json: &str, expected: Exit, said: &str| {
            let (outcome, exit, detail) = judge_recap(&recap(json));
            assert!(exit == expected && detail.contains(said), "{json}: {exit:?} {detail}");
            assert_eq!(outcome == SubjectOutcome::Success, expected == Exit::Success, "{json}");
        };
        let stats = r#""stats":{"ok":1,"changed":0,"failures":1,"skipped":0,"unreachable":0,"rescued":0,"ignored":0}"#;
        check(&format!(r#"{{"state":"done","rc":0,{stats}}}"#), Exit::Success, "ok=1");
        check(&format!(r#"{{"state":"done","rc":2,{stats}}}"#), Exit::Verdict, "failed=1");
        check(r#"{"state":"done","rc":0}"#, Exit::Unavailable, "without its own recap");
        check(r#"{"state":"done","rc":4,"error":"ERROR! x"}"#, Exit::Usage, "ERROR! x");
        check(
            r#"{"state":"done","rc":137,"tasks":3,"last":"t"}"#,
            Exit::Verdict,
            "status 137 (killed; out of memory?) at t",
        );
        check(r#"{"state":"timeout","tasks":3,"last":"t"}"#, Exit::Timeout, "3 results, at t");
        let lock = r#""lock":[2000,"run r1 since x"]"#;
        check(
            &format!(r#"{{"state":"timeout","tasks":3,"last":"t",{lock}}}"#),
            Exit::Timeout,
            "at t; before, it waited 2.0 s for the lock of another run (run r1 since x)",
        );
        check(
            &format!(r#"{{"state":"timeout",{lock}}}"#),
            Exit::Timeout,
            "waited until the deadline for the lock of another run (run r1 since x)",
        );
        check(
            r#"{"state":"done","rc":1,"last":"t","open":true,"error":"ERROR! x"}"#,
            Exit::Verdict,
            "ended with status 1 at t; what this task did is not known: ERROR! x",
        );
        let resolve = |name: &str, said: &str| {
            let error = format!("ERROR! couldn't resolve module/action '{name}'. This");
            let json = format!(r#"{{"state":"done","rc":4,"error":"{error}"}}"#);
            check(&json, Exit::Usage, said);
        };
        resolve("community.general.ufw", "the collection community.general is not on the host");
        for name in ["ansible.builtin.coppy", "ansible.legacy.coppy", "coppy"] {
            resolve(name, &format!("cannot start; there is no such module: `{name}`: "));
        }
        check(r#"{"state":"locked","error":"run r1"}"#, Exit::Unavailable, "another run (run r1)");
        check(r#"{"state":"no-ansible","error":"x"}"#, Exit::Verdict, "--install-ansible");
        check(r#"{"state":"duplicate"}"#, Exit::Unavailable, "cannot run");
    }
}
