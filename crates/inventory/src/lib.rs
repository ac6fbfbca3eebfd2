//! The inventory that the tools hand to each other: an Ansible inventory file in JSON.
//!
//! `tf-to-inventory` writes it, every other tool reads it. The file is what Ansible's own `yaml` inventory plugin reads
//! (groups as maps, hosts as maps). No I/O here: text in, hosts out.

mod glob;
mod layout;
mod parse;
mod pattern;
mod split;

pub use parse::ParseError;
pub use pattern::PatternError;

use layout::Layout;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

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

/// Variable of a group that Ansible weighs groups of the same depth by; 1 without it.
pub const PRIORITY: &str = "ansible_group_priority";

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
    /// The groups it is in, by way of their children too, sorted, without `all` and `ungrouped`.
    pub groups: Vec<String>,
    /// Its own variables, as in the file.
    pub vars: Map<String, Value>,
}

/// A parsed inventory.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    hosts: Vec<Host>,
    all_vars: Map<String, Value>,
    group_vars: BTreeMap<String, Map<String, Value>>,
    children: BTreeMap<String, BTreeSet<String>>,
    /// The order of names in the file that it was read from; none for one that is not a file yet.
    layout: Option<Layout>,
}

/// Equal content; the order of groups is none.
impl PartialEq for Inventory {
    fn eq(&self, other: &Self) -> bool {
        self.hosts == other.hosts
            && self.all_vars == other.all_vars
            && self.group_vars == other.group_vars
            && self.children == other.children
    }
}

impl Inventory {
    /// An inventory of these parts. Hosts keep their order.
    pub fn new(
        hosts: Vec<Host>,
        all_vars: Map<String, Value>,
        group_vars: BTreeMap<String, Map<String, Value>>,
    ) -> Self {
        Self { hosts, all_vars, group_vars, children: BTreeMap::new(), layout: None }
    }

    /// The same with groups in groups, parent → children: hosts of a child are hosts of its parents, too.
    ///
    /// # Errors
    /// [`ParseError::Shape`] when a group contains itself.
    pub fn with_children(
        mut self,
        children: BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Self, ParseError> {
        self.children = children;
        self.children.retain(|_, children| !children.is_empty());
        if let Some(group) =
            self.children.keys().find(|group| self.ancestors(group).contains(*group))
        {
            return Err(ParseError::Shape(format!("group `{group}` contains itself")));
        }
        let hosts = std::mem::take(&mut self.hosts);
        Ok(self.with_hosts(hosts))
    }

    /// The same with other hosts.
    #[must_use]
    pub fn with_hosts(mut self, mut hosts: Vec<Host>) -> Self {
        if !self.children.is_empty() {
            for host in &mut hosts {
                let mut groups: BTreeSet<String> = host.groups.iter().cloned().collect();
                groups.extend(host.groups.iter().flat_map(|group| self.ancestors(group)));
                host.groups = groups.into_iter().collect();
            }
        }
        self.hosts = hosts;
        self.layout = None;
        self
    }

    /// In which order Ansible lists hosts and groups.
    fn layout(&self) -> Cow<'_, Layout> {
        self.layout.as_ref().map_or_else(|| Cow::Owned(Layout::of(self)), Cow::Borrowed)
    }

    /// The same with more variables of a group, or of all hosts. Variables stay sorted.
    #[must_use]
    pub fn with_vars(mut self, group: Option<&str>, vars: Map<String, Value>) -> Self {
        let known = match group {
            None => &mut self.all_vars,
            Some(group) => self.group_vars.entry(group.to_owned()).or_default(),
        };
        known.extend(vars);
        known.sort_keys();
        self.layout = None;
        self
    }

