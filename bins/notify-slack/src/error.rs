//! Why a run of this tool ended otherwise than planned.

use crate::slack::DeliveryError;
use deploy_cli::{Exit, Failure};
use std::path::PathBuf;

/// Why nothing was sent, or why it is not known to have arrived.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither reports nor jobs nor an outcome were given.
    #[error("nothing to tell: no `--report`, no `--needs` and no `--status` were given")]
    NothingToTell,
    /// A report or folder cannot be read.
    #[error("cannot read the report `{}`", path.display())]
    Read {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `--needs` is not what `toJSON(needs)` gives.
    #[error("`--needs` is not the JSON of a workflow's `needs` context")]
    Needs(#[source] serde_json::Error),
    /// A bot token posts to any channel, so one must be named.
    #[error("NOTIFY_SLACK_TOKEN is set but no `--channel` is given")]
    NoChannel,
    /// A webhook cannot change what it posted.
    #[error(
        "`--ts` needs a bot token in NOTIFY_SLACK_TOKEN; an incoming webhook cannot update a message"
    )]
    TsNeedsToken,
    /// An address that a secret must not be sent to. The address is not shown when it is a secret itself.
    #[error("{what} {why}")]
    Address {
        /// Which address.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The message was not delivered, or it is not known whether it was.
    #[error("the message was not delivered to Slack")]
    Delivery(#[from] DeliveryError),
    /// A signal came before Slack answered.
    #[error("stopped before Slack had answered; the message may or may not be there")]
    Stopped(Exit),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Delivery(error) => error.exit(),
            Self::Stopped(exit) => *exit,
            Self::NothingToTell
            | Self::Read { .. }
            | Self::Needs(_)
            | Self::NoChannel
            | Self::TsNeedsToken
            | Self::Address { .. } => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NothingToTell => Some("give the reports of a run, e.g. `--report .deploy/dev/latest/reports`".into()),
            Self::Needs(_) => Some("in a workflow set `NOTIFY_SLACK_NEEDS: ${{ toJSON(needs) }}` under `env`".into()),
            Self::NoChannel => Some("give the channel's ID: in Slack, the channel's name, then About, at the end".into()),
            Self::Address { .. } => {
                Some("Slack's own hosts by https are accepted: slack.com, slack-gov.com and names below them".into())
            }
            Self::Delivery(error) => error.next_step(),
            Self::Read { .. } | Self::TsNeedsToken | Self::Stopped(_) => None,
        }
    }
}
