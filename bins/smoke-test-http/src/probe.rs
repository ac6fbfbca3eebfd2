//! Asks one service over HTTP, and says why it could not be asked.

use crate::args::Target;
use crate::expect::{Expectations, Mismatch, Response};
use deploy_cli::{Exit, human};
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// More of a body than this is not read: health documents are small.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How many redirects are followed when they are.
const MAX_REDIRECTS: usize = 10;

/// Why a service is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The host's name has no address.
    #[error("cannot resolve `{host}`: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The host says that nobody listens on the port.
    #[error("{authority} refused the connection: nothing listens there")]
    Refused {
        /// Host and port.
        authority: String,
    },
    /// There is no way to the host.
    #[error("cannot reach {authority}: {reason}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What the operating system said.
        reason: String,
    },
    /// The certificate is not good, or no TLS is spoken.
    #[error("no TLS with {authority}: {reason}")]
    Tls {
        /// Host and port.
        authority: String,
        /// What is wrong.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("no {} (timeout) within {}", if *connected { "whole answer" } else { "connection" }, human(*after))]
    Timeout {
        /// Whether the connection was up.
        connected: bool,
        /// How long was waited.
        after: Duration,
    },
    /// What came was no HTTP, or it broke off.
    #[error("{authority} does not answer in HTTP: {reason}")]
    Broken {
        /// Host and port.
        authority: String,
        /// What is wrong.
        reason: String,
    },
    /// It answered, but not as it should.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// This run is being stopped.
    #[error("stopped")]
    Stopped,
}

impl Trouble {
    /// The exit status: 1 when the service itself said no, 4 when it was silent, 6 when it could not be asked.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } | Self::Tls { .. } | Self::Broken { .. } | Self::Mismatch(_) => {
                Exit::Verdict
            }
            Self::Timeout { .. } => Exit::Timeout,
            Self::Resolve { .. } | Self::Unreachable { .. } => Exit::Unavailable,
            Self::Stopped => Exit::Interrupted,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Resolve { .. } => Some("is the name right, and is its record public?"),
            Self::Refused { .. } => Some("does the service run, and does it listen on this port?"),
            Self::Timeout { connected: false, .. } => {
                Some("does the security group let tcp in on this port?")
            }
            Self::Tls { .. } => Some("do name, issuer and dates of the certificate fit?"),
            _ => None,
        }
    }
}

/// A healthy answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthy {
    /// The status code.
    pub status: u16,
    /// The protocol's version, e.g. `HTTP/1.1`.
    pub version: String,
    /// The `Server` header.
    pub server: Option<String>,
    /// How long request and answer took.
    pub took: Duration,
}

/// A client that asks the service itself: no proxy, no connection kept from the try before.
///
/// # Errors
/// What the HTTP library said.
pub fn client(follow: bool) -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(if follow { Policy::limited(MAX_REDIRECTS) } else { Policy::none() })
        .dns_resolver(Arc::new(SystemResolver))
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
}

/// Asks once.
///
/// # Errors
/// [`Trouble`] when the answer is not as expected, or there is none.
pub async fn ask(
    client: &Client,
    target: &Target,
    expected: &Expectations,
    timeout: Duration,
) -> Result<Healthy, Trouble> {
    let started = tokio::time::Instant::now();
    let explain = |error: reqwest::Error| explain(&error, target, timeout);
    let mut answer =
        client.get(target.url.clone()).timeout(timeout).send().await.map_err(explain)?;
    let text = |name| {
        answer.headers().get(name).map(|value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        })
    };
    let (location, server) =
        (text("location").filter(|_| answer.status().is_redirection()), text("server"));
    let (status, version) = (answer.status().as_u16(), format!("{:?}", answer.version()));
    let (mut body, mut cut) = (Vec::new(), false);
    while let Some(chunk) = answer.chunk().await.map_err(explain)? {
        let room = MAX_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            cut = true;
            break;
        }
    }
    expected.hold(&Response { status, location, body, cut })?;
    Ok(Healthy { status, version, server, took: started.elapsed() })
}

fn explain(error: &reqwest::Error, target: &Target, timeout: Duration) -> Trouble {
    let url = error.url().unwrap_or(&target.url);
    let host = url.host_str().unwrap_or_default().to_owned();
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
    let mut deepest = error.to_string();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        deepest = error.to_string();
        if let Some(error) = error.downcast_ref::<NoAddress>() {
            return Trouble::Resolve { host, reason: error.0.to_string() };
        }
        if let Some(error) = tls(error) {
            return Trouble::Tls { authority, reason: error.to_string() };
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return Trouble::Refused { authority },
                io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown => {
                    return Trouble::Unreachable { authority, reason: error.to_string() };
                }
                io::ErrorKind::TimedOut => {
                    return Trouble::Timeout { connected: false, after: timeout };
                }
                _ => {}
            }
        }
        cause = error.source();
    }
    if error.is_timeout() {
        return Trouble::Timeout { connected: !error.is_connect(), after: timeout };
    }
    Trouble::Broken { authority, reason: deepest }
}

/// The TLS error in an error. What is inside of an I/O error is not in its chain of sources, so it is looked for there.
fn tls<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => tls(error.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// The system's resolver, with an error that can be told from others.
struct SystemResolver;

/// The resolver's answer when it has none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAddress(io::Error);

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(NoAddress)?;
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                return Err(NoAddress(io::Error::other("it has no address")).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
