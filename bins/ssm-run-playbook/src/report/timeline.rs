//! Where the time of each host went, as a chart for the step summary: failing hosts first, then the slowest. Pure.

use super::judged::Judged;
use crate::drive::Ending;
use deploy_report::{Bar, GANTT_SECTIONS, SubjectOutcome, gantt};
use std::fmt::Write as _;
use std::time::Duration;

/// So many tasks of each, the longest.
const TASKS: usize = 8;
/// Shorter ones are no wider than a line.
const VISIBLE_MS: u64 = 100;

/// Heading and chart; `None` when nothing ran.
pub(super) fn timeline(hosts: &[Judged<'_>]) -> Option<String> {
    let mut drawn: Vec<(&Judged<'_>, Vec<Bar>)> = hosts
        .iter()
        .filter(|host| !host.is_untouched())
        .map(|host| (host, bars(host)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if drawn.is_empty() {
        return None;
    }
    let good = |host: &Judged<'_>| host.outcome == SubjectOutcome::Success;
    drawn.sort_by_key(|(host, _)| (good(host), std::cmp::Reverse(host.end.elapsed)));
    let left_out = drawn.len().saturating_sub(GANTT_SECTIONS);
    drawn.truncate(GANTT_SECTIONS);
    let mut out = "\n#### Where the time of each host went\n\n".to_owned();
    out.push_str(&gantt(
        drawn.iter().map(|(host, bars)| (host.end.name.as_str(), bars.as_slice())),
    ));
    if left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\nThe first {GANTT_SECTIONS}; {left_out} more are in the report.");
    }
    Some(out)
}

fn bars(host: &Judged<'_>) -> Vec<Bar> {
    let end = milliseconds(host.end.elapsed);
    let bad = host.outcome != SubjectOutcome::Success;
    let Ending::Recap(recap) = &host.end.ending else {
        return vec![Bar { name: "no result".to_owned(), bad: true, start: 0, end }];
    };
    // After a reboot it is the wait for that reboot's end.
    let lock = recap.lock.as_ref().filter(|_| recap.reboots == 0);
    let waited = lock.map_or(0, |(ms, _)| *ms);
    // A run that never got the lock says no more than how long it waited.
    let begin = end.saturating_sub(recap.ms.max(waited));
    let mut bars = vec![Bar { name: "until it runs".to_owned(), bad: false, start: 0, end: begin }];
    if waited >= VISIBLE_MS {
        let name = "waits for the lock".to_owned();
        bars.push(Bar { name, bad: false, start: begin, end: begin + waited });
    }
    if let Some(first) = host.end.results.iter().map(|result| result.at).min()
        && first.saturating_sub(waited) >= VISIBLE_MS
    {
        let name = "Ansible starts".to_owned();
        bars.push(Bar { name, bad: false, start: begin + waited, end: begin + first });
    }
    let mut results: Vec<_> = host.end.results.iter().collect();
    let failed = |status: &str| matches!(status, "failed" | "unreachable");
    results.sort_by_key(|result| (!failed(&result.status), std::cmp::Reverse(result.ms)));
    results.retain(|result| result.ms >= VISIBLE_MS || failed(&result.status));
    results.truncate(TASKS);
    results.sort_by_key(|result| result.at);
    bars.extend(results.iter().map(|result| Bar {
        name: result.task.clone(),
        bad: failed(&result.status),
        start: begin + result.at,
        end: begin + result.at + result.ms,
    }));
    if results.is_empty() {
        bars.push(Bar { name: "playbook".to_owned(), bad, start: begin + waited, end });
    }
    bars
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::HostEnd;
    use crate::recap;

    fn host(name: &str, ending: Ending, results: &str) -> HostEnd {
        let elapsed = Duration::from_millis(5000);
        let results = recap::results(results);
        HostEnd {
            name: name.to_owned(),
            ending,
            elapsed,
            figures: None,
            results,
            events: None,
            log: None,
        }
    }

    fn drawn(ends: &[HostEnd]) -> Option<String> {
        let folder = std::path::Path::new("ansible");
        timeline(
            &ends.iter().map(|end| super::super::judged::judge_in(end, folder)).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn failing_hosts_come_first_with_their_failed_and_their_longest_tasks() {
        let stats = |failed: u8| {
            format!(
                r#"{{"ok":1,"changed":0,"failures":{failed},"skipped":0,"unreachable":0,"rescued":0,"ignored":0}}"#
            )
        };
        let recap = |rc: u8| {
            let text = format!(
                r#"ssm-run-playbook/1 {{"state":"done","rc":{rc},"ms":3000,"stats":{}}}"#,
                stats(u8::from(rc > 0))
            );
            Ending::Recap(Box::new(recap::parse(&text).unwrap()))
        };
        let results = r#"{"e":"result","status":"ok","task":"Quick","at":100,"ms":20}
{"e":"result","status":"ok","task":"a:b #1","at":200,"ms":1500}
{"e":"result","status":"failed","task":"Breaks","at":1800,"ms":50}
"#;
        let ends = [
            host("good", recap(0), ""),
            host("bad", recap(2), results),
            host("left", Ending::NotTouched("x".to_owned()), ""),
        ];
        let text = drawn(&ends).unwrap();
        let expected = "  section bad\n  until it runs :0, 2000\n  Ansible starts :2000, 2100\n  a b  1 :2200, 3700\n  Breaks :crit, 3800, 3850\n  \
                        section good\n  until it runs :0, 2000\n  playbook :2000, 5000\n```\n";
        assert!(text.contains(expected), "{text}");
        assert_eq!(drawn(&ends[2..]), None);
    }

    #[test]
    fn the_wait_for_another_run_is_no_part_of_ansibles_start() {
        let bars = |json: &str, results: &str| {
            let recap = recap::parse(&format!("ssm-run-playbook/1 {json}")).unwrap();
            drawn(&[host("a", Ending::Recap(Box::new(recap)), results)]).unwrap()
        };
        let result = r#"{"e":"result","status":"ok","task":"T","at":1900,"ms":500}"#;
        let text = bars(r#"{"state":"done","rc":2,"ms":3000,"lock":[1500,"run r1"]}"#, result);
        let waits =
            "  waits for the lock :2000, 3500\n  Ansible starts :3500, 3900\n  T :3900, 4400\n";
        assert!(text.contains(waits), "{text}");
        let text = bars(r#"{"state":"timeout","lock":[4000,"run r1"]}"#, "");
        assert!(text.contains("  waits for the lock :1000, 5000\n"), "{text}");
    }

    #[test]
    fn a_thousand_hosts_stay_small() {
        let ends: Vec<HostEnd> = (0..1000)
            .map(|n| host(&format!("h{n}"), Ending::TimedOut("x".to_owned()), ""))
            .collect();
        let text = drawn(&ends).unwrap();
        assert!(
            text.len() < 50_000 && text.contains("960 more are in the report"),
            "{}",
            text.len()
        );
    }
}
