//! From the value of the output `inventory` (version 1, `docs/contracts/inventory-output.schema.json`) to an inventory.
//!
//! Everything that is wrong is listed at once. Text from outside that Ansible would evaluate as a template is marked
//! unsafe, so that a tag or an output cannot run code on the hosts.

use crate::number;
use deploy_inventory::{
    ENVIRONMENT, Host, INSTANCE_ID, Inventory, PRIVATE_IP, PROJECT, PUBLIC_IP, REGION,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Marks a string that Ansible must not evaluate, in its JSON form.
pub(crate) const UNSAFE: &str = "__ansible_unsafe";
/// The connection plugin that reaches a host through Systems Manager.
const CONNECTION: &str = "amazon.aws.aws_ssm";
/// Host variables that this tool writes.
const WRITTEN: [&str; 7] = [
    "ansible_host",
    "ansible_connection",
    "ansible_aws_ssm_instance_id",
    "ansible_aws_ssm_region",
    INSTANCE_ID,
    PRIVATE_IP,
    PUBLIC_IP,
];
/// Names that mean something else to Ansible (`environment` is a keyword of plays and tasks).
const RESERVED_VARIABLES: [&str; 4] =
    ["environment", "hostvars", "group_names", "inventory_hostname"];

/// An inventory and what was changed to make it valid.
#[derive(Debug)]
pub struct Converted {
    /// The inventory, hosts sorted by name.
    pub inventory: Inventory,
    /// Group names as they were and as they are now.
    pub renamed: BTreeMap<String, String>,
    /// Scaling groups, whose hosts are not in the inventory yet.
    pub scaling_groups: Vec<ScalingGroup>,
}

/// An Auto Scaling group of the output.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingGroup {
    /// Its key in the output; the names of its hosts start with it.
    pub key: String,
    /// Its name in AWS.
    pub name: String,
    /// Its region, when that is known.
    pub region: Option<String>,
    /// The groups of its hosts, valid and sorted.
    pub groups: Vec<String>,
    /// Variables of each of its hosts.
    pub vars: Map<String, Value>,
}

/// Converts the value of the output. `without_id`: a host may lack its instance ID.
///
/// # Errors
/// Everything that is wrong with it, one line each.
pub fn convert(value: &Value, without_id: bool) -> Result<Converted, Vec<String>> {
    let mut reader = Reader { without_id, ..Reader::default() };
    let (inventory, problems) = (reader.inventory(value), reader.problems);
    match inventory {
        Some(inventory) if problems.is_empty() => Ok(Converted {
            inventory,
            renamed: reader.renamed,
            scaling_groups: reader.scaling_groups,
        }),
        _ => Err(problems),
    }
}

#[derive(Default)]
struct Reader {
    /// Hosts without an instance ID are taken.
    without_id: bool,
    problems: Vec<String>,
    /// Original group name → valid one, for the names that differ.
    renamed: BTreeMap<String, String>,
    /// Valid group name → original one, to find two that become equal.
    origins: BTreeMap<String, String>,
    scaling_groups: Vec<ScalingGroup>,
}

