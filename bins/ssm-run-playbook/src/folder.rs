//! The Ansible folder as Ansible will see it on a host: paths with links followed, and what `ansible.cfg` says of paths.

use crate::bundle::{Item, Items};

/// So many links in a row are a circle.
const LINKS: usize = 40;

/// What is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder<'a> {
    items: &'a Items,
}

impl<'a> Folder<'a> {
    pub(crate) fn new(items: &'a Items) -> Self {
        Self { items }
    }

    /// The path without links, whether something is there or not. `None` when the links run in a circle.
    pub(crate) fn real(self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let link = ends.filter_map(|end| match self.items.get(&path[..end]) {
                Some(Item::Link { target }) => Some((end, target)),
                _ => None,
            });
            let Some((end, target)) = link.into_iter().next() else { return Some(path) };
            let there = join(parent(&path[..end]), target.to_str()?)?;
            path = format!("{there}{}", &path[end..]);
        }
        None
    }

    /// The text of a file; `None` when it is not there or not UTF-8.
    pub(crate) fn text(self, path: &str) -> Option<&'a str> {
        match self.items.get(&self.real(path)?)? {
            Item::File { content, .. } => std::str::from_utf8(content.bytes()).ok(),
            Item::Link { .. } | Item::Other => None,
        }
    }

    pub(crate) fn is_file(self, path: &str) -> bool {
        let real = self.real(path);
        real.is_some_and(|path| matches!(self.items.get(&path), Some(Item::File { .. })))
    }

    pub(crate) fn is_folder(self, path: &str) -> bool {
        let Some(real) = self.real(path) else { return false };
        if real.is_empty() {
            return true;
        }
        let below = format!("{real}/");
        self.items.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    /// Names of folders directly in a folder.
    pub(crate) fn folders(self, path: &str) -> Vec<String> {
        let Some(real) = self.real(path) else { return Vec::new() };
        let below = format!("{real}/");
        let mut names: Vec<String> = self
            .items
            .keys()
            .filter_map(|name| name.strip_prefix(&below))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| self.is_folder(&format!("{below}{name}")))
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }

    /// Paths of all files below a folder.
    pub(crate) fn files_below(self, path: &str) -> Vec<String> {
        let Some(real) = self.real(path) else { return Vec::new() };
        let below = if real.is_empty() { real } else { format!("{real}/") };
        self.items.keys().filter(|name| name.starts_with(&below)).cloned().collect()
    }

    /// The first of `main.yml`, `main.yaml` and `main` in a folder, as Ansible looks for it.
    pub(crate) fn main(self, folder: &str) -> Option<String> {
        self.named(folder, "main")
    }

    /// A file by its name with or without ending.
    pub(crate) fn named(self, folder: &str, name: &str) -> Option<String> {
        let endings = [".yml", ".yaml", "", ".json"];
        let mut paths = endings.iter().filter_map(|end| join(folder, &format!("{name}{end}")));
        paths.find(|path| self.is_file(path))
    }

    /// A value of `ansible.cfg`, whatever its section.
    pub(crate) fn setting(self, names: &[&str]) -> Option<&'a str> {
        self.settings().find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    }

    /// Every name and value of `ansible.cfg`.
    pub(crate) fn settings(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let lines = self.text("ansible.cfg").unwrap_or_default().lines();
        lines.filter(|line| !line.starts_with(['#', ';', '['])).filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = value.split(" ;").next().unwrap_or_default();
            Some((name.trim(), value.trim()))
        })
    }
}

/// The folder that a path is in; empty for the Ansible folder itself.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A path below the Ansible folder; `None` when it is absolute or leaves the folder.
pub(crate) fn join(base: &str, path: &str) -> Option<String> {
    if path.starts_with(['/', '~']) {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bundle::Content;

    /// Files by path and text; `-> target` makes a link.
    pub(crate) fn items(files: &[(&str, &str)]) -> Items {
        let item = |text: &str| match text.strip_prefix("-> ") {
            Some(target) => Item::Link { target: target.into() },
            None => Item::File { content: Content::of(text.as_bytes().to_vec()), mode: 0o644 },
        };
        files.iter().map(|(name, text)| ((*name).to_owned(), item(text))).collect()
    }

    #[test]
    fn links_are_followed_and_circles_end() {
        let items = items(&[
            ("playbooks/roles", "-> ../roles"),
            ("roles/a", "-> ../shared/a"),
            ("shared/a/tasks/main.yml", "[]"),
            ("x", "-> y"),
            ("y", "-> x"),
            ("ansible.cfg", "[defaults]\n# roles_path = no\nroles_path = roles:more ; why\n"),
        ]);
        let folder = Folder::new(&items);
        assert_eq!(
            folder.main("playbooks/roles/a/tasks").unwrap(),
            "playbooks/roles/a/tasks/main.yml"
        );
        assert_eq!(folder.text("playbooks/roles/a/tasks/main.yml"), Some("[]"));
        assert!(folder.is_folder("playbooks/roles/a") && !folder.is_file("x"));
        assert_eq!(folder.folders("shared"), ["a"]);
        assert_eq!(folder.setting(&["roles_path"]), Some("roles:more"));
        assert_eq!(join("a/b", "../c/./d").as_deref(), Some("a/c/d"));
        assert_eq!((join("a", "../../b"), join("a", "/b")), (None, None));
    }
}
