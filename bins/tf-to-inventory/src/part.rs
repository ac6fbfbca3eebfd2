//! What one source says, before its scaling groups are looked up and the sources are merged.

use crate::args::Args;
use crate::contract::{self, Converted, ScalingGroup};
use crate::document::{self, Wanted};
use crate::error::{self, Error};
use crate::guess::{self, Among, Guess};
use crate::merge::GroupBy;
use crate::names::names;
use crate::resources::Resource;
use crate::scaling::Resolved;
use deploy_inventory::{Inventory, PatternError};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What one source says.
#[derive(Debug)]
pub(crate) struct Part {
    /// The source, for people.
    pub(crate) name: String,
    /// Whether it was guessed from resources.
    pub(crate) guessed: bool,
    pub(crate) inventory: Inventory,
    pub(crate) scaling_groups: Vec<ScalingGroup>,
    /// The groups that hosts of scaling groups are in.
    pub(crate) scaled_groups: BTreeSet<String>,
    pub(crate) renamed: BTreeMap<String, String>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) outputs: BTreeMap<String, Value>,
}

/// What became of one instance.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In the state or in Auto Scaling; none for a host of the output.
    pub(crate) address: Option<String>,
    pub(crate) instance_id: Option<String>,
    pub(crate) host: Option<String>,
    /// The reason for being left out, as a word.
    pub(crate) skipped: Option<&'static str>,
    pub(crate) note: String,
}

/// Which outputs the flags want.
pub(crate) fn wanted(args: &Args) -> Result<Wanted, Error> {
    let outputs: Vec<String> =
        args.var_from_output.iter().map(|text| variable(text).1.to_owned()).collect();
    let known = |name: &String| (name == document::OUTPUT && !args.guess) || outputs.contains(name);
    if let Some(name) = args.include_sensitive.iter().find(|name| !known(name)) {
        return Err(Error::Usage(format!(
            "`--include-sensitive {name}`: only `{}` and outputs of `--var-from-output` are read",
            document::OUTPUT
        )));
    }
    Ok(Wanted { outputs, sensitive: args.include_sensitive.clone(), guess: args.guess })
}

/// `[GROUP.]NAME`.
fn variable(text: &str) -> (Option<&str>, &str) {
    match text.split_once('.') {
        Some((group, name)) => (Some(group), name),
        None => (None, text),
    }
}

/// The part and the values in it that are secret.
pub(crate) fn read(name: &str, bytes: &[u8], wanted: &Wanted) -> Result<document::Document, Error> {
    document::read(bytes, wanted).map_err(|fault| Error::Document { name: name.to_owned(), fault })
}

/// The parts of all sources. Guessed hosts are named together, so that none is called like another or like a group.
pub(crate) fn all(
    sources: Vec<(String, document::Document)>,
    args: &Args,
) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    let mut guessed = Vec::new();
    for (at, (name, found)) in sources.into_iter().enumerate() {
        match (found.inventory, found.resources) {
            (Ok(mut value), resources) => {
                if let Some(host) = alone(args) {
                    keep_alone(&mut value, host);
                }
                let guessable = resources.is_some();
                parts.push((at, Part::declared(&name, &value, guessable, found.outputs, args)?));
            }
            (Err(fault), None) => return Err(Error::Document { name, fault }),
            (Err(_), Some(resources)) => guessed.push((at, name, resources, found.outputs)),
        }
    }
    let declared: BTreeMap<String, Option<String>> = parts
        .iter()
        .flat_map(|(_, part)| part.inventory.hosts())
        .map(|host| (host.name.clone(), host.instance_id.clone()))
        .collect();
    let instances: Vec<Vec<&Resource>> =
        guessed.iter().map(|(_, _, resources, _)| guess::instances(resources)).collect();
    let instances: Vec<&[&Resource]> = instances.iter().map(Vec::as_slice).collect();
    let named = names(&instances, &declared, args.on_duplicate);
    let hosts: BTreeSet<&str> =
        named.iter().flatten().flatten().chain(declared.keys()).map(String::as_str).collect();
    for ((at, name, resources, outputs), names) in guessed.iter().zip(&named) {
        let among = Among { names, hosts: &hosts };
        parts.push((*at, Part::guessed(name, resources, among, outputs.clone(), args)?));
    }
    parts.sort_by_key(|(at, _)| *at);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

