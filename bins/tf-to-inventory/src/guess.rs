//! From a state's EC2 instances to an inventory, for states without the output `inventory`: a guess by fixed rules.
//!
//! | of a host | taken from |
//! |---|---|
//! | name | the tag `Name`, characters that Ansible does not allow in a host name written as `-`; without it the address: modules, resource name and key joined by `-` |
//! | groups | the tag `AnsibleGroups` (separated by commas or blanks) alone if there is one; else the tag `Role`, the modules' names and the resource's name; and `env_<tag Environment>`, on request `role_<tag Role>` |
//! | region | the availability zone |
//!
//! An instance is left out, with its reason, or becomes one host under a name of its own: never two under one name.

use crate::contract::{
    ScalingGroup, host_vars, is_host_name, is_instance_id, shown, unsafe_text, valid_group_name,
};
use crate::resources::{Resource, Skipped};
use deploy_inventory::{ENVIRONMENT, Host, Inventory, PROJECT, REGION};
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What happens to instances that would have the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDuplicate {
    /// An error that names them.
    #[default]
    Error,
    /// Each gets what tells it apart in its address appended: key of `count` or `for_each`, else modules and resource.
    Suffix,
}

/// How to guess.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'o> {
    /// Make only this one a host.
    pub alone: Option<&'o str>,
    /// What happens to instances that would have the same name.
    pub on_duplicate: OnDuplicate,
    /// Whether hosts are also in `role_<tag Role>`.
    pub role_groups: bool,
}

/// What became of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its address in the state.
    pub address: String,
    /// Its instance ID, if it has one.
    pub instance_id: Option<String>,
    /// The host that it became.
    pub host: Option<String>,
    /// The reason for being left out, as a word.
    pub skipped: Option<&'static str>,
    /// Why it was left out, or what is worth knowing about it.
    pub note: String,
}

/// A guessed inventory.
#[derive(Debug)]
pub struct Guess {
    /// The inventory, hosts sorted by name.
    pub inventory: Inventory,
    /// All instances in the state's order.
    pub explained: Vec<Explained>,
    /// Auto Scaling groups, whose hosts the state does not know.
    pub scaling_groups: Vec<ScalingGroup>,
    /// Group names as they were in tags and addresses, and as they are now.
    pub renamed: BTreeMap<String, String>,
}

/// Guesses.
///
/// # Errors
/// Everything that is wrong, one line each: names that occur twice or that Ansible does not allow, an instance in two
/// places of the state.
pub fn guess(resources: &[Resource], options: Options<'_>) -> Result<Guess, Vec<String>> {
    let (groups, instances): (Vec<&Resource>, Vec<&Resource>) =
        resources.iter().partition(|resource| resource.scaling_group.is_some());
    let resources = instances.as_slice();
    let names = names(resources, options.on_duplicate);
    let mut problems = Vec::new();
    let mut by_name: BTreeMap<&str, &Resource> = BTreeMap::new();
    let mut by_id: BTreeMap<&str, &Resource> = BTreeMap::new();
    for (name, resource) in names.iter().flatten().zip(hosts(resources)) {
        if !is_host_name(name) {
            problems.push(format!(
                "`{}` would be the host `{name}`, which is no usable host name",
                resource.address
            ));
        }
        if let Some(first) = by_name.insert(name, resource) {
            problems.push(format!(
                "`{}` and `{}` would both be the host `{name}`",
                first.address, resource.address
            ));
        }
        let id = resource.id.as_deref().unwrap_or_default();
        if !is_instance_id(id) {
            problems.push(format!("`{}` has an ID that EC2 does not give", resource.address));
        }
        let addresses = [&resource.private_ip, &resource.public_ip];
        if addresses.into_iter().flatten().any(|text| text.parse::<IpAddr>().is_err()) {
            problems.push(format!("`{}` has an address that is none", resource.address));
        }
        if let Some(first) = by_id.insert(id, resource) {
            problems.push(format!(
                "`{}` and `{}` are the same instance `{id}`",
                first.address, resource.address
            ));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let taken: BTreeSet<&str> = by_name.keys().copied().collect();
    let mut namer = Groups { taken, role_groups: options.role_groups, renamed: BTreeMap::new() };
    let chosen =
        by_name.iter().filter(|(name, _)| options.alone.is_none_or(|alone| alone == **name));
    let hosts = chosen.map(|(name, resource)| host(name, resource, &mut namer)).collect();
    let explained =
        resources.iter().zip(&names).map(|(resource, name)| explain(resource, name.as_deref()));
    let mut explained: Vec<Explained> = explained.collect();
    explained.extend(
        groups.iter().filter(|group| group.skipped().is_some()).map(|group| explain(group, None)),
    );
    let scaling_groups = groups
        .iter()
        .filter(|group| group.skipped().is_none())
        .map(|group| ScalingGroup {
            key: host_name(&place(group)),
            name: group.scaling_group.clone().unwrap_or_default(),
            region: group.zone.as_deref().and_then(region),
            groups: namer.of(group),
            vars: Map::new(),
        })
        .collect();
    let inventory = Inventory::new(hosts, all_vars(by_name.values().copied()), BTreeMap::new());
    Ok(Guess { inventory, explained, scaling_groups, renamed: namer.renamed })
}

fn hosts<'r>(resources: &[&'r Resource]) -> impl Iterator<Item = &'r Resource> {
    resources.iter().copied().filter(|resource| resource.skipped().is_none())
}