impl Reader {
    fn problem(&mut self, text: String) {
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn inventory(&mut self, value: &Value) -> Option<Inventory> {
        let top = self.object(value, "the output")?;
        match top.get("version") {
            Some(Value::Number(version)) if version.as_u64() == Some(1) => {}
            Some(other) => {
                let other = shown(&other.to_string());
                self.problem(format!("version is {other}; this tool knows version 1"));
                return None;
            }
            None => {
                self.problem("version is missing".to_owned());
                return None;
            }
        }
        self.known(
            top,
            &[
                "version",
                "project",
                "environment",
                "region",
                "hosts",
                "scaling_groups",
                "vars",
                "group_vars",
                "group_children",
            ],
            "the output",
        );
        let project = self.text(top, "project", "project");
        let environment = self.text(top, "environment", "environment");
        let region = self.text(top, "region", "region");

        let mut all_vars = self.vars(top.get("vars"), "vars", &[PROJECT, ENVIRONMENT, REGION]);
        for (key, value) in [(PROJECT, &project), (ENVIRONMENT, &environment), (REGION, &region)] {
            if let Some(value) = value {
                all_vars.insert(key.to_owned(), unsafe_text(value));
            }
        }
        all_vars.sort_keys();

        self.scaling_groups(top.get("scaling_groups"), region.as_deref());
        let mut hosts = Vec::new();
        match top.get("hosts") {
            None | Some(Value::Null) => self.problem("hosts is missing".to_owned()),
            Some(value) => {
                for (name, host) in self.object(value, "hosts").into_iter().flatten() {
                    hosts.extend(self.host(name, host, region.as_deref()));
                }
            }
        }
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let group_vars = self.group_vars(top.get("group_vars"));
        let children = self.group_children(top.get("group_children"));
        let inventory = Inventory::new(hosts, all_vars, group_vars).with_children(children);
        let inventory =
            inventory.map_err(|error| self.problem(format!("group_children: {error}"))).ok()?;
        for problem in collisions(&inventory) {
            self.problem(problem);
        }
        Some(inventory)
    }

    fn host(&mut self, name: &str, value: &Value, region: Option<&str>) -> Option<Host> {
        let what = format!("host `{}`", shown(name));
        if !is_host_name(name) {
            self.problem(format!(
                "{what} is no usable host name: letters, digits, `.`, `_` and `-` inside, and not `all`, `ungrouped` or `localhost`"
            ));
        }
        let host = self.object(value, &what)?;
        self.known(host, &["instance_id", "private_ip", "public_ip", "groups", "vars"], &what);
        let id = match host.get("instance_id").unwrap_or(&Value::Null) {
            Value::String(id) if is_instance_id(id) => Some(id.clone()),
            other => {
                if !other.is_null() && other != "" {
                    let id = shown(&other.to_string());
                    self.problem(format!(
                        "{what} has the instance_id {id}, which EC2 does not give"
                    ));
                } else if !self.without_id {
                    self.problem(format!("{what} has no instance_id"));
                }
                None
            }
        };
        let private_ip = self.address(host, "private_ip", &what);
        if private_ip.is_none()
            && !self.problems.iter().any(|problem| problem.contains("private_ip"))
        {
            self.problem(format!("{what} has no private_ip"));
        }
        let public_ip = self.address(host, "public_ip", &what);
        let groups = self.groups(host.get("groups"), &what);
        let mut vars = self.vars(host.get("vars"), &format!("vars of {what}"), &WRITTEN);
        vars.extend(host_vars(id.as_deref(), region, private_ip.as_deref(), public_ip.as_deref()));
        vars.sort_keys();
        Some(Host {
            name: name.to_owned(),
            instance_id: id,
            region: region.map(str::to_owned),
            private_ip,
            public_ip,
            groups,
            vars,
        })
    }

    fn address(&mut self, host: &Map<String, Value>, key: &str, what: &str) -> Option<String> {
        match host.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) if text.parse::<std::net::IpAddr>().is_ok() => {
                Some(text.clone())
            }
            Some(other) => {
                self.problem(format!(
                    "{key} of {what} is {}, not an address",
                    shown(&other.to_string())
                ));
                None
            }
        }
    }

    fn groups(&mut self, value: Option<&Value>, what: &str) -> Vec<String> {
        let names = match value {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(names)) => names,
            Some(_) => {
                self.problem(format!("groups of {what} is not a list"));
                return Vec::new();
            }
        };
        let mut groups = BTreeSet::new();
        for name in names {
            match name.as_str().filter(|name| number::digits(name).is_none()) {
                Some(name) => groups.extend(self.group(name)),
                None => self.problem(format!(
                    "groups of {what} holds {}, not a name",
                    shown(&name.to_string())
                )),
            }
        }
        groups.into_iter().collect()
    }

    /// The name as Ansible allows it; the rename is remembered.
    fn group(&mut self, name: &str) -> Option<String> {
        let valid = valid_group_name(name);
        if is_ansibles_group(&valid) {
            let next = match valid.as_str() {
                "_meta" => "its script protocol keeps the variables of hosts there",
                _ => "variables for all hosts belong into vars",
            };
            self.problem(format!("the group `{}` is Ansible's own: {next}", shown(name)));
            return None;
        }
        if !name.chars().any(|c| c.is_ascii_alphanumeric()) {
            self.problem(format!("`{}` is no group name", shown(name)));
            return None;
        }
        let origin = self.origins.entry(valid.clone()).or_insert_with(|| name.to_owned()).clone();
        if origin != name {
            self.problem(format!(
                "the groups `{}` and `{}` would both become `{valid}`",
                shown(&origin),
                shown(name)
            ));
        }
        if valid != name {
            self.renamed.insert(name.to_owned(), valid.clone());
        }
        Some(valid)
    }

    fn group_vars(&mut self, value: Option<&Value>) -> BTreeMap<String, Map<String, Value>> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return BTreeMap::new() };
        let mut out = BTreeMap::new();
        for (name, vars) in self.object(value, "group_vars").into_iter().flatten() {
            let mut vars =
                self.vars(Some(vars), &format!("group_vars of `{}`", shown(name)), &WRITTEN);
            vars.sort_keys();
            if let Some(name) = self.group(name) {
                out.insert(name, vars);
            }
        }
        out
    }

    fn vars(&mut self, value: Option<&Value>, what: &str, written: &[&str]) -> Map<String, Value> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Map::new() };
        let mut out = Map::new();
        for (name, value) in self.object(value, what).into_iter().flatten() {
            if !is_identifier(name) || RESERVED_VARIABLES.contains(&name.as_str()) {
                self.problem(format!(
                    "`{}` in {what} cannot name an Ansible variable",
                    shown(name)
                ));
            } else if written.contains(&name.as_str()) {
                self.problem(format!("`{name}` in {what} is written by tf-to-inventory itself"));
            } else {
                out.insert(name.clone(), self.value(value, &format!("`{name}` in {what}")));
            }
        }
        out
    }

    /// A variable's value with every string marked that Ansible would evaluate.
    fn value(&mut self, value: &Value, what: &str) -> Value {
        match value {
            Value::String(text) => unsafe_text(text),
            Value::Array(items) => items.iter().map(|item| self.value(item, what)).collect(),
            Value::Object(members) => {
                let mut out = Map::new();
                for (key, value) in members {
                    // Ansible's JSON readers give such members a meaning of their own.
                    if key.starts_with("__ansible_") || is_template(key) {
                        self.problem(format!(
                            "{what} holds the member `{}`, which Ansible would interpret",
                            shown(key)
                        ));
                    }
                    out.insert(key.clone(), self.value(value, what));
                }
                Value::Object(out)
            }
            other => other.clone(),
        }
    }

    fn group_children(&mut self, value: Option<&Value>) -> BTreeMap<String, BTreeSet<String>> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return BTreeMap::new() };
        let mut out = BTreeMap::new();
        for (name, children) in self.object(value, "group_children").into_iter().flatten() {
            let what = format!("group_children of `{}`", shown(name));
            let children = self.groups(Some(children), &what);
            if let Some(name) = self.group(name) {
                out.insert(name, children.into_iter().collect());
            }
        }
        out
    }

    fn scaling_groups(&mut self, value: Option<&Value>, region: Option<&str>) {
        let Some(value) = value.filter(|value| !value.is_null()) else { return };
        for (key, group) in self.object(value, "scaling_groups").into_iter().flatten() {
            let what = format!("scaling group `{}`", shown(key));
            if !is_host_name(key) {
                self.problem(format!("{what} cannot start the names of hosts: letters, digits, `.`, `_` and `-` inside"));
            }
            let Some(group) = self.object(group, &what) else { continue };
            self.known(group, &["name", "groups", "vars"], &what);
            let name = self.text(group, "name", &format!("name of {what}"));
            let groups = self.groups(group.get("groups"), &what);
            let vars = self.vars(group.get("vars"), &format!("vars of {what}"), &WRITTEN);
            if let Some(name) = name {
                let (key, region) = (key.clone(), region.map(str::to_owned));
                self.scaling_groups.push(ScalingGroup { key, name, region, groups, vars });
            }
        }
        self.scaling_groups.sort_by(|a, b| a.key.cmp(&b.key));
    }

    fn text(&mut self, top: &Map<String, Value>, key: &str, what: &str) -> Option<String> {
        match top.get(key) {
            Some(Value::String(text)) if number::digits(text).is_some() => {
                self.problem(format!("{what} is not a string"));
                None
            }
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            None | Some(Value::Null | Value::String(_)) => {
                self.problem(format!("{what} is missing"));
                None
            }
            Some(_) => {
                self.problem(format!("{what} is not a string"));
                None
            }
        }
    }

    fn known(&mut self, object: &Map<String, Value>, keys: &[&str], what: &str) {
        for key in object.keys().filter(|key| !keys.contains(&key.as_str())) {
            self.problem(format!("{what} has the unknown member `{}`", shown(key)));
        }
    }

    fn object<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v Map<String, Value>> {
        if !value.is_object() {
            self.problem(format!("{what} is not an object"));
        }
        value.as_object()
    }
}

