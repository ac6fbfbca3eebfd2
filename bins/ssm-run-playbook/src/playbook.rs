//! The playbook: where it is, and whether it and what travels with it can be read as YAML before anything is sent.

use crate::bundle::{Item, Items};
use crate::error::{Error, Finding};
use crate::needed::Reasons;
use crate::yaml::{self, Broken, Node, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// How a file begins that Ansible Vault has encrypted.
pub(crate) const VAULT: &[u8] = b"$ANSIBLE_VAULT";

/// Finds the playbook: as typed, below the Ansible folder, or below its `playbooks/`. Returns its path below the folder.
pub(crate) fn locate(typed: &Path, folder: &Path) -> Result<String, Error> {
    let candidates = [typed.to_owned(), folder.join(typed), folder.join("playbooks").join(typed)];
    let found = candidates
        .iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoPlaybook { path: typed.to_owned(), folder: folder.to_owned() })?;
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|source| Error::Read { path: path.to_owned(), source })
    };
    let (playbook, root) = (real(found)?, real(folder)?);
    let inside = playbook.strip_prefix(&root).ok().and_then(Path::to_str).map(str::to_owned);
    inside.ok_or_else(|| Error::Outside { path: found.clone(), folder: folder.to_owned() })
}

/// Whether Ansible would read this file as YAML.
pub(crate) fn is_yaml(name: &str) -> bool {
    let payload = name.split('/').any(|part| matches!(part, "files" | "templates"));
    let variables =
        name.split('/').rev().nth(1).is_some_and(|room| {
            matches!(room, "group_vars" | "host_vars") && !name.ends_with(".json")
        });
    !payload && (name.ends_with(".yml") || name.ends_with(".yaml") || variables)
}

/// Checks that every YAML file that travels is one, and that the playbook is a list of plays: all that is wrong. `shown` is the
/// Ansible folder as a person finds it.
pub(crate) fn check(
    items: &Items,
    reasons: &Reasons,
    playbook: &str,
    shown: &Path,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    for (name, item) in items.iter().filter(|(name, _)| reasons.contains_key(*name)) {
        let Item::File { bytes, .. } = item else { continue };
        if (name != playbook && !is_yaml(name)) || bytes.starts_with(VAULT) {
            continue;
        }
        let broken = match std::str::from_utf8(bytes) {
            Err(_) => Some(Broken::new(1, 1, "not UTF-8")),
            Ok(text) if name == playbook => check_plays(text),
            Ok(text) => yaml::parse(text).err(),
        };
        errors.extend(broken.map(|broken| syntax(broken, shown.join(name), bytes)));
    }
    match errors.len() {
        0 => Ok(()),
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
    yaml::parse(text).map(|_| ()).map_err(|broken| syntax(broken, shown, text.as_bytes()))
}

fn syntax(broken: Broken, file: PathBuf, bytes: &[u8]) -> Error {
    let text = String::from_utf8_lossy(bytes);
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
fn check_plays(text: &str) -> Option<Broken> {
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(broken) => return Some(broken),
    };
    let at = |node: &Node, message: &str| Some(Broken::new(node.line, node.column, message));
    let Some(root) = documents.first() else {
        return Some(Broken::new(1, 1, "the playbook is empty"));
    };
    let Value::List(plays) = &root.value else { return at(root, "a playbook is a list of plays") };
    plays.iter().find_map(|play| {
        if !matches!(play.value, Value::Map(_)) {
            return at(play, "a play is a mapping with `hosts`");
        }
        let names = |key: &str| matches!(short(key), "hosts" | "import_playbook");
        let is_play = play.pairs().iter().any(|(key, ..)| names(key));
        if is_play { None } else { at(play, "a play needs `hosts` (or `import_playbook`)") }
    })
}

/// A module's or keyword's name without `ansible.builtin.` or `ansible.legacy.`.
pub(crate) fn short(name: &str) -> &str {
    let prefixes = ["ansible.builtin.", "ansible.legacy."];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, expected: Option<(u32, &str)>) {
        let finding = check_plays(text).map(|finding| (finding.line, finding.message));
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
    fn a_broken_role_file_is_found_and_a_template_is_not_read_as_yaml() {
        let file = |text: &str| Item::File { bytes: text.as_bytes().to_vec(), executable: false };
        let mut items = Items::from([
            ("site.yml".to_owned(), file("- hosts: all\n")),
            ("roles/a/templates/x.yml".to_owned(), file("{% if x %}\n  - [\n")),
            ("roles/a/vars/vault.yml".to_owned(), file("$ANSIBLE_VAULT;1.1;AES256\n3: : [\n")),
        ]);
        let all = |items: &Items| items.keys().map(|name| (name.clone(), String::new())).collect();
        assert!(check(&items, &all(&items), "site.yml", Path::new("ansible")).is_ok());
        items.insert("roles/a/tasks/main.yml".to_owned(), file("- name: x\n  debug: 'open\n"));
        let Err(Error::Syntax { file, line, .. }) =
            check(&items, &all(&items), "site.yml", Path::new("ansible"))
        else {
            panic!("a quote that is not closed parses")
        };
        assert_eq!(file, "ansible/roles/a/tasks/main.yml");
        assert!(line >= 2, "{line}");
    }
}
