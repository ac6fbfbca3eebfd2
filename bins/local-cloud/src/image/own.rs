//! A person's own images, as machine images: taken over from Docker or a tarball, and remembered beside the caches.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::suites::SUITES;
use super::{Bootable, Listener, Look, Said, Store, docker_said, lock};
use crate::docker::Docker;
use crate::error::Error;
use crate::place::locked;
use crate::process::{self, run};

/// An image of a person's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Id of the machine image, derived from the image's content.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Docker's name of what was taken over.
    pub source: String,
    /// When it was added.
    pub added: jiff::Timestamp,
    /// Version of its cloud-init, if it has one.
    pub cloud_init: Option<String>,
}

impl Own {
    pub(super) fn repository(&self) -> String {
        format!("local-cloud/{}", self.id)
    }
}

/// The file that remembers them.
pub(super) fn path(cache: &Path) -> PathBuf {
    cache.join("local-cloud-images.json")
}

pub(super) fn read(cache: &Path) -> Result<Vec<Own>, Error> {
    let path = path(cache);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { doing: "read", path, source }),
    };
    serde_json::from_slice(&text)
        .map_err(|error| Error::BadRegistry { path, why: error.to_string() })
}

/// Changes the list, for one process at a time: two that read it at once would each write what they know of.
fn change<T>(cache: &Path, change: impl FnOnce(&mut Vec<Own>) -> T) -> Result<T, Error> {
    let _lock = locked(&path(cache).with_extension("lock"))?;
    let mut images = read(cache)?;
    let done = change(&mut images);
    let text = serde_json::to_vec_pretty(&images)
        .map_err(|error| Error::setup("cannot write the list of images", error))?;
    let path = path(cache);
    let draft = path.with_extension("json.new");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, &path))
        .map_err(|source| Error::File { doing: "write", path, source })?;
    Ok(done)
}

/// What was added, and what it lacks.
#[derive(Debug, Clone)]
pub struct Added {
    /// The image.
    pub own: Own,
    /// What hosts of it will not do, one sentence each.
    pub lacks: Vec<&'static str>,
}

/// Takes over `from`, an image that Docker has or a tarball (of a root file system, or from `docker save`), as `name`.
pub async fn add(store: &Store, name: &str, from: &str, say: Listener<'_>) -> Result<Added, Error> {
    check_name(name)?;
    let image = take_over(from, say).await?;
    let found = look(&image, from).await?;
    let own = Own {
        id: ami_id(&found.layers),
        name: name.to_owned(),
        source: format!("local-cloud/{}:source", ami_id(&found.layers)),
        added: jiff::Timestamp::now(),
        cloud_init: found.cloud_init.clone(),
    };
    run("docker", ["tag", &image, &own.source], None).await?;
    say(Said::Step("adding the agent stand-in and the rehearsal's certificate".into()));
    store.ensure(&Bootable::Own(own.clone()), Look::Runs, say).await?;
    change(&store.0.place.cache, |images| {
        // As on AWS, where a name is somebody's only once: the newer image takes it over.
        images.retain(|other| other.name != own.name && other.id != own.id);
        images.push(own.clone());
    })?;
    Ok(Added { own, lacks: found.lacks() })
}

/// Forgets an image, by name or id. Hosts that run from it go on.
pub async fn remove(store: &Store, wanted: &str, say: Listener<'_>) -> Result<Own, Error> {
    let mut images = store.own()?;
    let Some(at) = images.iter().position(|own| own.name == wanted || own.id == wanted) else {
        return Err(Error::NoSuchImage {
            wanted: wanted.to_owned(),
            known: images.into_iter().map(|own| own.name).collect(),
        });
    };
    let own = images.swap_remove(at);
    let cache = &store.0.place.cache;
    let _lock = lock::lock(cache, &Bootable::Own(own.clone()), say).await?;
    change(cache, |images| images.retain(|other| other != &own))?;
    let args = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", &own.repository()];
    for tag in run("docker", args, None).await?.lines() {
        // By force only its name goes while a container still uses it.
        run("docker", ["image", "rm", "--force", tag], None).await?;
    }
    lock::remove(cache, &own.name)?;
    Ok(own)
}

/// EC2 allows more (3 to 128 characters, `()[] ./-'@_` too; API reference, RegisterImage); these go on a command line.
fn check_name(name: &str) -> Result<(), Error> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !(3..=128).contains(&name.len()) || !name.bytes().all(good) {
        return Err(Error::BadInput(format!(
            "`{name}` cannot name an image: 3 to 128 letters, digits, `-`, `_` and `.`"
        )));
    }
    if SUITES.iter().any(|suite| suite.name == name || suite.ami_name == name) {
        return Err(Error::BadInput(format!("`{name}` is an image of the catalogue already")));
    }
    Ok(())
}