impl Part {
    fn declared(
        name: &str,
        value: &Value,
        guessable: bool,
        outputs: BTreeMap<String, Value>,
        args: &Args,
    ) -> Result<Self, Error> {
        let Converted { inventory, renamed, scaling_groups } =
            contract::convert(value, args.allow_no_instance_id).map_err(|problems| {
                Error::Contract {
                    name: name.to_owned(),
                    problems,
                    guessable,
                    foreign: value.get("version").is_none(),
                }
            })?;
        let entry = |host: &deploy_inventory::Host| Entry {
            address: None,
            instance_id: host.instance_id.clone(),
            host: Some(host.name.clone()),
            skipped: None,
            note: String::new(),
        };
        let entries = inventory.hosts().iter().map(entry).collect();
        let name = name.to_owned();
        let scaled_groups = groups_of(&scaling_groups);
        Ok(Self {
            name,
            guessed: false,
            inventory,
            scaling_groups,
            scaled_groups,
            renamed,
            entries,
            outputs,
        })
    }

    fn guessed(
        name: &str,
        resources: &[Resource],
        among: Among<'_>,
        outputs: BTreeMap<String, Value>,
        args: &Args,
    ) -> Result<Self, Error> {
        let options = guess::Options {
            alone: alone(args),
            on_duplicate: args.on_duplicate,
            role_groups: args.group_by.contains(&GroupBy::Role),
        };
        let Guess { inventory, explained, scaling_groups, renamed } =
            guess::guess_among(resources, options, among).map_err(|problems| Error::Guess {
                name: name.to_owned(),
                problems,
                declared: args.guess,
            })?;
        let entry = |entry: guess::Explained| Entry {
            address: Some(entry.address),
            instance_id: entry.instance_id,
            host: entry.host,
            skipped: entry.skipped,
            note: entry.note,
        };
        let entries = explained.into_iter().map(entry).collect();
        let name = name.to_owned();
        let scaled_groups = groups_of(&scaling_groups);
        Ok(Self {
            name,
            guessed: true,
            inventory,
            scaling_groups,
            scaled_groups,
            renamed,
            entries,
            outputs,
        })
    }

    /// Adds what Auto Scaling and EC2 know.
    pub(crate) fn add(&mut self, found: Vec<Resolved>) -> Result<(), Vec<String>> {
        let mut hosts = self.inventory.hosts().to_vec();
        for Resolved { address, host } in found {
            let (skipped, note) = match &host {
                Ok(_) => (None, String::new()),
                Err(why) => (Some("not-in-service"), format!("left out: {why}")),
            };
            let name = host.as_ref().ok().map(|host| host.name.clone());
            let instance_id = address.rsplit('/').next().map(str::to_owned);
            let address = Some(address);
            self.entries.push(Entry { address, instance_id, host: name, skipped, note });
            hosts.extend(host);
        }
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        self.inventory = std::mem::take(&mut self.inventory).with_hosts(hosts);
        let problems = contract::collisions(&self.inventory);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Says of each scaling group that it was left out.
    pub(crate) fn skip_scaling_groups(&mut self) {
        for group in std::mem::take(&mut self.scaling_groups) {
            self.entries.push(Entry {
                address: Some(group.name),
                instance_id: None,
                host: None,
                skipped: Some("scaling-group"),
                note: "left out: `--scaling-groups skip`".to_owned(),
            });
        }
    }

    /// What people should know besides the hosts.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        if self.guessed {
            let note = "names and groups are guessed from tags, modules and resources: there is no output `inventory`, or `--guess` does without it";
            subjects.push(Subject::new("source", &self.name, SubjectOutcome::Warned, note));
        }
        subjects.extend(self.entries.iter().filter(|entry| !entry.note.is_empty()).map(|entry| {
            let outcome =
                if entry.host.is_some() { SubjectOutcome::Warned } else { SubjectOutcome::Skipped };
            Subject::new(
                "instance",
                entry.address.clone().unwrap_or_default(),
                outcome,
                entry.note.clone(),
            )
        }));
        subjects.extend(self.renamed.iter().map(|(old, new)| {
            let why = match contract::valid_group_name(old) == *new {
                true => "Ansible wants letters, digits and `_`",
                false => "Ansible knows something else by that name",
            };
            let detail = format!("the group `{old}` is written as `{new}`: {why}");
            Subject::new("group", new, SubjectOutcome::Warned, detail)
        }));
        subjects
    }
}

/// The only host of the run, when it is one that can be told apart without knowing the others: Ansible calls `--host` once
/// for every host where it cannot read `_meta`.
pub(crate) fn alone(args: &Args) -> Option<&str> {
    args.host.as_deref().filter(|_| args.limit.is_none() && args.sources.len() == 1)
}

fn groups_of(scaling_groups: &[ScalingGroup]) -> BTreeSet<String> {
    scaling_groups.iter().flat_map(|group| group.groups.iter().cloned()).collect()
}

fn keep_alone(value: &mut Value, host: &str) {
    if let Some(hosts) = value.get_mut("hosts").and_then(Value::as_object_mut) {
        let kept = hosts.remove_entry(host);
        hosts.clear();
        hosts.extend(kept);
    }
}

