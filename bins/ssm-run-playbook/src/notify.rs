//! Handlers that tasks notify: one that is nowhere ends Ansible in the middle of the result of the task that changed
//! something. Names of all tasks that the playbook reaches count, so that a name that is refused is sure to be missing.

use crate::error::Finding;
use crate::reach::{Scope, Walk, is_templated};
use crate::yaml::Node;
use std::collections::BTreeSet;

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    /// What a handler may be called by: `name` and `listen` of any task.
    names: BTreeSet<String>,
    /// What fixed names are notified, and where.
    notified: BTreeSet<(Finding, String)>,
    /// Whether there may be others, e.g. where a template makes a name.
    pub(crate) may_have_more: bool,
}

fn texts(node: &Node) -> impl Iterator<Item = (&Node, &str)> {
    let inside = node.list().iter().filter_map(|node| Some((node, node.text()?)));
    node.text().map(|text| (node, text)).into_iter().chain(inside)
}

/// Notes what a task or a block is called and whom it notifies.
pub(crate) fn task(walk: &mut Walk<'_>, scope: &Scope, task: &Node) {
    for (key, _, value) in task.pairs() {
        for (node, text) in texts(value) {
            match key {
                "name" | "listen" => {
                    walk.out.handlers.may_have_more |= is_templated(text);
                    walk.out.handlers.names.insert(text.trim().to_owned());
                }
                "notify" if scope.is_judged() && !scope.hosts.is_empty() && !is_templated(text) => {
                    let finding = walk.finding(scope, node, String::new());
                    walk.out.handlers.notified.insert((finding, text.trim().to_owned()));
                }
                _ => {}
            }
        }
    }
}

/// Refuses what nothing is called by.
pub(crate) fn missing(walk: &mut Walk<'_>) {
    let handlers = std::mem::take(&mut walk.out.handlers);
    let setting = walk.q.folder.setting(&["error_on_missing_handler"]);
    if handlers.may_have_more || walk.out.every_role.is_some() || setting.is_some() {
        return;
    }
    for (place, text) in handlers.notified {
        // `ROLE : NAME` names the handler of one role.
        let name = text.rsplit_once(" : ").map_or(text.as_str(), |(_, name)| name);
        if handlers.names.contains(name) || handlers.names.contains(&text) {
            continue;
        }
        let close = deploy_cli::closest(name, handlers.names.iter().map(String::as_str));
        let meant = close.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let message = format!("there is no handler `{text}`{meant}");
        walk.out.findings.insert(Finding { message, ..place });
    }
}
