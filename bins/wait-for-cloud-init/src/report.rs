//! From findings to the report, the exit status and one line.

use crate::cloud_init;
use crate::host::{Console, HostWait};
use crate::verdict::{Finding, Verdict};
use crate::{Args, Policy};
use deploy_cli::Exit;
use deploy_report::{Subject, SubjectOutcome};
use serde_json::json;
use std::time::Duration;

/// Whether a host with this finding fails the wait.
pub(crate) fn fails(finding: &Finding, args: &Args) -> bool {
    outcome(finding, args) == SubjectOutcome::Failed
}

fn outcome(finding: &Finding, args: &Args) -> SubjectOutcome {
    let by = |policy| match policy {
        Policy::Accept => SubjectOutcome::Success,
        Policy::Warn => SubjectOutcome::Warned,
        Policy::Fail => SubjectOutcome::Failed,
    };
    match finding.verdict {
        Verdict::Ready => SubjectOutcome::Success,
        Verdict::Degraded if finding.only_deprecated => {
            by(args.deprecated.unwrap_or(args.degraded))
        }
        Verdict::Degraded => by(args.degraded),
        Verdict::Disabled => by(args.disabled),
        Verdict::Absent => by(args.absent),
        Verdict::Failed
        | Verdict::Stopped
        | Verdict::Terminated
        | Verdict::NeverOnline
        | Verdict::TimedOut => SubjectOutcome::Failed,
        Verdict::Pending => SubjectOutcome::Unknown,
    }
}

/// The exit status of a wait that ended by itself: a host that is bad outweighs one that is late.
pub(crate) fn exit(hosts: &[HostWait], args: &Args) -> Exit {
    let findings = || hosts.iter().filter_map(|host| host.finding.as_ref());
    let late =
        |finding: &Finding| matches!(finding.verdict, Verdict::NeverOnline | Verdict::TimedOut);
    if findings().any(|finding| fails(finding, args) && !late(finding)) {
        Exit::Verdict
    } else if findings().any(late) {
        Exit::Timeout
    } else {
        Exit::Success
    }
}

/// `2 ready, 1 failed`, in the order of the verdicts' badness.
pub(crate) fn counted(hosts: &[HostWait]) -> String {
    const ORDER: [Verdict; 10] = [
        Verdict::Failed,
        Verdict::Terminated,
        Verdict::Stopped,
        Verdict::NeverOnline,
        Verdict::TimedOut,
        Verdict::Absent,
        Verdict::Disabled,
        Verdict::Degraded,
        Verdict::Pending,
        Verdict::Ready,
    ];
    let count = |verdict| {
        hosts
            .iter()
            .filter(|host| host.finding.as_ref().is_some_and(|finding| finding.verdict == verdict))
            .count()
    };
    let parts: Vec<String> = ORDER
        .into_iter()
        .map(|verdict| (verdict, count(verdict)))
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| format!("{count} {}", verdict.name()))
        .collect();
    parts.join(", ")
}

/// Who is waited for, for the heartbeat.
pub(crate) fn standing(hosts: &[HostWait]) -> String {
    let waiting: Vec<String> = hosts
        .iter()
        .filter(|host| host.finding.is_none())
        .take(5)
        .map(|host| format!("{} ({})", host.name, host.words()))
        .collect();
    let all = hosts.iter().filter(|host| host.finding.is_none()).count();
    let more = if all > waiting.len() {
        format!(" and {} more", all - waiting.len())
    } else {
        String::new()
    };
    format!("still waiting for {}{more}", waiting.join(", "))
}

/// The report's line and data of one host.
pub(crate) fn subject(host: &HostWait, args: &Args, waited: Duration) -> Subject {
    let Some(finding) = &host.finding else {
        return Subject::new("host", &host.name, SubjectOutcome::Unknown, "not judged");
    };
    let verdict = finding.verdict.name();
    let next = if finding.next.is_empty() { String::new() } else { format!(" ({})", finding.next) };
    let detail = format!("{verdict}: {}{next}", finding.cause);
    let instance = host.instance.as_ref();
    Subject::new("host", &host.name, outcome(finding, args), detail)
        .elapsed(host.decided_after.unwrap_or(waited))
        .data(json!({
            "instance_id": host.id,
            "verdict": verdict,
            "stage": finding.stage,
            "cause": finding.cause,
            "next": finding.next,
            "timeline": {
                "launched_at": instance.and_then(|instance| instance.launched_at),
                "running_at": host.began_running_at,
                "agent_online_at": host.online_at,
            },
            "console": match &host.console {
                Console::Tail(lines) => lines.clone(),
                Console::Unread | Console::Unreadable(_) => Vec::new(),
            },
            "cloud_init": host.reading.as_ref().map(cloud_init::data),
        }))
}
