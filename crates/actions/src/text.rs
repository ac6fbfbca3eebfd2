//! Text from outside, made harmless before it is shown: to a terminal, to the runner, in Markdown, as JSON. Pure.
//!
//! The runner reads stdout and stderr of a step line by line; CR, LF and both together end a line. It trims white space
//! before it looks for `::command::`, and it looks for `##[command]` **anywhere** in a line:
//! <https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs>.

use std::fmt::Write as _;

/// Whether people cannot see a character, or see others in a wrong order because of it: control characters, line and
/// paragraph separators, marks of writing direction, and what has no width. Variation selectors stay: emoji need them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line. What separates words stays a blank, what is hidden shows as `\u{…}`, and the runner finds no command in it.
pub fn line(text: &str) -> String {
    let text = visible(text).replace("##[", "#\\u{23}[");
    let words = text.trim_start();
    match words.strip_prefix("::") {
        Some(rest) => format!("{}\\u{{3a}}:{rest}", &text[..text.len() - words.len()]),
        None => text,
    }
}

/// Several lines, each as [`line`] makes it.
pub fn lines(text: &str) -> String {
    let clean = |text: &str| line(text.strip_suffix('\r').unwrap_or(text));
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// A JSON document, or one whose strings are quoted as in JSON: the same data, but hidden characters and what the
/// runner takes for a command stand as JSON's own escapes. Characters beyond U+FFFF stay: JSON writes them as two halves,
/// which YAML does not put together.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && !matches!(c, '\n' | '\t' | '\u{10000}'..) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.replace("##[", "#\\u0023[")
}

/// Markdown for one cell of a table, or for a line outside of one: no markup that renders, links or pings, but code
/// between backticks.
pub fn cell(text: &str) -> String {
    let text = visible(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('`') {
        plain(&mut out, before);
        match after.split_once('`') {
            // Two backticks side by side would be another delimiter, and nothing escapes a backslash in code.
            Some((inside, left))
                if !inside.trim().is_empty() && !inside.contains('\\') && !out.ends_with('`') =>
            {
                let _ = write!(out, "`{}`", inside.replace('|', "\\|"));
                rest = left;
            }
            _ => {
                out.push_str("&#96;");
                rest = after;
            }
        }
    }
    plain(&mut out, rest);
    out
}

/// Markdown that shows all of a text as code, also in a table.
pub fn code(text: &str) -> String {
    let text = visible(text).replace('`', "'");
    if text.trim().is_empty() {
        return String::new();
    }
    if !text.contains('\\') {
        return format!("`{}`", text.replace('|', "\\|"));
    }
    let mut out = "<code>".to_owned();
    plain(&mut out, &text);
    out + "</code>"
}

fn plain(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '|' | '\\' | '[' | ']' | '*' => out.extend(['\\', c]),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            c => out.push(c),
        }
    }
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            c if is_hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulldown_cmark::{Event, Options, Parser, Tag};

    /// The lines that the runner sees.
    fn runner(text: &str) -> impl Iterator<Item = &str> {
        text.split(['\r', '\n'])
    }

    fn is_command(line: &str) -> bool {
        line.trim_start().starts_with("::") || line.contains("##[")
    }

    /// Strings full of what matters.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("::add-mask::x".to_owned()),
            Just("##[stop-commands]".to_owned()),
            "[\\r\\n\\t \u{85}\u{a0}\u{2028}\u{2029}\u{b}\u{c}\u{200b}\u{feff}\u{202e}:#\\[\\]]{1,4}",
            "[`\\\\|\\[\\]()!<>@&*_a~$-]{1,5}",
            "\\PC{0,3}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_is_a_command_and_nothing_is_hidden(text in hostile()) {
            let one = line(&text);
            prop_assert!(!is_command(&one) && !one.chars().any(is_hidden), "{one:?}");
            prop_assert_eq!(&line(&one), &one, "cleaning twice changes nothing");
            let several = lines(&text);
            prop_assert_eq!(several.split('\n').count(), text.split('\n').count());
            for line in runner(&several) {
                prop_assert!(!is_command(line) && !line.chars().any(is_hidden), "{line:?}");
            }
        }

        #[test]
        fn json_stays_the_same_data(text in hostile()) {
            let value = serde_json::json!({ text.as_str(): [text.as_str()] });
            let shown = json(&serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
            for line in runner(&shown) {
                let hidden = line.chars().any(|c| is_hidden(c) && c < '\u{10000}');
                prop_assert!(!is_command(line) && !hidden, "{line:?}");
            }
        }

        /// Read back by a Markdown parser: the table has its three cells, and nothing in them but text and code.
        #[test]
        fn a_cell_holds_text_and_code_only(text in hostile(), other in hostile()) {
            let table = format!("|a|b|c|\n|---|---|---|\n| {} | {} | end |\n", cell(&text), code(&other));
            let (mut cells, mut last) = (0, String::new());
            let mut in_code_tag = 0;
            for event in Parser::new_ext(&table, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
                match event {
                    Event::Start(Tag::TableCell) => (cells, last) = (cells + 1, String::new()),
                    Event::Text(text) | Event::Code(text) => last.push_str(&text),
                    Event::InlineHtml(tag) if &*tag == "<code>" => in_code_tag += 1,
                    Event::InlineHtml(tag) if &*tag == "</code>" => in_code_tag -= 1,
                    Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock)
                    | Event::Html(_) | Event::InlineHtml(_) => prop_assert!(false, "{table}"),
                    _ => {}
                }
            }
            prop_assert_eq!((cells, last.as_str(), in_code_tag), (6, "end", 0), "{}", table);
        }
    }

    #[test]
    fn what_is_hidden_is_shown() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected);
        check("i-1\n::stop-commands::x", "i-1 ::stop-commands::x");
        check("\n ::add-mask::e", "  \\u{3a}:add-mask::e");
        check("\u{85}::x::\u{1b}[2J", "\\u{85}::x::\\u{1b}[2J");
        check("a ###[add-mask]e", "a ##\\u{23}[add-mask]e");
        check("gnp.\u{202e}exe\u{200b}", "gnp.\\u{202e}exe\\u{200b}");
        check("plain: ::1 ü ⚠️", "plain: ::1 ü ⚠️");
        assert_eq!(lines("a\r\n::b::\rc\n"), "a\n\\u{3a}:b:: c\n");
    }

    #[test]
    fn markdown_shows_text_as_it_is() {
        assert_eq!(cell("pass `--limit 'a|b'`"), "pass `--limit 'a\\|b'`");
        assert_eq!(
            cell("![x](http://e) \\| <b> @all `"),
            "!\\[x\\](http://e) \\\\\\| &lt;b&gt; &#64;all &#96;"
        );
        assert_eq!(code("a|b"), "`a\\|b`");
        assert_eq!(code("a\\|[b]"), "<code>a\\\\\\|\\[b\\]</code>");
    }
}
