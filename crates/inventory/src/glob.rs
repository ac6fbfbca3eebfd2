//! A shell glob as a regular expression: Python's `fnmatch.translate`, which Ansible matches names with.

/// Anchored at both ends. What opens a bracket and does not close it stands for itself, like everything else outside brackets.
pub(crate) fn expression(glob: &str) -> String {
    let chars: Vec<char> = glob.chars().collect();
    let mut out = String::from("(?s)^");
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => match class(&chars[at..]) {
                Some((class, length)) => {
                    out.push_str(&class);
                    at += length;
                }
                None => out.push_str(r"\["),
            },
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    out
}

/// The class whose text follows a `[`, and how long that is with its `]`.
fn class(rest: &[char]) -> Option<(String, usize)> {
    let negated = rest.first() == Some(&'!');
    let start = usize::from(negated);
    // A `]` right at the start is a member.
    let from = start + usize::from(rest.get(start) == Some(&']'));
    let end = from + rest.get(from..)?.iter().position(|c| *c == ']')?;
    let (mut ranges, mut at) = (String::new(), start);
    while at < end {
        let (low, is_range) = (rest[at], at + 2 < end && rest[at + 1] == '-');
        let high = if is_range { rest[at + 2] } else { low };
        // A range that runs backwards holds nothing.
        if low <= high {
            ranges.push_str(&format!(r"\x{{{:x}}}-\x{{{:x}}}", u32::from(low), u32::from(high)));
        }
        at += if is_range { 3 } else { 1 };
    }
    let class = match (negated, ranges.is_empty()) {
        (true, true) => ".".to_owned(),
        (false, true) => r"[^\s\S]".to_owned(),
        (true, false) => format!("[^{ranges}]"),
        (false, false) => format!("[{ranges}]"),
    };
    Some((class, end + 1))
}

#[cfg(test)]
mod tests {
    use super::expression;
    use regex::Regex;

    #[test]
    fn globs_match_what_python_matches() {
        let check = |glob: &str, text: &str, expected: bool| {
            let regex = Regex::new(&expression(glob)).unwrap();
            assert_eq!(regex.is_match(text), expected, "{glob} {text}");
        };
        check("a?c*", "abcd", true);
        check("a.c", "abc", false);
        check("[ab]-[!1]", "b-2", true);
        check("[ab]-[!1]", "b-1", false);
        check("[]x]", "]", true);
        check("[a-c-]", "-", true);
        check("[c-a]", "b", false);
        check("[!c-a]", "b", true);
        check("[a&&b~~[]", "&", true);
        check("[a", "[a", true);
        check("web[]", "web[]", true);
        check("[^a]", "^", true);
        check("[^a]", "b", false);
    }
}
