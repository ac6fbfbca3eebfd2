//! What happened, for people, for GitHub and for the next tool.

mod actions;
mod files;
mod judged;
mod subject;
mod text;
mod timeline;

pub(crate) use files::{write_junit, write_logs};

use crate::drive::{Ending, Halt, Outcome};
use crate::plan::Plan;
use crate::recap::{FailedTask, State, Stats};
use deploy_actions::{Annotation, Level};
use deploy_cli::actions::text::line as printable;
use deploy_cli::{Context, Done, Exit};
use deploy_report::SubjectOutcome;
use judged::{Judged, SLOWEST, judge};

/// One word or two for progress.
pub(crate) fn word(ending: &Ending) -> &str {
    match ending {
        Ending::Recap(recap) => match (recap.state, recap.rc) {
            (State::Done, Some(0)) => "done",
            (State::Done, _) => "failed",
            (State::Timeout, _) => "timed out",
            (State::Cancelled, _) => "cancelled",
            (State::WentDown, _) => "rebooted",
            (State::Locked, _) => "locked by another run",
            (State::NoAnsible, _) => "Ansible is not installed",
            (State::InstallFailed, _) => "Ansible cannot be installed",
            (State::ReferenceDenied | State::ReferenceMissing | State::ReferenceFailed, _) => {
                "a secret cannot be read"
            }
            (State::Duplicate | State::Broken | State::NeedBundle | State::Part, _) => "cannot run",
        },
        Ending::NoResult(text) if text == crate::drive::CANCELLED => "cancelled",
        Ending::NoResult(_) => "no result",
        Ending::NotTouched(_) => "not touched",
        Ending::NotDelivered(_) => "not delivered",
        Ending::TimedOut(_) => "timed out",
        Ending::Stopped(_) => "cancelled",
    }
}

