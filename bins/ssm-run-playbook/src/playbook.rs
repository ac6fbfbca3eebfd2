//! The playbook: where it is, and whether it and what travels with it can be read as YAML before anything is sent.

use crate::bundle::{Item, Items};
use crate::error::Error;
use serde_saphyr::granit_parser::{Event, Parser, Span};
use std::fs;
use std::path::{Path, PathBuf};

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
fn is_yaml(name: &str) -> bool {
    let payload = name.split('/').any(|part| matches!(part, "files" | "templates"));
    let variables =
        name.split('/').rev().nth(1).is_some_and(|room| {
            matches!(room, "group_vars" | "host_vars") && !name.ends_with(".json")
        });
    !payload && (name.ends_with(".yml") || name.ends_with(".yaml") || variables)
}

/// Checks every YAML file that travels, and that the playbook is a list of plays. `shown` is the Ansible folder as a
/// person finds it.
pub(crate) fn check(items: &Items, playbook: &str, shown: &Path) -> Result<(), Error> {
    for (name, item) in items {
        let Item::File { bytes, .. } = item else { continue };
        if (name != playbook && !is_yaml(name)) || bytes.starts_with(b"$ANSIBLE_VAULT") {
            continue;
        }
        let finding = match std::str::from_utf8(bytes) {
            Err(_) => Some(Finding { line: 1, column: 1, message: "not UTF-8".to_owned() }),
            Ok(text) if name == playbook => check_plays(text),
            Ok(text) => parse(text).err(),
        };
        if let Some(finding) = finding {
            return Err(finding.into_error(shown.join(name), bytes));
        }
    }
    Ok(())
}

/// Checks that text given as extra vars is YAML.
pub(crate) fn check_text(text: &str, shown: PathBuf) -> Result<(), Error> {
    parse(text).map(|_| ()).map_err(|finding| finding.into_error(shown, text.as_bytes()))
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    line: u32,
    column: u32,
    message: String,
}

impl Finding {
    fn at(span: &Span, message: &str) -> Self {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            line: number(span.start.line()),
            column: number(span.start.col() + 1),
            message: message.to_owned(),
        }
    }

    fn into_error(self, file: PathBuf, bytes: &[u8]) -> Error {
        let text = String::from_utf8_lossy(bytes);
        let index = usize::try_from(self.line).unwrap_or(1).saturating_sub(1);
        Error::Syntax {
            file: file.display().to_string(),
            line: self.line,
            column: self.column,
            message: self.message,
            source_line: text.lines().nth(index).unwrap_or_default().replace('\t', " "),
        }
    }
}

pub(crate) fn parse(text: &str) -> Result<Vec<(Event<'_>, Span)>, Finding> {
    let mut events = Vec::new();
    for next in Parser::new_from_str(text) {
        match next {
            Ok((Event::Comment(..), _)) => {}
            Ok(event) => events.push(event),
            Err(error) => {
                let mark = *error.marker();
                return Err(Finding::at(&Span::empty(mark), &error.info()));
            }
        }
    }
    Ok(events)
}

/// A playbook is one list of plays; a play is a mapping with `hosts` or an import of another playbook.
fn check_plays(text: &str) -> Option<Finding> {
    let events = match parse(text) {
        Ok(events) => events,
        Err(finding) => return Some(finding),
    };
    let mut nodes = events
        .iter()
        .filter(|(event, _)| {
            !matches!(event, Event::StreamStart | Event::StreamEnd | Event::DocumentEnd)
                && !matches!(event, Event::DocumentStart(..))
        })
        .peekable();
    match nodes.next() {
        Some((Event::SequenceStart(..), _)) => {}
        Some((_, span)) => return Some(Finding::at(span, "a playbook is a list of plays")),
        None => {
            return Some(Finding { line: 1, column: 1, message: "the playbook is empty".into() });
        }
    }
    let (mut depth, mut keys_seen, mut is_play) = (1_usize, 0_usize, false);
    let mut start = None;
    for (event, span) in nodes {
        // Depth 2 is inside a play; there, scalars at even positions are keys.
        match event {
            Event::MappingStart(..) if depth == 1 => {
                (start, keys_seen, is_play, depth) = (Some(span), 0, false, 2);
                continue;
            }
            Event::SequenceEnd if depth == 1 => return None,
            _ if depth == 1 => return Some(Finding::at(span, "a play is a mapping with `hosts`")),
            _ => {}
        }
        if depth == 2 {
            if let Event::MappingEnd = event {
                depth = 1;
                if let Some(start) = start.filter(|_| !is_play) {
                    return Some(Finding::at(start, "a play needs `hosts` (or `import_playbook`)"));
                }
                continue;
            }
            if let Event::Scalar(key, ..) = event
                && keys_seen.is_multiple_of(2)
            {
                let name = key.rsplit('.').next().unwrap_or_default();
                is_play |= name == "hosts" || name == "import_playbook" || key == "<<";
            }
            keys_seen += 1;
        }
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth -= 1,
            _ => {}
        }
    }
    None
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
        assert!(check(&items, "site.yml", Path::new("ansible")).is_ok());
        items.insert("roles/a/tasks/main.yml".to_owned(), file("- name: x\n  debug: 'open\n"));
        let Err(Error::Syntax { file, line, .. }) = check(&items, "site.yml", Path::new("ansible"))
        else {
            panic!("a quote that is not closed parses")
        };
        assert_eq!(file, "ansible/roles/a/tasks/main.yml");
        assert!(line >= 2, "{line}");
    }
}
