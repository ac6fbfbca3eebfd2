//! Runs an Ansible playbook on hosts through AWS Systems Manager.
//!
//! [`run`] reads the inventory and the Ansible folder, checks what can be checked without a host, sends, waits, and
//! turns the hosts' recaps into one report. What runs on a host is `src/host/`.

mod args;
mod broken;
mod bundle;
mod call;
mod check;
mod drive;
mod error;
mod folder;
mod jinja;
mod kept;
mod live;
mod needed;
mod notify;
mod output;
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
mod store;
mod syntax;
mod waves;
mod yaml;

pub use args::{Args, OF_ANSIBLE};
pub use error::{Error, Finding};
pub use waves::{Amount, Batches};

use deploy_cli::{Context, Done, Exit};
use store::Store;
use tokio::time::{Instant, timeout};

/// Runs the tool.
///
/// # Errors
/// [`Error`] when no host could be judged; what happened on hosts is in the report.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let start = Instant::now();
    output::check(args)?;
    let plan = plan::Plan::make(args, ctx)?;
    if args.print_bundle {
        return Ok(print::bundle(ctx, &plan));
    }
    let loading = timeout(plan.timeout, deploy_aws::load(ctx, plan.region.as_deref()));
    let config = loading.await.map_err(|_| Error::Late { timeout: plan.timeout })??;
    let store = plan.bucket.as_ref().map(|name| Store::new(&config, name, &plan.bundle.sha256));
    let live = plan.log_group.as_deref().map(|group| live::Live::new(&config, group));
    let drive = drive::Drive::new(ctx, &plan, ssm::Ssm::new(&config), store.as_ref(), live, start);
    let outcome = drive.run().await;
    if let Some(store) = &store {
        store.remove(ctx).await;
    }
    let outcome = outcome?;
    let mut done = report::done(ctx, &plan, &outcome);
    let logs = args.log_dir.as_ref().map(|folder| report::write_logs(folder, &outcome.hosts));
    let junit = args.junit.as_ref().map(|path| report::write_junit(path, &done.report));
    for error in [logs, junit].into_iter().flatten().filter_map(Result::err) {
        // What became of the hosts is not lost for it.
        ctx.progress().warn(&deploy_aws::chain(&error));
        if done.exit == Exit::Success {
            done.exit = Exit::Usage;
        }
    }
    Ok(done)
}
