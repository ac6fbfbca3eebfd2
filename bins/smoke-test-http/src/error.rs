//! What stops a run before the first request.

use deploy_cli::{Exit, Failure};
use std::io;
use std::path::PathBuf;

/// Why nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inventory, or `--limit`, cannot be used.
    #[error(transparent)]
    Inventory(#[from] deploy_cli::InventoryError),
    /// A selected host cannot be reached from outside.
    #[error("host `{host}` has no public address in the inventory")]
    NoPublicIp {
        /// The host.
        host: String,
    },
    /// A host's address makes no URL.
    #[error(
        "host `{host}` has the public address `{address}` in the inventory: expected an IP address"
    )]
    Address {
        /// The host.
        host: String,
        /// Its address.
        address: String,
    },
    /// Address and path make no URL.
    #[error("`{url}` is no URL: {reason}")]
    Url {
        /// What was put together.
        url: String,
        /// Why it is none.
        reason: String,
    },
    /// The client cannot be made, e.g. because the system's certificates cannot be read.
    #[error("cannot set up the HTTP client")]
    Client {
        /// Why.
        source: reqwest::Error,
    },
    /// The result cannot be written as JUnit XML.
    #[error("cannot write `{}`", path.display())]
    Junit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Inventory(error) => error.exit(),
            Self::Client { .. } => Exit::Internal,
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Inventory(error) => return error.hint(),
            Self::NoPublicIp { .. } => {
                "leave the host out with `--limit`, or give it a public address"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