/// Docker's id of the image that `from` names, loading a file first.
async fn take_over(from: &str, say: Listener<'_>) -> Result<String, Error> {
    if Path::new(from).is_file() {
        say(Said::Step(format!("reading {from}")));
        // `docker save` writes a list of what it saved; a root file system has no such file.
        let args = ["--list", "--file", from, "manifest.json"];
        let saved = process::capture("tar", args, None).await?.status.success();
        if !saved {
            let id = run("docker", ["import", from], None).await?;
            return Ok(id.trim().to_owned());
        }
        let said = run("docker", ["load", "--quiet", "--input", from], None).await?;
        return said
            .lines()
            .next_back()
            .and_then(|line| line.split_once(": "))
            .map(|(_, name)| name.trim().to_owned())
            .ok_or_else(|| Error::BadInput(format!("Docker found no image in `{from}`")));
    }
    if Docker::has_image(from).await? {
        return Ok(from.to_owned());
    }
    Err(Error::BadInput(format!("`{from}` is neither an image that Docker has nor a file")))
}

#[derive(Debug, Default)]
struct Found {
    layers: String,
    cloud_init: Option<String>,
    python: bool,
    certificates: bool,
}

impl Found {
    fn lacks(&self) -> Vec<&'static str> {
        [
            (self.cloud_init.is_some(), "no cloud-init: user data is not run"),
            (self.python, "no python3: its hosts never register with Systems Manager"),
            (
                self.certificates,
                "no ca-certificates: its hosts do not trust the rehearsal's AWS names",
            ),
        ]
        .into_iter()
        .filter_map(|(has, sentence)| (!has).then_some(sentence))
        .collect()
    }
}

/// What an image is and has; refuses what cannot boot.
async fn look(image: &str, from: &str) -> Result<Found, Error> {
    let refuse = |why: String| Error::BadImage { name: from.to_owned(), why };
    let format = "{{.Os}}/{{.Architecture}} {{json .RootFS.Layers}}";
    let text = run("docker", ["image", "inspect", "--format", format, image], None).await?;
    let (platform, layers) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let args = ["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"];
    let own = run("docker", args, None).await?;
    if platform != own.trim() {
        return Err(refuse(format!("it is for {platform}, this machine is {}", own.trim())));
    }
    let script = "readlink -f /sbin/init; \
        command -v systemctl >/dev/null && echo has systemctl; \
        command -v python3 >/dev/null && echo has python3; \
        command -v update-ca-certificates >/dev/null && echo has certificates; \
        if command -v cloud-init >/dev/null; then echo cloud-init $(cloud-init --version 2>&1); fi; true";
    let args = [
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "0",
        "--entrypoint",
        "/bin/sh",
        image,
        "-c",
        script,
    ];
    let output = process::capture("docker", args, None).await?;
    if !output.status.success() {
        return Err(refuse(format!("its shell does not run: {}", docker_said(&output.stderr))));
    }
    let said = output.stdout;
    let has = |what: &str| said.lines().any(|line| line == format!("has {what}"));
    let init = said.lines().next().unwrap_or_default();
    if !init.ends_with("/systemd") || !has("systemctl") {
        let init = if init.starts_with('/') { init } else { "missing" };
        return Err(refuse(format!(
            "its /sbin/init is {init}, not systemd (in a Debian image: `apt-get install systemd-sysv`)"
        )));
    }
    Ok(Found {
        layers: layers.to_owned(),
        cloud_init: said.lines().find_map(|line| line.strip_prefix("cloud-init ")).map(version_of),
        python: has("python3"),
        certificates: has("certificates"),
    })
}

/// `/usr/bin/cloud-init 22.4.2-0ubuntu1` → `22.4.2`.
fn version_of(said: &str) -> String {
    let word = said.split_whitespace().next_back().unwrap_or_default();
    word.split('-').next().unwrap_or_default().to_owned()
}

/// The same content has the same id everywhere; Docker's own id changes with the time of an import.
fn ami_id(layers: &str) -> String {
    format!("ami-{}", &hex::encode(Sha256::digest(layers))[..17])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_of_ec2_and_follows_the_content() {
        let id = ami_id("[\"sha256:a\"]");
        assert_eq!(id.len(), 21);
        assert_eq!(id, ami_id("[\"sha256:a\"]"));
        assert_ne!(id, ami_id("[\"sha256:b\"]"));
    }

    #[test]
    fn names_fit_on_a_command_line() {
        for good in ["abc", "wazo-2026.03", "a_b"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["ab", "a b c", "a/b/c", "bookworm", "trixie-sid", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_what_cloud_init_says_last() {
        assert_eq!(version_of("/usr/bin/cloud-init 22.4.2-0ubuntu1"), "22.4.2");
        assert_eq!(version_of("/usr/bin/cloud-init 26.2"), "26.2");
    }

    #[test]
    fn nothing_is_lost_when_many_are_added_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path();
        std::thread::scope(|scope| {
            for adder in 0..4 {
                scope.spawn(move || {
                    for number in 0..25 {
                        let own = Own {
                            id: format!("ami-{adder}-{number}"),
                            name: format!("image-{adder}-{number}"),
                            source: String::new(),
                            added: jiff::Timestamp::UNIX_EPOCH,
                            cloud_init: None,
                        };
                        change(cache, |images| images.push(own)).expect("written");
                    }
                });
            }
        });
        assert_eq!(read(cache).expect("whole").len(), 100);
    }

    #[test]
    fn a_damaged_list_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).expect("none yet").is_empty());
        std::fs::write(path(folder.path()), "[{").expect("written");
        let error = read(folder.path()).expect_err("cut").to_string();
        assert!(error.contains("local-cloud-images.json"), "{error}");
    }
}
