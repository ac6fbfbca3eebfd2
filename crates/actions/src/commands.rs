//! The text forms of workflow commands. Pure: nothing here reads or writes.
//!
//! Escaping rules: <https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts>.

use crate::text;
use std::fmt;
use std::path::PathBuf;

/// How loud an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `::error`
    Error,
    /// `::warning`
    Warning,
    /// `::notice`
    Notice,
}

/// One annotation, optionally on a line of a file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// How loud it is.
    pub level: Level,
    /// Its headline.
    pub title: String,
    /// Its text.
    pub message: String,
    /// Path relative to the repository's root.
    pub file: Option<PathBuf>,
    /// Line in `file`, counted from 1.
    pub line: Option<u32>,
}

impl Annotation {
    /// An annotation that points at no file.
    pub fn new(level: Level, title: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level, title: title.into(), message: message.into(), file: None, line: None }
    }

    /// Points it at a line of a file.
    #[must_use]
    pub fn at(mut self, file: impl Into<PathBuf>, line: Option<u32>) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        write!(f, "::{level} ")?;
        if let Some(file) = &self.file {
            write!(f, "file={},", escape_property(&text::line(&file.to_string_lossy())))?;
            if let Some(line) = self.line {
                write!(f, "line={line},")?;
            }
        }
        let (title, message) = (text::line(&self.title), text::lines(&self.message));
        write!(f, "title={}::{}", escape_property(&title), escape_data(&message))
    }
}

/// The random word between which the runner prints text without reading commands in it.
#[derive(Debug, Clone)]
pub(crate) struct StopToken(String);

impl StopToken {
    /// A new random token.
    pub(crate) fn new() -> Self {
        Self(token())
    }

    /// The line that stops command processing.
    pub(crate) fn begin(&self) -> String {
        format!("::stop-commands::{}", self.0)
    }

    /// The line that resumes it.
    pub(crate) fn end(&self) -> String {
        format!("::{}::", self.0)
    }
}

pub(crate) fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

pub(crate) fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

pub(crate) fn output_block(name: &str, value: &str, delimiter: &str) -> String {
    format!("{name}<<{delimiter}\n{value}\n{delimiter}\n")
}

/// `markdown` with a final newline, cut at the end of a line when it is longer than `room` bytes.
pub(crate) fn fit(markdown: &str, room: usize) -> String {
    const NOTE: &str =
        "\n_The rest did not fit into the step summary; it is in the step's log and report._\n";
    if markdown.len() < room {
        return format!("{}\n", markdown.trim_end_matches('\n'));
    }
    let budget = room.saturating_sub(NOTE.len());
    let mut kept = 0;
    for line in markdown.split_inclusive('\n') {
        if kept + line.len() > budget {
            break;
        }
        kept += line.len();
    }
    if room < NOTE.len() { String::new() } else { format!("{}{NOTE}", &markdown[..kept]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_escape_what_would_end_them() {
        let annotation =
            Annotation::new(Level::Error, "a:b,c", "50 %\nnext").at("roles/x.yml", Some(3));
        assert_eq!(
            annotation.to_string(),
            "::error file=roles/x.yml,line=3,title=a%3Ab%2Cc::50 %25%0Anext"
        );
    }

    #[test]
    fn an_output_value_cannot_forge_another_output() {
        assert_eq!(output_block("a", "x\nb=y", "END"), "a<<END\nx\nb=y\nEND\n");
    }

    #[test]
    fn a_summary_that_does_not_fit_is_cut_at_a_line_and_says_so() {
        let text = "line one\n".repeat(100);
        let cut = fit(&text, 300);
        assert!(cut.len() <= 300 && cut.starts_with("line one\n") && cut.contains("did not fit"));
        assert_eq!(fit("short", 300), "short\n");
    }
}
