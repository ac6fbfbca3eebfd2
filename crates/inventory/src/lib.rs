//! The inventory that the tools hand to each other: an Ansible inventory file in JSON.
//!
//! `tf-to-inventory` writes it, every other tool reads it. The file is what Ansible's own `yaml` inventory plugin reads
//! (groups as maps, hosts as maps). No I/O here: text in, hosts out.

mod parse;
mod pattern;

pub use parse::ParseError;
pub use pattern::PatternError;

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Host variable with the EC2 instance ID.
pub const INSTANCE_ID: &str = "instance_id";
/// Host variable with the address inside the VPC.
pub const PRIVATE_IP: &str = "private_ip";
/// Host variable with the public address, absent when there is none.
pub const PUBLIC_IP: &str = "public_ip";
/// Variable of all hosts: the project. (`environment` is a reserved word in Ansible, hence the prefix.)
pub const PROJECT: &str = "deploy_project";
/// Variable of all hosts: the environment.
pub const ENVIRONMENT: &str = "deploy_environment";
/// Variable of all hosts: the AWS region.
pub const REGION: &str = "deploy_region";

/// One host.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name, unique in the inventory.
    pub name: String,
    /// EC2 instance ID.
    pub instance_id: Option<String>,
    /// AWS region; the host's own, else the inventory's.
    pub region: Option<String>,
    /// Address inside the VPC.
    pub private_ip: Option<String>,
    /// Public address.
    pub public_ip: Option<String>,
    /// The groups it is in, sorted, without `all` and `ungrouped`.
    pub groups: Vec<String>,
    /// Its own variables, as in the file.
    pub vars: Map<String, Value>,
}

/// A parsed inventory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    hosts: Vec<Host>,
    all_vars: Map<String, Value>,
    group_vars: BTreeMap<String, Map<String, Value>>,
}

impl Inventory {
    /// An inventory of these parts. Hosts keep their order.
    pub fn new(
        hosts: Vec<Host>,
        all_vars: Map<String, Value>,
        group_vars: BTreeMap<String, Map<String, Value>>,
    ) -> Self {
        Self { hosts, all_vars, group_vars }
    }

    /// Reads the text of an inventory file.
    ///
    /// # Errors
    /// [`ParseError`] when it is not JSON, not an inventory, or names a group that contains itself.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }

    /// All hosts in the file's order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The hosts that an Ansible pattern names, in the file's order; all of them without a pattern.
    ///
    /// Patterns: host and group names, `all`, globs, `~regex`, `:` or `,` for union, `&` for intersection, `!` for
    /// exclusion (<https://docs.ansible.com/ansible/latest/inventory_guide/intro_patterns.html>).
    ///
    /// # Errors
    /// [`PatternError`] when a part of the pattern is malformed, or names neither a host nor a group.
    pub fn select(&self, pattern: Option<&str>) -> Result<Vec<&Host>, PatternError> {
        match pattern {
            None => Ok(self.hosts.iter().collect()),
            Some(pattern) => pattern::select(self, pattern),
        }
    }

    /// The variables of all hosts.
    pub fn all_vars(&self) -> &Map<String, Value> {
        &self.all_vars
    }

    /// The variables of one group.
    pub fn group_vars(&self, group: &str) -> Option<&Map<String, Value>> {
        self.group_vars.get(group)
    }

    /// Names of the groups that have a host or variables, sorted.
    pub fn groups(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.group_vars.keys().map(String::as_str).collect();
        names.extend(self.hosts.iter().flat_map(|host| &host.groups).map(String::as_str));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The project, from the variables of all hosts.
    pub fn project(&self) -> Option<&str> {
        self.all_vars.get(PROJECT)?.as_str()
    }

    /// The environment, from the variables of all hosts.
    pub fn environment(&self) -> Option<&str> {
        self.all_vars.get(ENVIRONMENT)?.as_str()
    }

    /// The AWS region, from the variables of all hosts.
    pub fn region(&self) -> Option<&str> {
        self.all_vars.get(REGION)?.as_str()
    }

    /// What a variable is worth on a host: the host's own value, else a group's (the last group by name wins, as in
    /// Ansible for groups of equal depth), else the one for all.
    pub fn variable<'a>(&'a self, host: &'a Host, name: &str) -> Option<&'a Value> {
        let group_value = || {
            host.groups
                .iter()
                .rev()
                .find_map(|group| self.group_vars.get(group).and_then(|vars| vars.get(name)))
        };
        host.vars.get(name).or_else(group_value).or_else(|| self.all_vars.get(name))
    }

    /// The inventory as an Ansible inventory file, deterministic for the same content.
    pub fn to_value(&self) -> Value {
        let hosts: Map<String, Value> = self
            .hosts
            .iter()
            .map(|host| (host.name.clone(), Value::Object(host.vars.clone())))
            .collect();
        let children: Map<String, Value> =
            self.groups().into_iter().map(|group| self.group_value(group)).collect();
        json!({"all": {"hosts": hosts, "vars": self.all_vars, "children": children}})
    }

    fn group_value(&self, group: &str) -> (String, Value) {
        let members = self.hosts.iter().filter(|host| host.groups.iter().any(|name| name == group));
        let hosts: Map<String, Value> =
            members.map(|host| (host.name.clone(), json!({}))).collect();
        let mut value = Map::from_iter([("hosts".to_owned(), Value::Object(hosts))]);
        if let Some(vars) = self.group_vars.get(group).filter(|vars| !vars.is_empty()) {
            value.insert("vars".to_owned(), Value::Object(vars.clone()));
        }
        (group.to_owned(), Value::Object(value))
    }
}
