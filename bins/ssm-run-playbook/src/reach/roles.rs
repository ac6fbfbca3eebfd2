//! Roles: where Ansible looks for them, what they depend on, and all of them when a template names one.

use super::{DEPTH, Scope, Walk, is_templated};
use crate::check;
use crate::folder::{join, parent};
use crate::playbook::is_yaml;
use crate::yaml::{Node, Value};

/// Folders of a role that Ansible reads as YAML.
const ROOMS: [&str; 5] = ["tasks", "handlers", "vars", "defaults", "meta"];

impl Walk<'_> {
    /// Follows a role, its dependencies and its tasks.
    pub(super) fn role(
        &mut self,
        scope: &mut Scope,
        node: &Node,
        name: &str,
        from: &[(&str, String)],
    ) {
        let why = self.place(&scope.file, node.line);
        if is_templated(name) {
            return self.all_roles(scope, &why);
        }
        let Some(path) = self.find_role(scope, name) else {
            return self.no_role(scope, node, name);
        };
        if scope.roles.contains(&path) || scope.roles.len() > DEPTH {
            return;
        }
        // The role itself, and what its folder is behind links.
        let folder = self.q.folder;
        let behind = folder.real(parent(&path)).and_then(|real| join(&real, last(&path)));
        for known in [Some(path.clone()), behind, folder.real(&path)].into_iter().flatten() {
            self.out.roles.entry(known).or_insert(format!("role at {why}"));
        }
        self.inside_role(scope, node, path, from);
    }

    pub(super) fn inside_role(
        &mut self,
        scope: &mut Scope,
        node: &Node,
        path: String,
        from: &[(&str, String)],
    ) {
        let folder = self.q.folder;
        scope.roles.push(path.clone());
        for room in ROOMS {
            for file in folder.files_below(&format!("{path}/{room}")) {
                if is_yaml(&file) {
                    self.is_read(scope, &file);
                }
            }
        }
        if let Some(meta) = folder.main(&format!("{path}/meta")) {
            let inside = Scope { file: meta.clone(), ..scope.clone() };
            for document in self.tree(&meta) {
                for node in document.get("dependencies").map(Node::list).unwrap_or_default() {
                    let name = node.text().or_else(|| role_name(node)).map(str::to_owned);
                    if let Some(name) = name {
                        self.role(&mut inside.clone(), node, &name, &[]);
                    }
                }
            }
        }
        for room in ["tasks", "handlers", "vars", "defaults"] {
            let key = format!("{room}_from");
            let chosen = from.iter().find(|(known, _)| *known == key).map(|(_, file)| file);
            let file = match chosen {
                Some(file) if is_templated(file) => {
                    // Any file of the room.
                    self.every_task_file(scope, &path);
                    continue;
                }
                Some(file) => {
                    let found = folder.named(&format!("{path}/{room}"), file);
                    if found.is_none() {
                        let text = format!("the role `{path}` has no `{room}/{file}`");
                        self.bad(&Scope { roles: Vec::new(), ..scope.clone() }, node, text);
                    }
                    found
                }
                None => folder.main(&format!("{path}/{room}")),
            };
            if let Some(file) = file.filter(|_| matches!(room, "tasks" | "handlers")) {
                self.file_of_tasks(scope, &file);
            }
        }
    }

    /// Follows all files that may hold tasks, in a role or beside a playbook.
    pub(super) fn every_task_file(&mut self, scope: &Scope, home: &str) {
        let scope = Scope { judged: false, ..scope.clone() };
        self.out.handlers.may_have_more = true;
        for name in self.q.folder.files_below(home) {
            let rest = name.strip_prefix(home).unwrap_or(&name);
            let other = ["/roles/", "/collections/"].iter().any(|room| rest.starts_with(room))
                || rest.starts_with("roles/")
                || rest.starts_with("collections/");
            if is_yaml(&name) && !other {
                self.file_of_tasks(&scope, &name);
            }
        }
    }

    pub(super) fn all_roles(&mut self, scope: &Scope, why: &str) {
        if self.out.every_role.is_some() {
            return;
        }
        self.out.every_role = Some(format!("a role's name is a template at {why}"));
        for path in self.role_paths(scope) {
            for name in self.q.folder.folders(&path) {
                let Some(path) = join(&path, &name) else { continue };
                let mut inside = Scope { judged: false, ..scope.clone() };
                let node =
                    Node { line: 1, column: 1, is_unsafe: false, value: Value::List(Vec::new()) };
                self.inside_role(&mut inside, &node, path, &[]);
            }
        }
    }

    /// `get_role_path` in Ansible's `playbook/role/definition.py`.
    pub(super) fn find_role(&self, scope: &Scope, name: &str) -> Option<String> {
        let folder = self.q.folder;
        let parts: Vec<&str> = name.split('.').collect();
        if let [namespace, collection, role] = parts[..] {
            let path = format!("{}/{namespace}/{collection}/roles/{role}", check::COLLECTIONS);
            return folder.is_folder(&path).then_some(path);
        }
        let of_collection = |collection: &String| {
            format!("{}/{}/roles/{name}", check::COLLECTIONS, collection.replace('.', "/"))
        };
        let paths = self.role_paths(scope).into_iter().filter_map(|path| join(&path, name));
        let paths = scope.collections.iter().map(of_collection).chain(paths);
        // Last beside the playbook, which may be the Ansible folder itself.
        let mut paths = paths.chain(join(&scope.base, name));
        paths.find(|path| folder.is_folder(path))
    }

    /// A role that does not travel can only be on the hosts, and somebody must have said so.
    fn no_role(&mut self, scope: &Scope, node: &Node, name: &str) {
        self.out.handlers.may_have_more = true;
        if name.matches('.').count() >= 2 {
            return check::collection(self, scope, node, name);
        }
        let declared = check::declared(self, "roles");
        let collections = check::declared(self, "collections");
        if scope.collections.iter().any(|name| collections.contains(name)) {
            return;
        }
        let paths = self.role_paths(scope).join("`, `");
        let missing = format!("there is no role `{name}` in `{paths}`");
        let Some(setting) = self.q.folder.setting(&["roles_path"]) else {
            if !declared.iter().any(|known| known == name) {
                let text =
                    "naming it under `roles` in `requirements.yml` says that the hosts have it";
                self.bad(scope, node, format!("{missing}; {text}"));
            }
            return;
        };
        let outside: Vec<&str> =
            setting.split(':').filter(|path| join("", path).is_none()).collect();
        if outside.is_empty() {
            return self.bad(scope, node, format!("{missing}, where `roles_path` says"));
        }
        let text = format!("{missing}; the hosts must have it in `{}`", outside.join("` or `"));
        let warning = self.finding(scope, node, text);
        self.out.warnings.insert(warning);
    }

    pub(crate) fn role_paths(&self, scope: &Scope) -> Vec<String> {
        let mut paths: Vec<String> = join(&scope.base, "roles").into_iter().collect();
        match self.q.folder.setting(&["roles_path"]) {
            Some(value) => paths.extend(value.split(':').filter_map(|path| join("", path))),
            None => paths.push("roles".to_owned()),
        }
        paths.extend(scope.roles.last().map(|role| parent(role).to_owned()));
        paths.push(scope.base.clone());
        let mut unique = Vec::new();
        for path in paths {
            if !unique.contains(&path) {
                unique.push(path);
            }
        }
        unique.retain(|path| !path.is_empty());
        unique
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn role_name(node: &Node) -> Option<&str> {
    node.get("role").or_else(|| node.get("name")).and_then(Node::text)
}
