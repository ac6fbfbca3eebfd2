//! What GitHub shows: annotations, and what follows the report's table in the step summary.

use super::judged::Judged;
use super::{by_same, place, slowest};
use crate::recap::FailedTask;
use deploy_actions::text::{cell, code};
use deploy_actions::{Annotation, Level};
use deploy_cli::human;
use deploy_report::SubjectOutcome;
use std::fmt::Write as _;
use std::time::Duration;

const NAMED: usize = 10;

/// One for each failure and for each other end, naming all of its hosts: GitHub shows ten of a step.
pub(super) fn annotations(hosts: &[Judged<'_>]) -> Vec<Annotation> {
    let bad = || hosts.iter().filter(|host| host.is_bad());
    let others = bad().filter(|host| host.failed.is_empty());
    let others = by_same(others.map(|host| ((host.outcome, host.detail.as_str()), host)));
    // What is not of a task needs the words for how the run ended.
    let problem = |task: &FailedTask, host: &Judged<'_>| {
        if task.module.is_none() { format!("{}\n", host.problem) } else { String::new() }
    };
    let tasks = bad()
        .flat_map(|host| host.failed.iter().map(move |task| ((task, problem(task, host)), host)));
    let tasks = by_same(tasks);
    let others = others.into_iter().map(|((outcome, detail), names)| {
        let level = if outcome == SubjectOutcome::Failed { Level::Error } else { Level::Warning };
        Annotation::new(level, format!("ssm-run-playbook: {}", some(&names)), detail)
    });
    let tasks = tasks.into_iter().map(|((task, problem), names)| {
        let title = format!("{} failed on {}", task.task, some(&names));
        let message = format!("{problem}{}", task.message);
        let annotation = Annotation::new(Level::Error, title, message);
        match &task.file {
            Some(file) => annotation.at(file, task.line),
            None => annotation,
        }
    });
    others.chain(tasks).collect()
}

/// As many names as a title can have.
fn some(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

pub(super) fn summary(hosts: &[Judged<'_>]) -> Option<String> {
    let mut out = String::new();
    let failed = hosts.iter().flat_map(|host| host.failed.iter().map(move |task| (task, host)));
    let failed = by_same(failed);
    if !failed.is_empty() {
        out.push_str("| host | failed task | where | module | message |\n|---|---|---|---|---|\n");
        for (task, names) in failed {
            let lines: Vec<String> = task.message.trim().lines().map(cell).collect();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                cell(&names.join(", ")),
                cell(&task.task),
                code(&place(task)),
                cell(task.module.as_deref().unwrap_or("")),
                lines.join("<br>")
            );
        }
    }
    let slow = slowest(hosts);
    if !slow.is_empty() {
        out.push_str("\n| slowest task | host | time |\n|---|---|---|\n");
        for (ms, host, task) in slow {
            let time = human(Duration::from_millis(ms));
            let _ = writeln!(out, "| {} | {} | {time} |", cell(task), cell(host));
        }
    }
    (!out.is_empty()).then_some(out)
}
