//! What happened, for people, for GitHub and for the next tool.

mod timeline;

use crate::drive::{Ending, HostEnd, Outcome};
use crate::error::Error;
use crate::plan::Plan;
use crate::recap::{self, FailedTask, Recap, State, Stats, TaskResult};
use deploy_actions::{Annotation, Level};
use deploy_cli::{Context, Done, Exit, human};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const SLOWEST: usize = 5;
const LISTED: usize = 20;

/// One word or two for progress.
pub(crate) fn word(ending: &Ending) -> &str {
    match ending {
        Ending::Recap(recap) => match (recap.state, recap.rc) {
            (State::Done, Some(0)) => "done",
            (State::Done, _) => "failed",
            (State::Timeout, _) => "timed out",
            (State::Cancelled, _) => "cancelled",
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

/// A host as the report shows it.
struct Judged<'a> {
    end: &'a HostEnd,
    outcome: SubjectOutcome,
    exit: Exit,
    detail: String,
    stats: Stats,
    failed: Vec<FailedTask>,
    slowest: Vec<(String, u64)>,
    changed: Vec<FailedTask>,
}

impl Judged<'_> {
    /// Left alone on purpose.
    fn is_untouched(&self) -> bool {
        self.outcome == SubjectOutcome::Skipped
    }

    fn is_bad(&self) -> bool {
        !matches!(self.outcome, SubjectOutcome::Success | SubjectOutcome::Skipped)
    }
}

fn judge<'a>(end: &'a HostEnd, plan: &Plan) -> Judged<'a> {
    judge_in(end, &plan.shown_folder)
}

fn judge_in<'a>(end: &'a HostEnd, shown_folder: &Path) -> Judged<'a> {
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
    if failed.is_empty()
        && let Some(text) = recap.and_then(|recap| recap.error.as_deref())
        && let Some((file, line)) = recap::error_place(text)
    {
        failed.push(FailedTask {
            task: "ansible-playbook".to_owned(),
            file: Some(file),
            line: Some(line),
            module: None,
            message: text.lines().next().unwrap_or_default().to_owned(),
        });
    }
    let mut changed = tasks(end, &["changed"]);
    for task in failed.iter_mut().chain(&mut changed) {
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
    let stats = recap.and_then(|recap| recap.stats).unwrap_or_default();
    Judged { end, outcome, exit, detail, stats, failed, slowest, changed }
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
        // Ansible's 1, 4 and 5 before any task: it could not read the playbook or its options.
        (State::Done, Some(1 | 4 | 5), None) if recap.tasks == 0 => {
            let (error, hint) = (error(), missing_collection(recap.error.as_deref()));
            (SubjectOutcome::Failed, Exit::Usage, format!("Ansible cannot start: {error}{hint}"))
        }
        (State::Done, rc, None) => {
            let rc = match rc {
                // 128 and SIGKILL: somebody ended it from outside, most often the kernel.
                Some(137) => "status 137 (killed; out of memory?)".to_owned(),
                Some(rc) => format!("status {rc}"),
                None => "no status".to_owned(),
            };
            let text = format!("ansible-playbook ended with {rc} at {at}: {}", error());
            (SubjectOutcome::Failed, Exit::Verdict, text)
        }
        (State::Timeout, ..) => {
            let text = format!("ended at the deadline after {} results, at {at}", recap.tasks);
            (SubjectOutcome::Failed, Exit::Timeout, text)
        }
        (State::Cancelled, ..) => {
            let text = format!("cancelled after {} results, at {at}", recap.tasks);
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::Locked, ..) => {
            let text = format!("locked by another run ({}); wait for it or cancel it", error());
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
        (State::ReferenceMissing, ..) => {
            (SubjectOutcome::Failed, Exit::Usage, format!("no such secret: {}", error()))
        }
        (State::ReferenceFailed, ..) => {
            let text = format!("a secret cannot be read: {}", error());
            (SubjectOutcome::Unknown, Exit::Unavailable, text)
        }
        (State::Duplicate | State::Broken | State::NeedBundle | State::Part, ..) => {
            (SubjectOutcome::Unknown, Exit::Unavailable, format!("cannot run: {}", error()))
        }
    }
}

/// What to do about a collection that the host does not have, when that is what Ansible says.
fn missing_collection(error: Option<&str>) -> String {
    let name = error
        .and_then(|error| error.split_once("couldn't resolve module/action '"))
        .and_then(|(_, rest)| rest.split_once('\''))
        .map(|(name, _)| name.split('.').take(2).collect::<Vec<_>>())
        .filter(|parts| parts.len() == 2);
    name.map_or_else(String::new, |parts| {
        let name = parts.join(".");
        format!(
            "; the collection {name} is not on the host: install it there, or let it travel \
             (`ansible-galaxy collection install {name} -p collections` in the Ansible folder)"
        )
    })
}

