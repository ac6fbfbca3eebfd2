//! What somebody probably did where a file stops being YAML: the place of the mistake, which a parser notices later, and
//! what to write instead.

use crate::yaml::Broken;

/// As the parser found it, with the place where the mistake is and what to do about it.
pub(crate) fn explained(broken: Broken, text: &str) -> Broken {
    let lines: Vec<&str> = text.lines().collect();
    let at = usize::try_from(broken.line).unwrap_or(1).saturating_sub(1);
    let line = lines.get(at).copied().unwrap_or_default();
    let column = usize::try_from(broken.column).unwrap_or(1).saturating_sub(1);
    let (before, after) = split(line, column);
    let said = broken.message.as_str();
    if let Some((at, column)) = said.contains("tab").then(|| tab(&lines, at)).flatten() {
        return place(at, column, "a tab; YAML is indented by spaces only");
    }
    if said.contains("quoted scalar")
        && !said.contains("escape")
        && !said.contains("trailing")
        && let Some((at, column)) = open_quote(&lines, at)
    {
        return place(at, column, "this quote is not closed");
    }
    if let Some(column) = bare_template(line) {
        let text = "a value that begins with `{{` needs quotes around all of it: `\"{{ … }}\"`";
        return place(at, column, text);
    }
    let advice = if said.contains("trailing content") {
        "a value that begins with a quote ends with it; put other quotes around all of it"
    } else if said.contains("mapping values are not allowed") && before.contains(": ") {
        "a value that holds `: ` needs quotes"
    } else if said.contains("mapping values are not allowed") {
        "is a `: ` missing on the line above?"
    } else if said.contains("unknown anchor") {
        "a text that begins with `*` needs quotes"
    } else if said.contains("unexpected character") && after.starts_with(['%', '@', '`']) {
        "a text that begins like this needs quotes"
    } else if said.contains("escape character") {
        "in double quotes `\\` has a meaning; in single quotes it has none"
    } else if said.contains("did not find expected") && !said.contains("flow") {
        "is it indented as the lines that it belongs to?"
    } else {
        return broken;
    };
    Broken { message: format!("{said}; {advice}"), ..broken }
}

fn place(line: usize, column: usize, message: &str) -> Broken {
    let number = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
    Broken::new(number(line), number(column), message)
}

/// A line before and from a column, which counts characters.
fn split(line: &str, column: usize) -> (&str, &str) {
    let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    line.split_at(at)
}

/// The first tab that indents, from a line on.
fn tab(lines: &[&str], from: usize) -> Option<(usize, usize)> {
    let indent =
        |line: &str| line.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t');
    lines.iter().enumerate().skip(from).find_map(|(at, line)| Some((at, indent(line)?)))
}

/// The last value, up to a line, that begins with a quote and has no end on its line.
fn open_quote(lines: &[&str], until: usize) -> Option<(usize, usize)> {
    let last = until.min(lines.len().saturating_sub(1));
    (0..=last).rev().find_map(|at| {
        let line = lines.get(at)?;
        let starts = line.char_indices().filter(|&(index, c)| {
            let before = line.get(..index).unwrap_or_default();
            matches!(c, '"' | '\'')
                && (before.trim().is_empty() || before.ends_with([' ', '[', '{', ',']))
        });
        let (index, quote) = starts.into_iter().next()?;
        let rest = line.get(index..).unwrap_or_default().replace("\\\"", "");
        let column = line.get(..index).unwrap_or_default().chars().count();
        (rest.matches(quote).count() % 2 == 1).then_some((at, column))
    })
}

/// Where a value begins with a template that is not quoted.
fn bare_template(line: &str) -> Option<usize> {
    let start = [": {{", "- {{"].iter().filter_map(|start| line.find(start)).min()? + 2;
    Some(line.get(..start)?.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[track_caller]
    fn check(text: &str, place: (u32, u32), words: &str) {
        let broken = explained(parse(text).expect_err(text), text);
        assert_eq!((broken.line, broken.column), place, "{text}{}", broken.message);
        assert!(broken.message.contains(words), "{text}{}", broken.message);
    }

    #[test]
    fn the_mistake_is_named_where_it_is() {
        check("a:\n\tb: 1\n", (2, 1), "a tab");
        check("a:\n  b: 1\n\tc: 2\n", (3, 1), "a tab");
        check("- a: \"open\n- b: 1\n- c: 2\n", (1, 6), "not closed");
        check("- name: it's fine\n- b:\n    c: 'open\n- d: 1\n", (3, 8), "not closed");
        check("a: 'open\n", (1, 4), "not closed");
        check("a:\n  b: 1\n c: 2\n", (3, 2), "is it indented");
        check("- ü: {{ x }}\n", (1, 6), "begins with `{{` needs quotes");
        check("- a: {{ x }}/bin\n- b\n", (1, 6), "begins with `{{` needs quotes");
        check("- {{ x }}\n", (1, 3), "begins with `{{` needs quotes");
        check("a: \"b\" == c\n", (1, 8), "put other quotes");
        check("name: Install: things\n", (1, 14), "holds `: ` needs quotes");
        check("- debug\n  msg: x\n", (2, 6), "missing on the line above");
        check("hosts: *all\n", (1, 8), "begins with `*`");
        check("a: @x\n", (1, 4), "begins like this");
        check("a: \"\\d\"\n", (1, 4), "single quotes");
        check("? [a]\n: 1\n", (1, 3), "a list or mapping is no key");
    }
}
