//! From a state's EC2 instances to an inventory, for states without the output `inventory`: a guess by fixed rules.
//!
//! | of a host | taken from |
//! |---|---|
//! | name | the tag `Name`, characters that Ansible does not allow in a host name written as `-`; without it the address: modules and resource, each with its key, joined by `-` ([`crate::names`]) |
//! | groups | the tag `AnsibleGroups` (separated by commas or blanks) alone if there is one; else the tag `Role`, the modules' names and the resource's name; and `env_<tag Environment>`, on request `role_<tag Role>` |
//! | region | the availability zone |
//!
//! Names of tags count in any case, but for `Name`.
//!
//! An instance is left out, with its reason, or becomes one host under a name of its own: never two under one name.

use crate::contract::{
    ScalingGroup, host_vars, is_ansibles_group, is_host_name, is_instance_id, shown, unsafe_text,
    valid_group_name,
};
use crate::names::{host_name, names, place};
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
    /// Each gets what tells it apart appended: key of `count` or `for_each`, else modules and resource with their keys; the tag
    /// `Environment` where several sources have the name; at last the instance ID.
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

/// What is guessed of one source among others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Among<'o> {
    /// The name of each resource of [`instances`], in their order, if it is a host.
    pub(crate) names: &'o [Option<String>],
    /// The hosts of all sources: no group is called like one.
    pub(crate) hosts: &'o BTreeSet<&'o str>,
}

/// Why instances make no inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum Problem {
    #[error("`{address}` would be the host `{name}`, which is no usable host name")]
    Name { address: String, name: String },
    #[error("`{first}` and `{second}` would both be the host `{name}`")]
    Duplicate { first: String, second: String, name: String },
    #[error("`{address}` has the ID `{id}`, which EC2 does not give")]
    Id { address: String, id: String },
    #[error("`{address}` has an address that is none")]
    Address { address: String },
    #[error("`{first}` and `{second}` are the same instance `{id}`")]
    Twice { first: String, second: String, id: String },
}

impl Problem {
    /// What to do next.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } | Self::Duplicate { .. } => {
                "give every instance a `Name` tag of its own, pass `--on-duplicate suffix`, or add the output `inventory`"
            }
            Self::Id { .. } | Self::Address { .. } => {
                "an ID looks like `i-0123456789abcdef0`: is it a state of AWS, and was it written by Terraform? `terraform apply -refresh-only` asks AWS again"
            }
            Self::Twice { .. } => {
                "`terraform state rm ADDRESS` takes one of them out of the state, and leaves the instance as it is"
            }
        }
    }
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

/// The resources that hosts are made of, one each.
pub(crate) fn instances(resources: &[Resource]) -> Vec<&Resource> {
    resources.iter().filter(|resource| is_instance(resource)).collect()
}

fn is_instance(resource: &Resource) -> bool {
    resource.scaling_group.is_none() && resource.other.is_none()
}

/// Guesses from one source alone.
///
/// # Errors
/// Everything that is wrong: names that occur twice or that Ansible does not allow, an instance in two places of the state.
pub fn guess(resources: &[Resource], options: Options<'_>) -> Result<Guess, Vec<Problem>> {
    let named = names(&[&instances(resources)], &BTreeMap::new(), options.on_duplicate);
    let named = named.into_iter().next().unwrap_or_default();
    let hosts = named.iter().flatten().map(String::as_str).collect();
    guess_among(resources, options, Among { names: &named, hosts: &hosts })
}

