//! Which part of the Ansible folder a run needs, and why. What is left out is what no host could read: roles that are not
//! reached, other playbooks, and files that neither Ansible's own search nor any text that travels leads to.

use crate::bundle::{Item, Items};
use crate::check::COLLECTIONS;
use crate::folder::{Folder, join, parent};
use crate::playbook::{is_yaml, short};
use crate::reach::Reach;
use crate::yaml::{self, Node};
use std::collections::BTreeMap;
use std::path::Path;

/// Folders that Ansible searches below the one it runs in and beside the playbook.
const SEARCHED: [&str; 6] = ["files", "handlers", "tasks", "templates", "vars", "roles"];
/// Text that can lead to any file of the folder.
const LEADS_ANYWHERE: [&str; 9] = [
    "playbook_dir",
    "inventory_dir",
    "../",
    "lookup(",
    "query(",
    "q(",
    "first_found",
    "fileglob",
    "with_file",
];

/// What travels, by path, with why.
pub(crate) type Reasons = BTreeMap<String, String>;

/// Chooses of `items`, which hold all that may travel.
pub(crate) fn needed(
    items: &Items,
    reach: &Reach,
    playbook: &str,
    environment: Option<&str>,
    shown: &Path,
) -> Reasons {
    let folder = Folder::new(items);
    let choice = Choice { folder, reach, playbook, environment };
    let mut chosen = Reasons::new();
    let mut others = Vec::new();
    for name in items.keys() {
        match choice.reason(name) {
            Some(Some(why)) => {
                chosen.insert(name.clone(), why);
            }
            Some(None) => {}
            None => others.push(name),
        }
    }
    if let Some(place) = leads_anywhere(items, &chosen, shown) {
        let why = format!("{place} may read any file");
        chosen.extend(others.into_iter().map(|name| (name.clone(), why.clone())));
    }
    with_targets(items, &mut chosen, &choice);
    chosen
}

struct Choice<'a> {
    folder: Folder<'a>,
    reach: &'a Reach,
    playbook: &'a str,
    environment: Option<&'a str>,
}

impl Choice<'_> {
    /// Why a file travels, `Some(None)` when it surely does not, `None` when only other texts can tell.
    fn reason(&self, name: &str) -> Option<Option<String>> {
        let yes = |why: &str| Some(Some(why.to_owned()));
        let reach = self.reach;
        let named = |(path, why): (&String, &String)| {
            (name == path || is_below(name, path)).then(|| why.clone())
        };
        if let Some(why) = reach.files.iter().find_map(named) {
            return Some(Some(why));
        }
        if let Some(why) = reach.roles.iter().find_map(named) {
            return Some(Some(why));
        }
        let parts: Vec<&str> = name.split('/').collect();
        if self.role_folders().iter().any(|folder| is_below(name, folder)) {
            return Some(reach.every_role.clone());
        }
        if name == "ansible.cfg" {
            return yes("Ansible's settings");
        }
        if is_below(name, COLLECTIONS) {
            return yes("collections travel whole");
        }
        let beside = |room: &str| {
            let folder = join(parent(self.playbook), room).unwrap_or_default();
            name == folder || is_below(name, &folder) || parts[0] == room
        };
        if ["group_vars", "host_vars"].into_iter().any(beside) {
            return yes("variables beside the playbook");
        }
        if parts[0] == "inventories" {
            return match self.environment {
                Some(environment) => yes(&format!("variables of {environment}")),
                None => yes("no environment is named, so the variables of all travel"),
            };
        }
        let is_plugins = |part: &str| {
            matches!(part, "library" | "module_utils" | "plugins") || part.ends_with("_plugins")
        };
        if parts.iter().take(parts.len() - 1).any(|part| is_plugins(part)) {
            return yes("plugins and modules travel whole");
        }
        if self.folder.settings().any(|(_, value)| {
            let mut paths = value.split([':', ',']).filter_map(|path| join("", path.trim()));
            paths.any(|path| !path.is_empty() && (name == path || is_below(name, &path)))
        }) {
            return yes("named in ansible.cfg");
        }
        if self.is_playbook(name) {
            return Some(None);
        }
        if SEARCHED.into_iter().any(beside) {
            return yes("Ansible searches this folder");
        }
        let home = parent(self.playbook);
        if parent(name) == home || (!home.is_empty() && is_below(name, home)) {
            return yes("beside the playbook");
        }
        None
    }

    /// Folders whose folders are roles.
    fn role_folders(&self) -> Vec<String> {
        let mut folders = vec!["roles".to_owned()];
        folders.extend(join(parent(self.playbook), "roles"));
        if let Some(paths) = self.folder.setting(&["roles_path"]) {
            folders.extend(paths.split(':').filter_map(|path| join("", path)));
        }
        folders.extend(self.reach.roles.keys().map(|role| parent(role).to_owned()));
        // A role that lies beside the playbook makes no room of its own.
        folders.retain(|path| !path.is_empty() && path != parent(self.playbook));
        folders
    }

    fn is_playbook(&self, name: &str) -> bool {
        if !is_yaml(name) {
            return false;
        }
        let text = self.folder.text(name).unwrap_or_default();
        let documents = yaml::parse(text).unwrap_or_default();
        let plays = documents.first().map(Node::list).unwrap_or_default();
        let is_play = |play: &Node| {
            let keys = play.pairs();
            keys.iter().any(|(key, ..)| matches!(short(key), "hosts" | "import_playbook"))
        };
        !plays.is_empty() && plays.iter().all(is_play)
    }
}