/// The name of each resource that is a host.
fn names(resources: &[&Resource], on_duplicate: OnDuplicate) -> Vec<Option<String>> {
    let mut names: Vec<Option<String>> = resources
        .iter()
        .map(|resource| resource.skipped().is_none().then(|| plain_name(resource)))
        .collect();
    if on_duplicate == OnDuplicate::Error {
        return names;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names.iter().flatten() {
        *counts.entry(name.clone()).or_default() += 1;
    }
    for (resource, name) in resources.iter().zip(&mut names) {
        if let Some(name) = name.as_mut().filter(|name| counts[name.as_str()] > 1) {
            let apart = key(&resource.address).unwrap_or_else(|| place(resource));
            *name = host_name(&format!("{name}-{apart}"));
        }
    }
    names
}

fn plain_name(resource: &Resource) -> String {
    match resource.tags.get("Name").map(|name| host_name(name)) {
        Some(name) if !name.is_empty() => name,
        _ => host_name(&place(resource)),
    }
}

/// Modules, resource and key of an address.
fn place(resource: &Resource) -> String {
    let mut parts = resource.modules.clone();
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
    Some(key.to_owned())
}

/// Allowed characters stay, others become `-`, none of them at an end.
fn host_name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn host(name: &str, resource: &Resource, groups: &mut Groups<'_>) -> Host {
    let region = resource.zone.as_deref().and_then(region);
    let vars = host_vars(
        resource.id.as_deref(),
        region.as_deref(),
        resource.private_ip.as_deref(),
        resource.public_ip.as_deref(),
    );
    Host {
        name: name.to_owned(),
        instance_id: resource.id.clone(),
        region,
        private_ip: resource.private_ip.clone(),
        public_ip: resource.public_ip.clone(),
        groups: groups.of(resource),
        vars,
    }
}

/// Names groups and remembers what it changed.
struct Groups<'n> {
    /// Names of hosts.
    taken: BTreeSet<&'n str>,
    role_groups: bool,
    renamed: BTreeMap<String, String>,
}

