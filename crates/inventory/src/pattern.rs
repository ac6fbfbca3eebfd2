//! Ansible's host patterns, as `--limit` takes them.

use crate::glob;
use crate::layout::{ALL, Layout};
use crate::split::split;
use crate::{Host, Inventory};
use regex::Regex;
use std::collections::HashSet;

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
    /// A part names a host by a number that its hosts do not reach.
    #[error("`{part}` is not there: {number} host{} before the bracket, counted from 0", if *number == 1 { " matches" } else { "s match" })]
    Subscript {
        /// The part.
        part: String,
        /// How many hosts its name has.
        number: usize,
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
    let layout = inventory.layout();
    let known = |part: &&str| {
        let name = part.trim_start_matches(['!', '&']);
        let found = matching(&layout, name, pattern, Of::Play);
        !matches!(found, Err(PatternError::NoMatch { .. }))
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
    choose(inventory, &layout, &left, pattern, Of::Play)
}

pub(crate) fn select<'a>(
    inventory: &'a Inventory,
    pattern: &str,
) -> Result<Vec<&'a Host>, PatternError> {
    choose(inventory, &inventory.layout(), &split(pattern), pattern, Of::Limit)
}

/// Whose pattern it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A person's: `a*` is not all hosts, whatever Ansible makes of it.
    Limit,
    /// A play's: what Ansible matches is matched, also by the name of its own group `all`.
    Play,
}

/// Ansible applies unions first, then intersections, then exclusions, whatever their order in the text. A host that is
/// called exactly like a part of a union is that part, whatever else it could mean.
fn choose<'a>(
    inventory: &'a Inventory,
    layout: &Layout,
    parts: &[&str],
    pattern: &str,
    of: Of,
) -> Result<Vec<&'a Host>, PatternError> {
    let names: HashSet<&str> = layout.hosts().collect();
    let mut chosen: HashSet<&str> = HashSet::new();
    if parts.iter().all(|part| part.starts_with(['!', '&'])) {
        chosen.extend(&names);
    }
    for part in parts.iter().filter(|part| !part.starts_with(['!', '&'])) {
        match names.get(part) {
            Some(name) => chosen.extend([*name]),
            None => chosen.extend(matching(layout, part, pattern, of)?),
        }
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('&')) {
        let keep: HashSet<&str> = matching(layout, part, pattern, of)?.into_iter().collect();
        chosen.retain(|name| keep.contains(name));
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('!')) {
        let drop: HashSet<&str> = matching(layout, part, pattern, of)?.into_iter().collect();
        chosen.retain(|name| !drop.contains(name));
    }
    Ok(inventory.hosts().iter().filter(|host| chosen.contains(host.name.as_str())).collect())
}

/// The hosts of one part, with what stands before it cut off; some twice, as Ansible counts them.
fn matching<'a>(
    layout: &'a Layout,
    part: &str,
    pattern: &str,
    of: Of,
) -> Result<Vec<&'a str>, PatternError> {
    let (expression, subscript) = subscripted(part);
    let (hosts, is_known) = named(layout, expression, of)?;
    if !is_known {
        let part = expression.to_owned();
        return Err(PatternError::NoMatch { part, pattern: pattern.to_owned() });
    }
    let Some(subscript) = subscript.filter(|_| !hosts.is_empty()) else { return Ok(hosts) };
    let number = hosts.len();
    subscript.of(&hosts).ok_or_else(|| PatternError::Subscript { part: part.to_owned(), number })
}

/// The hosts that an expression without subscript matches, and whether it matches a group or a host at all.
fn named<'a>(
    layout: &'a Layout,
    expression: &str,
    of: Of,
) -> Result<(Vec<&'a str>, bool), PatternError> {
    let special = expression.starts_with('~') || expression.contains(['.', '?', '*', '[']);
    let source = match expression.strip_prefix('~') {
        Some(regex) => format!("^(?:{regex})"),
        None => glob::expression(expression),
    };
    let regex = Regex::new(&source).map_err(|error| PatternError::Regex {
        part: expression.to_owned(),
        source: Box::new(error),
    })?;
    let is_all_meant = of == Of::Play || matches!(expression, "all" | "*");
    let is_group = |group: &&str| (is_all_meant || *group != ALL) && regex.is_match(group);
    let mut groups = layout.groups().filter(is_group).peekable();
    let has_group = groups.peek().is_some();
    let mut hosts: Vec<&str> = groups.flat_map(|group| layout.hosts_of(group)).collect();
    if special || !has_group {
        hosts.extend(layout.hosts().filter(|host| regex.is_match(host)));
    }
    let is_wide = expression.starts_with('~') || expression.contains(['*', '?', '[']);
    let is_known = has_group || is_wide || !hosts.is_empty();
    Ok((hosts, is_known))
}

