//! What a playbook reaches: plays, imported playbooks, roles with their dependencies, task files, and the files that
//! tasks name. What cannot be known before a run (a name made by a template) makes everything of its kind reached.

mod roles;

use crate::call::Call;
use crate::check;
use crate::error::Finding;
use crate::folder::{Folder, join, parent};
use crate::jinja;
use crate::kept;
use crate::notify::{self, Handlers};
use crate::playbook::{VAULT, short};
use crate::yaml::{self, Node};
use deploy_inventory::Inventory;
use roles::role_name;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::Path;

/// Roles that include each other deeper than this include themselves.
const DEPTH: usize = 30;

/// What the answers depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) folder: Folder<'a>,
    /// The Ansible folder as a person finds it.
    pub(crate) shown: &'a Path,
    /// The playbook's path below the folder.
    pub(crate) playbook: &'a str,
    pub(crate) inventory: &'a Inventory,
    /// Names of the selected hosts.
    pub(crate) selected: &'a [String],
    pub(crate) allow_reboot: bool,
    /// Tasks that ask for the machine that runs Ansible are meant for the host, which runs it.
    pub(crate) local_tasks: bool,
}

/// The answer. Reasons are for people.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Files by their path below the folder, with why.
    pub(crate) files: BTreeMap<String, String>,
    /// Folders of roles, with why.
    pub(crate) roles: BTreeMap<String, String>,
    /// Why all roles are needed, if they are.
    pub(crate) every_role: Option<String>,
    /// What cannot work.
    pub(crate) findings: BTreeSet<Finding>,
    /// What means less than a reader may think.
    pub(crate) warnings: BTreeSet<Finding>,
    /// Tasks that run on the host although they ask for the machine that runs Ansible.
    pub(crate) local_tasks: BTreeSet<Finding>,
    /// Every play with its `hosts`.
    pub(crate) plays: Vec<Finding>,
    /// The selected hosts that a play matches, or may match.
    pub(crate) matched: BTreeSet<String>,
    /// Playbooks that Ansible reads for sure.
    pub(crate) playbooks: BTreeSet<String>,
    /// Other files that Ansible reads for sure, apart from variables of hosts and groups.
    pub(crate) read: BTreeSet<String>,
    pub(crate) handlers: Handlers,
    seen: BTreeSet<(String, Vec<String>, usize)>,
}

/// Where a task stands.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The file, below the folder.
    pub(crate) file: String,
    /// The roles that led here, the innermost last.
    pub(crate) roles: Vec<String>,
    /// The folder of the playbook that holds the play.
    base: String,
    /// The selected hosts that the play matches.
    pub(crate) hosts: Vec<String>,
    /// Collections that short names may come from.
    collections: Vec<String>,
    /// Whether the task is sure to be meant for these hosts: not in a role that only travels because no one knows better.
    judged: bool,
}

impl Scope {
    /// Whether what is wrong here is sure to be in the way.
    pub(crate) fn is_judged(&self) -> bool {
        self.judged
    }
}

/// Follows the playbook.
pub(crate) fn reach(question: &Question<'_>) -> Reach {
    let mut walk = Walk { q: *question, out: Reach::default() };
    walk.playbook(question.playbook, "the playbook", 0);
    notify::missing(&mut walk);
    walk.out
}

pub(crate) struct Walk<'a> {
    pub(crate) q: Question<'a>,
    pub(crate) out: Reach,
}

