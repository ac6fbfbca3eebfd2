//! Several inventories → one. What two sources say differently is a conflict; the policy decides, and every one is told.
//!
//! Variables of all hosts stay so where every environment has the same; the others become variables of the group
//! `env_<environment>` of the lowest priority, so that they still yield to every other group's.

use crate::contract::{collisions, valid_group_name};
use deploy_inventory::{Host, Inventory, PRIORITY};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What decides when two sources say different things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Nothing: an error that names all of them.
    #[default]
    Error,
    /// The source that was given first.
    First,
    /// The source that was given last.
    Last,
}

/// By what hosts are grouped besides their own groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupBy {
    /// `env_<environment>`; always so when several environments are merged.
    Environment,
    /// `region_<region>`.
    Region,
    /// `role_<tag Role>`, of guessed hosts.
    Role,
}

/// An inventory and where it comes from.
#[derive(Debug, Clone)]
pub struct Part {
    /// The source, for people.
    pub name: String,
    /// What it says.
    pub inventory: Inventory,
}

/// The one inventory.
#[derive(Debug)]
pub struct Merged {
    /// Hosts sorted by name.
    pub inventory: Inventory,
    /// What was decided by the policy, one line each.
    pub conflicts: Vec<String>,
}

/// Merges.
///
/// # Errors
/// Conflicts under [`OnConflict::Error`], and what Ansible could not tell apart, one line each.
pub fn merge(
    mut parts: Vec<Part>,
    policy: OnConflict,
    group_by: &[GroupBy],
) -> Result<Merged, Vec<String>> {
    let regroups = group_by.iter().any(|by| *by != GroupBy::Role);
    if let (false, 1, Some(part)) = (regroups, parts.len(), parts.first_mut()) {
        let inventory = std::mem::take(&mut part.inventory);
        return Ok(Merged { inventory, conflicts: Vec::new() });
    }
    let environments: BTreeSet<Option<&str>> =
        parts.iter().map(|part| part.inventory.environment()).collect();
    let several = environments.len() > 1;
    let by_environment = several || group_by.contains(&GroupBy::Environment);
    let mut judge = Judge { policy, conflicts: Vec::new() };
    let mut hosts: BTreeMap<String, (&str, Host)> = BTreeMap::new();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut all: BTreeMap<Option<&str>, Sourced> = BTreeMap::new();
    let mut groups: BTreeMap<String, Sourced> = BTreeMap::new();
    let mut children: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in &parts {
        let environment = part.inventory.environment();
        judge.vars(
            all.entry(environment).or_default(),
            part.inventory.all_vars(),
            part,
            "all hosts",
        );
        for group in part.inventory.groups() {
            let known = groups.entry(group.to_owned()).or_default();
            if let Some(vars) = part.inventory.group_vars(group) {
                judge.vars(known, vars, part, &format!("the group `{group}`"));
            }
        }
        for (group, inner) in part.inventory.nesting() {
            children.entry(group.clone()).or_default().extend(inner.iter().cloned());
        }
        for host in part.inventory.hosts() {
            let mut host = host.clone();
            let own = environment.filter(|_| by_environment).map(|name| group_of("env", name));
            let region = host.region.as_deref().filter(|_| group_by.contains(&GroupBy::Region));
            let more = own.into_iter().chain(region.map(|name| group_of("region", name)));
            let mut names: BTreeSet<String> = host.groups.iter().cloned().collect();
            names.extend(more);
            host.groups = names.into_iter().collect();
            judge.host(&mut hosts, &mut ids, host, part);
        }
    }
    let mut all_vars = common(&all);
    for (environment, vars) in all {
        let rest = vars.into_iter().filter(|(name, _)| !all_vars.contains_key(name));
        let rest: Map<String, Value> = rest.map(|(name, (_, value))| (name, value)).collect();
        match environment.filter(|_| several) {
            None => all_vars.extend(rest),
            Some(environment) => {
                let group = groups.entry(group_of("env", environment)).or_default();
                let lowest = (PRIORITY.to_owned(), Value::from(0));
                for (name, value) in rest.into_iter().chain([lowest]) {
                    group.entry(name).or_insert((String::new(), value));
                }
            }
        }
    }
    all_vars.sort_keys();
    if policy == OnConflict::Error && !judge.conflicts.is_empty() {
        return Err(judge.conflicts);
    }
    let groups = groups
        .into_iter()
        .map(|(name, vars)| {
            (name, vars.into_iter().map(|(key, (_, value))| (key, value)).collect())
        })
        .collect();
    let hosts = hosts.into_values().map(|(_, host)| host).collect();
    let inventory = Inventory::new(hosts, all_vars, groups)
        .with_children(children)
        .map_err(|error| vec![error.to_string()])?;
    let problems = collisions(&inventory);
    if problems.is_empty() {
        Ok(Merged { inventory, conflicts: judge.conflicts })
    } else {
        Err(problems)
    }
}

