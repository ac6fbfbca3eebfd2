//! The command line; the only place that reads the tool's environment variables.

use std::path::PathBuf;

use deploy_cli::CommonArgs;

use crate::error::Error;
use crate::faults::{KINDS, Kind, Spec};
use crate::image::suites::{SUITES, Suite};
use crate::place::Place;
use crate::timing::Timing;

/// The rehearsal cloud: an AWS endpoint on this machine whose instances really boot.
#[derive(Debug, clap::Parser)]
#[command(name = "local-cloud", version, about, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start the rehearsal cloud and print the environment to reach it, for `eval`.
    Up(UpArgs),
    /// Remove it: hosts, networks, processes and state, also after a crash. Caches stay.
    Down(DownArgs),
    /// Show what runs.
    Status(StatusArgs),
    /// Make something go wrong: add, list or remove faults.
    Fault(FaultArgs),
    /// Show what happened, and with `--follow` what happens.
    Events(EventsArgs),
    /// Show a host's console.
    Logs(LogsArgs),
    /// Run a command on a host, as root, and end with its exit status.
    Exec(ExecArgs),
    /// List, build, add or remove what hosts boot from.
    Image(ImageArgs),
    /// The daemon itself; `up` starts it.
    #[command(hide = true)]
    Serve(ServeArgs),
}

impl Command {
    /// The flags that every command has.
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Up(args) => &args.common,
            Self::Down(args) => &args.common,
            Self::Status(args) => &args.common,
            Self::Fault(args) => args.action.common(),
            Self::Events(args) => &args.common,
            Self::Logs(args) => &args.common,
            Self::Exec(args) => &args.common,
            Self::Image(args) => args.action.common(),
            Self::Serve(args) => &args.common,
        }
    }

    /// The folders that every command needs.
    pub fn folders(&self) -> &Folders {
        match self {
            Self::Up(args) => &args.folders,
            Self::Down(args) => &args.folders,
            Self::Status(args) => &args.folders,
            Self::Fault(args) => args.action.folders(),
            Self::Events(args) => &args.folders,
            Self::Logs(args) => &args.folders,
            Self::Exec(args) => &args.folders,
            Self::Image(args) => args.action.folders(),
            Self::Serve(args) => &args.folders,
        }
    }

    /// `--project`: the name of everything that is made.
    pub fn project(&self) -> Result<&str, Error> {
        let name = self.common().project.as_deref().unwrap_or("calldata");
        if is_project(name) {
            return Ok(name);
        }
        Err(Error::BadInput(format!(
            "`{name}` cannot name a project: at most 30 lower-case letters, digits and `-`, a letter first"
        )))
    }
}

