//! What travels to a host: the Ansible folder's needed part, packed so that the same content gives the same bytes.

use crate::error::Error;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tar::{Builder, EntryType, Header};

/// More than this goes through a bucket or not at all: 16 commands. Measured against the rehearsal cloud on loopback, each
/// adds 0.08 s to a run of 1.4 s, and more over a network; through a bucket any size took 1.1 to 1.5 s.
pub(crate) const LIMIT_BYTES: usize = 512 * 1024;
/// More than this has no place in memory.
pub(crate) const BUCKET_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// Files above this size have no place among roles and would only fill memory. Those that no run needs may lie there.
const FILE_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// One thing that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A file and its permission bits, without setuid, setgid and sticky.
    File { content: Content, mode: u32 },
    /// A pipe, a socket or a device, which cannot travel. Only a run that needs it is refused.
    Other,
    /// A relative symbolic link that stays inside.
    Link { target: PathBuf },
}

/// What a file holds, read when somebody asks for it: most of an Ansible folder is of no use to one run.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// `None` when the bytes never were in a file.
    path: Option<PathBuf>,
    size: u64,
    bytes: OnceLock<Vec<u8>>,
}

impl Content {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { path: None, size: bytes.len() as u64, bytes: bytes.into() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What Ansible might read. Nothing of a file that is too large or cannot be read: packing refuses it, should it be
    /// needed.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| match &self.path {
            Some(path) if self.size <= FILE_LIMIT_BYTES => fs::read(path).unwrap_or_default(),
            _ => Vec::new(),
        })
    }

    /// What travels, not kept in memory.
    fn reader(&self) -> Result<Box<dyn io::Read + '_>, Error> {
        let Some(path) = &self.path else { return Ok(Box::new(self.bytes())) };
        if self.size > FILE_LIMIT_BYTES {
            return Err(Error::Item { path: path.clone(), reason: "larger than 16 MiB" });
        }
        match fs::File::open(path) {
            Ok(file) => Ok(Box::new(file.take(self.size))),
            Err(source) => Err(Error::Read { path: path.clone(), source }),
        }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Content {}

/// Items by their path below the Ansible folder, with `/` between the parts.
pub(crate) type Items = BTreeMap<String, Item>;

/// The packed items.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// Lowercase hexadecimal SHA-256 of `bytes`.
    pub(crate) sha256: String,
    /// A gzip-compressed tar archive.
    pub(crate) bytes: Vec<u8>,
}

/// Reads what travels of `root`: everything but hidden files, documentation, tests and other environments' inventories.
pub(crate) fn collect(root: &Path, environment: Option<&str>) -> Result<Items, Error> {
    let real_root =
        fs::canonicalize(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
    let mut items = Items::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let failed = |source| Error::Read { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let inner = folder.join(entry.file_name());
            let name = as_text(root, &inner)?;
            if !travels(&name, environment) {
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(inner);
            } else if kind.is_symlink() {
                items.insert(name, link(root, &real_root, &inner)?);
            } else if kind.is_file() {
                items.insert(name, file(&root.join(&inner))?);
            } else {
                items.insert(name, Item::Other);
            }
        }
    }
    Ok(items)
}

fn as_text(root: &Path, inner: &Path) -> Result<String, Error> {
    let parts: Option<Vec<&str>> = inner.iter().map(|part| part.to_str()).collect();
    let text = parts.map(|parts| parts.join("/")).filter(|text| !text.contains('\n'));
    text.ok_or_else(|| Error::Item {
        path: root.join(inner),
        reason: "its name is not plain UTF-8",
    })
}

