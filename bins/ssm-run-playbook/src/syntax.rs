//! Whether what Ansible reads for sure is YAML, known before anything is sent. What only travels may be as it likes.

use crate::broken::explained;
use crate::bundle::{Item, Items};
use crate::error::{Error, Finding};
use crate::folder::{join, parent};
use crate::playbook::{VAULT, is_yaml, short};
use crate::reach::Reach;
use crate::yaml::{self, Broken, Node, Value};
use deploy_inventory::Inventory;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files of variables that Ansible reads for the inventory's hosts and groups, as its `vars/host_group_vars.py` does.
pub(crate) fn variables(
    items: &Items,
    inventory: &Inventory,
    playbook: &str,
    environment: Option<&str>,
) -> BTreeSet<String> {
    let folders =
        [format!("inventories/{}", environment.unwrap_or("default")), parent(playbook).to_owned()];
    let hosts: Vec<&str> = inventory.hosts().iter().map(|host| host.name.as_str()).collect();
    let groups = [inventory.groups(), vec!["all", "ungrouped"]].concat();
    let is_read = |name: &&String| {
        folders.iter().any(|folder| {
            [("group_vars", &groups), ("host_vars", &hosts)].into_iter().any(|(room, names)| {
                let room = join(folder, room).unwrap_or_default();
                let Some(rest) = name.strip_prefix(&format!("{room}/")) else { return false };
                let first = rest.split('/').next().unwrap_or_default();
                let endings = [".yml", ".yaml", ""].into_iter();
                let mut stems = endings.filter_map(|ending| first.strip_suffix(ending));
                stems.any(|stem| names.contains(&stem)) && is_yaml(name)
            })
        })
    };
    items.keys().filter(is_read).cloned().collect()
}

/// Checks that what Ansible reads is YAML, and that playbooks are lists of plays: all that is wrong. Gives keys that stand
/// twice. `shown` is the Ansible folder as a person finds it.
pub(crate) fn check(
    items: &Items,
    reached: &Reach,
    variables: &BTreeSet<String>,
    shown: &Path,
) -> Result<BTreeSet<Finding>, Error> {
    let (mut errors, mut repeated) = (Vec::new(), BTreeSet::new());
    for (name, item) in items {
        let Item::File { content, .. } = item else { continue };
        let is_playbook = reached.playbooks.contains(name);
        let is_read = is_playbook || reached.read.contains(name) || variables.contains(name);
        if !is_read {
            continue;
        }
        let bytes = content.bytes();
        if bytes.starts_with(VAULT) {
            continue;
        }
        let parsed = std::str::from_utf8(bytes)
            .map_err(|_| Broken::new(1, 1, "not UTF-8"))
            .and_then(yaml::parse)
            .and_then(|documents| match are_plays(&documents) {
                Some(broken) if is_playbook => Err(broken),
                _ => Ok(documents),
            });
        let file = shown.join(name);
        match parsed {
            Err(broken) => errors.push(syntax(broken, file, bytes)),
            Ok(documents) => {
                repeated.extend(documents.iter().flat_map(Node::repeated).map(|key| {
                    let name = key.text().unwrap_or_default();
                    let message =
                        format!("`{name}` stands here a second time; only the last one counts");
                    Finding { file: file.display().to_string(), line: key.line, message }
                }))
            }
        }
    }
    match errors.len() {
        0 => Ok(repeated),
        1 => Err(errors.remove(0)),
        _ => {
            let place = |error: &Error| match error {
                Error::Syntax { file, line, message, .. } => {
                    Some(Finding { file: file.clone(), line: *line, message: message.clone() })
                }
                _ => None,
            };
            let findings = errors.iter().filter_map(place).collect();
            Err(Error::Findings { what: "files that do not parse", findings })
        }
    }
}

/// Checks that text given as extra vars is YAML.
pub(crate) fn check_text(text: &str, shown: PathBuf) -> Result<(), Error> {
    // Events are what references are looked for in.
    let parsed = yaml::events(text).and_then(|_| yaml::parse(text));
    parsed.map(|_| ()).map_err(|broken| syntax(broken, shown, text.as_bytes()))
}

fn syntax(broken: Broken, file: PathBuf, bytes: &[u8]) -> Error {
    let text = String::from_utf8_lossy(bytes);
    let broken = explained(broken, &text);
    let index = usize::try_from(broken.line).unwrap_or(1).saturating_sub(1);
    Error::Syntax {
        file: file.display().to_string(),
        line: broken.line,
        column: broken.column,
        message: broken.message,
        source_line: text.lines().nth(index).unwrap_or_default().replace('\t', " "),
    }
}

