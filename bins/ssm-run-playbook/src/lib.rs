//! Runs an Ansible playbook on hosts through AWS Systems Manager.
//!
//! [`run`] reads the inventory and the Ansible folder, checks what can be checked without a host, sends, waits, and
//! turns the hosts' recaps into one report. What runs on a host is `src/host/`.

mod args;
mod bundle;
mod drive;
mod error;
mod plan;
mod playbook;
mod recap;
mod reference;
mod report;
mod request;
mod script;
mod ssm;

pub use args::Args;
pub use error::Error;

use deploy_cli::{Context, Done};

/// Runs the tool.
///
/// # Errors
/// [`Error`] when no host could be judged; what happened on hosts is in the report.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let plan = plan::Plan::make(args, ctx)?;
    let config = deploy_aws::load(ctx, plan.region.as_deref()).await?;
    let outcome = drive::Drive::new(ctx, &plan, ssm::Ssm::new(&config)).run().await?;
    if let Some(folder) = &args.log_dir {
        report::write_logs(folder, &outcome.hosts)?;
    }
    Ok(report::done(ctx, &plan, &outcome))
}
