//! The command line, turned into what is to be tested. Everything that can be wrong with it is found here, before any
//! packet is sent. The password comes from a variable or a file, never from a flag.

use crate::error::Error;
use crate::transport::Transport;
use crate::uri::{SipUri, UriError, is_host, parse_port};
use deploy_cli::{CommonArgs, Context, parse_duration};
use deploy_inventory::{Host, Inventory};
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a person is told who asks for another transport.
const SUPPORTED: &str = "supported are `udp` and `tcp`";

/// Ask a deployed SIP service whether it answers, registers a phone and carries a call with audio.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["target", "inventory"])))]
pub struct Args {
    /// The service, e.g. `sip:203.0.113.7:5060;transport=udp`. May be given several times.
    #[arg(long, value_name = "URI", value_parser = parse_target)]
    pub target: Vec<TargetUri>,

    /// Inventory written by `tf-to-inventory`: each host's public address, at the port of its variable `sip_port`.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,

    /// Only these hosts of the inventory, e.g. `sip`. An Ansible pattern.
    #[arg(long, value_name = "PATTERN", requires = "inventory", conflicts_with = "target")]
    pub limit: Option<String>,

    /// Transport where the target does not name one: `udp` or `tcp`.
    #[arg(long, value_name = "NAME", value_parser = parse_transport, default_value = "udp")]
    pub transport: Transport,

    /// SIP domain of the account; by default the inventory's variable `sip_domain`, else the target's host.
    #[arg(long, value_name = "NAME", value_parser = parse_domain)]
    pub domain: Option<String>,

    /// Register as this user, and call as it.
    #[arg(long, value_name = "NAME", value_parser = parse_user)]
    pub user: Option<String>,

    /// The environment variable that holds the user's password.
    #[arg(long, value_name = "VARIABLE", requires = "user", conflicts_with = "password_file")]
    pub password_env: Option<String>,

    /// The file that holds the user's password (a line break at its end is left out); `/dev/stdin` reads stdin.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,

    /// Call this extension or URI, e.g. `600` or `sip:600@example.com`. Without it no call is made.
    #[arg(long, value_name = "EXTENSION", value_parser = parse_callee)]
    pub call: Option<Callee>,

    /// Send a tone for this long and expect it back, so the called extension must be an echo. Without a value: 3s.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "3s", requires = "call")]
    #[arg(value_parser = parse_media)]
    pub media: Option<Duration>,

    /// The share of audio packets that may fail to come back, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = parse_percent)]
    pub max_loss: f64,

    /// Try again until the service is healthy, for at most this long in all, e.g. `2m`.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,

    /// Give up on one request that gets no final answer for this long (RFC 3261 has 32 s).
    #[arg(long, value_name = "DURATION", default_value = "32s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Also write the result as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A `--target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUri {
    uri: SipUri,
    transport: Option<Transport>,
}

/// A `--call`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// An extension of the target's domain.
    Extension(String),
    /// A whole URI.
    Uri(SipUri),
}

/// A password. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An account on the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its user name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// One service to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What people call it: the inventory's host name, or host and port.
    pub name: String,
    /// Where it is.
    pub uri: SipUri,
    /// How to talk to it.
    pub transport: Transport,
    /// The SIP domain that it serves.
    pub domain: String,
}

impl Target {
    /// The URI to call.
    pub fn callee(&self, callee: &Callee) -> SipUri {
        match callee {
            Callee::Uri(uri) => uri.clone(),
            Callee::Extension(extension) => {
                let (user, host) = (Some(extension.clone()), self.domain.clone());
                SipUri { user, host, port: None, params: Vec::new() }
            }
        }
    }
}

/// Everything that is to be tested.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The services, at least one.
    pub targets: Vec<Target>,
    /// The account, when one was given.
    pub credentials: Option<Credentials>,
    /// Whom to call.
    pub call: Option<Callee>,
    /// For how long to send audio.
    pub media: Option<Duration>,
    /// The loss that still passes, in percent.
    pub max_loss: f64,
    /// For how long to try again.
    pub wait: Option<Duration>,
    /// How long one request may stay unanswered.
    pub timeout: Duration,
    /// The project that the inventory names.
    pub project: Option<String>,
    /// The environment that the inventory names.
    pub environment: Option<String>,
}

