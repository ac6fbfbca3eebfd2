//! Why a command of `local-cloud` failed, how the process ends because of it, and what to do next.

use std::io::ErrorKind;
use std::path::PathBuf;

use deploy_cli::{Exit, Failure};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something this machine must have is missing; found before anything was made.
    #[error("cannot start the rehearsal cloud, missing: {}", .0.join("; "))]
    Missing(Vec<String>),
    /// Only root may make networks and hosts.
    #[error("cannot start the rehearsal cloud: root is needed for networks and hosts")]
    NotRoot,
    /// The daemon is not running.
    #[error("the rehearsal cloud `{project}` is not running")]
    NotRunning {
        /// The project asked for.
        project: String,
    },
    /// No host answers to this name or id.
    #[error("no host `{wanted}` in the rehearsal cloud{}", known_hosts(.known))]
    NoSuchHost {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A host exists but does not run.
    #[error("host `{host}` is {state}")]
    HostDown {
        /// The host.
        host: String,
        /// Its state.
        state: String,
    },
    /// No image has this name.
    #[error("no image `{wanted}`{}", known_images(.known))]
    NoSuchImage {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Hosts cannot boot this image.
    #[error("the image `{name}` cannot be used: {why}")]
    BadImage {
        /// The image.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The list of a person's own images cannot be read.
    #[error("cannot read the list of images `{}`: {why}", path.display())]
    BadRegistry {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A flag's value cannot be used.
    #[error("{0}")]
    BadInput(String),
    /// The Docker engine does not answer.
    #[error("the Docker engine does not answer: {why}")]
    DockerGone {
        /// What was seen.
        why: String,
    },
    /// A program that is needed failed.
    #[error("`{program}` failed{}", said(.output))]
    Program {
        /// Program and first arguments.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A program that is needed did not end.
    #[error("`{program}` did not end within {}", deploy_cli::human(*.after))]
    TooLate {
        /// Program and first argument.
        program: String,
        /// How long it had.
        after: std::time::Duration,
    },
    /// Something of a cloud could not be removed.
    #[error("not removed: {}", .left.join("; "))]
    Left {
        /// What, and why not.
        left: Vec<String>,
        /// Whether a deadline is the reason.
        late: bool,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something failed while the cloud was set up or asked.
    #[error("{what}: {why}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A signal ended the command; what it had started is gone again.
    #[error("stopped by a signal")]
    Stopped(Exit),
}

/// What to do when Docker is gone.
const START_DOCKER: &str = "start the Docker engine (`systemctl start docker`, or `dockerd`), then `local-cloud down` and `up`: \
     the hosts ended with it";

impl Error {
    /// A failed set-up step.
    pub(crate) fn setup(what: &'static str, why: impl ToString) -> Self {
        Self::Setup { what, why: why.to_string() }
    }
}

fn known_hosts(names: &[String]) -> String {
    if names.is_empty() {
        "; it has none".to_owned()
    } else {
        format!("; it has {}", names.join(", "))
    }
}

fn known_images(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; there is {}", names.join(", ")) }
}

fn said(output: &str) -> String {
    if output.trim().is_empty() { String::new() } else { format!(": {}", output.trim()) }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NotRoot => Exit::Denied,
            Self::Missing(_) | Self::NotRunning { .. } | Self::HostDown { .. } => Exit::Unavailable,
            Self::DockerGone { .. } => Exit::Unavailable,
            Self::Program { .. } | Self::File { .. } | Self::Setup { .. } => Exit::Unavailable,
            Self::BadInput(_) | Self::NoSuchHost { .. } => Exit::Usage,
            Self::NoSuchImage { .. } | Self::BadImage { .. } => Exit::Usage,
            Self::BadRegistry { .. } => Exit::Unavailable,
            Self::TooLate { .. } | Self::Left { late: true, .. } => Exit::Timeout,
            Self::Left { late: false, .. } => Exit::Unavailable,
            Self::Stopped(exit) => *exit,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotRoot => Some("run it as root, e.g. with `sudo --preserve-env`".into()),
            Self::NotRunning { project } => {
                Some(format!("start it: `eval \"$(local-cloud up --project {project})\"`"))
            }
            Self::NoSuchHost { .. } => Some("list them: `local-cloud status`".into()),
            Self::NoSuchImage { .. } => Some("list them: `local-cloud image list`".into()),
            Self::BadImage { .. } => Some(
                "mend it and add it again: `local-cloud image add NAME --from IMAGE|TARBALL`"
                    .into(),
            ),
            Self::BadRegistry { path, .. } => Some(format!(
                "remove `{}` and add your images again: `local-cloud image add NAME --from IMAGE`",
                path.display()
            )),
            Self::DockerGone { .. } => Some(START_DOCKER.into()),
            Self::TooLate { program, .. } if program.starts_with("docker") => Some(
                "the Docker engine hangs, or is very busy: look at it with `docker info`, then try again".into(),
            ),
            Self::TooLate { program, .. } => {
                Some(format!("see why it hangs by running it by hand: `{program} …`"))
            }
            Self::Left { .. } => {
                Some("mend that and run `local-cloud down` again: it removes what is left".into())
            }
            Self::Program { output, .. }
                if output.contains("Cannot connect to the Docker daemon") =>
            {
                Some(START_DOCKER.into())
            }
            Self::Program { output, .. } if output.contains("no space left on device") => Some(
                "free some disk space: images and hosts lie where Docker keeps its data".into(),
            ),
            Self::File { path, source, .. } if source.kind() == ErrorKind::StorageFull => {
                Some(format!("free some disk space where `{}` is", path.display()))
            }
            Self::HostDown { host, .. } => {
                Some(format!("start it: `aws ec2 start-instances --instance-ids {host}`"))
            }
            _ => None,
        }
    }
}
