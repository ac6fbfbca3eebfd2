//! The flags of `local-cloud fault`.

use super::Shared;
use crate::faults::{KINDS, Kind, Spec};

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
    List(Shared),
    /// Remove a fault, or all.
    Remove(FaultRemoveArgs),
    /// Say which kinds of faults there are.
    Kinds(Shared),
}

impl FaultAction {
    /// What every command has.
    pub(super) fn shared(&self) -> &Shared {
        match self {
            Self::Add(args) => &args.shared,
            Self::List(args) | Self::Kinds(args) => args,
            Self::Remove(args) => &args.shared,
        }
    }
}

/// `fault add`.
#[derive(Debug, clap::Args)]
pub struct FaultAddArgs {
    /// What goes wrong; `fault kinds` explains each.
    #[arg(value_name = "KIND", hide_possible_values = true)]
    pub kind: Kind,

    /// Only requests to this service: its signing name, e.g. `ec2`.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Only these operations: a name or a pattern, `SendCommand`, `Describe*`, `ssm:SendCommand`; of services with paths
    /// (but S3) `METHOD /path`, e.g. `POST /v1/*`.
    #[arg(long, value_name = "PATTERN")]
    pub operation: Option<String>,

    /// Only this host: its Name, its instance id, or all with a tag. It need not be there yet.
    #[arg(long, value_name = "NAME|ID|tag:K=V")]
    pub host: Option<String>,

    /// Of `packet-loss`: only what is sent to this host, named as in `--host`.
    #[arg(long, value_name = "NAME|ID|tag:K=V")]
    pub to: Option<String>,

    /// How likely each match is struck, above 0 up to 1; of what lasts, which hosts have it.
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

    /// Start of its random numbers. Without it from the cloud's own (`up --seed`).
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
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

    /// What every command has.
    #[command(flatten)]
    pub shared: Shared,
}