impl Args {
    /// Reads the inventory and the password.
    ///
    /// # Errors
    /// [`Error`] for every input that cannot be used.
    pub fn plan(&self) -> Result<Plan, Error> {
        let credentials = self.credentials()?;
        let (targets, inventory) = match &self.inventory {
            Some(path) => {
                let (inventory, _) = deploy_cli::load_inventory(path)?;
                (self.hosts(&inventory, path)?, Some(inventory))
            }
            None => (self.target.iter().map(|target| self.target_from_uri(target)).collect(), None),
        };
        let named = |name: fn(&Inventory) -> Option<&str>| {
            inventory.as_ref().and_then(name).map(str::to_owned)
        };
        Ok(Plan {
            targets,
            credentials,
            call: self.call.clone(),
            media: self.media,
            max_loss: self.max_loss,
            wait: self.wait,
            timeout: self.timeout,
            project: named(Inventory::project),
            environment: named(Inventory::environment),
        })
    }

    fn target_from_uri(&self, target: &TargetUri) -> Target {
        let uri = SipUri { params: Vec::new(), ..target.uri.clone() };
        let domain = self.domain.clone().unwrap_or_else(|| uri.host.clone());
        let transport = target.transport.unwrap_or(self.transport);
        Target { name: uri.authority(), uri, transport, domain }
    }

    fn hosts(&self, inventory: &Inventory, path: &Path) -> Result<Vec<Target>, Error> {
        let selected = deploy_cli::require_hosts(inventory, self.limit.as_deref(), path)?;
        selected.into_iter().map(|host| self.target_from_host(inventory, host)).collect()
    }

    fn target_from_host(&self, inventory: &Inventory, host: &Host) -> Result<Target, Error> {
        let name = host.name.clone();
        let public =
            host.public_ip.as_deref().ok_or_else(|| Error::NoPublicIp { host: name.clone() })?;
        let host_part = match public.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.to_string(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Err(_) => return Err(variable("public_ip", public, &name, "an IP address")),
        };
        let port =
            match inventory.variable(host, "sip_port") {
                None => None,
                Some(value) => {
                    let text = plain(value);
                    Some(parse_port(&text).ok_or_else(|| {
                        variable("sip_port", &text, &name, "a port from 1 to 65535")
                    })?)
                }
            };
        let domain = match (&self.domain, inventory.variable(host, "sip_domain")) {
            (Some(domain), _) => domain.clone(),
            (None, Some(value)) => {
                let text = plain(value);
                parse_domain(&text)
                    .map_err(|_| variable("sip_domain", &text, &name, "a host name or address"))?
            }
            (None, None) => host_part.clone(),
        };
        let uri = SipUri { user: None, host: host_part, port, params: Vec::new() };
        Ok(Target { name, uri, transport: self.transport, domain })
    }

    fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let Some(user) = self.user.clone() else { return Ok(None) };
        let password = match (&self.password_env, &self.password_file) {
            (Some(variable), _) => deploy_cli::actions::named_variable(variable)
                .ok_or_else(|| Error::NoPassword { variable: variable.clone() })?,
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| Error::Read { path: path.clone(), source })?;
                let password = text.strip_suffix('\n').unwrap_or(&text);
                let password = password.strip_suffix('\r').unwrap_or(password);
                if password.is_empty() {
                    return Err(Error::EmptyPassword { path: path.clone() });
                }
                password.to_owned()
            }
            (None, None) => return Err(Error::NoPasswordSource { user }),
        };
        Ok(Some(Credentials { user, password: Secret(password) }))
    }
}

impl Plan {
    /// Masks the password in the log of a GitHub job.
    ///
    /// # Errors
    /// [`Error::Mask`] when stderr cannot be written: then nothing may be printed at all.
    pub fn mask(&self, ctx: &Context) -> Result<(), Error> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        ctx.actions().mask(credentials.password.expose()).map_err(|source| Error::Mask { source })
    }
}