/// Whether a template decides what this text becomes.
pub(crate) fn is_templated(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

impl Walk<'_> {
    fn place(&self, file: &str, line: u32) -> String {
        format!("{}:{line}", self.q.shown.join(file).display())
    }

    pub(crate) fn finding(&self, scope: &Scope, node: &Node, message: String) -> Finding {
        let file = self.q.shown.join(&scope.file).display().to_string();
        Finding { file, line: node.line, message }
    }

    pub(crate) fn bad(&mut self, scope: &Scope, node: &Node, message: String) {
        if scope.judged {
            let finding = self.finding(scope, node, message);
            self.out.findings.insert(finding);
        }
    }

    fn tree(&mut self, file: &str) -> Vec<Node> {
        let text = self.q.folder.text(file).unwrap_or_default();
        if text.as_bytes().starts_with(VAULT) {
            let file = self.q.shown.join(file);
            let why = format!("{} is encrypted, so nobody knows its roles", file.display());
            self.out.every_role.get_or_insert(why);
            self.may_match_all();
        }
        // A file that does not parse is refused as such.
        yaml::parse(text).unwrap_or_default()
    }

    fn playbook(&mut self, file: &str, why: &str, depth: usize) {
        let Some(real) = self.q.folder.real(file) else { return };
        if self.out.files.contains_key(&real) || depth > DEPTH {
            return;
        }
        self.out.files.insert(file.to_owned(), why.to_owned());
        self.out.playbooks.insert(real.clone());
        self.out.files.insert(real, why.to_owned());
        for document in self.tree(file) {
            for play in document.list() {
                let imported =
                    play.pairs().into_iter().find(|(key, ..)| short(key) == "import_playbook");
                match imported {
                    Some((_, _, node)) => self.import_playbook(file, node, depth),
                    None => self.play(file, play),
                }
            }
        }
    }

    fn import_playbook(&mut self, file: &str, node: &Node, depth: usize) {
        let scope = self.scope(file, Vec::new());
        let Some(name) = first_word(node) else { return };
        let why = format!("imported at {}", self.place(file, node.line));
        if is_templated(&name) {
            let text = "a playbook's name that is a template cannot be followed before the run; write the name";
            return self.bad(&scope, node, text.to_owned());
        }
        if name.matches('.').count() >= 2 && !name.ends_with("ml") {
            self.may_match_all();
            self.out.handlers.may_have_more = true;
            return check::collection(self, &scope, node, &name);
        }
        match join(parent(file), &name).filter(|path| self.q.folder.is_file(path)) {
            Some(path) => self.playbook(&path, &why, depth + 1),
            None => self.bad(&scope, node, format!("there is no playbook `{name}` to import")),
        }
    }

    /// Plays are reached that nobody can read here.
    fn may_match_all(&mut self) {
        self.out.matched.extend(self.q.selected.iter().cloned());
    }

    fn scope(&self, file: &str, hosts: Vec<String>) -> Scope {
        Scope {
            file: file.to_owned(),
            roles: Vec::new(),
            base: parent(file).to_owned(),
            hosts,
            collections: Vec::new(),
            judged: true,
        }
    }

    fn play(&mut self, file: &str, play: &Node) {
        let hosts = self.hosts(play);
        let pattern = play.get("hosts").map(pattern).unwrap_or_default();
        let mut scope = self.scope(file, hosts);
        let text = format!("hosts: {pattern}");
        let listed = self.finding(&scope, play, text);
        self.out.plays.push(listed);
        let collections = play.get("collections").map(Node::list).unwrap_or_default();
        scope.collections = collections.iter().filter_map(Node::text).map(str::to_owned).collect();
        self.out.matched.extend(scope.hosts.iter().cloned());
        // Ansible reads every play before it leaves one out: the files must be there, the rest does not matter.
        check::play(self, &scope, play);
        for node in play.get("vars_files").map(Node::list).unwrap_or_default() {
            if let Some(name) = node.text() {
                self.named_file(&scope, node, name, "vars", "a variables file");
            }
        }
        for node in play.get("roles").map(Node::list).unwrap_or_default() {
            let name = node.text().or_else(|| role_name(node)).map(str::to_owned);
            if let Some(name) = name {
                check::keywords(self, &scope, node);
                self.role(&mut scope.clone(), node, &name, &[]);
            }
        }
        for section in ["pre_tasks", "tasks", "post_tasks", "handlers"] {
            if let Some(tasks) = play.get(section) {
                self.tasks(&mut scope, tasks);
            }
        }
    }

    /// The selected hosts that a play matches; all of them when only the run can tell.
    fn hosts(&self, play: &Node) -> Vec<String> {
        let all = self.q.selected.to_vec();
        let Some(node) = play.get("hosts") else { return all };
        let pattern = pattern(node);
        // Subscripts as in `sip[0]` and templates are Ansible's business.
        if pattern.is_empty() || is_templated(&pattern) || pattern.contains('[') {
            return all;
        }
        let Ok(matching) = self.q.inventory.select_known(&pattern) else { return all };
        let names: BTreeSet<&str> = matching.iter().map(|host| host.name.as_str()).collect();
        all.into_iter().filter(|name| names.contains(name.as_str())).collect()
    }

    fn tasks(&mut self, scope: &mut Scope, tasks: &Node) {
        for task in tasks.list() {
            self.task(scope, task);
        }
    }

    fn task(&mut self, scope: &mut Scope, task: &Node) {
        check::keywords(self, scope, task);
        jinja::task(self, scope, task);
        notify::task(self, scope, task);
        let mut is_block = false;
        for section in ["block", "rescue", "always"] {
            if let Some(tasks) = task.get(section) {
                is_block = true;
                self.tasks(scope, tasks);
            }
        }
        let Some(call) = Call::of(task).filter(|_| !is_block) else { return };
        check::module(self, scope, &call);
        kept::module(self, scope, &call);
        match short(&call.module) {
            "import_tasks" | "include_tasks" | "include" => self.task_file(scope, &call),
            "import_role" | "include_role" => {
                let Some(name) = call.argument("name").or_else(|| call.argument("role")) else {
                    return;
                };
                let from = |key: &'static str| call.argument(key).map(|file| (key, file));
                let from: Vec<(&str, String)> =
                    ["tasks_from", "handlers_from", "vars_from", "defaults_from"]
                        .into_iter()
                        .filter_map(from)
                        .collect();
                self.role(&mut scope.clone(), call.node, &name, &from);
            }
            "include_vars" => {
                if let Some(name) = call.argument("file").or_else(|| call.free_form()) {
                    self.named_file(scope, call.node, &name, "vars", "a variables file");
                }
            }
            "template" => {
                self.source(scope, &call, "templates", "a template");
                jinja::file(self, scope, &call);
            }
            "copy" => self.source(scope, &call, "files", "a file"),
            // `copy: false` is the old name of `remote_src: true`.
            "unarchive" if call.argument("copy").is_none_or(|text| !is_no(&text)) => {
                self.source(scope, &call, "files", "an archive");
            }
            "script" => {
                if let Some(name) = call.argument("cmd").or_else(|| call.free_form()) {
                    self.named_file(scope, call.node, &name, "files", "a script");
                }
            }
            _ => {}
        }
    }

    fn source(&mut self, scope: &Scope, call: &Call<'_>, room: &str, what: &str) {
        let on_host = call.argument("remote_src");
        if on_host.is_some_and(|text| !is_no(&text)) {
            return;
        }
        if let Some(name) = call.argument("src") {
            self.named_file(scope, call.node, &name, room, what);
        }
    }

    /// Where Ansible looks for a file that a task names: `path_dwim_relative_stack` in its `parsing/dataloader.py`.
    fn candidates(&self, scope: &Scope, name: &str, room: &str) -> Vec<String> {
        let mut bases: Vec<String> = scope.roles.iter().rev().cloned().collect();
        bases.extend(scope.roles.iter().rev().map(|role| format!("{role}/tasks")));
        bases.push(parent(&scope.file).to_owned());
        bases.extend([scope.base.clone(), parent(self.q.playbook).to_owned()]);
        let inner = |base: &String| {
            [join(base, &format!("{room}/{name}")), join(base, name)].into_iter().flatten()
        };
        bases.iter().flat_map(inner).collect()
    }

    /// A file or folder that a task names.
    pub(crate) fn find_file(&self, scope: &Scope, name: &str, room: &str) -> Option<String> {
        let folder = self.q.folder;
        let mut candidates = self.candidates(scope, name, room).into_iter();
        candidates.find(|path| folder.is_file(path) || folder.is_folder(path))
    }

    /// A file that is named must be there. What is templated, absolute or below a home is decided on the host.
    fn named_file(&mut self, scope: &Scope, node: &Node, name: &str, room: &str, what: &str) {
        if name.is_empty() || is_templated(name) || name.starts_with(['/', '~']) {
            return;
        }
        match self.find_file(scope, name, room) {
            Some(path) => {
                let why = format!("named at {}", self.place(&scope.file, node.line));
                self.file(&path, &why);
                if room == "vars" {
                    self.is_read(scope, &path);
                }
            }
            None => {
                let mut searched: Vec<String> = Vec::new();
                for path in self.candidates(scope, name, room) {
                    let folder = path.strip_suffix(name).map_or_else(|| parent(&path), parent);
                    let folder = self.q.shown.join(folder).display().to_string();
                    if !searched.contains(&folder) {
                        searched.push(folder);
                    }
                }
                let searched = searched.join("`, `");
                let text = format!("there is no `{name}` ({what}) in `{searched}`");
                self.bad(scope, node, text);
            }
        }
    }

    fn file(&mut self, path: &str, why: &str) {
        for known in [Some(path.to_owned()), self.q.folder.real(path)].into_iter().flatten() {
            self.out.files.entry(known).or_insert_with(|| why.to_owned());
        }
    }

    fn task_file(&mut self, scope: &mut Scope, call: &Call<'_>) {
        let name = call.argument("file").or_else(|| call.free_form());
        let Some(name) = name.filter(|name| !is_templated(name)) else {
            // Beside this file or in its role, which travel whole: whatever those files reach may be needed.
            let home = scope.roles.last().cloned().unwrap_or_else(|| scope.base.clone());
            return self.every_task_file(scope, &home);
        };
        let folder = self.q.folder;
        let mut candidates: Vec<String> = join(parent(&scope.file), &name).into_iter().collect();
        candidates.extend(self.candidates(scope, &name, "tasks"));
        candidates.extend(self.candidates(scope, &name, "handlers"));
        let Some(path) = candidates.into_iter().find(|path| folder.is_file(path)) else {
            return self.bad(scope, call.node, format!("there is no task file `{name}`"));
        };
        let why = format!("included at {}", self.place(&scope.file, call.node.line));
        self.file(&path, &why);
        self.file_of_tasks(scope, &path);
    }

    /// Ansible reads this file if the task runs, so it must be one that can be read.
    fn is_read(&mut self, scope: &Scope, path: &str) {
        if scope.judged {
            self.out.read.extend(self.q.folder.real(path));
        }
    }

    fn file_of_tasks(&mut self, scope: &Scope, path: &str) {
        self.is_read(scope, path);
        let key = (path.to_owned(), scope.roles.clone(), scope.hosts.len());
        if !self.out.seen.insert(key) {
            return;
        }
        let mut inside = Scope { file: path.to_owned(), ..scope.clone() };
        for document in self.tree(path) {
            self.tasks(&mut inside, &document);
        }
    }
}

pub(crate) fn is_no(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0" | "n" | "f" | "")
}

fn first_word(node: &Node) -> Option<String> {
    let text = node.text().or_else(|| node.get("file").and_then(Node::text))?.trim();
    let word = if is_templated(text) { text } else { text.split_whitespace().next()? };
    Some(word.to_owned())
}

/// A play's `hosts` as one pattern. Of a list each item is one of its own, which blanks and colons may separate as well.
pub(crate) fn pattern(node: &Node) -> String {
    let item = |text: &str| {
        if text.contains([',', '[']) || is_templated(text) || text.parse::<Ipv6Addr>().is_ok() {
            return text.to_owned();
        }
        let parts = text.split([':', ' ']).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(",")
    };
    match node.text() {
        Some(text) => text.trim().to_owned(),
        None => node.list().iter().filter_map(Node::text).map(item).collect::<Vec<_>>().join(","),
    }
}
