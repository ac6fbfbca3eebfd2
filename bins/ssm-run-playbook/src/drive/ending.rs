//! How a host ended, read from its recap and from what Systems Manager says of its invocation.

use crate::plan::Plan;
use crate::recap::{self, Missing, Recap, State, Stats, TaskResult};
use crate::ssm::Invocation;
use std::time::Duration;

/// How one host ended.
#[derive(Debug)]
pub(crate) struct HostEnd {
    pub(crate) name: String,
    pub(crate) ending: Ending,
    pub(crate) elapsed: Duration,
    /// The last figures that are known of one without a recap.
    pub(crate) figures: Option<Stats>,
    pub(crate) results: Vec<TaskResult>,
    pub(crate) events: Option<String>,
    pub(crate) log: Option<String>,
}

/// What is known of a host at the end.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// It answered.
    Recap(Box<Recap>),
    /// It ran or may have run, and no whole answer came back.
    NoResult(String),
    /// It was left alone on purpose.
    NotTouched(String),
    /// It never ran.
    NotDelivered(String),
    /// No answer came before the deadline.
    TimedOut(String),
    /// A signal stopped this tool.
    Stopped(String),
}

/// The agent's word for a command that was cancelled.
pub(crate) const CANCELLED: &str = "its command was cancelled";

/// Between stdout and stderr in the list of invocations.
const ERRORS: &str = "----------ERROR-------";

/// A green recap counts only when Systems Manager saw the command succeed as well.
pub(super) fn believe(mut recap: Recap, invocation: &Invocation) -> Ending {
    let green = recap.state == State::Done && recap.rc == Some(0);
    if green && invocation.details != "Success" {
        return Ending::NoResult(format!(
            "the recap is good, but Systems Manager says {}",
            invocation.details
        ));
    }
    if recap.state == State::Broken
        && let Some(said) = errors(&invocation.output)
    {
        let why = recap.error.unwrap_or_default();
        recap.error = Some(format!("{why}: {said}"));
    }
    Ending::Recap(Box::new(recap))
}

/// What the script's own programs complained about.
fn errors(output: &str) -> Option<String> {
    let said = output.split_once(ERRORS)?.1;
    // The agent's own line says nothing that the recap does not.
    let noise = |line: &&str| line.is_empty() || line.starts_with("failed to run commands: ");
    let mut lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !noise(line)).collect();
    // Programs in a pipe complain one by one of the same.
    lines.truncate(2);
    (!lines.is_empty()).then(|| lines.join("; ").chars().take(300).collect())
}

/// What a missing recap means: <https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html>.
pub(super) fn without_recap(
    missing: &Missing,
    invocation: &Invocation,
    elapsed: Duration,
    plan: &Plan,
) -> Ending {
    let not_delivered = |text: &str| Ending::NotDelivered(text.to_owned());
    match invocation.details.as_str() {
        "DeliveryTimedOut" => not_delivered("its agent did not take the command in time"),
        "Undeliverable" => not_delivered("the command could not be delivered"),
        "Terminated" => not_delivered("Systems Manager ended the command before it was sent"),
        "InvalidPlatform" => not_delivered("the document does not run on its platform"),
        "AccessDenied" => not_delivered("Systems Manager was denied access to it"),
        "Cancelled" => Ending::NoResult(CANCELLED.to_owned()),
        // The agent takes status 137 for a timeout, also when the kernel killed the process.
        "ExecutionTimedOut" | "TimedOut" if elapsed < plan.timeout => {
            Ending::NoResult("the run was killed on the host; out of memory?".to_owned())
        }
        "ExecutionTimedOut" | "TimedOut" => {
            Ending::TimedOut("the agent killed the run when its time was over".to_owned())
        }
        _ => without_result(missing, invocation),
    }
}

/// The end of a command that was neither cancelled nor timed out.
fn without_result(missing: &Missing, invocation: &Invocation) -> Ending {
    let (details, output) = (&invocation.details, invocation.output.replace(ERRORS, ""));
    let tail: String = output.trim().chars().take(300).collect();
    let said = if tail.is_empty() { String::new() } else { format!(": {tail}") };
    // The agent's words for a process that the kernel or a person ended.
    let hint = if output.contains("signal: killed") { "; out of memory?" } else { "" };
    Ending::NoResult(format!("{missing} (Systems Manager says {details}){said}{hint}"))
}

/// The lines `   7 changed` that follow it, when they are all of the results.
pub(super) fn progress_figures(output: &str) -> Option<Stats> {
    let (results, rest) = output.trim().split_once(' ')?;
    let (mut stats, mut left) = (Stats::default(), results.parse::<u64>().ok()?);
    for line in rest.lines().skip(1) {
        let (count, status) = line.trim().split_once(' ')?;
        let count = count.parse().ok()?;
        stats.add(status, count);
        left = left.checked_sub(count)?;
    }
    (left == 0).then_some(stats)
}