/// Makes outputs variables of the parts that have them.
pub(crate) fn add_variables(parts: &mut [Part], args: &Args) -> Result<(), Error> {
    let mut problems = Vec::new();
    for text in &args.var_from_output {
        let (group, name) = variable(text);
        if !parts.iter().any(|part| part.outputs.contains_key(name)) {
            problems.push(format!("no source has an output `{name}`"));
        }
        for part in parts.iter_mut() {
            if let Some(value) = part.outputs.get(name) {
                let valid = group.map(contract::valid_group_name);
                if let (Some(group), Some(valid)) = (group, valid)
                    && group != valid
                {
                    part.renamed.insert(group.to_owned(), valid);
                }
                let inventory = std::mem::take(&mut part.inventory);
                match contract::with_variable(inventory, group, name, value) {
                    Ok(inventory) => part.inventory = inventory,
                    Err(found) => problems.extend(found),
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Variables { problems }) }
}

/// Groups that are there although no host may be in them now: those of scaling groups, and of groups.
pub(crate) fn groups_named(parts: &[Part]) -> BTreeSet<String> {
    let scaled = parts.iter().flat_map(|part| part.scaled_groups.iter().cloned());
    let nested = parts.iter().flat_map(|part| part.inventory.nesting().keys().cloned());
    scaled.chain(nested).collect()
}

/// Holds the groups of `--var-from-output` against those that have hosts: a variable for nobody is a typing error.
pub(crate) fn check_groups(
    args: &Args,
    inventory: &Inventory,
    named: &BTreeSet<String>,
) -> Result<(), Error> {
    let mut known = named.clone();
    known.extend(inventory.hosts().iter().flat_map(|host| host.groups.iter().cloned()));
    let groups = args.var_from_output.iter().filter_map(|text| variable(text).0);
    let missing: Vec<String> = groups
        .filter(|group| !known.contains(&contract::valid_group_name(group)))
        .map(|group| format!("`{group}`"))
        .collect();
    if missing.is_empty() || inventory.hosts().is_empty() {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|group| format!("`{group}`")).collect();
    let groups = match known.as_slice() {
        [] => "there are no groups".to_owned(),
        known => format!("the groups are {}", error::listed(known)),
    };
    Err(Error::VariableGroups { missing, groups })
}

/// The group that Ansible knows by another name than Terraform, when a pattern uses Terraform's.
pub(crate) fn meant(inventory: &Inventory, error: &PatternError) -> Option<String> {
    let PatternError::NoMatch { part, .. } = error else { return None };
    let valid = contract::valid_group_name(part);
    inventory.groups().contains(&valid.as_str()).then_some(valid)
}

/// Says of each host that another source took the name or the instance of, as `--on-conflict` decided, that it is none.
pub(crate) fn drop_losers(parts: &mut [Part], inventory: &Inventory) {
    let hosts: BTreeMap<&str, Option<&str>> = inventory
        .hosts()
        .iter()
        .map(|host| (host.name.as_str(), host.instance_id.as_deref()))
        .collect();
    for entry in parts.iter_mut().flat_map(|part| &mut part.entries) {
        let Some(name) = &entry.host else { continue };
        if hosts.get(name.as_str()) != Some(&entry.instance_id.as_deref()) {
            let note = format!("left out: another source decides about `{name}` or its instance");
            entry.skipped = Some("conflict");
            entry.note = note;
            entry.host = None;
        }
    }
}

/// What `--explain` prints.
pub(crate) fn explained(parts: &[Part], inventory: &Inventory, conflicts: &[String]) -> String {
    let groups: BTreeMap<&str, &[String]> =
        inventory.hosts().iter().map(|host| (host.name.as_str(), host.groups.as_slice())).collect();
    // Names are quoted for sentences; here JSON quotes them.
    let plain = |part: &Part| part.name.replace('`', "");
    let sources: Vec<Value> = parts
        .iter()
        .map(|part| json!({"name": plain(part), "from": if part.guessed { "resources" } else { "output" }}))
        .collect();
    let of_part = |part: &Part| -> Vec<Value> {
        part.entries
            .iter()
            .map(|entry| {
                let of_host = entry.host.as_deref().and_then(|host| groups.get(host)).copied();
                json!({
                    "source": plain(part), "address": entry.address, "instance_id": entry.instance_id, "host": entry.host,
                    "groups": of_host.unwrap_or_default(), "skipped": entry.skipped, "note": entry.note,
                })
            })
            .collect()
    };
    let instances: Vec<Value> = parts.iter().flat_map(of_part).collect();
    let renamed: BTreeMap<&String, &String> = parts.iter().flat_map(|part| &part.renamed).collect();
    let value = json!({
        "version": 1, "sources": sources, "instances": instances, "renamed_groups": renamed, "conflicts": conflicts,
    });
    format!("{value:#}\n")
}