fn figures(stats: Stats) -> String {
    format!(
        "ok={} changed={} failed={} skipped={} unreachable={}",
        stats.ok, stats.changed, stats.failed, stats.skipped, stats.unreachable
    )
}

fn reboots(recap: &Recap) -> String {
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

/// A known bad deployment outweighs what could not be told.
fn exit_of(hosts: &[Judged<'_>], outcome: &Outcome) -> Exit {
    if let Some(exit) = outcome.stopped {
        return exit;
    }
    let worst = [Exit::Verdict, Exit::Usage, Exit::Denied, Exit::Timeout, Exit::Unavailable]
        .into_iter()
        .find(|exit| {
            hosts.iter().any(|host| host.exit == *exit)
                || outcome.halted.as_ref().is_some_and(|halt| halt.exit == *exit)
        });
    // Hosts that were left alone are no success, whatever the others say.
    let worst = worst.or_else(|| hosts.iter().any(Judged::is_untouched).then_some(Exit::Verdict));
    let idle = hosts.iter().all(|host| host.stats == Stats::default());
    worst.unwrap_or(if idle { Exit::Empty } else { Exit::Success })
}

/// Builds everything that a run leaves.
pub(crate) fn done(ctx: &Context, plan: &Plan, outcome: &Outcome) -> Done {
    let hosts: Vec<Judged<'_>> = outcome.hosts.iter().map(|end| judge(end, plan)).collect();
    let exit = exit_of(&hosts, outcome);
    if plan.prints_log {
        for end in &outcome.hosts {
            if let Some(log) = &end.log {
                ctx.untrusted(&format!("{}: Ansible's log", end.name), log);
            }
        }
    }
    let title = title(&hosts, plan, exit);
    let report = ctx
        .report()
        .project(plan.project.as_deref())
        .environment(plan.environment.as_deref())
        .subjects(hosts.iter().map(subject))
        .finish(exit.name(), title.clone());
    let changed: u64 = hosts.iter().map(|host| host.stats.changed).sum();
    let failed = hosts.iter().filter(|host| host.is_bad()).count();
    let untouched = hosts.iter().filter(|host| host.is_untouched()).count();
    let mut done = Done::new(exit, report);
    done.stdout = Some(text(&title, &hosts));
    done.outputs = vec![
        ("changed".to_owned(), changed.to_string()),
        ("failed".to_owned(), failed.to_string()),
        ("untouched".to_owned(), untouched.to_string()),
    ];
    done.annotations = annotations(&hosts);
    let parts = [summary(&hosts), timeline::timeline(&hosts)];
    done.summary = parts.into_iter().flatten().reduce(|all, part| all + &part);
    done
}

fn title(hosts: &[Judged<'_>], plan: &Plan, exit: Exit) -> String {
    let good = hosts.iter().filter(|host| host.outcome == SubjectOutcome::Success).count();
    let changed: u64 = hosts.iter().map(|host| host.stats.changed).sum();
    let (playbook, all) = (&plan.playbook, hosts.len());
    match exit {
        Exit::Success if plan.check => {
            format!("{playbook}: --check: {all} of {all} hosts good, {changed} would change")
        }
        Exit::Success => format!("{playbook}: {all} of {all} hosts good, {changed} changed"),
        Exit::Empty => match &plan.narrowed {
            Some(flags) => format!("{playbook}: {flags} leaves no task on any of {all} hosts"),
            None => format!("{playbook}: no play matches any of {all} hosts"),
        },
        Exit::Interrupted | Exit::Terminated => {
            format!("{playbook}: stopped, {good} of {all} hosts had ended well")
        }
        _ => {
            let untouched = hosts.iter().filter(|host| host.is_untouched()).count();
            let bad = all - good - untouched;
            let rest =
                if untouched == 0 { String::new() } else { format!(", {untouched} not touched") };
            format!("{playbook}: {bad} of {all} hosts not good{rest}")
        }
    }
}

fn subject(host: &Judged<'_>) -> Subject {
    let Stats { ok, changed, failed, skipped, unreachable, rescued, ignored } = host.stats;
    let slowest: Vec<Value> =
        host.slowest.iter().map(|(task, ms)| json!({"task": task, "elapsed_ms": ms})).collect();
    let changed_tasks: Vec<Value> = host
        .changed
        .iter()
        .map(|task| json!({"task": task.task, "file": task.file, "line": task.line}))
        .collect();
    let mut data = json!({
        "ok": ok, "changed": changed, "failed": failed, "skipped": skipped,
        "unreachable": unreachable, "rescued": rescued, "ignored": ignored,
        "failed_tasks": host.failed, "changed_tasks": changed_tasks, "slowest": slowest,
    });
    let events = host.end.events.as_deref().unwrap_or_default();
    let custom = recap::custom_stats(events, &host.end.name);
    if !custom.is_empty() {
        data["custom_stats"] = Value::Object(custom);
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
    let elapsed = match &host.end.ending {
        Ending::Recap(recap) if recap.ms > 0 => Duration::from_millis(recap.ms),
        _ => host.end.elapsed,
    };
    Subject::new("host", &host.end.name, host.outcome, host.detail.clone())
        .elapsed(elapsed)
        .data(data)
}

fn diffs<'a>(host: &'a Judged<'_>) -> impl Iterator<Item = (&'a TaskResult, &'a str)> {
    host.end.results.iter().filter_map(|result| Some((result, result.diff.as_deref()?)))
}

fn place(task: &FailedTask) -> String {
    match (&task.file, task.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => "(no file)".to_owned(),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn text(title: &str, hosts: &[Judged<'_>]) -> String {
    let width = hosts.iter().map(|host| host.end.name.chars().count()).max().unwrap_or(0).max(4);
    let mut out = format!("{title}\n");
    let columns = "   ok  changed  failed  skipped  unreachable";
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  {:<width$}{columns}      time", "host");
    for host in hosts {
        let Stats { ok, changed, failed, skipped, unreachable, .. } = host.stats;
        let time = human(host.end.elapsed);
        let _ = writeln!(
            out,
            "  {:<width$}{ok:>5}{changed:>9}{failed:>8}{skipped:>9}{unreachable:>13}{time:>10}",
            printable(&host.end.name)
        );
    }
    let untouched: Vec<&str> = hosts
        .iter()
        .filter(|host| host.is_untouched())
        .map(|host| host.end.name.as_str())
        .collect();
    if let Some(first) = hosts.iter().find(|host| host.is_untouched()) {
        let names = printable(&untouched.join(", "));
        let _ = writeln!(out, "{}: {names}", printable(&first.detail));
    }
    for host in hosts.iter().filter(|host| host.is_bad()) {
        let _ = writeln!(out, "{}: {}", printable(&host.end.name), printable(&host.detail));
        for task in &host.failed {
            let module = task.module.as_deref().unwrap_or("-");
            let _ = writeln!(
                out,
                "  {}: {} ({})",
                printable(&place(task)),
                printable(&task.task),
                printable(module)
            );
            // The bar keeps a line of foreign text from being a workflow command.
            for line in task.message.lines() {
                let _ = writeln!(out, "  | {}", printable(line));
            }
        }
    }
    for host in hosts {
        if !host.changed.is_empty() {
            let _ = writeln!(out, "{}: changed", printable(&host.end.name));
        }
        for task in host.changed.iter().take(LISTED) {
            let _ = writeln!(out, "  {}: {}", printable(&place(task)), printable(&task.task));
        }
        if host.changed.len() > LISTED {
            let _ = writeln!(out, "  and {} more", host.changed.len() - LISTED);
        }
    }
    for host in hosts.iter().filter(|host| host.outcome == SubjectOutcome::Success) {
        if let Ending::Recap(recap) = &host.end.ending
            && recap.reboots > 0
        {
            let times = reboots(recap);
            let _ = writeln!(out, "{}: {}", printable(&host.end.name), &times[2..]);
        }
    }
    for host in hosts {
        let events = host.end.events.as_deref().unwrap_or_default();
        for (name, value) in recap::custom_stats(events, &host.end.name) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let (host, name) = (printable(&host.end.name), printable(&name));
            let _ = writeln!(out, "{host}: {name} = {}", printable(&value));
        }
    }
    let slow = slowest(hosts);
    if !slow.is_empty() {
        out.push_str("slowest tasks\n");
        for (ms, host, task) in slow {
            let time = human(Duration::from_millis(ms));
            let _ = writeln!(out, "{time:>10}  {}: {}", printable(host), printable(task));
        }
    }
    out
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

/// One per failed place, naming all hosts that failed there.
fn annotations(hosts: &[Judged<'_>]) -> Vec<Annotation> {
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

fn summary(hosts: &[Judged<'_>]) -> Option<String> {
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

/// Writes the hosts as JUnit XML.
pub(crate) fn write_junit(path: &Path, report: &deploy_report::Report) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, deploy_report::junit(report)).map_err(failed)
}

/// Writes `<host>.log` and `<host>.events.jsonl` for every host that answered.
pub(crate) fn write_logs(folder: &Path, hosts: &[HostEnd]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for host in hosts {
        let name: String = host
            .name
            .chars()
            .map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .collect();
        for (ending, text) in [("log", &host.log), ("events.jsonl", &host.events)] {
            let Some(text) = text else { continue };
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
    }
    Ok(())
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
        check(r#"{"state":"locked","error":"run r1"}"#, Exit::Unavailable, "another run (run r1)");
        check(r#"{"state":"no-ansible","error":"x"}"#, Exit::Verdict, "--install-ansible");
        check(r#"{"state":"duplicate"}"#, Exit::Unavailable, "cannot run");
    }
}
