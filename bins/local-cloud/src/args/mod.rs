//! The command line; the only place that reads the tool's environment variables.

mod fault;
pub(crate) mod help;
mod image;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use deploy_cli::CommonArgs;

pub use self::fault::{FaultAction, FaultAddArgs, FaultArgs, FaultRemoveArgs};
pub use self::image::{ImageAction, ImageAddArgs, ImageArgs, ImageBuildArgs, ImageRemoveArgs};
use crate::error::Error;
use crate::image::suites::{SUITES, Suite};
use crate::place::Place;
use crate::timing::Timing;

/// The rehearsal cloud: an AWS endpoint on this machine whose instances really boot.
#[derive(Debug, clap::Parser)]
#[command(name = "local-cloud", version, about, max_term_width = 100)]
#[command(mut_subcommands(help::explained))]
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
    Status(Shared),
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
    /// What every command has.
    fn shared(&self) -> &Shared {
        match self {
            Self::Up(args) => &args.shared,
            Self::Down(args) => &args.shared,
            Self::Status(args) => args,
            Self::Fault(args) => args.action.shared(),
            Self::Events(args) => &args.shared,
            Self::Logs(args) => &args.shared,
            Self::Exec(args) => &args.shared,
            Self::Image(args) => args.action.shared(),
            Self::Serve(args) => &args.shared,
        }
    }

    /// The flags that every command has.
    pub fn common(&self) -> &CommonArgs {
        &self.shared().common
    }

    /// The folders that every command needs.
    pub fn folders(&self) -> &Folders {
        &self.shared().folders
    }

    /// Its name, where it shows things as they come and writes no report.
    fn without_report(&self) -> Option<&'static str> {
        match self {
            Self::Events(_) => Some("events"),
            Self::Logs(_) => Some("logs"),
            Self::Exec(_) => Some("exec"),
            _ => None,
        }
    }

    /// Refuses flags that this command would do nothing with.
    ///
    /// # Errors
    /// The first of them, by its name.
    pub fn check(&self) -> Result<(), Error> {
        match self.without_report() {
            Some(name) if self.common().report.is_some() => {
                Err(Error::BadInput(format!("--report: `{name}` writes no report")))
            }
            _ => Ok(()),
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

    /// Build the image of this suite now; may be given more than once. Without it bookworm. Others are built when
    /// they are wanted. What a host boots is chosen by its AMI id (`local-cloud image list`), not here.
    #[arg(long = "suite", value_name = "SUITE", value_parser = a_suite())]
    pub suites: Vec<&'static Suite>,

    /// How long this machine's programs may take to answer while it looks around, and the endpoint once it was
    /// started; the time to install the emulator and to build images does not count.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = deploy_cli::parse_duration)]
    pub timeout: std::time::Duration,

    /// Start of the random numbers of faults that bring no seed of their own. Without it 0.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// How long things take.
    #[arg(long, value_name = "TIMING", value_parser = Timing::parse)]
    pub timing: Option<Timing>,

    /// How many vCPUs may run at once, as the account's quota on AWS; beyond it launches are refused
    /// (`VcpuLimitExceeded`). Without it two for each 256 MiB of this machine's memory, 16 to 512.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_vcpus: Option<u32>,

    /// The way to the network.
    #[command(flatten)]
    pub proxies: Proxies,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `down`.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// How long it may take; then it says what it could not remove.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = deploy_cli::parse_duration)]
    pub timeout: std::time::Duration,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Go on as things happen.
    #[arg(long, short)]
    pub follow: bool,

    /// Only what happened in the last DURATION, e.g. `10m`. Without it everything that is remembered.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration)]
    pub since: Option<std::time::Duration>,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Name or instance id of the host.
    pub host: String,

    /// Go on as the console goes on.
    #[arg(long, short)]
    pub follow: bool,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Name or instance id of the host.
    pub host: String,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub line: Vec<String>,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
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

    /// How long things take.
    #[arg(long, value_name = "TIMING", default_value = "short", value_parser = Timing::parse)]
    pub timing: Timing,

    /// How many vCPUs may run at once.
    #[arg(long, value_name = "NUMBER")]
    pub max_vcpus: u32,

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

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}

/// Reads the name of a suite, and lists all of them in the help.
fn a_suite() -> impl TypedValueParser<Value = &'static Suite> {
    PossibleValuesParser::new(SUITES.iter().map(|suite| suite.name))
        .try_map(|name| Suite::of(&name).ok_or_else(|| format!("there is no suite `{name}`")))
}

