//! In which order Ansible lists the hosts of a group: what `[0]` and `[1:3]` behind a name count by.
//!
//! Ansible keeps hosts and groups in the order in which its `yaml` inventory plugin meets them. The hosts of a group are its
//! own, then those of its children, level by level (`Group.get_hosts` in Ansible's `inventory/group.py`).

use crate::Inventory;
use std::collections::{BTreeMap, HashSet, VecDeque};

pub(crate) const ALL: &str = "all";
pub(crate) const UNGROUPED: &str = "ungrouped";

/// Names in the order of an inventory file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    hosts: Vec<String>,
    groups: Vec<String>,
    /// The hosts that stand directly in a group.
    members: BTreeMap<String, Vec<String>>,
    children: BTreeMap<String, Vec<String>>,
}

impl Layout {
    /// Ansible's own groups come first, whatever the file says.
    pub(crate) fn new() -> Self {
        let groups = vec![ALL.to_owned(), UNGROUPED.to_owned()];
        let children = BTreeMap::from([(ALL.to_owned(), vec![UNGROUPED.to_owned()])]);
        Self { groups, children, ..Self::default() }
    }

    /// The layout of the file that an inventory would be written to.
    pub(crate) fn of(inventory: &Inventory) -> Self {
        let mut layout = Self::new();
        for host in inventory.hosts() {
            layout.host(ALL, &host.name);
        }
        for (group, members) in inventory.members() {
            layout.group(Some(ALL), group);
            for host in members {
                layout.host(group, &host.name);
            }
            for child in inventory.children(group) {
                layout.group(Some(group), child);
            }
        }
        layout.reconciled()
    }

    /// Meets a group, in its parent.
    pub(crate) fn group(&mut self, parent: Option<&str>, name: &str) {
        self.groups.push(name.to_owned());
        if let Some(parent) = parent {
            self.children.entry(parent.to_owned()).or_default().push(name.to_owned());
        }
    }

    /// Meets a host in a group.
    pub(crate) fn host(&mut self, group: &str, name: &str) {
        self.hosts.push(name.to_owned());
        self.members.entry(group.to_owned()).or_default().push(name.to_owned());
    }

    /// Ansible puts a host that stands in no group, or in `all` alone, into `ungrouped`, and takes others out of it.
    pub(crate) fn reconciled(mut self) -> Self {
        let lists = self.members.values_mut().chain(self.children.values_mut());
        for names in lists.chain([&mut self.hosts, &mut self.groups]) {
            let mut seen = HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
        }
        let own = |group: &&String| !matches!(group.as_str(), ALL | UNGROUPED);
        let grouped: HashSet<&String> = self
            .members
            .iter()
            .filter(|(group, _)| own(group))
            .flat_map(|(_, names)| names)
            .collect();
        let mut ungrouped = self.members.get(UNGROUPED).cloned().unwrap_or_default();
        ungrouped.retain(|name| !grouped.contains(name));
        let known: HashSet<&String> = ungrouped.iter().collect();
        let alone = |name: &&String| !grouped.contains(*name) && !known.contains(*name);
        let more: Vec<String> = self.hosts.iter().filter(alone).cloned().collect();
        ungrouped.extend(more);
        self.members.insert(UNGROUPED.to_owned(), ungrouped);
        self
    }

    /// All hosts, as they were met.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// All groups, as they were met, with `all` and `ungrouped`.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(String::as_str)
    }

    /// The hosts of a group and of the groups in it.
    pub(crate) fn hosts_of(&self, group: &str) -> Vec<&str> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let (mut open, mut entered) = (VecDeque::from([group]), HashSet::from([group]));
        while let Some(group) = open.pop_front() {
            let members = self.members.get(group).into_iter().flatten().map(String::as_str);
            found.extend(members.filter(|name| seen.insert(*name)));
            let children = self.children.get(group).into_iter().flatten().map(String::as_str);
            open.extend(children.filter(|child| entered.insert(*child)));
        }
        found
    }
}