/// Whether a path below the Ansible folder belongs to what a run needs. Inside `files/` and `templates/` of a role every
/// file does, hidden ones too.
fn travels(name: &str, environment: Option<&str>) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let last = parts[parts.len() - 1];
    let payload =
        parts[..parts.len() - 1].iter().any(|part| matches!(*part, "files" | "templates"));
    if matches!(last, ".git" | "__pycache__") || last.ends_with(".pyc") {
        return false;
    }
    if payload {
        return true;
    }
    // Directly in the Ansible folder, or directly in a role.
    let at_top = parts.len() == 1 || (parts.len() == 3 && parts[0] == "roles");
    let document = at_top
        && (matches!(last, "molecule" | "tests")
            || last.to_ascii_uppercase().starts_with("README"));
    let other_environment = parts.len() == 2
        && parts[0] == "inventories"
        && environment.is_some_and(|environment| environment != last);
    !last.starts_with('.') && !document && !other_environment
}

fn link(root: &Path, real_root: &Path, inner: &Path) -> Result<Item, Error> {
    let path = root.join(inner);
    let target =
        fs::read_link(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let inside = target.is_relative()
        && fs::canonicalize(&path).is_ok_and(|real| real.starts_with(real_root));
    if inside { Ok(Item::Link { target }) } else { Err(Error::Link { link: path, target }) }
}

fn file(path: &Path) -> Result<Item, Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(failed)?;
    let mode = meta.permissions().mode() & 0o777;
    let (path, size, bytes) = (Some(path.to_owned()), meta.len(), OnceLock::new());
    Ok(Item::File { content: Content { path, size, bytes }, mode })
}

/// Packs items, sorted by path, without times and owners.
pub(crate) fn pack(items: &Items, limit: usize) -> Result<Bundle, Error> {
    let bytes = archive(items)?;
    if bytes.len() > limit {
        return Err(Error::TooLarge { bytes: bytes.len(), limit, largest: largest(items) });
    }
    Ok(Bundle { sha256: hex::encode(Sha256::digest(&bytes)), bytes })
}

fn archive(items: &Items) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Write { path: PathBuf::from("the bundle"), source };
    let gzip =
        GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut tar = Builder::new(gzip);
    for (name, item) in items {
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        match item {
            Item::File { content, mode } => {
                header.set_mode(*mode);
                header.set_size(content.size());
                let read = |source| Error::Read { path: PathBuf::from(name), source };
                let mut counted = Counted { inner: content.reader()?, bytes: 0 };
                tar.append_data(&mut header, name, &mut counted).map_err(read)?;
                if counted.bytes != content.size() {
                    let path = PathBuf::from(name);
                    return Err(Error::Item { path, reason: "became shorter while it was read" });
                }
            }
            Item::Link { target } => {
                header.set_mode(0o777);
                header.set_size(0);
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, name, target).map_err(failed)?;
            }
            Item::Other => {
                return Err(Error::Item { path: name.into(), reason: "not a file or folder" });
            }
        }
    }
    tar.into_inner().and_then(|gzip| gzip.finish()).map_err(failed)
}

/// Counts what is read: a file that shrinks meanwhile would shift all that follows in the archive.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

