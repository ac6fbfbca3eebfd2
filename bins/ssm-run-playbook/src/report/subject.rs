//! A host in the report that other tools read.

use super::judged::Judged;
use crate::drive::Ending;
use crate::recap::{self, Stats, TaskResult};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::{Value, json};

pub(super) fn subject(host: &Judged<'_>) -> Subject {
    // What is not known is null.
    let figure = |of: fn(&Stats) -> u64| host.stats.as_ref().map(of);
    let slowest: Vec<Value> =
        host.slowest.iter().map(|(task, ms)| json!({"task": task, "elapsed_ms": ms})).collect();
    let changed_tasks: Vec<Value> = host
        .changed
        .iter()
        .map(|task| json!({"task": task.task, "file": task.file, "line": task.line}))
        .collect();
    let mut data = json!({
        "ok": figure(|s| s.ok), "changed": figure(|s| s.changed), "failed": figure(|s| s.failed),
        "skipped": figure(|s| s.skipped), "unreachable": figure(|s| s.unreachable),
        "rescued": figure(|s| s.rescued), "ignored": figure(|s| s.ignored),
        "failed_tasks": host.failed, "changed_tasks": changed_tasks, "slowest": slowest,
    });
    for status in ["ignored", "rescued"] {
        let tasks = host.survived.iter().filter(|(of, _)| *of == status).map(|(_, task)| task);
        let tasks: Vec<_> = tasks.collect();
        if !tasks.is_empty() {
            data[format!("{status}_tasks")] = json!(tasks);
        }
    }
    let events = host.end.events.as_deref().unwrap_or_default();
    let custom = recap::custom_stats(events, &host.end.name);
    if !custom.is_empty() {
        data["custom_stats"] = Value::Object(custom);
    }
    let left_out = recap::left_out_stats(events, &host.end.name);
    if !left_out.is_empty() {
        data["custom_stats_left_out"] = Value::Object(left_out);
    }
    let diffs: Vec<Value> = diffs(host)
        .map(|(result, diff)| {
            json!({"task": result.task, "file": result.file, "line": result.line, "diff": diff,
                "left_out_chars": result.diff_cut})
        })
        .collect();
    if !diffs.is_empty() {
        data["diffs"] = Value::Array(diffs);
    }
    if let Ending::Recap(recap) = &host.end.ending
        && recap.reboots > 0
    {
        data["reboots"] = recap.reboots.into();
    }
    Subject::new("host", &host.end.name, host.outcome, host.detail.clone())
        .elapsed(host.elapsed())
        .data(data)
}

/// A selected host that nothing was asked of: Ansible's own recap leaves it out.
pub(super) fn unmatched(name: &str) -> Subject {
    Subject::new("host", name, SubjectOutcome::Skipped, "no play matches it; it was not asked")
}

fn diffs<'a>(host: &'a Judged<'_>) -> impl Iterator<Item = (&'a TaskResult, &'a str)> {
    host.end.results.iter().filter_map(|result| Some((result, result.diff.as_deref()?)))
}
