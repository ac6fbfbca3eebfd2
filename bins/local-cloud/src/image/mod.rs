//! Images that hosts boot from: the root file system of a suite, or an image of a person's own, and on top of either a
//! thin layer with the rehearsal's own files.
//!
//! All are named by a hash of what they are made of, so a changed recipe, agent or package source makes a new one and
//! an unchanged one is found again. Package sources are this machine's own; nothing here names a mirror. What is
//! missing or damaged is built when it is wanted; one builder at a time per image, whichever process it is in.

mod build;
mod lock;
pub mod own;
pub mod suites;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use self::build::Layer;
pub use self::lock::sweep;
use self::own::Own;
use self::suites::{Machine, Suite};
use crate::docker::Docker;
use crate::error::Error;
use crate::place::{Place, make_folder};
use crate::process::{self, last_lines, run};
use crate::tls::Authority;

/// Label of a host image that carries the version of its cloud-init.
pub const CLOUD_INIT_LABEL: &str = "calldata.local-cloud.cloud-init";
/// Label of a host image that carries the version of its systemd.
pub const SYSTEMD_LABEL: &str = "calldata.local-cloud.systemd";

/// Label of a host image that carries how its clock can be made wrong.
pub const CLOCK_LABEL: &str = "calldata.local-cloud.clock";

/// What a build says while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// What begins now.
    Step(String),
    /// It still goes on.
    Beat(String),
    /// It failed; the end of its log.
    Log(String),
}

/// Who listens to a build.
pub type Listener<'a> = &'a (dyn Fn(Said) + Send + Sync);

/// What a host can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootable {
    /// A suite, built from packages.
    Suite(&'static Suite),
    /// An image of a person's own.
    Own(Own),
}

impl Bootable {
    /// For people, and to name it on the command line.
    pub fn name(&self) -> &str {
        match self {
            Self::Suite(suite) => suite.name,
            Self::Own(own) => &own.name,
        }
    }

    /// What to do when it is damaged.
    pub fn how_to_mend(&self) -> String {
        match self {
            Self::Suite(suite) => {
                format!("build it again: `local-cloud image build {}`", suite.name)
            }
            Self::Own(own) => {
                format!("add it again: `local-cloud image add {} --from IMAGE|TARBALL`", own.name)
            }
        }
    }

    fn repository(&self) -> String {
        match self {
            Self::Suite(suite) => format!("local-cloud/{}", suite.name),
            Self::Own(own) => own.repository(),
        }
    }
}

/// How the clock of an image's hosts can be made wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// What tells the time goes wrong; what measures it stays right.
    Realtime,
    /// Both are shifted.
    Both,
}

/// How much a look at an image costs and finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Docker knows it.
    There,
    /// Its programs run as well; notices a damaged cache, takes about a second.
    Runs,
}

/// All images of this machine. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    authority_pem: String,
    machine: OnceCell<Machine>,
}

/// Docker's names of what a bootable is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    base: String,
    host: String,
}