fn largest(items: &Items) -> String {
    let mut sizes: Vec<(u64, &str)> = items
        .iter()
        .filter_map(|(name, item)| match item {
            Item::File { content, .. } => Some((content.size(), name.as_str())),
            Item::Link { .. } | Item::Other => None,
        })
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let named: Vec<String> =
        sizes.iter().take(3).map(|(bytes, name)| format!("{name} ({bytes} bytes)")).collect();
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("content of {name}\n")).unwrap();
        }
        root
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_wherever_and_whenever_it_was_written() {
        let names = ["site.yml", "roles/a/tasks/main.yml", "roles/a/files/x", "ansible.cfg"];
        let first = tree(&names);
        let mut reversed = names;
        reversed.reverse();
        let second = tree(&reversed);
        let old = fs::File::open(second.path().join("site.yml")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let pack_of = |root: &Path| pack(&collect(root, None).unwrap(), LIMIT_BYTES).unwrap();
        let (first, changed) = (pack_of(first.path()), second);
        assert_eq!(first.sha256, pack_of(changed.path()).sha256);
        let protect = fs::Permissions::from_mode(0o600);
        fs::set_permissions(changed.path().join("site.yml"), protect).unwrap();
        assert_ne!(first.sha256, pack_of(changed.path()).sha256, "modes travel");
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(changed.path().join("site.yml"), open).unwrap();
        assert_eq!(first.sha256, pack_of(changed.path()).sha256);
        fs::write(changed.path().join("site.yml"), "other").unwrap();
        assert_ne!(first.sha256, pack_of(changed.path()).sha256);
    }

    #[test]
    fn only_what_a_run_needs_travels() {
        let root = tree(&[
            ".git/config",
            ".vault_pass",
            "README.md",
            "ansible.cfg",
            "inventories/dev/group_vars/all.yml",
            "inventories/prod/group_vars/all.yml",
            "playbooks/group_vars/all.yml",
            "playbooks/site.yml",
            "roles/a/README.md",
            "roles/a/files/.hidden",
            "roles/a/files/tests/x",
            "roles/a/molecule/default/converge.yml",
            "roles/a/tasks/main.yml",
            "roles/a/tests/test.yml",
        ]);
        let items = collect(root.path(), Some("dev")).unwrap();
        let names: Vec<&str> = items.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "ansible.cfg",
                "inventories/dev/group_vars/all.yml",
                "playbooks/group_vars/all.yml",
                "playbooks/site.yml",
                "roles/a/files/.hidden",
                "roles/a/files/tests/x",
                "roles/a/tasks/main.yml",
            ]
        );
    }

    #[test]
    fn a_link_inside_travels_and_one_that_leaves_is_refused() {
        let root = tree(&["playbooks/site.yml"]);
        symlink("playbooks/site.yml", root.path().join("all.yml")).unwrap();
        let items = collect(root.path(), None).unwrap();
        assert_eq!(items["all.yml"], Item::Link { target: "playbooks/site.yml".into() });
        for target in ["../elsewhere", "/etc/passwd", "nowhere"] {
            let link = root.path().join("leaves");
            symlink(target, &link).unwrap();
            let error = collect(root.path(), None).unwrap_err();
            assert!(matches!(error, Error::Link { .. }), "{target}: {error}");
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_cannot_travel_is_refused_only_where_it_is_needed() {
        let root = tree(&["site.yml"]);
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let large = fs::File::create(root.path().join("large")).unwrap();
        large.set_len(FILE_LIMIT_BYTES + 1).unwrap();
        let all = collect(root.path(), None).unwrap();
        for (name, reason) in [("socket", "not a file or folder"), ("large", "larger than 16 MiB")]
        {
            let mut items = all.clone();
            items.retain(|item, _| item == name || item == "site.yml");
            let error = pack(&items, LIMIT_BYTES).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(reason), "{error}");
            items.remove(name);
            pack(&items, LIMIT_BYTES).unwrap();
        }
    }

    #[test]
    fn all_permission_bits_travel_and_no_other() {
        let root = tree(&["key"]);
        for (mode, expected) in [(0o600, 0o600), (0o4751, 0o751), (0o664, 0o664), (0o640, 0o640)] {
            let path = root.path().join("key");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let bundle = pack(&collect(root.path(), None).unwrap(), LIMIT_BYTES).unwrap();
            let gzip = flate2::read::GzDecoder::new(bundle.bytes.as_slice());
            let mut archive = tar::Archive::new(gzip);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.header().mode().unwrap(), expected);
        }
    }

    #[test]
    fn a_bundle_over_the_limit_names_its_size_and_the_largest_file() {
        let noise: Vec<u8> =
            (0..40_000_u32).flat_map(|n| Sha256::digest(n.to_le_bytes()).to_vec()).collect();
        let items = Items::from([(
            "roles/a/files/noise".to_owned(),
            Item::File { content: Content::of(noise), mode: 0o644 },
        )]);
        let Err(Error::TooLarge { bytes, limit, largest }) = pack(&items, LIMIT_BYTES) else {
            panic!()
        };
        assert!(bytes > limit && largest.starts_with("roles/a/files/noise (1280000 bytes)"));
    }
}
