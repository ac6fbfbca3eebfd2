//! Why a step did not succeed: what a person reads, which exit status it means, what to try. Pure.

use crate::digest::Unusable;
use crate::sdp::SdpError;
use crate::transport::Transport;
use deploy_cli::{Exit, human};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nothing came back.
    #[error("no answer (timeout) to {method} from {peer} over {} within {}, sent {sent} times", transport.name(), human(*after))]
    Silence {
        /// The request's method.
        method: String,
        /// Whom it was sent to.
        peer: SocketAddr,
        /// How.
        transport: Transport,
        /// How long was waited.
        after: Duration,
        /// How often it was sent.
        sent: u32,
    },
    /// It rang, and nobody answered.
    #[error("{peer} answered INVITE with {code} only, no final answer within {}; cancelled", human(*after))]
    Ringing {
        /// Whom it was sent to.
        peer: SocketAddr,
        /// The last provisional status code.
        code: u16,
        /// How long was waited.
        after: Duration,
    },
    /// The host says that nobody listens on the port.
    #[error("{peer} refused {}: nothing listens there", transport.name())]
    Refused {
        /// Host and port.
        peer: SocketAddr,
        /// How.
        transport: Transport,
    },
    /// The TCP connection was not accepted in time.
    #[error("no TCP connection (timeout) to {peer} within {}", human(*after))]
    Connect {
        /// Host and port.
        peer: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke or was closed while an answer was due.
    #[error("{peer} closed the connection before it answered {method}")]
    Closed {
        /// Host and port.
        peer: SocketAddr,
        /// What was waiting for an answer.
        method: String,
    },
    /// This machine has no way to the host.
    #[error("cannot reach {peer}: {error}")]
    Unreachable {
        /// Host and port.
        peer: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The host's name has no address.
    #[error("cannot resolve `{host}`: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// A final answer other than the one that was hoped for.
    #[error("{method} was answered {code} {reason}{}", more.as_ref().map(|more| format!(" ({more})")).unwrap_or_default())]
    Status {
        /// The request's method.
        method: String,
        /// The status code.
        code: u16,
        /// The reason phrase.
        reason: String,
        /// The `Retry-After`, `Warning` or `Contact` (of a 3xx) header, when it says more.
        more: Option<String>,
    },
    /// The password, or the user, is wrong.
    #[error(
        "credentials rejected: {method} as `{user}` in realm `{realm}` was answered {code} {reason}"
    )]
    Credentials {
        /// The request's method.
        method: String,
        /// The account's user name.
        user: String,
        /// The server's realm.
        realm: String,
        /// The status code.
        code: u16,
        /// The reason phrase.
        reason: String,
    },
    /// Credentials are wanted and none were given.
    #[error("{method} was answered {code}: the service asks for credentials")]
    NoCredentials {
        /// The request's method.
        method: String,
        /// 401 or 407.
        code: u16,
    },
    /// The challenge cannot be answered.
    #[error(transparent)]
    Challenge(#[from] Unusable),
    /// The other side does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The call was answered without usable audio.
    #[error(transparent)]
    Session(#[from] SdpError),
    /// Audio did not come back as it should.
    #[error("{0}")]
    Media(String),
    /// The other side ended the call.
    #[error("the other side ended the call after {}", human(*after))]
    Hangup {
        /// How long the call had lasted.
        after: Duration,
    },
    /// `--wait` was over while something went well.
    #[error("`--wait` ended before this step did")]
    Deadline,
    /// A local socket failed.
    #[error("cannot open a socket for audio: {0}")]
    Socket(io::Error),
    /// This run is being stopped.
    #[error("stopped")]
    Stopped,
}

impl Trouble {
    /// What an error of a flow means.
    pub fn from_io(peer: SocketAddr, transport: Transport, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { peer, transport },
            io::ErrorKind::TimedOut => Self::Connect { peer, after: Duration::ZERO },
            _ => Self::Unreachable { peer, error },
        }
    }

    /// The exit status: 1 when the service itself said no, 4 when nothing was heard, 6 when it could not be asked.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Silence { .. } | Self::Connect { .. } | Self::Ringing { .. } | Self::Deadline => {
                Exit::Timeout
            }
            Self::Unreachable { .. } | Self::Resolve { .. } | Self::Socket(_) => Exit::Unavailable,
            Self::Stopped => Exit::Interrupted,
            _ => Exit::Verdict,
        }
    }

    /// Whether waiting may help: a service that is still starting looks like this.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Status { code, .. } => matches!(code, 404 | 408 | 480 | 486 | 500..=599),
            Self::Silence { .. }
            | Self::Ringing { .. }
            | Self::Refused { .. }
            | Self::Connect { .. }
            | Self::Closed { .. }
            | Self::Unreachable { .. }
            | Self::Resolve { .. } => true,
            // Media can be late as well: firewalls and NAT tables of a fresh host settle within seconds.
            Self::Media(_) | Self::Hangup { .. } => true,
            // Asking again with a wrong password locks accounts and fills ban lists.
            Self::Credentials { .. } | Self::NoCredentials { .. } | Self::Challenge(_) => false,
            Self::Protocol(_)
            | Self::Session(_)
            | Self::Socket(_)
            | Self::Deadline
            | Self::Stopped => false,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Silence { transport, .. } => {
                let protocol = transport.param();
                return Some(format!(
                    "does the security group let {protocol} in on this port, and does the service listen on it?"
                ));
            }
            Self::Connect { .. } => "does the security group let tcp in on this port?",
            Self::Refused { .. } => {
                "does the service run, and does it listen on this port with this transport?"
            }
            Self::Credentials { .. } => {
                "do user and password match the account on the service? it was not tried again, so as not to lock it"
            }
            Self::NoCredentials { .. } => "give `--user` and `--password-env` or `--password-file`",
            Self::Resolve { .. } => "is the name right, and is its record public?",
            Self::Media(_) => {
                "does the security group let the RTP ports (udp) in, and does the service announce its public address for media?"
            }
            Self::Session(SdpError::Codec(_)) => "allow `ulaw` on the endpoint",
            Self::Status { code, .. } => match code {
                300..=399 => "redirects are not followed; call the target it names",
                403 => {
                    "is the account allowed to do this, and is its number of contacts not used up?"
                }
                404 => "does the extension exist in the account's context?",
                408 | 480 => "is the called phone registered?",
                423 => "the registrar wants a longer binding than this tool asks for",
                486 => "the extension is busy",
                488 | 415 | 606 => "allow `ulaw` on the endpoint",
                503 => "the service is overloaded or still starting; try `--wait`",
                _ => return None,
            },
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
