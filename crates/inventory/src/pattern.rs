//! Ansible's host patterns, as `--limit` takes them.

use crate::{Host, Inventory};
use regex::Regex;
use std::collections::HashSet;
use std::net::Ipv6Addr;

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// A part names neither a host nor a group.
    #[error("`{part}` of the pattern `{pattern}` matches no host and no group")]
    NoMatch {
        /// The part.
        part: String,
        /// The whole pattern.
        pattern: String,
    },
    /// A `~regex` part does not compile.
    #[error("`{part}` is not a regular expression")]
    Regex {
        /// The part.
        part: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
}

/// As [`select`], but names that are not there match nothing, as in a play's `hosts`.
pub(crate) fn select_known<'a>(
    inventory: &'a Inventory,
    pattern: &str,
) -> Result<Vec<&'a Host>, PatternError> {
    let known = |part: &&str| {
        let name = part.trim_start_matches(['!', '&']);
        !matches!(matching(inventory, name, pattern, Of::Play), Err(PatternError::NoMatch { .. }))
    };
    let parts = split(pattern);
    // What must be in a group that is not there is nowhere.
    if parts.iter().any(|part| part.starts_with('&') && !known(part)) {
        return Ok(Vec::new());
    }
    let left: Vec<&str> = parts.iter().copied().filter(known).collect();
    let union = |part: &&str| !part.starts_with(['!', '&']);
    if parts.iter().any(union) && !left.iter().any(union) {
        return Ok(Vec::new());
    }
    choose(inventory, &left, pattern, Of::Play)
}

pub(crate) fn select<'a>(
    inventory: &'a Inventory,
    pattern: &str,
) -> Result<Vec<&'a Host>, PatternError> {
    choose(inventory, &split(pattern), pattern, Of::Limit)
}

/// Whose pattern it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A person's: `a*` is not all hosts, whatever Ansible makes of it.
    Limit,
    /// A play's: what Ansible matches is matched, also by the name of its own group `all`.
    Play,
}

/// Ansible applies unions first, then intersections, then exclusions, whatever their order in the text.
fn choose<'a>(
    inventory: &'a Inventory,
    parts: &[&str],
    pattern: &str,
    of: Of,
) -> Result<Vec<&'a Host>, PatternError> {
    let mut chosen: HashSet<&str> = HashSet::new();
    if parts.iter().all(|part| part.starts_with(['!', '&'])) {
        chosen.extend(inventory.hosts().iter().map(|host| host.name.as_str()));
    }
    for part in parts.iter().filter(|part| !part.starts_with(['!', '&'])) {
        chosen.extend(matching(inventory, part, pattern, of)?);
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('&')) {
        let keep = matching(inventory, part, pattern, of)?;
        chosen.retain(|name| keep.contains(name));
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('!')) {
        let drop = matching(inventory, part, pattern, of)?;
        chosen.retain(|name| !drop.contains(name));
    }
    Ok(inventory.hosts().iter().filter(|host| chosen.contains(host.name.as_str())).collect())
}

