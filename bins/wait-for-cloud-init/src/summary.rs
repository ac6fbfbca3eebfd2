//! What the step summary shows below the report's table: a timeline of each host's boot, so that people see what makes
//! their boots slow, the slowest first. Pure.

use crate::cloud_init::{self, StageTimes};
use crate::host::HostWait;
use crate::verdict::Verdict;
use deploy_cli::actions::text::code;
use deploy_report::{Bar, GANTT_SECTIONS, gantt, gantt_label};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::time::Duration;

/// A first stage that begins later after the launch belongs to a later boot.
const FIRST_BOOT: f64 = 3600.0;

/// Heading, chart and table; `None` when no boot was seen.
pub(crate) fn boots(hosts: &[HostWait], now: Timestamp) -> Option<String> {
    let mut boots: Vec<(&HostWait, Vec<Bar>)> = hosts
        .iter()
        .map(|host| (host, bars(host, now)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if boots.is_empty() {
        return None;
    }
    boots.sort_by_key(|(_, bars)| std::cmp::Reverse(end(bars)));
    let left_out = boots.len().saturating_sub(GANTT_SECTIONS);
    boots.truncate(GANTT_SECTIONS);

    let mut out = "#### Where the time of each boot went\n\n".to_owned();
    out.push_str(&gantt(boots.iter().map(|(host, bars)| (host.name.as_str(), bars.as_slice()))));
    out.push_str("\n| host | verdict | boot | longest |\n|---|---|---|---|\n");
    for (host, bars) in &boots {
        let verdict = host.finding.as_ref().map_or("", |finding| finding.verdict.name());
        let longest = bars.iter().max_by_key(|bar| bar.end - bar.start);
        let longest = longest.map_or_else(String::new, |bar| {
            format!("{} {}", gantt_label(&bar.name), tenths(bar.end - bar.start))
        });
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {verdict} | {} | {longest} |",
            code(&host.name),
            tenths(end(bars))
        );
    }
    if left_out > 0 {
        let _ = writeln!(out, "\nThe slowest {GANTT_SECTIONS}; {left_out} more are in the report.");
    }
    Some(out)
}

fn end(bars: &[Bar]) -> u64 {
    bars.iter().map(|bar| bar.end).max().unwrap_or(0)
}

fn tenths(ms: u64) -> String {
    format!("{:.1} s", Duration::from_millis(ms).as_secs_f64())
}

/// `start` and `end` in seconds since the boot's begin; a clock that was set meanwhile makes neither negative, nor a bar
/// that ends before it begins.
fn bar(name: &str, bad: bool, start: f64, end: f64) -> Bar {
    let start = milliseconds(start);
    Bar { name: name.to_owned(), bad, start, end: milliseconds(end).max(start) }
}

fn milliseconds(seconds: f64) -> u64 {
    let rounded = Duration::try_from_secs_f64(seconds.max(0.0) + 0.000_5).unwrap_or_default();
    u64::try_from(rounded.as_millis()).unwrap_or(u64::MAX)
}

/// Since the launch, or since the first stage of a later boot.
fn bars(host: &HostWait, now: Timestamp) -> Vec<Bar> {
    let stages: Vec<StageTimes> =
        host.reading.as_ref().map(cloud_init::timeline).unwrap_or_default();
    let launched = host.instance.as_ref().and_then(|instance| instance.launched_at).map(seconds);
    let first = stages.iter().filter_map(|stage| stage.start).reduce(f64::min);
    let first_boot = match (launched, first) {
        (Some(launched), Some(first)) => (0.0..FIRST_BOOT).contains(&(first - launched)),
        (Some(launched), None) => seconds(now) - launched < FIRST_BOOT,
        (None, _) => false,
    };
    let Some(origin) = (if first_boot { launched } else { first }) else { return Vec::new() };
    let mut bars = Vec::new();
    if first_boot {
        let running = host.began_running_at.map(|at| seconds(at) - origin);
        let online = host.came_online_at.map(|at| seconds(at) - origin);
        let mut add = |name: &str, start: f64, end: f64| {
            bars.push(bar(name, false, start, end));
        };
        if let Some(running) = running {
            add("EC2 starts it", 0.0, running);
        }
        if let Some(online) = online {
            add("agent comes online", running.unwrap_or(0.0), online);
        }
        if let Some(first) = first {
            add("until cloud-init", running.unwrap_or(0.0).min(first - origin), first - origin);
        }
    }
    let failed = host
        .finding
        .as_ref()
        .is_some_and(|finding| !matches!(finding.verdict, Verdict::Ready | Verdict::Degraded));
    bars.extend(stages.into_iter().filter_map(|stage| {
        let start = stage.start? - origin;
        let end = stage.finished.unwrap_or_else(|| seconds(now)) - origin;
        let bad = stage.has_errors || (failed && stage.finished.is_none());
        Some(bar(&stage.name, bad, start, end))
    }));
    bars
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::{at, now, reading, running};
    use crate::host::{Agent, Instance};

    #[test]
    fn a_boot_that_was_watched_has_all_its_bars() {
        let mut host = running();
        let instance = host.instance.take().unwrap();
        host.saw_instance(Instance { state: "pending".into(), ..instance.clone() }, at(2));
        host.saw_instance(instance, at(8));
        host.saw_agent(Agent::NeverSeen, at(9));
        host.saw_agent(Agent::Online, at(12));
        host.saw_reading(reading(None, &["boom"], true));
        host.decide(true);
        let text = boots(&[host], now()).unwrap();
        let expected = "  section sip-1\n  EC2 starts it :0, 8000\n  agent comes online :8000, 12000\n  \
                        until cloud-init :8000, 20000\n  modules-final :crit, 20000, 34000\n```\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("| `sip-1` | failed | 34.0 s | modules-final 14.0 s |"), "{text}");
    }

    #[test]
    fn a_later_boot_begins_with_its_first_stage() {
        let mut host = running();
        if let Some(instance) = &mut host.instance {
            instance.launched_at = Some(at(-90_000));
        }
        host.saw_agent(Agent::Online, now());
        host.saw_reading(reading(None, &[], true));
        let text = boots(&[host], now()).unwrap();
        assert!(text.contains("  section sip-1\n  modules-final :0, 14000\n```"), "{text}");
    }

    #[test]
    fn a_thousand_boots_stay_small_and_names_break_nothing() {
        let hosts: Vec<HostWait> = (0..1000)
            .map(|number| {
                let mut host = running();
                host.name = format!("a:b;c#|{number}");
                host.saw_reading(reading(Some("modules-final"), &[], false));
                host
            })
            .collect();
        let text = boots(&hosts, now()).unwrap();
        assert!(
            text.len() < 50_000 && text.contains("960 more are in the report"),
            "{}",
            text.len()
        );
        assert!(text.contains("  section a b c  0\n"), "{text}");
        assert_eq!(text.matches("```").count(), 2);
        assert_eq!(boots(&[HostWait::new("x", "i-1")], now()), None);
    }
}