/// A playbook is one list of plays; a play is a mapping with `hosts` or an import of another playbook.
pub(crate) fn are_plays(documents: &[Node]) -> Option<Broken> {
    let at = |node: &Node, message: &str| Some(Broken::new(node.line, node.column, message));
    let Some(root) = documents.first() else {
        return Some(Broken::new(1, 1, "the playbook is empty"));
    };
    let Value::List(plays) = &root.value else {
        return at(root, "a playbook is a list of plays; is this a file of variables?");
    };
    plays.iter().find_map(|play| {
        if !matches!(play.value, Value::Map(_)) {
            return at(play, "a play is a mapping with `hosts`");
        }
        let names = |key: &str| matches!(short(key), "hosts" | "import_playbook");
        let pairs = play.pairs();
        if pairs.iter().any(|(key, ..)| names(key)) {
            return None;
        }
        let of_play = |key: &str| matches!(key, "roles" | "tasks" | "pre_tasks" | "post_tasks");
        let message = if pairs.iter().any(|(key, ..)| of_play(key)) {
            "a play needs `hosts` (or `import_playbook`)"
        } else {
            "a play needs `hosts` (or `import_playbook`); is this a file of tasks? Name the playbook that runs it"
        };
        at(play, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, expected: Option<(u32, &str)>) {
        let finding = yaml::parse(text)
            .map_or_else(Some, |documents| are_plays(&documents))
            .map(|finding| (finding.line, finding.message));
        match expected {
            None => assert_eq!(finding, None, "{text}"),
            Some((line, message)) => {
                let (found, said) = finding.expect(text);
                assert!(found == line && said.contains(message), "{text}: {found} {said}");
            }
        }
    }

    #[test]
    fn a_playbook_is_a_list_of_plays_and_findings_carry_the_line() {
        check_text("- hosts: all\n  tasks:\n    - debug: {msg: [1, 2]}\n", None);
        check_text("---\n# comment\n- name: x\n  hosts:\n    - a\n    - b\n", None);
        check_text("- ansible.builtin.import_playbook: a.yml\n- import_playbook: b.yml\n", None);
        check_text("- hosts: all\n  vars:\n    secret: !vault |\n      $ANSIBLE_VAULT;1\n", None);
        check_text("- hosts: all\n  vars: {a: 1, a: 2}\n", None);
        check_text("", Some((1, "empty")));
        check_text("hosts: all\n", Some((1, "list of plays")));
        check_text("- hosts: all\n- tasks: []\n", Some((2, "needs `hosts`")));
        check_text("- hosts: all\n- just text\n", Some((2, "mapping")));
        check_text("- name: hosts\n  tasks: [{hosts: x}]\n", Some((1, "needs `hosts`")));
        check_text("- hosts: all\n  tasks:\n   - a: b: c\n", Some((3, "")));
        check_text("- hosts: all\n  tasks: [\n", Some((2, "unclosed bracket")));
    }

    #[test]
    fn variables_of_the_inventorys_hosts_and_groups_are_read_and_no_others() {
        let text = r#"{"all": {"hosts": {"a": {}}, "children": {"g": {"hosts": {"a": {}}}}}}"#;
        let names = [
            "inventories/dev/group_vars/all.yml",
            "inventories/dev/group_vars/g/deep/x.yaml",
            "inventories/dev/group_vars/g",
            "playbooks/host_vars/a.yml",
            // Nobody asks for these.
            "group_vars/all.yml",
            "inventories/dev/other.yml",
            "inventories/dev/group_vars/gone.yml",
            "playbooks/host_vars/b.yml",
        ];
        let items = crate::folder::tests::items(&names.map(|name| (name, "")));
        let inventory = Inventory::parse(text).unwrap();
        let found = variables(&items, &inventory, "playbooks/site.yml", Some("dev"));
        let expected: BTreeSet<String> = names[..4].iter().map(|&name| name.to_owned()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_broken_role_file_is_found_and_a_template_is_not_read_as_yaml() {
        let file = |text: &str| Item::File {
            content: crate::bundle::Content::of(text.as_bytes().to_vec()),
            mode: 0o644,
        };
        let mut items = Items::from([
            ("site.yml".to_owned(), file("- hosts: all\n")),
            ("roles/a/templates/x.yml".to_owned(), file("{% if x %}\n  - [\n")),
            ("roles/a/vars/vault.yml".to_owned(), file("$ANSIBLE_VAULT;1.1;AES256\n3: : [\n")),
        ]);
        let mut reached = Reach::default();
        reached.playbooks.insert("site.yml".to_owned());
        reached.read.insert("roles/a/vars/vault.yml".to_owned());
        let none = BTreeSet::new();
        assert!(check(&items, &reached, &none, Path::new("ansible")).is_ok());
        items.insert("roles/a/tasks/main.yml".to_owned(), file("- name: x\n  debug: 'open\n"));
        assert!(check(&items, &reached, &none, Path::new("ansible")).is_ok(), "nobody reads it");
        reached.read.insert("roles/a/tasks/main.yml".to_owned());
        let Err(Error::Syntax { file, line, .. }) =
            check(&items, &reached, &none, Path::new("ansible"))
        else {
            panic!("a quote that is not closed parses")
        };
        assert_eq!(file, "ansible/roles/a/tasks/main.yml");
        assert!(line >= 2, "{line}");
    }
}