/// Variables with the source that they are of.
type Sourced = BTreeMap<String, (String, Value)>;

fn group_of(kind: &str, name: &str) -> String {
    valid_group_name(&format!("{kind}_{name}"))
}

/// What all environments say alike.
fn common(all: &BTreeMap<Option<&str>, Sourced>) -> Map<String, Value> {
    let Some(first) = all.values().next() else { return Map::new() };
    let everywhere = |name: &String, value: &Value| {
        all.values().all(|vars| vars.get(name).is_some_and(|(_, other)| other == value))
    };
    let agreed = first.iter().filter(|(name, (_, value))| everywhere(name, value));
    agreed.map(|(name, (_, value))| (name.clone(), value.clone())).collect()
}

struct Judge {
    policy: OnConflict,
    conflicts: Vec<String>,
}

impl Judge {
    /// Notes the conflict; says whether the newcomer wins.
    fn later_wins(&mut self, what: String) -> bool {
        let later = self.policy == OnConflict::Last;
        let decided = match self.policy {
            OnConflict::Error => "",
            OnConflict::First => ": the first is kept",
            OnConflict::Last => ": the last is kept",
        };
        self.conflicts.push(format!("{what}{decided}"));
        later
    }

    /// Values are not told: names and sources are enough to find them.
    fn vars(&mut self, known: &mut Sourced, new: &Map<String, Value>, part: &Part, whose: &str) {
        for (name, value) in new {
            let wins = match known.get(name) {
                None => true,
                Some((_, old)) if old == value => false,
                Some((source, _)) => {
                    let what = format!(
                        "variable `{name}` of {whose} differs between {source} and {}",
                        part.name
                    );
                    self.later_wins(what)
                }
            };
            if wins {
                known.insert(name.clone(), (part.name.clone(), value.clone()));
            }
        }
    }

