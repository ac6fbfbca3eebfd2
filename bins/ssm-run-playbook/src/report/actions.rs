//! What GitHub shows: annotations, and what follows the report's table in the step summary.

use super::judged::Judged;
use super::{place, printable, slowest};
use crate::recap::FailedTask;
use deploy_actions::{Annotation, Level};
use deploy_cli::human;
use deploy_report::SubjectOutcome;
use std::fmt::Write as _;
use std::time::Duration;

/// One per failed place, naming all hosts that failed there.
pub(super) fn annotations(hosts: &[Judged<'_>]) -> Vec<Annotation> {
    let mut found: Vec<(FailedTask, Vec<&str>)> = Vec::new();
    let mut out = Vec::new();
    for host in hosts.iter().filter(|host| host.is_bad()) {
        let name = host.end.name.as_str();
        if host.failed.is_empty() {
            let level =
                if host.outcome == SubjectOutcome::Failed { Level::Error } else { Level::Warning };
            out.push(Annotation::new(level, format!("ssm-run-playbook: {name}"), &host.detail));
        }
        for task in &host.failed {
            match found.iter_mut().find(|(known, _)| known == task) {
                Some((_, names)) => names.push(name),
                None => found.push((task.clone(), vec![name])),
            }
        }
    }
    for (task, names) in found {
        let title = format!("{} failed on {}", task.task, names.join(", "));
        let annotation = Annotation::new(Level::Error, title, &task.message);
        out.push(match &task.file {
            Some(file) => annotation.at(file, task.line),
            None => annotation,
        });
    }
    out
}

pub(super) fn summary(hosts: &[Judged<'_>]) -> Option<String> {
    let cell = |text: &str| {
        printable(text)
            .replace('|', "\\|")
            .replace('<', "&lt;")
            .replace('@', "&#64;")
            .replace('`', "'")
    };
    let mut out = String::new();
    if hosts.iter().any(|host| !host.failed.is_empty()) {
        out.push_str("| host | failed task | where | module | message |\n|---|---|---|---|---|\n");
        for host in hosts {
            for task in &host.failed {
                let _ = writeln!(
                    out,
                    "| {} | {} | `{}` | {} | {} |",
                    cell(&host.end.name),
                    cell(&task.task),
                    cell(&place(task)),
                    cell(task.module.as_deref().unwrap_or("")),
                    cell(&task.message)
                );
            }
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
