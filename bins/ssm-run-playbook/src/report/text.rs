//! The report for people, on stdout.

use super::judged::{Judged, reboots};
use super::{place, printable, slowest};
use crate::drive::Ending;
use crate::recap::{self, Stats};
use deploy_cli::human;
use deploy_report::SubjectOutcome;
use std::fmt::Write as _;
use std::time::Duration;

const LISTED: usize = 20;

pub(super) fn text(title: &str, hosts: &[Judged<'_>]) -> String {
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
