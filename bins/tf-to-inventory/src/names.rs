//! The names of guessed hosts: of several sources at once, so that no two instances share one.
//!
//! A name is the tag `Name`, or without it the address: modules and resource, each with its key. Names from addresses are
//! made to differ; equal tags are an error, or told apart on request.

use crate::guess::{OnDuplicate, tag};
use crate::resources::{Resource, modules};
use std::collections::{BTreeMap, BTreeSet};

/// One host that is to be named.
struct Candidate<'r> {
    /// Which source, and which of its resources.
    at: (usize, usize),
    resource: &'r Resource,
    /// Whether nobody chose the name.
    is_default: bool,
}

/// The name of each resource that is a host, source by source. `declared` are the hosts of other sources, with their
/// instances.
pub(crate) fn names(
    sources: &[&[&Resource]],
    declared: &BTreeMap<String, Option<String>>,
    on_duplicate: OnDuplicate,
) -> Vec<Vec<Option<String>>> {
    let mut names: Vec<Vec<Option<String>>> =
        sources.iter().map(|source| vec![None; source.len()]).collect();
    let mut equal: BTreeMap<String, Vec<Candidate<'_>>> = BTreeMap::new();
    for (source, resources) in sources.iter().enumerate() {
        for (at, resource) in resources.iter().enumerate() {
            if resource.skipped().is_none() {
                let (name, is_default) = plain_name(resource);
                let candidate = Candidate { at: (source, at), resource, is_default };
                equal.entry(name).or_default().push(candidate);
            }
        }
    }
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (name, candidates) in &equal {
        let declared_id = declared.get(name).map(Option::as_deref);
        let apart = match candidates.as_slice() {
            [_] if declared_id.is_none() => None,
            candidates if is_told_apart(candidates, declared_id, on_duplicate) => {
                let is_free = |new: &str| {
                    let is_taken = equal.contains_key(new) || declared.contains_key(new);
                    (!is_taken && !told.contains(new)) || (new == name && declared_id.is_none())
                };
                Some(told_apart(name, candidates, is_free))
            }
            _ => None,
        };
        told.extend(apart.iter().flatten().cloned());
        for (at, candidate) in candidates.iter().enumerate() {
            let own = apart.as_ref().and_then(|apart| apart.get(at)).unwrap_or(name);
            names[candidate.at.0][candidate.at.1] = Some(own.clone());
        }
    }
    names
}