pub(crate) fn is_below(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The first place whose text can lead to any file.
fn leads_anywhere(items: &Items, chosen: &Reasons, shown: &Path) -> Option<String> {
    chosen.keys().find_map(|name| {
        let Some(Item::File { content, .. }) = items.get(name) else { return None };
        // What lies in `files/` is copied as it is, not read.
        if name.split('/').any(|part| part == "files") {
            return None;
        }
        let text = std::str::from_utf8(content.bytes()).ok()?;
        let leads = |line: &str| {
            let line = line.split(" #").next().unwrap_or_default().trim_start();
            !line.starts_with('#') && LEADS_ANYWHERE.iter().any(|lead| line.contains(lead))
        };
        let line = text.lines().position(leads)?;
        Some(format!("{}:{}", shown.join(name).display(), line + 1))
    })
}

/// A link travels with what it points at, unless that is a folder of roles, which are chosen one by one.
fn with_targets(items: &Items, chosen: &mut Reasons, choice: &Choice<'_>) {
    let role_folders = choice.role_folders();
    let mut links: Vec<String> = chosen.keys().cloned().collect();
    while let Some(name) = links.pop() {
        let Some(Item::Link { target }) = items.get(&name) else { continue };
        let Some(target) = target.to_str().and_then(|target| join(parent(&name), target)) else {
            continue;
        };
        let why = format!("the link {name} points at it");
        for inner in items.keys() {
            let wanted = *inner == target || is_below(inner, &target);
            let roles = role_folders.contains(&target);
            if wanted && !roles && !chosen.contains_key(inner) {
                chosen.insert(inner.clone(), why.clone());
                links.push(inner.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::items;
    use crate::reach::{Question, reach};
    use deploy_inventory::Inventory;

    const INVENTORY: &str = r#"{"all": {"hosts": {"sip-1": {}}}}"#;

    fn chosen(files: &[(&str, &str)]) -> Vec<String> {
        let items = items(files);
        let inventory = Inventory::parse(INVENTORY).unwrap();
        let reached = reach(&Question {
            folder: Folder::new(&items),
            shown: Path::new("ansible"),
            playbook: "playbooks/site.yml",
            inventory: &inventory,
            selected: &["sip-1".to_owned()],
            allow_reboot: false,
            local_tasks: false,
        });
        assert!(reached.findings.is_empty(), "{:?}", reached.findings);
        let all = needed(&items, &reached, "playbooks/site.yml", Some("dev"), Path::new("ansible"));
        assert!(all.values().all(|why| !why.is_empty()));
        all.into_keys().collect()
    }

    const SITE: (&str, &str) = ("playbooks/site.yml", "- hosts: all\n  roles: [a]\n");

    #[test]
    fn a_role_that_is_not_reached_and_another_playbook_stay() {
        let files = [
            SITE,
            ("ansible.cfg", "[defaults]\nroles_path = roles\nfilter_plugins = extra/filters\n"),
            ("collections/ansible_collections/n/c/plugins/modules/m.py", ""),
            ("extra/filters/f.py", ""),
            ("inventories/dev/group_vars/all.yml", "x: 1\n"),
            ("playbooks/group_vars/all.yml", "y: 1\n"),
            ("playbooks/notes.txt", ""),
            ("playbooks/other.yml", "- hosts: all\n  roles: [c]\n"),
            ("requirements.yml", "collections: []\n"),
            ("roles/a/meta/main.yml", "dependencies: [{role: b}]\n"),
            ("roles/a/tasks/main.yml", "- ansible.builtin.debug: {msg: x}\n"),
            ("roles/b/tasks/main.yml", "[]\n"),
            ("roles/c/tasks/main.yml", "[]\n"),
            ("scripts/make.py", ""),
        ];
        let left = [
            "playbooks/other.yml",
            "requirements.yml",
            "roles/c/tasks/main.yml",
            "scripts/make.py",
        ];
        let expected: Vec<&str> =
            files.map(|(name, _)| name).into_iter().filter(|name| !left.contains(name)).collect();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(chosen(&files), expected);
    }

    #[test]
    fn a_templated_role_brings_all_roles_and_a_lookup_all_files() {
        let templated = "- hosts: all\n  tasks:\n    - include_role: {name: '{{ x }}'}\n";
        let files = [
            ("playbooks/site.yml", templated),
            ("roles/c/tasks/main.yml", "[]\n"),
            ("keys/k.pub", ""),
        ];
        assert_eq!(chosen(&files), ["playbooks/site.yml", "roles/c/tasks/main.yml"]);
        let looks = "- hosts: all\n  tasks:\n    - debug: msg={{ lookup('file', x) }}\n";
        let files = [("playbooks/site.yml", looks), files[1], files[2]];
        assert_eq!(chosen(&files), ["keys/k.pub", "playbooks/site.yml"]);
    }

    #[test]
    fn a_templated_task_file_brings_what_any_of_them_reaches() {
        let files = [
            ("playbooks/os/debian.yml", "- include_role: {name: b}\n"),
            (
                "playbooks/site.yml",
                "- hosts: all\n  roles: [a]\n  tasks:\n    - include_tasks: os/{{ x }}.yml\n",
            ),
            ("roles/a/tasks/inner/y.yml", "- include_role: {name: c}\n  run_once: true\n"),
            ("roles/a/tasks/main.yml", "- include_tasks: '{{ x }}'\n"),
            ("roles/b/tasks/main.yml", "[]\n"),
            ("roles/c/tasks/main.yml", "[]\n"),
            ("roles/d/tasks/main.yml", "[]\n"),
        ];
        let expected: Vec<&str> = files[..6].iter().map(|(name, _)| *name).collect();
        assert_eq!(chosen(&files), expected);
    }

    #[test]
    fn imported_playbooks_and_files_named_outside_their_rooms_travel() {
        let files = [
            ("keys/k.pub", ""),
            (
                "more/second.yml",
                "- hosts: all\n  tasks:\n    - copy: {src: ../keys/k.pub, dest: /k}\n",
            ),
            ("more/third.yml", "- hosts: all\n"),
            ("playbooks/site.yml", "- ansible.builtin.import_playbook: ../more/second.yml\n"),
            ("shared/x.txt", ""),
        ];
        // `../` in the playbook may lead anywhere, but not to another playbook.
        assert_eq!(
            chosen(&files),
            ["keys/k.pub", "more/second.yml", "playbooks/site.yml", "shared/x.txt"]
        );
    }

    #[test]
    fn a_link_brings_its_target_and_a_link_to_the_roles_does_not_bring_all() {
        let files = [
            SITE,
            ("playbooks/roles", "-> ../roles"),
            ("roles/a", "-> ../shared/a"),
            ("roles/c/tasks/main.yml", "[]\n"),
            ("shared/a/tasks/main.yml", "[]\n"),
            ("shared/c/tasks/main.yml", "[]\n"),
        ];
        let expected =
            ["playbooks/roles", "playbooks/site.yml", "roles/a", "shared/a/tasks/main.yml"];
        assert_eq!(chosen(&files), expected);
    }
}