/// The inventory with an output as a variable of all hosts or of a group.
pub(crate) fn with_variable(
    inventory: Inventory,
    group: Option<&str>,
    name: &str,
    value: &Value,
) -> Result<Inventory, Vec<String>> {
    let mut reader = Reader::default();
    let what = "the outputs";
    let vars = Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
    let written = [WRITTEN.as_slice(), &[PROJECT, ENVIRONMENT, REGION]].concat();
    let vars = reader.vars(Some(&vars), what, &written);
    let group = group.map(|group| reader.group(group).unwrap_or_default());
    let known = match &group {
        None => inventory.all_vars().get(name),
        Some(group) => inventory.group_vars(group).and_then(|vars| vars.get(name)),
    };
    if known.is_some() {
        reader.problem(format!("`{name}` is a variable of the output `inventory` already"));
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    Ok(inventory.with_vars(group.as_deref(), vars))
}

/// What Ansible would take for one where there are two: an instance under two names, a host and a group of one name.
pub(crate) fn collisions(inventory: &Inventory) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let groups: BTreeSet<&str> = inventory.groups().into_iter().collect();
    for host in inventory.hosts() {
        if !names.insert(&host.name) {
            problems.push(format!("two hosts have the name `{}`", host.name));
        }
        if groups.contains(host.name.as_str()) {
            problems.push(format!("`{}` names both a host and a group", host.name));
        }
        let Some(id) = &host.instance_id else { continue };
        if let Some(first) = seen.insert(id, &host.name).filter(|first| *first != host.name) {
            problems.push(format!(
                "hosts `{first}` and `{}` have the same instance_id `{id}`",
                host.name
            ));
        }
    }
    problems
}

