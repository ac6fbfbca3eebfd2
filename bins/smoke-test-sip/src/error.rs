//! What stops a run before the first packet.

use deploy_cli::{Exit, Failure};
use std::io;
use std::path::PathBuf;

/// Why nothing was tested.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was named cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The inventory, or `--limit`, cannot be used.
    #[error(transparent)]
    Inventory(#[from] deploy_cli::InventoryError),
    /// A selected host cannot be reached from outside.
    #[error("host `{host}` has no public address in the inventory")]
    NoPublicIp {
        /// The host.
        host: String,
    },
    /// A variable of the inventory is not what it should be.
    #[error("host `{host}` has `{name}` = `{value}` in the inventory: expected {expected}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// The host.
        host: String,
        /// What it should be.
        expected: &'static str,
    },
    /// `--user` without a password.
    #[error("user `{user}` has no password")]
    NoPasswordSource {
        /// The user.
        user: String,
    },
    /// The variable of `--password-env` is not set.
    #[error("the environment variable `{variable}` is not set or empty")]
    NoPassword {
        /// The variable.
        variable: String,
    },
    /// The file of `--password-file` has nothing in it.
    #[error("the password file `{}` is empty", path.display())]
    EmptyPassword {
        /// The file.
        path: PathBuf,
    },
    /// The password cannot be masked.
    #[error("cannot mask the password in the log")]
    Mask {
        /// Why.
        source: io::Error,
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
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Inventory(error) => return error.hint(),
            Self::NoPasswordSource { .. } => {
                "name a variable with `--password-env`, or a file with `--password-file`"
            }
            Self::NoPassword { .. } => "in a workflow, pass the secret through `env:` of the step",
            Self::NoPublicIp { .. } => {
                "leave the host out with `--limit`, or give it a public address"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
