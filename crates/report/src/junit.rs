//! A report as JUnit XML, for tools that show test results. Pure.

use crate::{Report, SubjectOutcome};
use std::fmt::Write as _;

/// The report as one test suite with a test case per subject.
pub fn junit(report: &Report) -> String {
    let count = |wanted: SubjectOutcome| {
        report.subjects.iter().filter(|subject| subject.outcome == wanted).count()
    };
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        xml,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\" timestamp=\"{}\">",
        escape(&report.tool),
        report.subjects.len(),
        count(SubjectOutcome::Failed),
        count(SubjectOutcome::Unknown),
        count(SubjectOutcome::Skipped),
        seconds(report.elapsed_ms),
        report.started_at,
    );
    for subject in &report.subjects {
        let (name, detail) = (escape(&subject.name), escape(&subject.detail));
        let time = seconds(subject.elapsed_ms.unwrap_or(0));
        let _ = write!(
            xml,
            "  <testcase classname=\"{}\" name=\"{name}\" time=\"{time}\">",
            escape(&report.tool)
        );
        let _ = match subject.outcome {
            SubjectOutcome::Failed => write!(xml, "<failure message=\"{detail}\"/>"),
            SubjectOutcome::Unknown => write!(xml, "<error message=\"{detail}\"/>"),
            SubjectOutcome::Skipped => write!(xml, "<skipped message=\"{detail}\"/>"),
            SubjectOutcome::Success | SubjectOutcome::Warned => {
                write!(xml, "<system-out>{detail}</system-out>")
            }
        };
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Text for XML 1.0: markup escaped, what XML cannot hold replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReportBuilder, Subject};

    #[test]
    fn foreign_text_cannot_break_the_document() {
        let started = "2026-01-02T03:04:05Z".parse().unwrap();
        let report = ReportBuilder::new("tool", "0.1.0", started, std::time::Instant::now())
            .subject(Subject::new("check", "a", SubjectOutcome::Success, "200 OK"))
            .subject(Subject::new("check", "b", SubjectOutcome::Failed, "<x> & \"y\"\u{1b}[0m"))
            .subject(Subject::new("check", "c", SubjectOutcome::Skipped, "not asked for"))
            .finish("verdict", "title");
        let xml = junit(&crate::Report { elapsed_ms: 1234, ..report });
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"tool\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"1.234\" timestamp=\"2026-01-02T03:04:05Z\">\n  \
             <testcase classname=\"tool\" name=\"a\" time=\"0.000\"><system-out>200 OK</system-out></testcase>\n  \
             <testcase classname=\"tool\" name=\"b\" time=\"0.000\"><failure message=\"&lt;x&gt; &amp; &quot;y&quot; [0m\"/></testcase>\n  \
             <testcase classname=\"tool\" name=\"c\" time=\"0.000\"><skipped message=\"not asked for\"/></testcase>\n\
             </testsuite>\n"
        );
    }
}