/// A known bad deployment outweighs what could not be told.
fn exit_of(hosts: &[Judged<'_>], outcome: &Outcome, plan: &Plan) -> Exit {
    if let Some(exit) = outcome.stopped {
        return exit;
    }
    let worst = [Exit::Verdict, Exit::Usage, Exit::Denied, Exit::Timeout, Exit::Unavailable]
        .into_iter()
        .find(|exit| {
            hosts.iter().any(|host| host.exit == *exit)
                || outcome.halted.as_ref().is_some_and(|halt| halt.exit == Some(*exit))
        });
    // Hosts that were left alone are no success, whatever the others say.
    let worst = worst.or_else(|| hosts.iter().any(Judged::is_untouched).then_some(Exit::Verdict));
    let narrowed = plan.narrowed.is_some();
    let idle = hosts.iter().all(|host| {
        host.stats == Some(Stats::default()) || (narrowed && host.has_only_gathered_facts())
    });
    worst.unwrap_or(if idle { Exit::Empty } else { Exit::Success })
}

/// Builds everything that a run leaves.
pub(crate) fn done(ctx: &Context, plan: &Plan, outcome: &Outcome) -> Done {
    let hosts: Vec<Judged<'_>> = outcome.hosts.iter().map(|end| judge(end, plan)).collect();
    let exit = exit_of(&hosts, outcome, plan);
    if plan.prints_log {
        for end in &outcome.hosts {
            if let Some(log) = &end.log {
                ctx.untrusted(&format!("{}: Ansible's log", end.name), log);
            }
        }
    }
    let title = title(&hosts, plan, exit, outcome.halted.as_ref());
    let report = ctx
        .report()
        .project(plan.project.as_deref())
        .environment(plan.environment.as_deref())
        .subjects(hosts.iter().map(subject::subject))
        .subjects(plan.unmatched.iter().map(|name| subject::unmatched(name)))
        .finish(exit.name(), title.clone());
    let changed: u64 = changes(&hosts);
    let failed = hosts.iter().filter(|host| host.is_bad()).count();
    let untouched = hosts.iter().filter(|host| host.is_untouched()).count();
    let mut done = Done::new(exit, report);
    done.stdout = Some(text::text(&title, &hosts));
    done.outputs = vec![
        ("changed".to_owned(), changed.to_string()),
        ("failed".to_owned(), failed.to_string()),
        ("untouched".to_owned(), untouched.to_string()),
    ];
    done.annotations = actions::annotations(&hosts);
    if done.annotations.is_empty() && exit != Exit::Success {
        // No host is bad, and yet the step fails: the title says why.
        done.annotations.push(Annotation::new(Level::Error, "ssm-run-playbook", &title));
    }
    let parts = [actions::summary(&hosts), timeline::timeline(&hosts)];
    done.summary = parts.into_iter().flatten().reduce(|all, part| all + &part);
    done
}

/// As far as they are known.
fn changes(hosts: &[Judged<'_>]) -> u64 {
    hosts.iter().filter_map(|host| host.stats).map(|stats| stats.changed).sum()
}

fn title(hosts: &[Judged<'_>], plan: &Plan, exit: Exit, halted: Option<&Halt>) -> String {
    let good = hosts.iter().filter(|host| host.outcome == SubjectOutcome::Success).count();
    let changed: u64 = changes(hosts);
    let (playbook, all) = (&plan.playbook, hosts.len());
    let tasks = if changed == 1 { "task" } else { "tasks" };
    match exit {
        Exit::Success if plan.check => {
            format!("{playbook}: --check: {all} of {all} hosts good, {changed} would change")
        }
        Exit::Success => {
            format!("{playbook}: {all} of {all} hosts good, {changed} changed {tasks}")
        }
        Exit::Empty => match &plan.narrowed {
            Some(flags) => format!("{playbook}: {flags} leaves no task on any of {all} hosts"),
            None => format!("{playbook}: no task ran on any of {all} hosts"),
        },
        Exit::Interrupted | Exit::Terminated => {
            format!("{playbook}: stopped, {good} of {all} hosts had ended well")
        }
        _ => {
            let untouched = hosts.iter().filter(|host| host.is_untouched()).count();
            let bad = all - good - untouched;
            let why = halted.map(|halt| format!("; {}", halt.reason)).unwrap_or_default();
            let rest =
                if untouched == 0 { String::new() } else { format!(", {untouched} not touched") };
            match why.strip_prefix("; ") {
                Some(why) if bad == 0 => {
                    format!("{playbook}: {why}; {good} of {all} hosts good{rest}")
                }
                None if bad == 0 => format!("{playbook}: {good} of {all} hosts good{rest}"),
                _ => format!("{playbook}: {bad} of {all} hosts not good{rest}{why}"),
            }
        }
    }
}

/// The names of hosts by what is the same of them, in the order of the first of each.
fn by_same<'a, K: PartialEq>(
    hosts: impl IntoIterator<Item = (K, &'a Judged<'a>)>,
) -> Vec<(K, Vec<&'a str>)> {
    let mut found: Vec<(K, Vec<&str>)> = Vec::new();
    for (key, host) in hosts {
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, names)) => names.push(&host.end.name),
            None => found.push((key, vec![&host.end.name])),
        }
    }
    found
}

fn place(task: &FailedTask) -> String {
    match (&task.file, task.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => "(no file)".to_owned(),
    }
}

fn slowest<'a>(hosts: &'a [Judged<'_>]) -> Vec<(u64, &'a str, &'a str)> {
    let mut slow: Vec<(u64, &str, &str)> = hosts
        .iter()
        .flat_map(|host| {
            host.slowest.iter().map(|(task, ms)| (*ms, host.end.name.as_str(), task.as_str()))
        })
        .filter(|(ms, ..)| *ms >= 100)
        .collect();
    slow.sort_unstable_by(|a, b| b.cmp(a));
    slow.truncate(SLOWEST);
    slow
}