/// Says that the host was rebooted in the middle of its run.
pub(crate) fn rebooted(task: Option<&str>) -> String {
    let at = task.filter(|task| !task.is_empty()).map(|task| format!(", at {task}"));
    let at = at.unwrap_or_default();
    format!(
        "the host was rebooted in the middle of the run{at}; what this task did is not known, and nothing after it ran; \
         `ansible.builtin.reboot` with `--allow-reboot` reboots and goes on"
    )
}

/// The end of a run that a reboot ended, when a host says so.
pub(super) fn lost(output: &str) -> Option<String> {
    let event = output.trim().split_once(' ')?.1;
    let event: serde_json::Value = serde_json::from_str(event.lines().next()?).ok()?;
    (event.get("e")? == "lost").then(|| rebooted(event.get("name").and_then(|name| name.as_str())))
}

/// `12 {"e":"task",…}` as a sentence.
pub(super) fn progress_text(output: &str) -> Option<String> {
    let (results, event) = output.trim().split_once(' ')?;
    let results = recap::counted(results.parse().ok()?);
    let task: serde_json::Value = serde_json::from_str(event.lines().next()?).ok()?;
    let name = task.get("name")?.as_str()?;
    Some(match task.get("e")?.as_str()? {
        "waiting" => format!("waits for the lock of another run ({name})"),
        "starting" => "no task has begun".to_owned(),
        "lost" => format!("{results}, the host was rebooted at task: {name}"),
        "rebooting" => format!("{results}, the host reboots"),
        "resumed" => format!("{results}, runs again after a reboot"),
        _ => format!("{results}, at task: {name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recap;

    fn invocation(details: &str, output: &str) -> Invocation {
        Invocation { id: "i-1".into(), details: details.into(), ended: true, output: output.into() }
    }

    #[test]
    fn a_green_recap_needs_a_green_command() {
        let recap = |rc: i32| {
            let text = format!("ssm-run-playbook/1 {{\"state\":\"done\",\"rc\":{rc}}}");
            recap::parse(&text).unwrap()
        };
        let believed =
            |rc, details| matches!(believe(recap(rc), &invocation(details, "")), Ending::Recap(_));
        assert!(believed(0, "Success") && believed(2, "Failed") && !believed(0, "Failed"));
    }

    #[test]
    fn what_programs_complained_of_is_part_of_a_broken_run() {
        let text = r#"ssm-run-playbook/1 {"state":"broken","error":"cannot write to /x"}"#;
        let said = |output: &str| match believe(
            recap::parse(text).unwrap(),
            &invocation("Failed", output),
        ) {
            Ending::Recap(recap) => recap.error.unwrap(),
            other => panic!("{other:?}"),
        };
        let agent = "failed to run commands: exit status 1\n";
        let errors = "\n----------ERROR-------\nbase64: write error: No space left on device\n";
        let expected = "cannot write to /x: base64: write error: No space left on device";
        assert_eq!(said(&format!("{text}{errors}{agent}")), expected);
        assert_eq!(said(&format!("{text}\n----------ERROR-------\n{agent}")), "cannot write to /x");
    }

    #[test]
    fn a_missing_recap_is_told_without_what_separates_the_streams() {
        let missing = recap::parse("").unwrap_err();
        let said = |output: &str| match without_result(&missing, &invocation("Failed", output)) {
            Ending::NoResult(text) => text,
            other => panic!("{other:?}"),
        };
        let text = "no recap came back (Systems Manager says Failed)";
        assert_eq!(said("\n----------ERROR-------\n"), text);
        let hint = format!("{text}: signal: killed; out of memory?");
        assert_eq!(said("\n----------ERROR-------\nsignal: killed\n"), hint);
    }

    #[test]
    fn progress_is_read_and_noise_is_not() {
        let line = "7 {\"e\":\"task\",\"name\":\"common : Install\"}\n";
        assert_eq!(progress_text(line).as_deref(), Some("7 results, at task: common : Install"));
        let waits = "0 {\"e\":\"waiting\",\"name\":\"run r1\"}";
        assert_eq!(
            progress_text(waits).as_deref(),
            Some("waits for the lock of another run (run r1)")
        );
        let figures = |text: &str| progress_figures(&format!("{line}{text}"));
        let known = figures("      5 changed\n      2 failed\n").unwrap();
        assert_eq!((known.ok, known.changed, known.failed), (5, 5, 2));
        let gone = "3 {\"e\":\"lost\",\"name\":\"common : Restart\"}\n";
        assert!(lost(gone).unwrap().contains("in the middle of the run, at common : Restart;"));
        assert_eq!((lost(line), lost(waits)), (None, None));
        // A task ended between the two counts, or only the sentence came.
        assert_eq!((figures("      8 ok\n"), figures("")), (None, None));
        assert_eq!(progress_figures(waits), Some(Stats::default()));
        for noise in ["", "0 ", "0", "x {}", "3 {\"e\":"] {
            assert_eq!(progress_text(noise), None, "{noise}");
        }
    }
}
