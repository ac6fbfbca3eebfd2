//! Why a run of this tool ended without an answer.

use crate::state::StateError;
use deploy_cli::{Exit, Failure};

/// Nothing was listed or deleted because of one of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scope is not given.
    #[error("`--{flag}` is missing: without it this would look at resources of others")]
    NoScope {
        /// The flag.
        flag: &'static str,
    },
    /// The scope has characters that EC2's filters treat as wildcards, or none at all.
    #[error("`--{flag}` is `{value}`; letters, digits, `.`, `_` and `-` are allowed")]
    BadScope {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// A state could own anything.
    #[error("what the states own is not known, so nothing is called an orphan")]
    State(#[from] StateError),
    /// The credentials belong to another account.
    #[error("the credentials belong to account {found}, not to {expected}")]
    WrongAccount {
        /// What `--account-id` says.
        expected: String,
        /// What STS says.
        found: String,
    },
    /// More than `--max`.
    #[error("{count} resources would be deleted, more than `--max {max}`; nothing was deleted")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// AWS did not answer what everything else hangs on.
    #[error("cannot find out which resources carry the tags")]
    Listing(#[source] deploy_aws::Error),
    /// AWS did not say whose credentials these are.
    #[error("cannot find out whose credentials these are")]
    Identity(#[source] deploy_aws::Error),
    /// No usable configuration.
    #[error("cannot set up the AWS client")]
    Setup(#[source] deploy_aws::Error),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoScope { .. }
            | Self::BadScope { .. }
            | Self::State(_)
            | Self::WrongAccount { .. }
            | Self::TooMany { .. } => Exit::Usage,
            Self::Listing(error) | Self::Identity(error) | Self::Setup(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoScope { .. } | Self::BadScope { .. } => {
                Some("give the values of the tags project and environment".into())
            }
            Self::State(_) => Some("write it anew: `terraform state pull > state.json`".into()),
            Self::WrongAccount { .. } => {
                Some("check AWS_PROFILE, or the role that was assumed".into())
            }
            Self::TooMany { .. } => {
                Some("run without `--delete`, read the list, then raise `--max`".into())
            }
            Self::Listing(error) | Self::Identity(error) | Self::Setup(error) => error.hint(),
        }
    }
}
