//! The report for people, on stdout.

use super::judged::{Judged, reboots};
use super::{by_same, place, printable, slowest};
use crate::drive::Ending;
use crate::recap::{self, Stats};
use deploy_cli::human;
use deploy_report::SubjectOutcome;
use std::fmt::Write as _;
use std::time::Duration;

const LISTED: usize = 20;
/// Of a longer value of `set_stats` the report has the rest.
const VALUE_CHARS: usize = 2000;

pub(super) fn text(title: &str, hosts: &[Judged<'_>]) -> String {
    let width = hosts.iter().map(|host| host.end.name.chars().count()).max().unwrap_or(0).max(4);
    let mut out = format!("{title}\n");
    let columns = "   ok  changed  failed  skipped  unreachable";
    let time = |host: &Judged<'_>| {
        if host.is_untouched() { "-".to_owned() } else { human(host.elapsed()) }
    };
    let time_width = hosts.iter().map(|host| time(host).len()).max().unwrap_or(0).max(8) + 2;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  {:<width$}{columns}{:>time_width$}", "host", "time");
    for host in hosts {
        let figure = |of: fn(&Stats) -> u64| {
            host.stats.as_ref().map_or_else(|| "-".to_owned(), |stats| of(stats).to_string())
        };
        let _ = writeln!(
            out,
            "  {:<width$}{:>5}{:>9}{:>8}{:>9}{:>13}{:>time_width$}",
            printable(&host.end.name),
            figure(|s| s.ok),
            figure(|s| s.changed),
            figure(|s| s.failed),
            figure(|s| s.skipped),
            figure(|s| s.unreachable),
            time(host),
        );
    }
    let untouched = hosts.iter().filter(|host| host.is_untouched());
    for (detail, names) in by_same(untouched.map(|host| (host.detail.as_str(), host))) {
        let _ = writeln!(out, "{}: {}", printable(detail), printable(&names.join(", ")));
    }
    let bad = hosts.iter().filter(|host| host.is_bad());
    let bad = bad.map(|host| ((host.problem.as_str(), &host.failed), host));
    for ((problem, failed), names) in by_same(bad) {
        let mut lines = problem.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(out, "{}: {}", printable(&names.join(", ")), printable(first));
        for line in lines {
            let _ = writeln!(out, "  | {}", printable(line));
        }
        for task in failed {
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
    let survived = hosts.iter().filter_map(|host| {
        let stats = host.stats.filter(|stats| stats.ignored + stats.rescued > 0)?;
        Some(((stats.ignored, stats.rescued, &host.survived), host))
    });
    for ((ignored, rescued, survived), names) in by_same(survived) {
        let parts = [(ignored, "ignored"), (rescued, "rescued")];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(count, word)| format!("{count} {word}")).collect();
        let _ = writeln!(out, "{}: {}", printable(&names.join(", ")), parts.join(", "));
        for (status, task) in survived.iter().take(LISTED) {
            let (place, name) = (printable(&place(task)), printable(&task.task));
            let _ = writeln!(out, "  {place}: {name} ({status})");
            if let Some(line) = task.message.lines().next().filter(|line| !line.is_empty()) {
                let _ = writeln!(out, "  | {}", printable(line));
            }
        }
        if survived.len() > LISTED {
            let _ = writeln!(out, "  and {} more", survived.len() - LISTED);
        }
    }
    let changed = hosts.iter().filter(|host| !host.changed.is_empty());
    for (changed, names) in by_same(changed.map(|host| (&host.changed, host))) {
        let _ = writeln!(out, "{}: changed", printable(&names.join(", ")));
        for task in changed.iter().take(LISTED) {
            let _ = writeln!(out, "  {}: {}", printable(&place(task)), printable(&task.task));
        }
        if changed.len() > LISTED {
            let _ = writeln!(out, "  and {} more", changed.len() - LISTED);
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
            let shown: String = value.chars().take(VALUE_CHARS).collect();
            let (host, name) = (printable(&host.end.name), printable(&name));
            let _ = write!(out, "{host}: {name} = {}", printable(&shown));
            if shown.len() < value.len() {
                let more = value[shown.len()..].chars().count();
                let _ = write!(out, " … and {more} characters more, which --report has");
            }
            out.push('\n');
        }
        for (name, length) in recap::left_out_stats(events, &host.end.name) {
            let (host, name) = (printable(&host.end.name), printable(&name));
            let _ = writeln!(
                out,
                "{host}: {name} is left out: {length} characters; all of set_stats is up to 1,048,576"
            );
        }
    }
    let slow = slowest(hosts);
    if !slow.is_empty() {
        out.push_str("slowest tasks\n");
        let longest = slow.iter().map(|(ms, ..)| human(Duration::from_millis(*ms)).len()).max();
        let width = longest.unwrap_or(0).max(8) + 2;
        for (ms, host, task) in slow {
            let time = human(Duration::from_millis(ms));
            let _ = writeln!(out, "{time:>width$}  {}: {}", printable(host), printable(task));
        }
    }
    out
}
