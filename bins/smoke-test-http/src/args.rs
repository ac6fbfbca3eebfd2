//! The command line, turned into what is to be asked. Everything that can be wrong with it is found here, before any
//! request is sent.

use crate::error::Error;
use crate::expect::Expectations;
use deploy_cli::{CommonArgs, parse_duration};
use deploy_inventory::{Host, Inventory};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Ask deployed HTTP services whether they answer as they should.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["urls", "inventory"])))]
pub struct Args {
    /// What to ask, e.g. `https://api.example.com/health`.
    #[arg(value_name = "URL", value_parser = parse_url)]
    pub urls: Vec<Url>,

    /// Inventory written by `tf-to-inventory`: each host is asked at its public address.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,

    /// Only these hosts of the inventory, e.g. `nginx`. An Ansible pattern.
    #[arg(long, value_name = "PATTERN", requires = "inventory", conflicts_with = "urls")]
    pub limit: Option<String>,

    /// The path to ask hosts of the inventory for.
    #[arg(long, value_name = "PATH", default_value = "/health", value_parser = parse_path)]
    pub path: String,

    /// How to talk to hosts of the inventory.
    #[arg(long, value_name = "NAME", value_parser = ["http", "https"], default_value = "http")]
    pub scheme: String,

    /// The port of hosts of the inventory; by default the scheme's own.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// The status code that a healthy service answers; several with commas.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', default_value = "200")]
    #[arg(value_parser = clap::value_parser!(u16).range(100..600))]
    pub expect: Vec<u16>,

    /// A value that the JSON answer must have, e.g. `status=ok` or `services.asterisk.up=true`. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub expect_json: Vec<(String, String)>,

    /// Text that the answer must contain. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub expect_text: Vec<String>,

    /// Follow redirects, at most ten.
    #[arg(long)]
    pub follow: bool,

    /// Try again until every service is healthy, for at most this long in all, e.g. `2m`.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,

    /// Give up on one request after this long.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Also write the result as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// One service to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The inventory's name of the host, when there is one.
    pub host: Option<String>,
    /// What to ask.
    pub url: Url,
}

impl Target {
    /// What people call it.
    pub fn name(&self) -> String {
        match &self.host {
            Some(host) => format!("{host} {}", self.url),
            None => self.url.to_string(),
        }
    }
}

/// What is to be asked, and what the inventory says about the deployment.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The services, at least one.
    pub targets: Vec<Target>,
    /// The project that the inventory names.
    pub project: Option<String>,
    /// The environment that the inventory names.
    pub environment: Option<String>,
}

impl Args {
    /// Reads the inventory, when one is given.
    ///
    /// # Errors
    /// [`Error`] for every input that cannot be used.
    pub fn plan(&self) -> Result<Plan, Error> {
        let Some(path) = &self.inventory else {
            let targets =
                self.urls.iter().map(|url| Target { host: None, url: url.clone() }).collect();
            return Ok(Plan { targets, project: None, environment: None });
        };
        let (inventory, _) = deploy_cli::load_inventory(path)?;
        Ok(Plan {
            targets: self.hosts(&inventory, path)?,
            project: inventory.project().map(str::to_owned),
            environment: inventory.environment().map(str::to_owned),
        })
    }

    /// What every answer is held against.
    pub fn expectations(&self) -> Expectations {
        Expectations {
            status: self.expect.clone(),
            json: self.expect_json.clone(),
            text: self.expect_text.clone(),
        }
    }

    fn hosts(&self, inventory: &Inventory, path: &Path) -> Result<Vec<Target>, Error> {
        let selected = deploy_cli::require_hosts(inventory, self.limit.as_deref(), path)?;
        selected.into_iter().map(|host| self.host(host)).collect()
    }

    fn host(&self, host: &Host) -> Result<Target, Error> {
        let name = host.name.clone();
        let address =
            host.public_ip.clone().ok_or_else(|| Error::NoPublicIp { host: name.clone() })?;
        let ip = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.to_string(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Err(_) => return Err(Error::Address { host: name, address }),
        };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("{}://{ip}{port}{}", self.scheme, self.path);
        let url = parse_url(&url).map_err(|reason| Error::Url { url, reason })?;
        Ok(Target { host: Some(name), url })
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("unknown scheme `{}`; supported are `http` and `https`", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials in a URL would show in logs and process lists".to_owned());
    }
    if url.port() == Some(0) {
        return Err("bad port `0`: expected 1 to 65535".to_owned());
    }
    Ok(url)
}

fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected a path that begins with `/`".to_owned())
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, e.g. `status=ok`".to_owned()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(100)..=Duration::from_secs(600);
    parse_duration(text).and_then(|duration| {
        limits.contains(&duration).then_some(duration).ok_or("expected 100ms to 10m".to_owned())
    })
}