/// What stands in brackets at the end of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscript {
    /// One, counted from the end when negative.
    One(i64),
    /// From the first to the second, both included; to the end without a second.
    Range(usize, Option<usize>),
}

impl Subscript {
    /// The hosts; none where a single one is not there.
    fn of<'a>(self, hosts: &[&'a str]) -> Option<Vec<&'a str>> {
        let one = |at: usize| hosts.get(at).map(|host| vec![*host]);
        match self {
            Self::One(at) if at < 0 => {
                one(hosts.len().checked_sub(usize::try_from(at.unsigned_abs()).ok()?)?)
            }
            Self::One(at) => one(usize::try_from(at).ok()?),
            // To Ansible `[2:0]` is `[2]`.
            Self::Range(from, Some(0)) => one(from),
            Self::Range(from, to) => {
                let end = to.map_or(hosts.len(), |to| to.saturating_add(1).min(hosts.len()));
                Some(hosts.get(from..end).unwrap_or_default().to_vec())
            }
        }
    }
}

/// A part and the subscript at its end, if it has one: `PATTERN_WITH_SUBSCRIPT` in Ansible's `inventory/manager.py`. Digits in
/// brackets at the end are always one, also in `web-[12]`; a regular expression has none.
fn subscripted(part: &str) -> (&str, Option<Subscript>) {
    let found = || {
        let (before, inside) = part.strip_suffix(']')?.rsplit_once('[')?;
        if before.is_empty() || part.starts_with('~') {
            return None;
        }
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (sign, digits) = match inside.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, inside),
        };
        if is_number(digits) {
            // What is too large for a number is larger than any inventory.
            let number = digits.parse::<i64>().unwrap_or(i64::MAX);
            return Some((before, Subscript::One(sign * number)));
        }
        let (from, to) = inside.split_once([':', '-'])?;
        let number = |text: &str| text.parse::<usize>().unwrap_or(usize::MAX);
        let to = match to {
            "" => None,
            to if is_number(to) => Some(number(to)),
            _ => return None,
        };
        is_number(from).then(|| (before, Subscript::Range(number(from), to)))
    };
    match found() {
        Some((before, subscript)) => (before, Some(subscript)),
        None => (part, None),
    }
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
        check("db-[12]*", &["db-1", "db-2"]);
        check("db-[a1-2]", &["db-1", "db-2"]);
        check("~(sip|db)-2", &["sip-2", "db-2"]);
        check("empty", &[]);
        check("d*", &["db-1", "db-2"]);
        check("a*", &[]);
    }

    /// Many more against Ansible itself: `patterns_choose_what_ansible_chooses` of tf-to-inventory.
    #[test]
    fn a_number_counts_in_the_order_of_the_file() {
        let text = r#"{"all": {"hosts": {"b": {}, "a": {}, "c": {}, "g[0]": {}},
            "children": {"g": {"hosts": {"c": {}, "a": {}}}, "outer": {"hosts": {"b": {}}, "children": {"g": {}}}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        let check = |pattern: &str, expected: &[&str]| {
            let found = inventory.select(Some(pattern)).unwrap();
            let names: Vec<&str> = found.iter().map(|host| host.name.as_str()).collect();
            assert_eq!(names, expected, "{pattern}");
        };
        check("g[1]", &["a"]);
        check("g[-2]", &["c"]);
        check("outer[0]", &["b"]);
        check("outer[1:]", &["a", "c"]);
        check("all[0:1]", &["b", "a"]);
        // A host of exactly that name goes first.
        check("g[0]", &["g[0]"]);
        check("!g[0]", &["b", "a", "g[0]"]);
        assert!(inventory.select(Some("g[2]")).is_err());
        check("g[2:]", &[]);
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