/// Whether hosts of one name are several instances, and may have other names.
fn is_told_apart(
    candidates: &[Candidate<'_>],
    declared: Option<Option<&str>>,
    on_duplicate: OnDuplicate,
) -> bool {
    let ids = candidates.iter().map(|candidate| candidate.resource.id.as_deref());
    let instances: BTreeSet<Option<&str>> = ids.chain(declared).collect();
    let sources: BTreeSet<usize> = candidates.iter().map(|candidate| candidate.at.0).collect();
    let is_ours = sources.len() == 1
        && declared.is_none()
        && candidates.iter().all(|candidate| candidate.is_default);
    instances.len() > 1 && (on_duplicate == OnDuplicate::Suffix || is_ours)
}

/// A name of its own for each instance: by the first of these that tells all of them apart. What nobody chose has modules,
/// resource and keys in it already.
fn told_apart(
    name: &str,
    candidates: &[Candidate<'_>],
    is_free: impl Fn(&str) -> bool,
) -> Vec<String> {
    let environment =
        |one: &Candidate<'_>| tag(one.resource, "Environment").map(|text| format!("{name}-{text}"));
    let with = |one: &Candidate<'_>, start: String, text: String| {
        Some(if one.is_default { start } else { format!("{start}-{text}") })
    };
    let key_or_place =
        |one: &Candidate<'_>| key(&one.resource.address).unwrap_or_else(|| place(one.resource));
    type Rule<'r> = &'r dyn Fn(&Candidate<'_>) -> Option<String>;
    let by_environment: Rule<'_> = &environment;
    let by_key: Rule<'_> = &|one| with(one, name.to_owned(), key_or_place(one));
    let by_place: Rule<'_> = &|one| with(one, name.to_owned(), place(one.resource));
    let by_both: Rule<'_> = &|one| with(one, environment(one)?, key_or_place(one));
    let by_all: Rule<'_> = &|one| with(one, environment(one)?, place(one.resource));
    // Characters that a name may not have may be all the difference.
    let spelled: Rule<'_> = &|one| {
        let text = spelled_out(&place(one.resource));
        Some(if one.is_default { text } else { format!("{name}-{text}") })
    };
    let rules = match candidates.iter().map(|one| one.at.0).collect::<BTreeSet<_>>().len() {
        1 => [by_key, by_place, spelled, by_environment, by_both, by_all],
        _ => [by_environment, by_both, by_all, by_key, by_place, spelled],
    };
    let named = |rule: Rule<'_>| -> Option<Vec<String>> {
        candidates.iter().map(|one| rule(one).map(|text| host_name(&text))).collect()
    };
    let fits = |names: &Vec<String>| {
        let id = |one: &Candidate<'_>| one.resource.id.clone();
        let pairs: BTreeSet<_> = names.iter().zip(candidates.iter().map(id)).collect();
        let ids: BTreeSet<_> = candidates.iter().map(id).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        // One instance in two sources has one name.
        distinct.len() == ids.len()
            && pairs.len() == ids.len()
            && names.iter().all(|new| is_free(new))
    };
    let by_id: Rule<'_> =
        &|one| Some(format!("{name}-{}", one.resource.id.as_deref().unwrap_or_default()));
    let found = rules.into_iter().find_map(|rule| named(rule).filter(fits));
    found.or_else(|| named(by_id)).unwrap_or_default()
}

/// The name, and whether nobody chose it.
fn plain_name(resource: &Resource) -> (String, bool) {
    match resource.tags.get("Name").map(|name| host_name(name)) {
        Some(name) if !name.is_empty() => (name, false),
        _ => (host_name(&place(resource)), true),
    }
}

/// Modules and resource of an address, each followed by its key. Letters of keys that a host name may not have are spelled by
/// their number, so that `["é"]` and `["ü"]` stay two.
pub(crate) fn place(resource: &Resource) -> String {
    let mut keys = modules(&resource.address).map(|(_, key)| key);
    let mut parts = Vec::new();
    for module in &resource.modules {
        parts.push(module.clone());
        let key = keys.next().flatten();
        parts.extend(key.map(|key| spelled(key.trim_matches('"'), |c| !c.is_ascii())));
    }
    parts.push(resource.name.clone());
    parts.extend(key(&resource.address));
    parts.join("-")
}

/// The key of `count` or `for_each` at the end of an address.
fn key(address: &str) -> Option<String> {
    let inner = address.strip_suffix(']')?;
    let (_, key) = match inner.strip_suffix('"') {
        Some(quoted) => quoted.rsplit_once("[\"")?,
        None => inner.rsplit_once('[')?,
    };
    Some(spelled(key, |c| !c.is_ascii()))
}

fn spelled_out(text: &str) -> String {
    spelled(text, |c| !is_allowed(c))
}