/// Whether Ansible gives a group of this name a meaning of its own: the first two hold all hosts and those in no group, and
/// `_meta` is where a script's answer has the variables of hosts.
pub(crate) fn is_ansibles_group(name: &str) -> bool {
    matches!(name, "all" | "ungrouped" | "_meta")
}

/// The variables that this tool writes for every host: it is reached through Systems Manager.
pub(crate) fn host_vars(
    id: Option<&str>,
    region: Option<&str>,
    private_ip: Option<&str>,
    public_ip: Option<&str>,
) -> Map<String, Value> {
    [
        ("ansible_aws_ssm_instance_id", id),
        ("ansible_aws_ssm_region", region),
        ("ansible_connection", Some(CONNECTION)),
        ("ansible_host", id),
        (INSTANCE_ID, id),
        (PRIVATE_IP, private_ip),
        (PUBLIC_IP, public_ip),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
    .collect()
}

/// Text from outside for a message: short, and without what ends the message's quotes or line.
pub(crate) fn shown(text: &str) -> String {
    number::plain(text)
        .chars()
        .take(60)
        .map(|c| if c.is_control() || c == '`' { '?' } else { c })
        .collect()
}

fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

pub(crate) fn unsafe_text(text: &str) -> Value {
    if is_template(text) { json!({ UNSAFE: text }) } else { json!(text) }
}

fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Every other character becomes `_`, and a leading digit gets one before it
/// (<https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html>: names follow variable names).
pub(crate) fn valid_group_name(name: &str) -> String {
    let mut valid: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if valid.starts_with(|c: char| c.is_ascii_digit()) {
        valid.insert(0, '_');
    }
    valid
}

/// Names without the characters that Ansible expands (`[1:3]`), splits (`:22`) or takes for a pattern.
pub(crate) fn is_host_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && !matches!(name, "all" | "ungrouped" | "localhost")
}