    /// All groups that contain this one, at any depth.
    fn ancestors(&self, group: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![group.to_owned()];
        while let Some(group) = open.pop() {
            for (parent, children) in &self.children {
                if children.contains(&group) && found.insert(parent.clone()) {
                    open.push(parent.clone());
                }
            }
        }
        found
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
    /// exclusion, and `[0]`, `[-1]`, `[0:2]`, `[1:]` behind a name for some of its hosts, in the file's order
    /// (<https://docs.ansible.com/ansible/latest/inventory_guide/intro_patterns.html>).
    ///
    /// # Errors
    /// [`PatternError`] when a part of the pattern is malformed, names neither a host nor a group, or counts beyond the last
    /// host.
    pub fn select(&self, pattern: Option<&str>) -> Result<Vec<&Host>, PatternError> {
        match pattern {
            None => Ok(self.hosts.iter().collect()),
            Some(pattern) => pattern::select(self, pattern),
        }
    }

    /// The hosts that the `hosts` of a play matches, in the file's order: names that are neither host nor group match
    /// nothing.
    ///
    /// # Errors
    /// [`PatternError::Regex`] when a part is not a regular expression, [`PatternError::Subscript`] when it counts beyond the
    /// last host.
    pub fn select_known(&self, pattern: &str) -> Result<Vec<&Host>, PatternError> {
        pattern::select_known(self, pattern)
    }

    /// The variables of all hosts.
    pub fn all_vars(&self) -> &Map<String, Value> {
        &self.all_vars
    }

    /// The variables of one group.
    pub fn group_vars(&self, group: &str) -> Option<&Map<String, Value>> {
        self.group_vars.get(group)
    }

    /// The groups directly in this one, sorted.
    pub fn children(&self, group: &str) -> impl Iterator<Item = &str> {
        self.children.get(group).into_iter().flatten().map(String::as_str)
    }

    /// The groups that contain others, with those.
    pub fn nesting(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.children
    }

    /// Names of the groups that have a host, variables, a parent or children, sorted.
    pub fn groups(&self) -> Vec<&str> {
        let nested =
            self.children.iter().flat_map(|(group, children)| children.iter().chain([group]));
        let names = self.group_vars.keys().chain(nested);
        let names =
            names.chain(self.hosts.iter().flat_map(|host| &host.groups)).map(String::as_str);
        names.collect::<BTreeSet<&str>>().into_iter().collect()
    }

    /// The hosts of every group that are in none of its children, in the file's order.
    pub fn members(&self) -> BTreeMap<&str, Vec<&Host>> {
        let mut members: BTreeMap<&str, Vec<&Host>> =
            self.groups().into_iter().map(|group| (group, Vec::new())).collect();
        for host in &self.hosts {
            for group in &host.groups {
                let by_child =
                    self.children(group).any(|child| host.groups.iter().any(|name| name == child));
                if let (false, Some(list)) = (by_child, members.get_mut(group.as_str())) {
                    list.push(host);
                }
            }
        }
        members
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

    /// What a variable is worth on a host: the host's own value, else a group's, else the one for all. Of several groups
    /// the deepest wins, then the one of the highest `ansible_group_priority`, then the last by name, as in Ansible
    /// (`sort_groups` in its `inventory/group.py`).
    pub fn variable<'a>(&'a self, host: &'a Host, name: &str) -> Option<&'a Value> {
        let group_value = || {
            let with = host.groups.iter().filter_map(|group| {
                let vars = self.group_vars.get(group)?;
                let priority = vars.get(PRIORITY).and_then(Value::as_i64).unwrap_or(1);
                Some(((self.depth(group), priority, group), vars.get(name)?))
            });
            with.max_by_key(|(order, _)| *order).map(|(_, value)| value)
        };
        host.vars.get(name).or_else(group_value).or_else(|| self.all_vars.get(name))
    }

    /// How many groups stand above this one on the longest way up.
    fn depth(&self, group: &str) -> usize {
        let parents = self.children.iter().filter(|(_, children)| children.contains(group));
        parents.map(|(parent, _)| self.depth(parent) + 1).max().unwrap_or(0)
    }

    /// The inventory as an Ansible inventory file, deterministic for the same content. [`Serialize`] writes the same
    /// without a copy of everything.
    pub fn to_value(&self) -> Value {
        json!(self)
    }
}

impl Serialize for Inventory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct File<'i> {
            all: All<'i>,
        }
        #[derive(Serialize)]
        struct All<'i> {
            hosts: Entries<&'i str, &'i Map<String, Value>>,
            vars: &'i Map<String, Value>,
            children: Entries<&'i str, Group<'i>>,
        }
        #[derive(Serialize)]
        struct Group<'i> {
            hosts: Entries<&'i str, Empty>,
            #[serde(skip_serializing_if = "Option::is_none")]
            vars: Option<&'i Map<String, Value>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            children: Option<Entries<&'i str, Empty>>,
        }
        let mut groups = Vec::new();
        for (name, members) in self.members() {
            let children: Vec<_> = self.children(name).map(|child| (child, Empty {})).collect();
            let hosts = members.iter().map(|host| (host.name.as_str(), Empty {})).collect();
            let vars = self.group_vars.get(name).filter(|vars| !vars.is_empty());
            let children = (!children.is_empty()).then_some(Entries(children));
            groups.push((name, Group { hosts: Entries(hosts), vars, children }));
        }
        let hosts = self.hosts.iter().map(|host| (host.name.as_str(), &host.vars)).collect();
        let all = All { hosts: Entries(hosts), vars: &self.all_vars, children: Entries(groups) };
        File { all }.serialize(serializer)
    }
}

/// A map in this order.
struct Entries<K, V>(Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Entries<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// `{}`.
#[derive(Serialize)]
struct Empty {}
