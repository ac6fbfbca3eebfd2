//! The playbook: where it is, and how Ansible's names of files and modules read.

use crate::error::Error;
use crate::{syntax, yaml};
use std::fs;
use std::path::Path;

/// How a file begins that Ansible Vault has encrypted.
pub(crate) const VAULT: &[u8] = b"$ANSIBLE_VAULT";

/// Finds the playbook: as typed, below the Ansible folder, or below its `playbooks/`. Returns its path below the folder.
pub(crate) fn locate(typed: &Path, folder: &Path) -> Result<String, Error> {
    let candidates = [typed.to_owned(), folder.join(typed), folder.join("playbooks").join(typed)];
    let found = candidates.iter().find(|path| path.is_file()).ok_or_else(|| Error::NoPlaybook {
        path: typed.to_owned(),
        is_folder: candidates.iter().any(|path| path.is_dir()),
        folder: folder.to_owned(),
        known: known(typed, folder),
    })?;
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|source| Error::Read { path: path.to_owned(), source })
    };
    let (playbook, root) = (real(found)?, real(folder)?);
    let inside = playbook.strip_prefix(&root).ok().and_then(Path::to_str).map(str::to_owned);
    inside.ok_or_else(|| Error::Outside { path: found.clone(), folder: folder.to_owned() })
}

/// Playbooks in the Ansible folder and its `playbooks/`, the one nearest to what was typed in front.
fn known(typed: &Path, folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for room in ["", "playbooks"] {
        // What cannot be listed has no names to offer.
        for entry in fs::read_dir(folder.join(room)).into_iter().flatten().flatten() {
            let name = Path::new(room).join(entry.file_name());
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            if name.extension().is_some_and(|end| end == "yml" || end == "yaml")
                && yaml::parse(&text).is_ok_and(|documents| syntax::are_plays(&documents).is_none())
            {
                names.push(name.display().to_string());
            }
        }
    }
    names.sort_unstable();
    let file = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let files: Vec<String> = names.iter().map(|name| file(name)).collect();
    let near =
        deploy_cli::closest(&file(&typed.display().to_string()), files.iter().map(String::as_str));
    names.sort_by_key(|name| Some(file(name).as_str()) != near);
    names.truncate(8);
    names
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

/// A module's or keyword's name without `ansible.builtin.` or `ansible.legacy.`.
pub(crate) fn short(name: &str) -> &str {
    let prefixes = ["ansible.builtin.", "ansible.legacy."];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}