/// 8 hexadecimal digits, since 2016 17; `mi-` for managed nodes outside EC2.
pub(crate) fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").or_else(|| id.strip_prefix("mi-")).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({
            "version": 1, "project": "p", "environment": "dev", "region": "us-east-1",
            "hosts": {
                "sip-2": {"instance_id": "i-0123456789abcdef1", "private_ip": "10.0.0.2", "public_ip": null, "groups": ["sip"], "vars": {}},
                "sip-1": {"instance_id": "i-0123456789abcdef0", "private_ip": "10.0.0.1", "public_ip": "198.51.100.1",
                          "groups": ["uc-engine", "sip"], "vars": {"motd": "{{ lookup('pipe', 'id') }}"}},
            },
            "scaling_groups": {}, "vars": {"b": [1, "{% x %}"], "a": null}, "group_vars": {"sip": {"port": 5060}},
        })
    }

    fn refused(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut value = sample();
        change(&mut value);
        assert_eq!(convert(&value, false).unwrap_err(), expected);
    }

    #[test]
    fn hosts_are_reached_through_systems_manager_and_sorted() {
        let Converted { inventory, renamed, .. } = convert(&sample(), false).unwrap();
        let names: Vec<_> = inventory.hosts().iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["sip-1", "sip-2"]);
        let host = &inventory.hosts()[0];
        assert_eq!(host.groups, ["sip", "uc_engine"]);
        assert_eq!(renamed, BTreeMap::from([("uc-engine".to_owned(), "uc_engine".to_owned())]));
        assert_eq!(
            Value::Object(host.vars.clone()),
            json!({
                "ansible_aws_ssm_instance_id": "i-0123456789abcdef0", "ansible_aws_ssm_region": "us-east-1",
                "ansible_connection": "amazon.aws.aws_ssm", "ansible_host": "i-0123456789abcdef0",
                "instance_id": "i-0123456789abcdef0", "motd": {"__ansible_unsafe": "{{ lookup('pipe', 'id') }}"},
                "private_ip": "10.0.0.1", "public_ip": "198.51.100.1",
            })
        );
        assert!(!inventory.hosts()[1].vars.contains_key("public_ip"));
        assert_eq!(
            Value::Object(inventory.all_vars().clone()),
            json!({"a": null, "b": [1, {"__ansible_unsafe": "{% x %}"}], "deploy_environment": "dev",
                "deploy_project": "p", "deploy_region": "us-east-1"})
        );
    }

    #[test]
    fn scaling_groups_and_groups_in_groups_are_read() {
        let mut value = sample();
        value["scaling_groups"] =
            json!({"web": {"name": "dev-web", "groups": ["web-tier"], "vars": {"x": "{{ y }}"}}});
        value["group_children"] = json!({"voip": ["sip"]});
        let converted = convert(&value, false).unwrap();
        let group = &converted.scaling_groups[0];
        assert_eq!((group.key.as_str(), group.name.as_str()), ("web", "dev-web"));
        assert_eq!(group.groups, ["web_tier"]);
        assert_eq!(group.vars["x"], json!({"__ansible_unsafe": "{{ y }}"}));
        assert_eq!(converted.inventory.hosts()[1].groups, ["sip", "voip"]);
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        refused(
            |value| {
                value["hosts"]["sip-1"]["instance_id"] = Value::Null;
                value["hosts"]["sip-2"]["instance_id"] = json!("i-xyz");
                value["surprise"] = json!(1);
            },
            &[
                "the output has the unknown member `surprise`",
                "host `sip-2` has the instance_id \"i-xyz\", which EC2 does not give",
                "host `sip-1` has no instance_id",
            ],
        );
    }

    #[test]
    fn what_would_be_lost_or_misread_is_refused() {
        refused(|value| value["version"] = json!(2), &["version is 2; this tool knows version 1"]);
        refused(|value| *value = json!([]), &["the output is not an object"]);
        refused(
            |value| value["scaling_groups"] = json!({"w b": {"name": "", "group": []}}),
            &[
                "scaling group `w b` cannot start the names of hosts: letters, digits, `.`, `_` and `-` inside",
                "scaling group `w b` has the unknown member `group`",
                "name of scaling group `w b` is missing",
            ],
        );
        refused(
            |value| value["group_children"] = json!({"a": ["b"], "b": ["a"]}),
            &["group_children: not an inventory: group `a` contains itself"],
        );
        refused(
            |value| value["hosts"]["sip-2"]["instance_id"] = json!("i-0123456789abcdef0"),
            &["hosts `sip-1` and `sip-2` have the same instance_id `i-0123456789abcdef0`"],
        );
        refused(
            |value| value["hosts"]["sip-1"]["groups"] = json!(["uc-engine", "uc_engine"]),
            &["the groups `uc-engine` and `uc_engine` would both become `uc_engine`"],
        );
        refused(
            |value| value["group_vars"] = json!({"all": {"x": 1}}),
            &["the group `all` is Ansible's own: variables for all hosts belong into vars"],
        );
        refused(
            |value| value["vars"] = json!({"environment": "dev", "a-b": 1, "deploy_region": "x", "x": {"__ansible_vault": "y"}}),
            &[
                "`environment` in vars cannot name an Ansible variable",
                "`a-b` in vars cannot name an Ansible variable",
                "`deploy_region` in vars is written by tf-to-inventory itself",
                "`x` in vars holds the member `__ansible_vault`, which Ansible would interpret",
            ],
        );
        refused(
            |value| value["hosts"]["a[1:3]"] = value["hosts"]["sip-1"].take(),
            &[
                "host `sip-1` is not an object",
                "host `a[1:3]` is no usable host name: letters, digits, `.`, `_` and `-` inside, and not `all`, `ungrouped` or `localhost`",
            ],
        );
        refused(
            |value| {
                let host = value["hosts"]["sip-2"].clone();
                value["hosts"] = json!({"sip": host});
            },
            &["`sip` names both a host and a group"],
        );
    }

    #[test]
    fn group_names_become_identifiers() {
        let check = |name: &str, expected: &str| assert_eq!(valid_group_name(name), expected);
        check("sip", "sip");
        check("uc-engine", "uc_engine");
        check("1st floor", "_1st_floor");
        check("é", "_");
    }
}
