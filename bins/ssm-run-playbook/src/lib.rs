//! Runs an Ansible playbook on hosts through AWS Systems Manager.
//!
//! [`run`] reads the inventory and the Ansible folder, checks what can be checked without a host, sends, waits, and
//! turns the hosts' recaps into one report. What runs on a host is `src/host/`.

mod args;
mod bundle;
mod check;
mod drive;
mod error;
mod folder;
mod needed;
mod plan;
mod playbook;
mod print;
mod reach;
mod recap;
mod reference;
mod report;
mod request;
mod script;
mod ssm;
mod yaml;

pub use args::Args;
pub use error::{Error, Finding};

use deploy_cli::{Context, Done};

/// Runs the tool.
///
/// # Errors
/// [`Error`] when no host could be judged; what happened on hosts is in the report.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let plan = plan::Plan::make(args, ctx)?;
    if args.print_bundle {
        return Ok(print::bundle(ctx, &plan));
    }
    let config = deploy_aws::load(ctx, plan.region.as_deref()).await?;
    let outcome = drive::Drive::new(ctx, &plan, ssm::Ssm::new(&config)).run().await?;
    if let Some(folder) = &args.log_dir {
        report::write_logs(folder, &outcome.hosts)?;
    }
    Ok(report::done(ctx, &plan, &outcome))
}