/// Splits at `,` and, when there is none, at `:` and blanks, except inside `[]` of a glob; an IPv6 address is one name
/// (`split_host_pattern` in Ansible's `inventory/manager.py`).
fn split(pattern: &str) -> Vec<&str> {
    if pattern.parse::<Ipv6Addr>().is_ok() {
        return vec![pattern];
    }
    let lists = pattern.contains(',');
    let separates = |c: char| if lists { c == ',' } else { c == ':' || c.is_whitespace() };
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_u32);
    for (at, c) in pattern.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if separates(c) && depth == 0 => {
                parts.push(&pattern[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&pattern[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn matching<'a>(
    inventory: &'a Inventory,
    part: &str,
    pattern: &str,
    of: Of,
) -> Result<HashSet<&'a str>, PatternError> {
    let names = inventory.hosts().iter();
    if part == "all" || part == "*" {
        return Ok(names.map(|host| host.name.as_str()).collect());
    }
    let (source, exact) = match part.strip_prefix('~') {
        Some(regex) => (format!("^(?:{regex})"), false),
        None => (glob(part), !part.contains(['*', '?', '['])),
    };
    let regex = Regex::new(&source)
        .map_err(|error| PatternError::Regex { part: part.to_owned(), source: Box::new(error) })?;
    let ungrouped = regex.is_match("ungrouped");
    let group_exists =
        ungrouped || inventory.groups().into_iter().any(|group| regex.is_match(group));
    let is_all = of == Of::Play && regex.is_match("all");
    let found: HashSet<&str> = names
        .filter(|host| {
            is_all
                || (ungrouped && host.groups.is_empty())
                || regex.is_match(&host.name)
                || host.groups.iter().any(|group| regex.is_match(group))
        })
        .map(|host| host.name.as_str())
        .collect();
    if exact && found.is_empty() && !group_exists {
        return Err(PatternError::NoMatch { part: part.to_owned(), pattern: pattern.to_owned() });
    }
    Ok(found)
}

/// A shell glob as an anchored regular expression.
fn glob(part: &str) -> String {
    let mut out = String::from("^");
    let mut in_class = false;
    for c in part.chars() {
        match c {
            '*' if !in_class => out.push_str(".*"),
            '?' if !in_class => out.push('.'),
            '[' if !in_class => {
                in_class = true;
                out.push('[');
            }
            '!' if in_class && out.ends_with('[') => out.push('^'),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            c if in_class => out.push(c),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use crate::Inventory;

    fn check(pattern: &str, expected: &[&str]) {
        let text = r#"{"all": {"hosts": {"sip-1": {}, "sip-2": {}, "db-1": {}, "db-2": {}},
            "children": {"sip": {"hosts": {"sip-1": {}, "sip-2": {}}}, "database": {"hosts": {"db-1": {}, "db-2": {}}},
            "primary": {"hosts": {"sip-1": {}, "db-1": {}}}, "empty": {"hosts": {}, "vars": {"x": 1}}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        let names: Vec<String> =
            inventory.select(Some(pattern)).unwrap().iter().map(|host| host.name.clone()).collect();
        assert_eq!(names, expected, "{pattern}");
    }

    #[test]
    fn patterns_mean_what_they_mean_in_ansible() {
        check("all", &["sip-1", "sip-2", "db-1", "db-2"]);
        check("sip", &["sip-1", "sip-2"]);
        check("db-2,sip-1", &["sip-1", "db-2"]);
        check("sip:database", &["sip-1", "sip-2", "db-1", "db-2"]);
        check("sip:&primary", &["sip-1"]);
        check("all:!sip", &["db-1", "db-2"]);
        check("!sip", &["db-1", "db-2"]);
        check("*-1", &["sip-1", "db-1"]);
        // A blank may have several bytes.
        check("sip-1\u{a0}db-2", &["sip-1", "db-2"]);
        check("db-[12]", &["db-1", "db-2"]);
        check("~(sip|db)-2", &["sip-2", "db-2"]);
        check("empty", &[]);
        check("d*", &["db-1", "db-2"]);
        check("a*", &[]);
    }

    #[test]
    fn an_ipv6_address_is_one_name() {
        let inventory =
            Inventory::parse(r#"{"all": {"hosts": {"fe80::1": {}, "b": {}}}}"#).unwrap();
        let found = inventory.select(Some("fe80::1")).unwrap();
        assert_eq!(found.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["fe80::1"]);
    }

    #[test]
    fn a_play_matches_what_is_there() {
        let text =
            r#"{"all": {"hosts": {"a": {}, "b": {}}, "children": {"g": {"hosts": {"a": {}}}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        let check = |pattern: &str, expected: &[&str]| {
            let found = inventory.select_known(pattern).unwrap();
            let names: Vec<&str> = found.iter().map(|host| host.name.as_str()).collect();
            assert_eq!(names, expected, "{pattern}");
        };
        check("all", &["a", "b"]);
        check("nowhere", &[]);
        check("localhost", &[]);
        check("g:nowhere", &["a"]);
        check("all:!nowhere", &["a", "b"]);
        check("all:&nowhere", &[]);
        check("nowhere:!b", &[]);
        check("!b", &["a"]);
        // Seen of `ansible --list-hosts`, 2.19: its groups `all` and `ungrouped` are matched like others.
        check("a*", &["a", "b"]);
        check("~al", &["a", "b"]);
        check("ungrouped", &["b"]);
        check("all:!ungr*", &["a"]);
        check("a b", &["a", "b"]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_not_an_empty_answer() {
        let inventory = Inventory::parse(r#"{"all": {"hosts": {"a": {}}}}"#).unwrap();
        assert_eq!(
            inventory.select(Some("a,typo")).unwrap_err().to_string(),
            "`typo` of the pattern `a,typo` matches no host and no group"
        );
        assert!(inventory.select(Some("~(")).is_err());
    }
}
