//! A report as text for a terminal and as Markdown for a step summary. The failing subjects come first.

use crate::{Report, Subject, SubjectOutcome};
use deploy_actions::text::{cell, code, line};
use std::fmt::Write as _;

/// A few lines for a terminal or a log: the title, then one line per subject.
pub fn text(report: &Report) -> String {
    let mut out = format!("{}: {}\n", report.tool, line(&report.title));
    let width = report.subjects.iter().map(|subject| line(&subject.name).chars().count());
    let width = width.max().unwrap_or(0);
    for subject in failing_first(report) {
        let elapsed =
            subject.elapsed_ms.map(|ms| format!("  ({})", seconds(ms))).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  {:<7}  {:<width$}  {}{elapsed}",
            subject.outcome.name(),
            line(&subject.name),
            line(&subject.detail),
        );
    }
    out
}

/// A heading and a table for GitHub's step summary or a pull request comment.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("### {}: {}\n\n", cell(&report.tool), cell(&report.title));
    if report.subjects.is_empty() {
        return out;
    }
    out.push_str("| | what | outcome | detail | time |\n|---|---|---|---|---|\n");
    for same in rows(report) {
        let subject = same[0];
        let names: Vec<String> = same.iter().map(|subject| code(&subject.name)).collect();
        // What was left out took no time.
        let longest = same.iter().filter_map(|subject| subject.elapsed_ms).max();
        let longest = longest.filter(|ms| *ms > 0 || subject.outcome != SubjectOutcome::Skipped);
        let most = if same.len() > 1 { "≤ " } else { "" };
        let elapsed = longest.map(|ms| format!("{most}{}", seconds(ms))).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} {} | {} | {} | {elapsed} |",
            mark(subject.outcome),
            cell(&subject.kind),
            names.join(", "),
            subject.outcome.name(),
            cell(&subject.detail),
        );
    }
    out
}

/// Subjects of which the same bad thing is to be said share a row: twenty times the same error hides a different one.
fn rows(report: &Report) -> Vec<Vec<&Subject>> {
    let mut rows: Vec<Vec<&Subject>> = Vec::new();
    for subject in failing_first(report) {
        let same = |row: &&mut Vec<&Subject>| {
            let first = row[0];
            subject.outcome != SubjectOutcome::Success
                && (first.outcome, &first.kind, &first.detail)
                    == (subject.outcome, &subject.kind, &subject.detail)
        };
        match rows.iter_mut().find(same) {
            Some(row) => row.push(subject),
            None => rows.push(vec![subject]),
        }
    }
    rows
}

fn failing_first(report: &Report) -> Vec<&Subject> {
    let mut subjects: Vec<&Subject> = report.subjects.iter().collect();
    subjects.sort_by_key(|subject| match subject.outcome {
        SubjectOutcome::Failed => 0,
        SubjectOutcome::Unknown => 1,
        SubjectOutcome::Warned => 2,
        SubjectOutcome::Success | SubjectOutcome::Skipped => 3,
    });
    subjects
}

fn mark(outcome: SubjectOutcome) -> &'static str {
    match outcome {
        SubjectOutcome::Success => "✅",
        SubjectOutcome::Failed => "❌",
        SubjectOutcome::Warned => "⚠️",
        SubjectOutcome::Skipped => "➖",
        SubjectOutcome::Unknown => "❔",
    }
}

fn seconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

#[cfg(test)]
mod tests {
    use crate::{ReportBuilder, Subject, SubjectOutcome};

    fn sample() -> crate::Report {
        ReportBuilder::new("wait", "0.1.0", jiff::Timestamp::UNIX_EPOCH, std::time::Instant::now())
            .subject(Subject::new("host", "a", SubjectOutcome::Success, "done"))
            .subject(Subject::new("host", "bb", SubjectOutcome::Failed, "x | y\n<b>@all"))
            .finish("verdict", "1 of 2 hosts failed")
    }

    #[test]
    fn text_shows_the_failing_subject_first() {
        let text = super::text(&sample());
        assert_eq!(
            text,
            "wait: 1 of 2 hosts failed\n  failed   bb  x | y <b>@all\n  success  a   done\n"
        );
    }

    #[test]
    fn the_same_trouble_stands_once() {
        let mut report = sample();
        let other = crate::Subject { name: "cc".to_owned(), ..report.subjects[1].clone() };
        report.subjects.push(other.elapsed(std::time::Duration::from_millis(1500)));
        let text = super::markdown(&report);
        assert!(text.contains("| ❌ | host `bb`, `cc` | failed |"), "{text}");
        assert!(text.contains(" | ≤ 1.5 s |\n| ✅ | host `a` |"), "{text}");
    }

    #[test]
    fn a_cell_cannot_break_the_table_or_ping_anyone() {
        assert!(
            super::markdown(&sample())
                .contains("| ❌ | host `bb` | failed | x \\| y &lt;b&gt;&#64;all |  |")
        );
    }
}
