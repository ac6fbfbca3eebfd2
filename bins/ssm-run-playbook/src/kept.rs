//! What a run would write into its own folder on the host, which goes with the run. With Ansible on a controller it would
//! have stayed there: a password that was drawn, a file that was fetched.

use crate::bundle::{Item, Items};
use crate::call::Call;
use crate::error::Finding;
use crate::folder::{Folder, join, parent};
use crate::playbook::short;
use crate::reach::{Scope, Walk, is_templated};
use std::collections::BTreeSet;
use std::path::Path;

/// Modules that write to the path of such an argument. A path without a folder in front is looked for where the playbook is.
const WRITERS: [(&str, &[&str]); 14] = [
    ("archive", &["dest"]),
    ("assemble", &["dest"]),
    ("blockinfile", &["path", "dest", "name"]),
    ("copy", &["dest"]),
    ("fetch", &["dest"]),
    ("file", &["path", "dest", "name"]),
    ("get_url", &["dest"]),
    ("git", &["dest"]),
    ("ini_file", &["path", "dest"]),
    ("lineinfile", &["path", "dest", "name"]),
    ("replace", &["path", "dest", "name"]),
    ("synchronize", &["dest"]),
    ("template", &["dest"]),
    ("unarchive", &["dest"]),
];
/// Variables whose value is a folder of the run.
const OF_RUN: [&str; 3] = ["playbook_dir", "role_path", "inventory_dir"];
/// Settings that name a file or folder to write to.
const SETTINGS: [&str; 3] = ["log_path", "fact_caching_connection", "retry_files_save_path"];

/// Refuses a path that the run would take away with it, as far as it is known before.
pub(crate) fn module(walk: &mut Walk<'_>, scope: &Scope, call: &Call<'_>) {
    let name = short(&call.module).rsplit('.').next().unwrap_or_default();
    let Some((_, arguments)) = WRITERS.iter().find(|(module, _)| *module == name) else { return };
    let found = arguments.iter().find_map(|key| Some((*key, call.argument(key)?)));
    let Some((key, path)) = found.filter(|(_, path)| !path.is_empty()) else { return };
    let why = "is in the run's own folder on the host, which is removed when the run ends; write an absolute path";
    let fetched = name == "fetch";
    match place(&path) {
        Place::Stays => {}
        Place::Goes => {
            let text = format!("`{key}: {path}` of `{}` {why}", call.module);
            // Beside the playbook a task may want to keep something for a later task alone.
            if fetched || !is_templated(&path) {
                return walk.bad(scope, call.node, text);
            }
            warn(walk, scope, call, text);
        }
        Place::Unknown if fetched => {
            let text = format!(
                "`fetch` writes `{key}: {path}` on the host itself; a path that is not absolute {why}"
            );
            warn(walk, scope, call, text);
        }
        Place::Unknown => {}
    }
}