    fn host<'p>(
        &mut self,
        hosts: &mut BTreeMap<String, (&'p str, Host)>,
        ids: &mut BTreeMap<String, String>,
        host: Host,
        part: &'p Part,
    ) {
        let shown = |host: &Host| host.instance_id.clone().unwrap_or_default();
        let twin =
            host.instance_id.as_ref().and_then(|id| ids.get(id)).filter(|name| **name != host.name);
        if let Some(name) = twin.cloned() {
            let source = hosts.get(&name).map_or("", |(source, _)| *source);
            let what = format!(
                "the instance `{}` is host `{name}` in {source} and `{}` in {}",
                shown(&host),
                host.name,
                part.name
            );
            if !self.later_wins(what) {
                return;
            }
            hosts.remove(&name);
        }
        if let Some((source, old)) = hosts.get(&host.name) {
            if *old == host {
                return;
            }
            let what = if old.instance_id == host.instance_id {
                format!(
                    "host `{}` has other groups or variables in {source} than in {}",
                    host.name, part.name
                )
            } else {
                format!(
                    "host `{}` is `{}` in {source} and `{}` in {}",
                    host.name,
                    shown(old),
                    shown(&host),
                    part.name
                )
            };
            if !self.later_wins(what) {
                return;
            }
            if let Some(id) = &old.instance_id {
                ids.remove(id);
            }
        }
        if let Some(id) = &host.instance_id {
            ids.insert(id.clone(), host.name.clone());
        }
        hosts.insert(host.name.clone(), (&part.name, host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::convert;
    use serde_json::json;

    fn part(environment: &str, hosts: &[(&str, u8)], vars: Value) -> Part {
        let hosts: Map<String, Value> = hosts
            .iter()
            .map(|(name, number)| {
                let id = format!("i-0123456789abcdef{number:x}");
                let host = json!({"instance_id": id, "private_ip": "10.0.0.1", "groups": ["sip"]});
                ((*name).to_owned(), host)
            })
            .collect();
        let value = json!({"version": 1, "project": "p", "environment": environment, "region": "us-east-1",
            "hosts": hosts, "vars": vars, "group_vars": {"sip": {"port": 5060}}});
        Part {
            name: format!("`{environment}`"),
            inventory: convert(&value, false).unwrap().inventory,
        }
    }

    #[test]
    fn environments_keep_their_variables_in_groups_of_their_own() {
        let parts = [
            part("dev", &[("dev-1", 1)], json!({"same": 1, "x": "d", "port": 1})),
            part("prod", &[("prod-1", 2)], json!({"same": 1, "x": "p"})),
        ];
        let merged = merge(parts.to_vec(), OnConflict::Error, &[GroupBy::Region]).unwrap();
        assert_eq!(merged.conflicts, [""; 0]);
        let all = Value::Object(merged.inventory.all_vars().clone());
        assert_eq!(all, json!({"deploy_project": "p", "deploy_region": "us-east-1", "same": 1}));
        let host = &merged.inventory.hosts()[0];
        assert_eq!(host.groups, ["env_dev", "region_us_east_1", "sip"]);
        assert_eq!(merged.inventory.variable(host, "x"), Some(&json!("d")));
        // What was for all hosts of dev still yields to the group's.
        assert_eq!(merged.inventory.variable(host, "port"), Some(&json!(5060)));
        assert_eq!(merged.inventory.variable(host, "deploy_environment"), Some(&json!("dev")));
    }

    #[test]
    fn one_source_stays_as_it_is() {
        let one = part("dev", &[("a", 1)], json!({"x": 1}));
        let merged = merge(vec![one.clone()], OnConflict::Error, &[]).unwrap();
        assert_eq!(merged.inventory, one.inventory);
        let grouped = merge(vec![one], OnConflict::Error, &[GroupBy::Environment]).unwrap();
        assert_eq!(grouped.inventory.hosts()[0].groups, ["env_dev", "sip"]);
    }

    #[test]
    fn every_conflict_is_named_and_the_policy_decides() {
        let parts = [
            part("dev", &[("a", 1), ("b", 2)], json!({"x": 1})),
            part("dev", &[("a", 3), ("c", 2), ("d", 4)], json!({"x": 2})),
        ];
        let expected = [
            "variable `x` of all hosts differs between `dev` and `dev`",
            "host `a` is `i-0123456789abcdef1` in `dev` and `i-0123456789abcdef3` in `dev`",
            "the instance `i-0123456789abcdef2` is host `b` in `dev` and `c` in `dev`",
        ];
        assert_eq!(merge(parts.to_vec(), OnConflict::Error, &[]).unwrap_err(), expected);
        let check = |policy, x: u8, names: &[&str], first: &str| {
            let merged = merge(parts.to_vec(), policy, &[]).unwrap();
            assert_eq!(merged.conflicts.len(), 3);
            assert_eq!(merged.inventory.all_vars()["x"], json!(x));
            let hosts = merged.inventory.hosts();
            assert_eq!(hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), names);
            assert_eq!(hosts[0].instance_id.as_deref(), Some(first));
        };
        check(OnConflict::First, 1, &["a", "b", "d"], "i-0123456789abcdef1");
        check(OnConflict::Last, 2, &["a", "c", "d"], "i-0123456789abcdef3");
    }

    #[test]
    fn equal_hosts_of_two_sources_are_one() {
        let one = part("dev", &[("a", 1)], json!({}));
        let merged = merge(vec![one.clone(), one], OnConflict::Error, &[]).unwrap();
        assert_eq!(merged.inventory.hosts().len(), 1);
    }
}