impl Groups<'_> {
    /// Valid names, sorted; none that Ansible keeps for itself or that is a host's.
    fn of(&mut self, resource: &Resource) -> Vec<String> {
        let tag = |name: &str| {
            resource.tags.get(name).map(String::as_str).filter(|text| !text.trim().is_empty())
        };
        let mut names: Vec<String> = match tag("AnsibleGroups") {
            Some(list) => list.split([',', ' ']).map(str::to_owned).collect(),
            None => {
                let places = resource.modules.iter().cloned().chain([resource.name.clone()]);
                tag("Role").map(str::to_owned).into_iter().chain(places).collect()
            }
        };
        names.extend(tag("Environment").map(|name| format!("env_{name}")));
        names.extend(tag("Role").filter(|_| self.role_groups).map(|name| format!("role_{name}")));
        let mut valid = BTreeSet::new();
        for name in names.iter().map(|name| name.trim()) {
            if !name.chars().any(|c| c.is_ascii_alphanumeric()) {
                continue;
            }
            let new = valid_group_name(name);
            if matches!(new.as_str(), "all" | "ungrouped" | "localhost")
                || self.taken.contains(new.as_str())
            {
                continue;
            }
            if new != name {
                self.renamed.insert(name.to_owned(), new.clone());
            }
            valid.insert(new);
        }
        valid.into_iter().collect()
    }
}

/// `us-east-1a` → `us-east-1`; a local zone such as `us-west-2-lax-1a` keeps its region's three parts.
fn region(zone: &str) -> Option<String> {
    let mut parts = zone.split('-');
    let (area, place, number) = (parts.next()?, parts.next()?, parts.next()?);
    // GovCloud: us-gov-west-1a.
    let (place, number) = match number.parse::<u8>() {
        Err(_) if !number.starts_with(|c: char| c.is_ascii_digit()) => {
            (format!("{place}-{number}"), parts.next()?)
        }
        _ => (place.to_owned(), number),
    };
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| format!("{area}-{place}-{digits}"))
}

/// What all hosts agree on.
fn all_vars<'r>(
    resources: impl Iterator<Item = &'r Resource> + Clone,
) -> Map<String, serde_json::Value> {
    let mut vars = Map::new();
    let mut agreed = |name: &str, value: &dyn Fn(&Resource) -> Option<String>| {
        let values: BTreeSet<Option<String>> = resources.clone().map(value).collect();
        if let (1, Some(Some(value))) = (values.len(), values.first()) {
            vars.insert(name.to_owned(), unsafe_text(value));
        }
    };
    agreed(ENVIRONMENT, &|resource| resource.tags.get("Environment").cloned());
    agreed(PROJECT, &|resource| resource.tags.get("Project").cloned());
    agreed(REGION, &|resource| resource.zone.as_deref().and_then(region));
    vars
}