fn variable(name: &'static str, value: &str, host: &str, expected: &'static str) -> Error {
    Error::Variable { name, value: value.to_owned(), host: host.to_owned(), expected }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse_target(text: &str) -> Result<TargetUri, String> {
    let uri: SipUri = text.parse().map_err(|error| match error {
        UriError::Scheme(scheme) if scheme.eq_ignore_ascii_case("sips") => {
            format!("TLS (`sips:`) is not supported; {SUPPORTED}")
        }
        error => error.to_string(),
    })?;
    if uri.user.is_some() {
        return Err("a target names no user; that is what `--user` and `--call` are for".to_owned());
    }
    let mut transport = None;
    for (name, value) in &uri.params {
        match value {
            Some(value) if name.eq_ignore_ascii_case("transport") => {
                transport = Some(parse_transport(value)?)
            }
            _ => return Err(format!("unknown parameter `{name}`: a target has only `transport`")),
        }
    }
    Ok(TargetUri { uri, transport })
}

fn parse_transport(text: &str) -> Result<Transport, String> {
    match text.to_ascii_lowercase().as_str() {
        "udp" => Ok(Transport::Udp),
        "tcp" => Ok(Transport::Tcp),
        "tls" | "ws" | "wss" | "sctp" => {
            Err(format!("transport `{text}` is not supported; {SUPPORTED}"))
        }
        _ => Err(format!("unknown transport `{text}`; {SUPPORTED}")),
    }
}

fn parse_domain(text: &str) -> Result<String, String> {
    let bracketed = text.starts_with('[')
        && format!("sip:{text}").parse::<SipUri>().is_ok_and(|uri| uri.port.is_none());
    if bracketed || is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a host name or an address".to_owned())
    }
}

fn parse_user(text: &str) -> Result<String, String> {
    match format!("sip:{text}@host").parse::<SipUri>() {
        Ok(uri) if uri.user.as_deref() == Some(text) => Ok(text.to_owned()),
        _ => Err("expected a user name as in a SIP URI: letters, digits and -_.!~*'()&=+$,;/#"
            .to_owned()),
    }
}

fn parse_callee(text: &str) -> Result<Callee, String> {
    if !text.contains([':', '@']) {
        return parse_user(text)
            .map(Callee::Extension)
            .map_err(|_| "expected an extension such as `600`".to_owned());
    }
    let uri: SipUri = text.parse().map_err(|error: UriError| error.to_string())?;
    if uri.user.is_none() {
        return Err("it names nobody to call: expected `sip:USER@HOST`".to_owned());
    }
    Ok(Callee::Uri(uri))
}

fn parse_media(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(200)..=Duration::from_secs(3600);
    parse_duration(text).and_then(|duration| {
        limits.contains(&duration).then_some(duration).ok_or("expected 200ms to 1h".to_owned())
    })
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(100)..=Duration::from_secs(600);
    parse_duration(text).and_then(|duration| {
        limits.contains(&duration).then_some(duration).ok_or("expected 100ms to 10m".to_owned())
    })
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent: &f64| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "expected 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_cannot_be_tested_are_refused_with_the_reason() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_target(text).unwrap_err(), expected, "{text}")
        };
        check("10.0.0.1", "expected `sip:`, found `10.0.0.1`");
        check("sips:host", "TLS (`sips:`) is not supported; supported are `udp` and `tcp`");
        check(
            "sip:host;transport=tls",
            "transport `tls` is not supported; supported are `udp` and `tcp`",
        );
        check(
            "sip:host;transport=pigeon",
            "unknown transport `pigeon`; supported are `udp` and `tcp`",
        );
        check("sip:host;lr", "unknown parameter `lr`: a target has only `transport`");
        check("sip:600@host", "a target names no user; that is what `--user` and `--call` are for");
        check("sip:host:0", "bad port `0`: expected 1 to 65535");
        assert_eq!(parse_target("sip:h;transport=TCP").unwrap().transport, Some(Transport::Tcp));
    }

    #[test]
    fn users_callees_and_durations_are_checked() {
        assert!(
            parse_user("1001").is_ok() && parse_user("").is_err() && parse_user("a\"b").is_err()
        );
        assert!(
            parse_user("a@b").is_err() && parse_user("a b").is_err() && parse_user("a:b").is_err()
        );
        assert_eq!(parse_callee("*43"), Ok(Callee::Extension("*43".into())));
        assert!(matches!(parse_callee("sip:600@h"), Ok(Callee::Uri(_))));
        assert!(
            parse_callee("sip:h").is_err()
                && parse_callee("").is_err()
                && parse_callee("600@h").is_err()
        );
        assert!(
            parse_media("0s").is_err() && parse_media("3s").is_ok() && parse_timeout("0s").is_err()
        );
        assert!(
            parse_percent("101").is_err()
                && parse_percent("NaN").is_err()
                && parse_percent("2.5").is_ok()
        );
    }

    #[test]
    fn a_password_does_not_show() {
        let credentials = Credentials { user: "1001".into(), password: Secret("hunter2".into()) };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