/// Guesses from one source, with names that were found for all of them.
///
/// # Errors
/// As [`guess`].
pub(crate) fn guess_among(
    resources: &[Resource],
    options: Options<'_>,
    among: Among<'_>,
) -> Result<Guess, Vec<Problem>> {
    let (instances, groups): (Vec<&Resource>, Vec<&Resource>) =
        resources.iter().partition(|resource| is_instance(resource));
    let (resources, names) = (instances.as_slice(), among.names);
    let mut problems = Vec::new();
    let mut by_name: BTreeMap<&str, &Resource> = BTreeMap::new();
    let mut by_id: BTreeMap<&str, &Resource> = BTreeMap::new();
    for (name, resource) in names.iter().flatten().zip(hosts(resources)) {
        let address = || resource.address.clone();
        if !is_host_name(name) {
            problems.push(Problem::Name { address: address(), name: name.clone() });
        }
        if let Some(first) = by_name.insert(name, resource) {
            let (first, second) = (first.address.clone(), address());
            problems.push(Problem::Duplicate { first, second, name: name.clone() });
        }
        let id = resource.id.as_deref().unwrap_or_default();
        if !is_instance_id(id) {
            problems.push(Problem::Id { address: address(), id: shown(id) });
        }
        let addresses = [&resource.private_ip, &resource.public_ip];
        if addresses.into_iter().flatten().any(|text| text.parse::<IpAddr>().is_err()) {
            problems.push(Problem::Address { address: address() });
        }
        if let Some(first) = by_id.insert(id, resource) {
            let (first, second) = (first.address.clone(), address());
            problems.push(Problem::Twice { first, second, id: shown(id) });
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let taken = among.hosts;
    let mut namer = Groups { taken, role_groups: options.role_groups, renamed: BTreeMap::new() };
    let chosen =
        by_name.iter().filter(|(name, _)| options.alone.is_none_or(|alone| alone == **name));
    let hosts = chosen.map(|(name, resource)| host(name, resource, &mut namer)).collect();
    let explained =
        resources.iter().zip(names).map(|(resource, name)| explain(resource, name.as_deref()));
    let mut explained: Vec<Explained> = explained.collect();
    explained.extend(
        groups.iter().filter(|group| group.skipped().is_some()).map(|group| explain(group, None)),
    );
    let scaling_groups = groups
        .iter()
        .filter(|group| group.skipped().is_none() && group.scaling_group.is_some())
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

/// A tag, its name in any case; the spelling here goes before others. Empty ones count as none.
pub(crate) fn tag<'r>(resource: &'r Resource, name: &str) -> Option<&'r str> {
    let is_set = |text: &&str| !text.trim().is_empty();
    let exact = resource.tags.get(name).map(String::as_str).filter(is_set);
    exact.or_else(|| {
        let others = resource.tags.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        others.map(|(_, value)| value.as_str()).find(is_set)
    })
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
    taken: &'n BTreeSet<&'n str>,
    role_groups: bool,
    renamed: BTreeMap<String, String>,
}

impl Groups<'_> {
    /// Valid names, sorted; none that Ansible keeps for itself or that is a host's.
    fn of(&mut self, resource: &Resource) -> Vec<String> {
        let mut names: Vec<String> = match tag(resource, "AnsibleGroups") {
            Some(list) => list.split([',', ' ']).map(str::to_owned).collect(),
            None => {
                let places = resource.modules.iter().cloned().chain([resource.name.clone()]);
                tag(resource, "Role").map(str::to_owned).into_iter().chain(places).collect()
            }
        };
        let role = tag(resource, "Role").filter(|_| self.role_groups);
        names.extend(tag(resource, "Environment").map(|name| format!("env_{name}")));
        names.extend(role.map(|name| format!("role_{name}")));
        let mut valid = BTreeSet::new();
        for name in names.iter().map(|name| name.trim()) {
            if !name.chars().any(|c| c.is_ascii_alphanumeric()) {
                continue;
            }
            let new = self.usable(valid_group_name(name));
            if new != name {
                self.renamed.insert(name.to_owned(), new.clone());
            }
            valid.insert(new);
        }
        valid.into_iter().collect()
    }

    /// Another name where this one means something else to Ansible, so that no host loses a group for it.
    fn usable(&self, mut name: String) -> String {
        while is_ansibles_group(&name) || name == "localhost" || self.taken.contains(name.as_str())
        {
            name.insert_str(0, "group_");
        }
        name
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
    agreed(ENVIRONMENT, &|resource| tag(resource, "Environment").map(str::to_owned));
    agreed(PROJECT, &|resource| tag(resource, "Project").map(str::to_owned));
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
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
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
        let weird = [instance(r#"aws_instance.node["é/1"]"#, "i-01234567", &[("Name", "…")])];
        assert_eq!(names_of(&weird, OnDuplicate::Error), ["sbc-node-u00e9-1"]);
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
        check(
            &[("AnsibleGroups", "all,1st,-meta,ungrouped,localhost")],
            &["_1st", "group__meta", "group_all", "group_localhost", "group_ungrouped"],
        );
        // A group must not be called like a host, and no host leaves it for that.
        check(&[("Name", "node")], &["group_node", "sbc"]);
        // As `default_tags` of this project writes them.
        check(&[("role", "sip"), ("environment", "dev")], &["env_dev", "node", "sbc", "sip"]);
        check(&[("ROLE", "b"), ("Role", "a"), ("role", "c")], &["a", "node", "sbc"]);
        check(&[("Role", " "), ("role", "c")], &["c", "node", "sbc"]);
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
        let lower =
            super::guess(&counted(&[("project", "p"), ("environment", "dev")]), Options::default());
        let lower = lower.unwrap().inventory;
        assert_eq!((lower.project(), lower.environment()), (Some("p"), Some("dev")));
        assert_eq!(
            guess.inventory.all_vars()[ENVIRONMENT],
            serde_json::json!({"__ansible_unsafe": "{{ x }}"})
        );
    }
}