fn spelled(text: &str, is_spelled: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_spelled(c) {
            out.push_str(&format!("u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Allowed characters stay, others become `-`, none of them at an end.
pub(crate) fn host_name(text: &str) -> String {
    let name: String = text.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str, id: &str, tags: &[(&str, &str)]) -> Resource {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (block, _) = address.rsplit_once("aws_instance.").unwrap();
        let name = address[block.len() + "aws_instance.".len()..].split('[').next().unwrap();
        Resource {
            address: address.to_owned(),
            name: name.to_owned(),
            modules: modules(address).map(|(name, _)| name.to_owned()).collect(),
            id: Some(id.to_owned()),
            tags: tags.collect(),
            ..Resource::default()
        }
    }

    fn named(sources: &[&[Resource]], on_duplicate: OnDuplicate) -> Vec<String> {
        let sources: Vec<Vec<&Resource>> =
            sources.iter().map(|source| source.iter().collect()).collect();
        let sources: Vec<&[&Resource]> = sources.iter().map(Vec::as_slice).collect();
        names(&sources, &BTreeMap::new(), on_duplicate).into_iter().flatten().flatten().collect()
    }

    #[test]
    fn keys_of_modules_are_part_of_the_name() {
        let check = |on_duplicate, tags: &[(&str, &str)], expected: &[&str]| {
            let found = named(
                &[&[
                    instance(r#"module.host["a"].aws_instance.this"#, "i-1", tags),
                    instance(r#"module.host["b"].aws_instance.this"#, "i-2", tags),
                    instance("module.site[0].module.host[1].aws_instance.this[2]", "i-3", tags),
                ]],
                on_duplicate,
            );
            assert_eq!(found, expected);
        };
        check(OnDuplicate::Error, &[], &["host-a-this", "host-b-this", "site-0-host-1-this-2"]);
        check(OnDuplicate::Error, &[("Name", "x")], &["x", "x", "x"]);
        let apart = ["x-host-a-this", "x-host-b-this", "x-2"];
        check(OnDuplicate::Suffix, &[("Name", "x")], &apart);
    }

    #[test]
    fn names_from_addresses_always_differ() {
        let check = |addresses: &[&str], expected: &[&str]| {
            let resources: Vec<Resource> = addresses
                .iter()
                .enumerate()
                .map(|(at, address)| instance(address, &format!("i-{at}"), &[]))
                .collect();
            assert_eq!(named(&[&resources], OnDuplicate::Error), expected);
        };
        check(
            &[
                r#"aws_instance.node["é"]"#,
                r#"aws_instance.node["ü"]"#,
                r#"aws_instance.node["東"]"#,
            ],
            &["node-u00e9", "node-u00fc", "node-u6771"],
        );
        check(
            &[r#"aws_instance.node["a/b"]"#, r#"aws_instance.node["a-b"]"#],
            &["node-au002fb", "node-a-b"],
        );
        check(
            &[r#"module.a["b-c"].aws_instance.d"#, r#"module.a.module.b-c.aws_instance.d"#],
            &["a-b-c-d-i-0", "a-b-c-d-i-1"],
        );
    }

    #[test]
    fn equal_names_of_several_sources_are_told_apart() {
        let of = |environment: &str, ids: [&str; 2]| {
            let tags = [("Name", "edge"), ("environment", environment)];
            [
                instance("aws_instance.edge[0]", ids[0], &tags),
                instance("aws_instance.edge[1]", ids[1], &tags),
            ]
        };
        let (dev, prod) = (of("dev", ["i-1", "i-2"]), of("prod", ["i-3", "i-4"]));
        assert_eq!(
            named(&[&dev, &prod], OnDuplicate::Suffix),
            ["edge-dev-0", "edge-dev-1", "edge-prod-0", "edge-prod-1"]
        );
        assert_eq!(named(&[&dev[..1], &prod[..1]], OnDuplicate::Suffix), ["edge-dev", "edge-prod"]);
        // One instance in two sources is one host.
        assert_eq!(
            named(&[&dev, &dev], OnDuplicate::Suffix),
            ["edge-dev-0", "edge-dev-1", "edge-dev-0", "edge-dev-1"]
        );
        let bare = |id| [instance("aws_instance.web", id, &[])];
        assert_eq!(
            named(&[&bare("i-1"), &bare("i-2")], OnDuplicate::Suffix),
            ["web-i-1", "web-i-2"]
        );
        assert_eq!(named(&[&bare("i-1"), &bare("i-2")], OnDuplicate::Error), ["web", "web"]);
    }

    #[test]
    fn names_are_made_fit_for_ansible() {
        let check = |name: &str, expected: &str| assert_eq!(host_name(name), expected);
        check("SIP edge (blue)", "SIP-edge--blue");
        check("a[1:3]", "a-1-3");
        check("-x-", "x");
    }
}