/// What every command has.
#[derive(Debug, Clone, clap::Args)]
pub struct Shared {
    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The base folders.
    #[command(flatten)]
    pub folders: Folders,
}

/// What the shell says about proxies: programs would ask them for the endpoint on loopback, too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Proxies {
    /// Proxy of plain HTTP.
    #[arg(long = "http-proxy", env = "http_proxy", hide = true)]
    pub used: Option<String>,

    /// The same, as some programs spell it.
    #[arg(long = "http-proxy-upper", env = "HTTP_PROXY", hide = true)]
    pub used_upper: Option<String>,

    /// Proxy of everything.
    #[arg(long = "all-proxy", env = "all_proxy", hide = true)]
    pub all: Option<String>,

    /// The same, as some programs spell it.
    #[arg(long = "all-proxy-upper", env = "ALL_PROXY", hide = true)]
    pub all_upper: Option<String>,

    /// What is asked without a proxy.
    #[arg(long = "no-proxy", env = "no_proxy", hide = true)]
    pub except: Option<String>,

    /// The same, as some programs spell it.
    #[arg(long = "no-proxy-upper", env = "NO_PROXY", hide = true)]
    pub except_upper: Option<String>,
}

impl Proxies {
    /// What `NO_PROXY` has to be for programs to find the endpoint; `None` where they find it already.
    pub fn exceptions(&self) -> Option<String> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let proxies = [&self.used, &self.used_upper, &self.all, &self.all_upper];
        proxies.into_iter().find_map(set)?;
        let reaches =
            |text: &String| text == "*" || text.split(',').any(|name| name.trim() == "127.0.0.1");
        let except = [set(&self.except), set(&self.except_upper)];
        if except.iter().all(|text| text.as_ref().is_none_or(reaches))
            && except.iter().any(Option::is_some)
        {
            return None;
        }
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        for text in except.iter().flatten() {
            // What would end the quotes of a shell is in no name of a host.
            let good = |name: &&str| !name.is_empty() && !name.contains('\'');
            for name in text.split(',').map(str::trim).filter(good) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        Some(names.join(","))
    }
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
    fn a_proxy_is_not_asked_for_the_endpoint() {
        let check =
            |used: &str, lower: Option<&str>, upper: Option<&str>, expected: Option<&str>| {
                let proxies = Proxies {
                    used_upper: Some(used.into()),
                    except: lower.map(str::to_owned),
                    except_upper: upper.map(str::to_owned),
                    ..Proxies::default()
                };
                assert_eq!(proxies.exceptions().as_deref(), expected, "{lower:?} {upper:?}");
            };
        check("", None, None, None);
        check("http://p", None, None, Some("127.0.0.1,localhost"));
        check("http://p", None, Some("a, .b"), Some("127.0.0.1,localhost,a,.b"));
        check("http://p", Some("127.0.0.1"), None, None);
        check("http://p", Some("x,127.0.0.1"), Some("127.0.0.1,x"), None);
        check("http://p", Some("127.0.0.1"), Some("x"), Some("127.0.0.1,localhost,x"));
        check("http://p", Some("*"), None, None);
        check("http://p", Some("a'b,c"), None, Some("127.0.0.1,localhost,c"));
    }

    #[test]
    fn help_is_of_this_tool_and_complete() {
        use clap::CommandFactory as _;
        let help = |path: &[&str]| {
            let mut command = Args::command();
            let mut command = path
                .iter()
                .fold(&mut command, |command, name| {
                    command.find_subcommand_mut(name).expect("a command")
                })
                .clone();
            command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let up = help(&["up"]);
        for part in
            ["Name of the rehearsal cloud", "trixie-sid", "agent-registration", "Region that"]
        {
            assert!(up.contains(part), "{part}: {up}");
        }
        assert!(!up.contains("--no-proxy") && !up.contains("inventory"), "{up}");
        let add = help(&["fault", "add"]);
        for part in
            ["latency (1s)", "packet-loss (30)", "server-error (500|503)", "not for network-lost"]
        {
            assert!(add.contains(part), "{part}: {add}");
        }
        let exec = help(&["exec"]);
        for part in ["--report", "--format", "--region"] {
            assert!(!exec.contains(part), "{part}: {exec}");
        }
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
