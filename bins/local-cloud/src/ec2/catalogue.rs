//! Which machine images there are now: the suites, and a person's own, which `local-cloud image` adds and removes while
//! a cloud runs. The emulator is told of a change before anybody asks it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::Mutex;

use super::Ec2;
use super::answers::Refusal;
use super::images::{self, Ami};
use crate::error::Error;
use crate::image::{Look, Said, Store};
use crate::log;
use crate::operation::Form;

/// How long the emulator may take until it knows a changed catalogue.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to the emulator that runs as our child.
#[derive(Debug)]
pub struct Lifeline {
    /// Its stdin; closing it ends it.
    pub stdin: ChildStdin,
    /// Where it reads the catalogue.
    pub amis: PathBuf,
}

/// The catalogue as the emulator knows it.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(super) store: Store,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    lifeline: Option<Lifeline>,
    changed: Option<SystemTime>,
}

impl Catalogue {
    pub(super) fn new(store: Store) -> Self {
        Self { store, told: Mutex::default() }
    }

    fn all(&self) -> Result<Vec<Ami>, Error> {
        Ok(images::catalogue(self.store.own()?))
    }

    /// When the list of own images changed last.
    fn changed(&self) -> Option<SystemTime> {
        std::fs::metadata(self.store.registry()).and_then(|file| file.modified()).ok()
    }
}

/// Writes the catalogue for the emulator.
pub fn write_for_moto(store: &Store, path: &std::path::Path) -> Result<(), Error> {
    let text = images::for_moto(&images::catalogue(store.own()?)).to_string();
    let draft = path.with_extension("new");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(|source| Error::File { doing: "write", path: path.to_owned(), source })
}

impl Ec2 {
    /// Tells how to reach the emulator, which has read the catalogue as it is now.
    pub async fn set_lifeline(&self, lifeline: Lifeline) {
        let changed = self.catalogue.changed();
        *self.catalogue.told.lock().await = Told { lifeline: Some(lifeline), changed };
    }

    /// Says a line to the emulator; one that is not our child is told nothing.
    pub(super) async fn tell_emulator(&self, line: &str) {
        let mut told = self.catalogue.told.lock().await;
        let Some(lifeline) = told.lifeline.as_mut() else { return };
        if let Err(error) = lifeline.stdin.write_all(format!("{line}\n").as_bytes()).await {
            log::line(format_args!("the emulator does not listen: {error}"));
        }
    }

    /// The machine image of this id.
    pub(crate) fn image(&self, id: &str) -> Result<Ami, Refusal> {
        images::find(self.catalogue.all().map_err(internal)?, id)
    }

    /// Makes the emulator know the own images that there are now.
    pub(super) async fn tell_images(&self) -> Result<(), Refusal> {
        let mut told = self.catalogue.told.lock().await;
        let changed = self.catalogue.changed();
        if told.changed == changed || told.lifeline.is_none() {
            return Ok(());
        }
        let Some(lifeline) = told.lifeline.as_mut() else { return Ok(()) };
        write_for_moto(&self.catalogue.store, &lifeline.amis).map_err(internal)?;
        lifeline.stdin.write_all(b"amis\n").await.map_err(|error| {
            Refusal::server("InternalError", format!("the emulator does not listen: {error}"))
        })?;
        let wanted: Vec<String> =
            self.catalogue.all().map_err(internal)?.into_iter().map(|ami| ami.id).collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let form = Form::new([("Action", "DescribeImages"), ("Version", "2016-11-15")]);
            let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
            let mut known: Vec<String> =
                root.items(&["imagesSet"]).filter_map(|item| item.text_at(&["imageId"])).collect();
            known.sort();
            let mut wanted = wanted.clone();
            wanted.sort();
            if known == wanted {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                let message = "the emulator does not take over the changed images";
                return Err(Refusal::server("InternalError", message));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told.changed = changed;
        log::line(format_args!("{} machine images now", wanted.len()));
        Ok(())
    }

    /// The Docker image that an instance boots from. Built first when this machine does not have it yet, which takes a
    /// minute or so; the instance is pending meanwhile.
    pub(super) async fn docker_image(
        &self,
        id: &str,
        instance: &str,
        without_cloud_init: bool,
    ) -> Result<String, Refusal> {
        let ami = self.image(id)?;
        let say = |said: Said| match said {
            Said::Step(text) => log::line(format_args!("{instance} {text}")),
            Said::Log(text) => {
                log::line(format_args!("{instance} end of the build's log:\n{text}"))
            }
            Said::Beat(_) => {}
        };
        let store = &self.catalogue.store;
        let ready = async {
            let image = store.ensure(&ami.what, Look::There, &say).await?;
            if without_cloud_init { store.without_cloud_init(&image).await } else { Ok(image) }
        };
        ready.await.map_err(|error: Error| {
            let message = format!(
                "the image of {} cannot be built: {error} ({})",
                ami.what.name(),
                ami.what.how_to_mend()
            );
            Refusal::server("InsufficientInstanceCapacity", message)
        })
    }

    /// What is wrong with a machine image of which an instance did not start: then that is why.
    pub(super) async fn image_fault(&self, id: &str) -> Option<Error> {
        let what = self.image(id).ok()?.what;
        let store = &self.catalogue.store;
        let image = store.built(&what).await.ok()??;
        let why = store.look(&image).await.err()?;
        let why = format!("{why} ({})", what.how_to_mend());
        Some(Error::BadImage { name: what.name().to_owned(), why })
    }
}

fn internal(error: Error) -> Refusal {
    Refusal::server("InternalError", error.to_string())
}