fn is_project(name: &str) -> bool {
    name.len() <= 30
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Loopback port of the endpoint. Without it 4570, or the next one that is free.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Put the rehearsal cloud before this emulator instead of a moto of its own.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,

    /// Build the image of this suite first; may be given more than once. Others are built when they are wanted.
    #[arg(long = "suite", value_name = "SUITE", value_parser = parse_suite, default_value = "bookworm")]
    pub suites: Vec<&'static Suite>,

    /// How long everything may take to answer once it was started.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = deploy_cli::parse_duration)]
    pub timeout: std::time::Duration,

    /// Start of the random numbers of faults that bring no seed of their own.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,

    /// How long things take: `short`, or `aws` for as long as there. Single times can follow, e.g. `short,listed=10s`.
    #[arg(long, value_name = "TIMING", default_value = "short", value_parser = Timing::parse)]
    pub timing: Timing,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `down`.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `fault`.
#[derive(Debug, clap::Args)]
pub struct FaultArgs {
    /// What to do with faults.
    #[command(subcommand)]
    pub action: FaultAction,
}

/// What to do with faults.
#[derive(Debug, clap::Subcommand)]
pub enum FaultAction {
    /// Add a fault; `fault kinds` says which there are.
    Add(Box<FaultAddArgs>),
    /// List all faults, and how often they struck.
    List(StatusArgs),
    /// Remove a fault, or all.
    Remove(FaultRemoveArgs),
    /// Say which kinds of faults there are.
    Kinds(StatusArgs),
}

impl FaultAction {
    fn common(&self) -> &CommonArgs {
        match self {
            Self::Add(args) => &args.common,
            Self::List(args) | Self::Kinds(args) => &args.common,
            Self::Remove(args) => &args.common,
        }
    }

    fn folders(&self) -> &Folders {
        match self {
            Self::Add(args) => &args.folders,
            Self::List(args) | Self::Kinds(args) => &args.folders,
            Self::Remove(args) => &args.folders,
        }
    }
}

/// `fault add`.
#[derive(Debug, clap::Args)]
pub struct FaultAddArgs {
    /// What goes wrong.
    #[arg(value_name = "KIND", hide_possible_values = true)]
    pub kind: Kind,

    /// Only requests to this service: its signing name, e.g. `ec2`.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Only these operations, e.g. `SendCommand`, `Describe*`, `ssm:SendCommand`.
    #[arg(long, value_name = "PATTERN")]
    pub operation: Option<String>,

    /// Only this host: its Name, its instance id, or all with a tag.
    #[arg(long, value_name = "NAME|ID|tag:K=V")]
    pub host: Option<String>,

    /// Of `packet-loss`: only what is sent to this host, named as in `--host`.
    #[arg(long, value_name = "NAME|ID|tag:K=V")]
    pub to: Option<String>,

    /// How likely each match is struck, above 0 up to 1.
    #[arg(long, value_name = "0..1", default_value_t = 1.0)]
    pub probability: f64,

    /// Over after this many strikes.
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,

    /// Leave out the first matches.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,

    /// Over after this time.
    #[arg(long = "for", value_name = "DURATION", value_parser = deploy_cli::parse_duration)]
    pub lasting: Option<std::time::Duration>,

    /// Parameter of some kinds: how long.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration)]
    pub delay: Option<std::time::Duration>,

    /// Parameter of some kinds: how much of a hundred.
    #[arg(long, value_name = "1..100")]
    pub percent: Option<u8>,

    /// Parameter of some kinds: how many seconds, negative allowed.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub seconds: Option<i64>,

    /// Parameter of some kinds: which error.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,

    /// Start of its random numbers; by default from the cloud's own.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

impl FaultAddArgs {
    /// The fault that is asked for, not yet checked.
    pub fn spec(&self) -> Spec {
        Spec {
            kind: self.kind,
            service: self.service.clone(),
            operation: self.operation.clone(),
            host: self.host.clone(),
            to: self.to.clone(),
            probability: self.probability,
            count: self.count,
            after: self.after,
            lasting: self.lasting,
            delay: self.delay,
            percent: self.percent,
            seconds: self.seconds,
            code: self.code.clone(),
            seed: self.seed,
        }
    }
}

impl clap::ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &KINDS
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(self.about()))
    }
}

/// `fault remove`.
#[derive(Debug, clap::Args)]
pub struct FaultRemoveArgs {
    /// Its number.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<u64>,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Go on as things happen.
    #[arg(long, short)]
    pub follow: bool,

    /// Only what happened in this time until now.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration)]
    pub since: Option<std::time::Duration>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Name or instance id of the host.
    pub host: String,

    /// Go on as the console goes on.
    #[arg(long, short)]
    pub follow: bool,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Name or instance id of the host.
    pub host: String,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub line: Vec<String>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `image`.
#[derive(Debug, clap::Args)]
pub struct ImageArgs {
    /// What to do with images.
    #[command(subcommand)]
    pub action: ImageAction,
}

/// What to do with images.
#[derive(Debug, clap::Subcommand)]
pub enum ImageAction {
    /// List the machine images: id, name, cloud-init, and whether it is built here.
    List(StatusArgs),
    /// Build images of suites, where they are missing or damaged.
    Build(ImageBuildArgs),
    /// Make an image of your own a machine image, and print its id.
    Add(ImageAddArgs),
    /// Forget an image of your own. Hosts that run from it go on.
    Remove(ImageRemoveArgs),
}

impl ImageAction {
    fn common(&self) -> &CommonArgs {
        match self {
            Self::List(args) => &args.common,
            Self::Build(args) => &args.common,
            Self::Add(args) => &args.common,
            Self::Remove(args) => &args.common,
        }
    }

