//! A report as JUnit XML, for tools that show test results. Pure.

use crate::{Report, Subject, SubjectOutcome};
use deploy_actions::text::line;
use std::fmt::Write as _;

/// What a failing test case says besides its subject's detail. `file` and `line` of a test case are in no specification;
/// pytest writes them and most readers know them. GitLab shows the text alone, Jenkins text and message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// The file, relative to the repository's root.
    pub file: Option<String>,
    /// Line in `file`, counted from 1.
    pub line: Option<u32>,
    /// What kind of failure it is; consumers group by it.
    pub kind: Option<String>,
    /// One line, in place of the subject's detail.
    pub message: String,
    /// All of it, several lines.
    pub text: String,
}

/// The report as one test suite with a test case per subject.
pub fn junit(report: &Report) -> String {
    junit_with(report, |_| None)
}

/// The same, with more about subjects that are bad.
pub fn junit_with(report: &Report, fault: impl Fn(&Subject) -> Option<Fault>) -> String {
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
        let fault = fault(subject);
        let _ = write!(
            xml,
            "  <testcase classname=\"{}\" name=\"{name}\" time=\"{time}\"",
            escape(&report.tool)
        );
        if let Some(file) = fault.as_ref().and_then(|fault| fault.file.as_deref()) {
            let _ = write!(xml, " file=\"{}\"", escape(file));
        }
        if let Some(line) = fault.as_ref().and_then(|fault| fault.line) {
            let _ = write!(xml, " line=\"{line}\"");
        }
        xml.push('>');
        let _ = match subject.outcome {
            SubjectOutcome::Failed => bad(&mut xml, "failure", &detail, fault.as_ref()),
            SubjectOutcome::Unknown => bad(&mut xml, "error", &detail, fault.as_ref()),
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

fn bad(xml: &mut String, element: &str, detail: &str, fault: Option<&Fault>) -> std::fmt::Result {
    let Some(fault) = fault else { return write!(xml, "<{element} message=\"{detail}\"/>") };
    write!(xml, "<{element} message=\"{}\"", escape(&fault.message))?;
    if let Some(kind) = &fault.kind {
        write!(xml, " type=\"{}\"", escape(kind))?;
    }
    let lines: Vec<String> = fault.text.lines().map(escape).collect();
    write!(xml, ">{}</{element}>", lines.join("\n"))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// One line of text for XML 1.0: markup escaped, what is hidden made visible, what XML cannot hold replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
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
        let report = crate::Report { elapsed_ms: 1234, ..report };
        let xml = junit(&report);
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"tool\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"1.234\" timestamp=\"2026-01-02T03:04:05Z\">\n  \
             <testcase classname=\"tool\" name=\"a\" time=\"0.000\"><system-out>200 OK</system-out></testcase>\n  \
             <testcase classname=\"tool\" name=\"b\" time=\"0.000\"><failure message=\"&lt;x&gt; &amp; &quot;y&quot;\\u{1b}[0m\"/></testcase>\n  \
             <testcase classname=\"tool\" name=\"c\" time=\"0.000\"><skipped message=\"not asked for\"/></testcase>\n\
             </testsuite>\n"
        );
        let fault = |subject: &Subject| {
            (subject.outcome == SubjectOutcome::Failed).then(|| Fault {
                file: Some("a\"b.yml".to_owned()),
                line: Some(7),
                kind: Some("command".to_owned()),
                message: "first <line>".to_owned(),
                text: "first <line>\nsecond\u{1b}".to_owned(),
            })
        };
        let xml = junit_with(&report, fault);
        let case = "name=\"b\" time=\"0.000\" file=\"a&quot;b.yml\" line=\"7\">\
                    <failure message=\"first &lt;line&gt;\" type=\"command\">first &lt;line&gt;\nsecond\\u{1b}</failure></testcase>";
        assert!(xml.contains(case), "{xml}");
    }
}