fn explain(resource: &Resource, host: Option<&str>) -> Explained {
    let mut notes = Vec::new();
    match resource.skipped() {
        Some(why) => notes.push(format!("left out: {}", why.why())),
        None if resource.tainted => notes.push("tainted: the next apply replaces it".to_owned()),
        None => {}
    }
    let tag = resource.tags.get("Name").filter(|tag| !tag.trim().is_empty());
    if let (Some(host), Some(tag)) = (host, tag)
        && host != tag
    {
        notes.push(format!("its name `{}` is written as `{host}`", shown(tag)));
    }
    let note = notes.join("; ");
    Explained {
        address: resource.address.clone(),
        instance_id: resource.id.clone().filter(|id| is_instance_id(id)),
        host: host.map(str::to_owned),
        skipped: resource.skipped().map(Skipped::name),
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(address: &str, id: &str, tags: &[(&str, &str)]) -> Resource {
        Resource {
            address: address.to_owned(),
            name: "node".into(),
            modules: vec!["sbc".into()],
            id: Some(id.to_owned()),
            zone: Some("eu-central-1b".into()),
            private_ip: Some("10.0.0.1".into()),
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Resource::default()
        }
    }

    fn counted(tags: &[(&str, &str)]) -> Vec<Resource> {
        (0..3)
            .map(|n| {
                instance(
                    &format!("module.sbc.aws_instance.node[{n}]"),
                    &format!("i-0123456789abcdef{n}"),
                    tags,
                )
            })
            .collect()
    }

    fn guess(resources: &[Resource], on_duplicate: OnDuplicate) -> Result<Guess, Vec<String>> {
        super::guess(resources, Options { on_duplicate, ..Options::default() })
    }

    fn names_of(resources: &[Resource], on_duplicate: OnDuplicate) -> Vec<String> {
        let guess = guess(resources, on_duplicate).unwrap();
        guess.inventory.hosts().iter().map(|host| host.name.clone()).collect()
    }

    #[test]
    fn every_counted_instance_becomes_a_host_of_its_own() {
        assert_eq!(
            names_of(&counted(&[]), OnDuplicate::Error),
            ["sbc-node-0", "sbc-node-1", "sbc-node-2"]
        );
        assert_eq!(
            names_of(&counted(&[("Name", "edge")]), OnDuplicate::Suffix),
            ["edge-0", "edge-1", "edge-2"]
        );
        assert_eq!(
            guess(&counted(&[("Name", "edge")]), OnDuplicate::Error).unwrap_err(),
            [
                "`module.sbc.aws_instance.node[0]` and `module.sbc.aws_instance.node[1]` would both be the host `edge`",
                "`module.sbc.aws_instance.node[1]` and `module.sbc.aws_instance.node[2]` would both be the host `edge`",
            ]
        );
    }

    #[test]
    fn names_are_made_fit_for_ansible() {
        let check = |name: &str, expected: &str| assert_eq!(host_name(name), expected);
        check("SIP edge (blue)", "SIP-edge--blue");
        check("a[1:3]", "a-1-3");
        check("-x-", "x");
        let weird = [instance(r#"aws_instance.node["é/1"]"#, "i-01234567", &[("Name", "…")])];
        assert_eq!(names_of(&weird, OnDuplicate::Error), ["sbc-node---1"]);
        let local = [instance("aws_instance.node", "i-01234567", &[("Name", "localhost")])];
        assert!(guess(&local, OnDuplicate::Error).unwrap_err()[0].contains("no usable host name"));
    }

    #[test]
    fn groups_come_from_tags_modules_and_names() {
        let check = |tags: &[(&str, &str)], expected: &[&str]| {
            let guess =
                guess(&[instance("aws_instance.node", "i-01234567", tags)], OnDuplicate::Error)
                    .unwrap();
            assert_eq!(guess.inventory.hosts()[0].groups, expected, "{tags:?}");
        };
        check(&[], &["node", "sbc"]);
        check(
            &[("Role", "uc-engine"), ("Environment", "dev")],
            &["env_dev", "node", "sbc", "uc_engine"],
        );
        check(&[("AnsibleGroups", "sip, edge"), ("Role", "x")], &["edge", "sip"]);
        check(&[("AnsibleGroups", "all,1st")], &["_1st"]);
        // A group must not be called like a host.
        check(&[("Name", "node")], &["sbc"]);
    }

    #[test]
    fn what_is_no_host_is_explained() {
        let mut resources = counted(&[]);
        resources[0].deposed = true;
        resources[1].tainted = true;
        let guess = guess(&resources, OnDuplicate::Error).unwrap();
        let notes: Vec<_> = guess
            .explained
            .iter()
            .map(|entry| (entry.host.as_deref(), entry.note.as_str()))
            .collect();
        assert_eq!(
            notes,
            [
                (None, "left out: deposed: a newer instance has taken its place"),
                (Some("sbc-node-1"), "tainted: the next apply replaces it"),
                (Some("sbc-node-2"), ""),
            ]
        );
    }

    #[test]
    fn regions_are_read_from_zones() {
        let check = |zone: &str, expected: Option<&str>| {
            assert_eq!(region(zone).as_deref(), expected, "{zone}")
        };
        check("eu-central-1b", Some("eu-central-1"));
        check("us-gov-west-1a", Some("us-gov-west-1"));
        check("us-west-2-lax-1a", Some("us-west-2"));
        check("zone", None);
        let guess = guess(&counted(&[("Environment", "{{ x }}")]), OnDuplicate::Error).unwrap();
        assert_eq!(guess.inventory.region(), Some("eu-central-1"));
        assert_eq!(
            guess.inventory.all_vars()[ENVIRONMENT],
            serde_json::json!({"__ansible_unsafe": "{{ x }}"})
        );
    }
}