    fn folders(&self) -> &Folders {
        match self {
            Self::List(args) => &args.folders,
            Self::Build(args) => &args.folders,
            Self::Add(args) => &args.folders,
            Self::Remove(args) => &args.folders,
        }
    }
}

/// `image build`.
#[derive(Debug, clap::Args)]
pub struct ImageBuildArgs {
    /// The suites.
    #[arg(value_name = "SUITE", value_parser = parse_suite, required_unless_present = "all")]
    pub suites: Vec<&'static Suite>,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `image add`.
#[derive(Debug, clap::Args)]
pub struct ImageAddArgs {
    /// Its name, for `describe-images`.
    pub name: String,

    /// An image that Docker has, or a tarball: of a root file system or from `docker save`.
    #[arg(long, value_name = "IMAGE|TARBALL")]
    pub from: String,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `image remove`.
#[derive(Debug, clap::Args)]
pub struct ImageRemoveArgs {
    /// Its name or id.
    pub name: String,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Loopback port of the endpoint.
    #[arg(long)]
    pub port: u16,

    /// Start of the random numbers of faults that bring no seed of their own.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,

    /// How long things take: `short`, or `aws` for as long as there. Single times can follow, e.g. `short,listed=10s`.
    #[arg(long, value_name = "TIMING", default_value = "short", value_parser = Timing::parse)]
    pub timing: Timing,

    /// Where the Docker engine listens, `unix:///path`.
    #[arg(long, env = "DOCKER_HOST", hide = true)]
    pub docker_host: Option<String>,

    /// The engine uses cgroup v2.
    #[arg(long)]
    pub unified_cgroup: bool,

    /// Interpreter that has moto.
    #[arg(long, required_unless_present = "upstream")]
    pub python: Option<PathBuf>,

    /// Emulator to put it before.
    #[arg(long)]
    pub upstream: Option<String>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

fn parse_suite(text: &str) -> Result<&'static Suite, String> {
    Suite::of(text).ok_or_else(|| {
        let known: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        format!("no such suite; there is {}", known.join(", "))
    })
}

/// The XDG base folders.
#[derive(Debug, Clone, clap::Args)]
pub struct Folders {
    /// Base folder of state.
    #[arg(long, env = "XDG_STATE_HOME", hide = true)]
    pub state_home: Option<PathBuf>,

    /// Base folder of caches.
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    pub cache_home: Option<PathBuf>,

    /// Home folder.
    #[arg(long, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,
}

impl Folders {
    /// The folders of a project. A relative XDG folder counts as unset, as its specification says.
    pub fn place(&self, project: &str) -> Result<Place, Error> {
        let base = |xdg: &Option<PathBuf>, below_home: &str| {
            let set = xdg.clone().filter(|path| path.is_absolute());
            set.or_else(|| Some(self.home.as_ref()?.join(below_home))).ok_or_else(|| {
                Error::BadInput("neither HOME nor the XDG base folders are set".into())
            })
        };
        Ok(Place {
            state: base(&self.state_home, ".local/state")?
                .join("calldata-foundation/local-cloud")
                .join(project),
            cache: base(&self.cache_home, ".cache")?.join("calldata-foundation"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn a_project_name_fits_everything_it_names() {
        for good in ["calldata", "a", "a-1"] {
            assert!(is_project(good), "{good}");
        }
        for bad in ["", "A", "1a", "a_b", "a/b", "-a", &"a".repeat(31)] {
            assert!(!is_project(bad), "{bad}");
        }
    }

    #[test]
    fn folders_follow_the_base_directory_specification() {
        let folders = Folders {
            state_home: Some("/s".into()),
            cache_home: Some("relative".into()),
            home: Some("/h".into()),
        };
        let place = folders.place("p").expect("folders");
        assert_eq!(place.state, Path::new("/s/calldata-foundation/local-cloud/p"));
        assert_eq!(place.cache, Path::new("/h/.cache/calldata-foundation"));
        let nothing = Folders { state_home: None, cache_home: None, home: None };
        assert!(nothing.place("p").is_err());
    }
}