impl Store {
    /// The images of this machine, with the certificate that hosts trust.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let authority_pem = Authority::open(&place.authority())?.certificate;
        Ok(Self::new(place, authority_pem))
    }

    /// [`Store::open`] with a certificate at hand.
    pub fn new(place: &Place, authority_pem: String) -> Self {
        let machine = OnceCell::new();
        Self(Arc::new(Inner { place: place.clone(), authority_pem, machine }))
    }

    /// A person's own images, oldest first.
    pub fn own(&self) -> Result<Vec<Own>, Error> {
        own::read(&self.0.place.cache)
    }

    /// Where the list of own images stands.
    pub fn registry(&self) -> std::path::PathBuf {
        own::path(&self.0.place.cache)
    }

    /// The image that hosts of this kind boot from, if it is built.
    pub async fn built(&self, what: &Bootable) -> Result<Option<String>, Error> {
        let host = self.names(what).await?.host;
        Ok(Docker::has_image(&host).await?.then_some(host))
    }

    /// The image that hosts of this kind boot from; builds what is missing or, after a closer look, damaged.
    pub async fn ensure(
        &self,
        what: &Bootable,
        look: Look,
        say: Listener<'_>,
    ) -> Result<String, Error> {
        let names = self.names(what).await?;
        if look == Look::There && Docker::has_image(&names.host).await? {
            return Ok(names.host);
        }
        make_folder(&self.0.place.cache)?;
        let _lock = lock::lock(&self.0.place.cache, what, say).await?;
        if Docker::has_image(&names.host).await? {
            match sound(&names.host).await {
                _ if look == Look::There => return Ok(names.host),
                Ok(()) => return Ok(names.host),
                Err(why) => {
                    say(Said::Step(format!(
                        "the image of {} is damaged ({why}): building it again",
                        what.name()
                    )));
                    run("docker", ["image", "rm", "--force", &names.host], None).await?;
                }
            }
        }
        self.base(what, &names, say).await?;
        if let Err(error) = self.layer(what, &names).await {
            // A base that cannot even start its shell is no base: made again, once.
            let Err(why) = starts(&names.base).await else { return Err(error) };
            let Bootable::Suite(_) = what else { return Err(damaged(what, &why)) };
            say(Said::Step(format!(
                "the base image of {} is damaged ({why}): building it again",
                what.name()
            )));
            run("docker", ["image", "rm", "--force", &names.base], None).await?;
            self.base(what, &names, say).await?;
            self.layer(what, &names).await?;
        }
        self.remove_others(what, &names).await?;
        Ok(names.host)
    }

    /// Runs the programs of a host image.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn look(&self, image: &str) -> Result<(), String> {
        sound(image).await
    }

    /// A host image without the package cloud-init, for hosts that shall have none.
    pub async fn without_cloud_init(&self, host: &str) -> Result<String, Error> {
        let tag = format!("{host}-no-cloud-init");
        if !Docker::has_image(&tag).await? {
            build::without_cloud_init(host, &tag, self.label()).await?;
        }
        Ok(tag)
    }

    /// How the clock of hosts of this image can be made wrong; `None`: not at all.
    pub async fn clock(&self, host: &str) -> Result<Option<Clock>, Error> {
        let format = format!("{{{{index .Config.Labels \"{CLOCK_LABEL}\"}}}}");
        let label = run("docker", ["image", "inspect", "--format", &format, host], None).await?;
        Ok(match label.trim() {
            "realtime" => Some(Clock::Realtime),
            "both" => Some(Clock::Both),
            _ => None,
        })
    }

    /// What containers are labelled with in which something is built: like everything of the project, so that `down`
    /// removes them when nobody else can any more.
    fn label(&self) -> String {
        let project = self.0.place.state.file_name().unwrap_or_default().to_string_lossy();
        Docker::new(&project).label()
    }

    async fn names(&self, what: &Bootable) -> Result<Names, Error> {
        let repository = what.repository();
        let base = match what {
            Bootable::Own(own) => own.source.clone(),
            Bootable::Suite(suite) => {
                let machine = self.0.machine.get_or_try_init(Machine::look).await?;
                let sources = machine.sources(suite).kept();
                let parts = [
                    build::BASE_RECIPE,
                    build::SOURCES_RECIPE,
                    &sources.list,
                    &sources.acquire,
                    &sources.preferences,
                    &suite.packages(),
                ];
                name(&repository, "base", &parts)
            }
        };
        let mut parts = vec![base.as_str(), self.0.authority_pem.as_str()];
        parts.extend(build::LAYER_PARTS);
        let host = name(&repository, "host", &parts);
        Ok(Names { base, host })
    }

    async fn base(&self, what: &Bootable, names: &Names, say: Listener<'_>) -> Result<(), Error> {
        if Docker::has_image(&names.base).await? {
            return Ok(());
        }
        let Bootable::Suite(suite) = what else {
            return Err(damaged(what, "Docker has it no more"));
        };
        let machine = self.0.machine.get_or_try_init(Machine::look).await?;
        let sources = machine.sources(suite);
        sources.complete(suite)?;
        build::base(suite, &names.base, &sources, &self.0.place.cache, say).await
    }

    async fn layer(&self, what: &Bootable, names: &Names) -> Result<(), Error> {
        let place = &self.0.place;
        let layer = Layer {
            base: &names.base,
            tag: &names.host,
            authority_pem: &self.0.authority_pem,
            label: self.label(),
        };
        let facts = layer.build(&place.cache).await?;
        if facts.systemd.is_none() {
            return Err(damaged(what, "it has no systemd"));
        }
        Ok(())
    }

    /// Removes what earlier recipes left of this kind, a day after they were made: two versions of this program used
    /// side by side must not take each other's images away. What a host still runs from stays: Docker refuses to
    /// remove that.
    async fn remove_others(&self, what: &Bootable, wanted: &Names) -> Result<(), Error> {
        const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
        let format = "{{.Repository}}:{{.Tag}}";
        let args = ["image", "ls", "--format", format, &what.repository()];
        let names = run("docker", args, None).await?;
        let kept = [wanted.base.as_str(), wanted.host.as_str()];
        for name in names.lines().filter(|name| !kept.contains(name) && !name.ends_with(":source"))
        {
            let args = ["image", "inspect", "--format", "{{.Created}}", name];
            let created = process::capture("docker", args, None).await?.stdout;
            let created: Result<jiff::Timestamp, _> = created.trim().parse();
            if created.is_ok_and(|created| jiff::Timestamp::now().duration_since(created) > KEPT) {
                process::capture("docker", ["image", "rm", name], None).await?;
            }
        }
        Ok(())
    }
}

fn damaged(what: &Bootable, why: &str) -> Error {
    Error::BadImage { name: what.name().to_owned(), why: why.to_owned() }
}

/// Whether the programs of a host image run: files, layers and all that they need are there.
async fn sound(image: &str) -> Result<(), String> {
    let script = "test -x /sbin/init && systemctl --version >/dev/null && \
        if command -v python3 >/dev/null; then amazon-ssm-agent-stand-in --help >/dev/null; fi && \
        if command -v cloud-init >/dev/null; then cloud-init --version >/dev/null 2>&1; fi";
    try_in(image, script).await
}

async fn starts(image: &str) -> Result<(), String> {
    try_in(image, "true").await
}

async fn try_in(image: &str, script: &str) -> Result<(), String> {
    let args = ["run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", script];
    match process::capture("docker", args, None).await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = docker_said(&output.stderr);
            Err(if said.is_empty() { "its programs do not run".to_owned() } else { said })
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The end of what `docker run` said, without its advice to read its help.
fn docker_said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("Run 'docker")).collect();
    last_lines(&lines.join("\n"), 1)
}

fn name(repository: &str, kind: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    format!("{repository}:{kind}-{}", &hex::encode(hash.finalize())[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_part_changes_the_name() {
        assert_ne!(
            name("l/bookworm", "host", &["a", "b"]),
            name("l/bookworm", "host", &["ab", ""])
        );
        assert!(name("l/bookworm", "host", &["a"]).starts_with("l/bookworm:host-"));
    }
}