fn warn(walk: &mut Walk<'_>, scope: &Scope, call: &Call<'_>, text: String) {
    if scope.is_judged() {
        let warning = walk.finding(scope, call.node, text);
        walk.out.warnings.insert(warning);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// An absolute path of the host.
    Stays,
    /// The run's folder.
    Goes,
    /// A template decides.
    Unknown,
}

fn place(path: &str) -> Place {
    if path.starts_with(['/', '~', '$']) {
        return Place::Stays;
    }
    let Some(inside) = path.strip_prefix("{{") else { return Place::Goes };
    let first: String =
        inside.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if OF_RUN.contains(&first.as_str()) { Place::Goes } else { Place::Unknown }
}

/// Settings of `ansible.cfg` by which Ansible writes into the run's folder.
pub(crate) fn settings(folder: Folder<'_>, shown: &Path) -> Vec<Finding> {
    let text = folder.text("ansible.cfg").unwrap_or_default();
    let settings = folder.settings().filter(|(name, value)| {
        SETTINGS.contains(name) && !value.is_empty() && place(value) == Place::Goes
        // A cache that is no file has an address.
            && !value.contains(':')
    });
    let finding = |(name, value): (&str, &str)| {
        let line = text.lines().position(|line| line.trim_start().starts_with(name));
        let file = shown.join("ansible.cfg").display().to_string();
        let message = format!(
            "`{name} = {value}` is in the run's own folder on the host and goes with it; `--log-dir` brings the log back, \
             an absolute path stays on the host"
        );
        Finding { file, line: u32::try_from(line.map_or(1, |at| at + 1)).unwrap_or(1), message }
    };
    settings.map(finding).collect()
}

/// Passwords that each run would draw anew, since the file that keeps them goes with the run: refused, and warned of where
/// only the host knows the path. `read`: what Ansible reads.
pub(crate) fn passwords(
    items: &Items,
    playbook: &str,
    read: impl Fn(&str) -> bool,
    shown: &Path,
) -> (BTreeSet<Finding>, BTreeSet<Finding>) {
    let folder = Folder::new(items);
    let (mut refused, mut warned) = (BTreeSet::new(), BTreeSet::new());
    for (name, item) in items {
        let Item::File { content, .. } = item else { continue };
        let copied = name.split('/').any(|part| part == "files");
        if copied || !read(name) {
            continue;
        }
        let Ok(text) = std::str::from_utf8(content.bytes()) else { continue };
        for (line, path) in drawn(text) {
            let there = |path: &String| {
                let path = join(parent(playbook), path);
                path.is_some_and(|path| folder.is_file(&path))
            };
            let (place, path) = match path {
                Some(path) if place(&path) == Place::Stays || there(&path) => continue,
                Some(path) => (place(&path), format!(" `{path}`")),
                None => (Place::Unknown, String::new()),
            };
            let why = "keeps the password in the run's own folder on the host, which is removed when the run ends: the next \
                       run draws another one; name a file with an absolute path, or a secret with `--extra-vars NAME=secretsmanager:…`";
            let found = Finding {
                file: shown.join(name).display().to_string(),
                line,
                message: match place {
                    Place::Unknown => {
                        format!("the lookup `password`{path}, unless its path is absolute, {why}")
                    }
                    _ => format!("the lookup `password`{path} {why}"),
                },
            };
            if place == Place::Unknown { &mut warned } else { &mut refused }.insert(found);
        }
    }
    (refused, warned)
}

/// Lines and paths of the `password` lookups in a text; no path where it is no literal. Those with a `seed` give the same
/// password in each run.
fn drawn(text: &str) -> Vec<(u32, Option<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("password") {
        let (before, after) = (&text[..at], &text[at + "password".len()..]);
        let before =
            before.trim_end_matches("ansible.builtin.").trim_end_matches("ansible.legacy.");
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = &text[start..at];
        if line.trim_start().starts_with('#') || line.contains(" #") {
            continue;
        }
        let argument = if let Some(rest) = before.strip_suffix("with_") {
            let is_key = rest.ends_with([' ', '\n', '{', ',']);
            let value = after.strip_prefix(':').filter(|_| is_key);
            value.map(|value| value.trim_start_matches(['\n', ' ', '-', '[']))
        } else {
            let quote = before.chars().last().filter(|c| matches!(c, '"' | '\''));
            let called = before.trim_end_matches(['"', '\'']).trim_end();
            let called = ["lookup(", "query(", "q("].iter().any(|call| called.ends_with(call));
            let rest = quote.filter(|_| called).and_then(|quote| after.strip_prefix(quote));
            rest.and_then(|rest| rest.trim_start().strip_prefix(',')).map(str::trim_start)
        };
        let Some(argument) = argument else { continue };
        let whole = argument.split([')', '\n']).next().unwrap_or_default();
        if whole.contains("seed=") {
            continue;
        }
        let number = u32::try_from(before.matches('\n').count() + 1).unwrap_or(1);
        let quoted = argument.strip_prefix(['"', '\'']);
        let bare = OF_RUN.iter().find(|name| argument.starts_with(**name));
        let path = match (quoted, bare) {
            (Some(inside), _) => inside.split(['"', '\'', ' ']).next().map(str::to_owned),
            (None, Some(name)) => Some(format!("{{{{ {name} }}}}")),
            (None, None) if argument.starts_with(['/', '~', '.']) => {
                argument.split_whitespace().next().map(str::to_owned)
            }
            (None, None) => None,
        };
        found.push((number, path));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::items;

    #[test]
    fn passwords_that_every_run_would_draw_anew_are_found() {
        let one = |text: &str| drawn(text).into_iter().next().map(|(_, path)| path);
        let path = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(one("a: \"{{ lookup('password', 'creds/x length=15') }}\""), path("creds/x"));
        assert_eq!(one("{{ query(\"ansible.builtin.password\", \"x\") }}"), path("x"));
        assert_eq!(one("{{ lookup('password', '/dev/null') }}"), path("/dev/null"));
        assert_eq!(
            one("{{ lookup('password', playbook_dir ~ '/x') }}"),
            path("{{ playbook_dir }}")
        );
        assert_eq!(one("{{ lookup('password', where) }}"), Some(None));
        assert_eq!(one("- debug:\n  with_password: creds/y\n"), Some(None));
        assert_eq!(one("- debug:\n  with_password: 'creds/y'\n"), path("creds/y"));
        for none in [
            "# lookup('password', 'x')",
            "password: x",
            "{{ lookup('password', 'x', seed=inventory_hostname) }}",
            "{{ lookup('password', 'x seed=1') }}",
            "{{ lookup('file', 'password') }}",
            "b: the password, 'x'",
        ] {
            assert_eq!(one(none), None, "{none}");
        }
        assert_eq!(drawn("a\n\n{{ lookup(\n  'password',\n  'x') }}")[0].0, 4);
    }

    #[test]
    fn a_password_that_travels_or_stays_is_fine_and_only_what_is_read_counts() {
        let items = items(&[
            ("playbooks/site.yml", ""),
            ("playbooks/known", "secret"),
            (
                "roles/r/tasks/main.yml",
                "{{ lookup('password', 'known') }}\n{{ lookup('password', '/etc/x') }}\n",
            ),
            (
                "roles/r/defaults/main.yml",
                "a: \"{{ lookup('password', 'new') }}\"\nb: \"{{ lookup('password', y) }}\"\n",
            ),
            ("roles/other/tasks/main.yml", "{{ lookup('password', 'new') }}\n"),
        ]);
        let read = |name: &str| name.starts_with("roles/r/");
        let (refused, warned) = passwords(&items, "playbooks/site.yml", read, Path::new("ansible"));
        let places = |found: &BTreeSet<Finding>| {
            found.iter().map(|one| format!("{}:{}", one.file, one.line)).collect::<Vec<_>>()
        };
        assert_eq!(places(&refused), ["ansible/roles/r/defaults/main.yml:1"]);
        assert_eq!(places(&warned), ["ansible/roles/r/defaults/main.yml:2"]);
    }

    #[test]
    fn settings_that_write_into_the_run_are_named() {
        let text = "[defaults]\nlog_path = logs/a\nfact_caching_connection = /var/x\nretry_files_save_path = ~/r\n";
        let items = items(&[("ansible.cfg", text)]);
        let found = settings(Folder::new(&items), Path::new("ansible"));
        assert_eq!((found.len(), found[0].line), (1, 2));
        assert!(found[0].message.contains("`log_path = logs/a`"));
    }
}
