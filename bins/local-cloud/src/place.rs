//! Where the rehearsal cloud keeps its things: state of a running one, caches that outlive it.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control::Token;
use crate::credentials::AccessKey;
use crate::error::Error;
use crate::process::Identity;

/// The folders of one project.
#[derive(Debug, Clone)]
pub struct Place {
    /// `…/calldata-foundation/local-cloud/<project>`; removed by `down`.
    pub state: PathBuf,
    /// `…/calldata-foundation`; kept by `down`.
    pub cache: PathBuf,
}

/// What `up` and the daemon note down about a running cloud, for `down` and everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The project.
    pub project: String,
    /// Region of everything in it.
    pub region: String,
    /// Loopback port of the endpoint.
    pub port: u16,
    /// The daemon.
    pub daemon: Identity,
    /// The emulator behind it, when the daemon started it.
    pub upstream: Option<Identity>,
    /// Secret of the control API.
    #[serde(default)]
    pub token: Token,
    /// The key that may do everything, for whoever may read this.
    #[serde(default)]
    pub access_key: AccessKey,
    /// What else it was started with.
    #[serde(default)]
    pub terms: Terms,
}

/// What a running cloud was started with and cannot change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// `--seed`.
    pub seed: u64,
    /// `--timing`.
    pub timing: String,
    /// `--upstream`; a moto of its own without it.
    pub upstream: Option<String>,
    /// `--max-vcpus`.
    #[serde(default)]
    pub max_vcpus: u32,
}

impl Place {
    /// The file that says what runs.
    pub fn state_file(&self) -> PathBuf {
        self.state.join("state.json")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// The log of the emulator behind it.
    pub fn upstream_log(&self) -> PathBuf {
        self.state.join("moto.log")
    }

    /// The machine images, for the emulator behind it.
    pub fn amis(&self) -> PathBuf {
        self.state.join("amis.json")
    }

    /// Virtual environment of the emulator.
    pub fn venv(&self) -> PathBuf {
        self.cache.join(format!("moto-{}", crate::venv::MOTO_VERSION))
    }

    /// Folder of the certificate authority that hosts trust.
    pub fn authority(&self) -> PathBuf {
        self.cache.join("local-cloud-ca")
    }

    /// Reads the state, if there is one. A cut file counts as none: the daemon writes it whole or not at all.
    pub fn read_state(&self) -> Option<State> {
        serde_json::from_slice(&std::fs::read(self.state_file()).ok()?).ok()
    }

    /// Writes the state in one step, for nobody else to read: it holds the secret of the control API.
    pub fn write_state(&self, state: &State) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(state)
            .map_err(|error| Error::setup("cannot write the state", error))?;
        let (path, draft) = (self.state_file(), self.state.join("state.json.new"));
        // An older draft may have other permissions; where there is none, that is as well.
        let _ = std::fs::remove_file(&draft);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|source| Error::File { doing: "write", path, source })
    }
}

/// Waits until nobody else, in whichever process, holds this lock, and holds it until the file is dropped. For short
/// work: it waits without an end.
pub fn locked(path: &Path) -> Result<std::fs::File, Error> {
    let failed = |source| Error::File { doing: "lock", path: path.to_owned(), source };
    let file = std::fs::File::create(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Makes a folder that nobody else can look into, and its parents.
pub fn make_private_folder(path: &Path) -> Result<(), Error> {
    make_folder(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| Error::File { doing: "close the folder", path: path.to_owned(), source })
}

/// Makes a folder and its parents.
pub fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::File {
        doing: "make the folder",
        path: path.to_owned(),
        source,
    })
}
