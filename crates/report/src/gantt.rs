//! Where the time of several things went, as a chart that GitHub draws in Markdown. Pure.
//!
//! The syntax is that of <https://mermaid.js.org/syntax/gantt.html>.

use deploy_actions::text::line;
use std::fmt::Write as _;

/// So many sections of some ten bars keep the text below the 50,000 characters above which mermaid refuses it.
pub const GANTT_SECTIONS: usize = 40;

/// One bar, milliseconds since the chart's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// What took the time.
    pub name: String,
    /// Something went wrong in it.
    pub bad: bool,
    /// When it began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
}

/// The chart, as a fenced block: a section for each name, in the given order. Who calls chooses at most
/// [`GANTT_SECTIONS`] of them.
pub fn gantt<'a>(sections: impl IntoIterator<Item = (&'a str, &'a [Bar])>) -> String {
    let mut out = "```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n".to_owned();
    for (name, bars) in sections {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  section {}", gantt_label(name));
        for Bar { name, bad, start, end } in bars {
            let tag = if *bad { "crit, " } else { "" };
            let _ = writeln!(out, "  {} :{tag}{start}, {end}", gantt_label(name));
        }
    }
    out.push_str("```\n");
    out
}

/// Characters that end a name in mermaid, or in a Markdown table, become blanks.
pub fn gantt_label(text: &str) -> String {
    line(text).chars().map(|c| if ":;#|`,%<>&\\".contains(c) { ' ' } else { c }).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_break_nothing() {
        let bar = Bar { name: "a:b #1".to_owned(), bad: true, start: 5, end: 1500 };
        let expected = "```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n  section x  y\n  \
                        a b  1 :crit, 5, 1500\n```\n";
        assert_eq!(gantt([("x|\ny", [bar].as_slice())]), expected);
    }
}
