//! A pattern's parts: `split_host_pattern` in Ansible's `inventory/manager.py`, with the same corners.

use regex::Regex;
use std::net::Ipv6Addr;
use std::sync::LazyLock;

/// A part's text outside brackets, and complete brackets.
static PART: LazyLock<Regex> = LazyLock::new(|| constant(r"(?:[^\s:\[\]]|\[[^\]]*\])+"));

/// `NAME:PORT`.
static PORT: LazyLock<Regex> = LazyLock::new(|| constant(r"^((?:[^:\[\]]|\[[^\]]*\])*):[0-9]+$"));

/// A host name, perhaps with ranges such as `[1:3]` and `[a:c]` (`patterns` in Ansible's `parsing/utils/addresses.py`).
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let range = r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]";
    let label = format!(r"(?:(?:\w|{range})(?:[\w-]|{range})*)?(?:[^\W_]|{range})");
    constant(&format!(r"(?i)^{label}(?:\.{label})*$"))
});

fn constant(expression: &str) -> Regex {
    Regex::new(expression)
        .expect("the expressions of this module are constant, and its tests use them")
}

/// Splits at `,`; when there is none, at `:` and blanks outside brackets, unless the whole is one address.
pub(crate) fn split(pattern: &str) -> Vec<&str> {
    let parts: Vec<&str> = if pattern.contains(',') {
        pattern.split(',').collect()
    } else if is_address(pattern) {
        vec![pattern]
    } else {
        PART.find_iter(pattern).map(|part| part.as_str()).collect()
    };
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn is_address(text: &str) -> bool {
    let host = PORT.captures(text).and_then(|found| found.get(1));
    let host = host.map_or(text, |host| host.as_str());
    host.parse::<Ipv6Addr>().is_ok() || NAME.is_match(host)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn parts_end_where_ansible_ends_them() {
        let check = |pattern: &str, expected: &[&str]| {
            assert_eq!(split(pattern), expected, "{pattern}");
        };
        check("a,b[1], c[2:3] , d", &["a", "b[1]", "c[2:3]", "d"]);
        check("web[0:2]:!web[1]", &["web[0:2]", "!web[1]"]);
        check("web[0:2]", &["web[0:2]"]);
        check("a b:&c", &["a", "b", "&c"]);
        check("fe80::1", &["fe80::1"]);
        check("web:22", &["web:22"]);
        check("web_:x", &["web_", "x"]);
        check("a[1", &["a", "1"]);
        check(" , ", &[]);
    }
}
