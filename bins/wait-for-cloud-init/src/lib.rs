//! Waits until cloud-init has finished on every host of an inventory.
//!
//! [`host`] and [`cloud_init`] judge what was seen and know no clock and no network, [`verdict`] has their words; `wait`
//! makes the calls in rounds; [`probe`] is the question that is asked on a host. One deadline holds for all of it.

mod args;
mod aws;
pub mod cloud_init;
mod error;
pub mod host;
pub mod probe;
mod quote;
mod repeats;
mod report;
mod standing;
mod summary;
mod targets;
pub mod verdict;
mod wait;

pub use args::{Args, Policy, StatusChecks};
pub use error::Error;

use aws::Aws;
use deploy_cli::{Context, Done, Exit, human};
use jiff::Timestamp;
use std::time::Instant;
use targets::Targets;
use wait::Wait;

/// Waits, and judges every host.
///
/// # Errors
/// [`Error`] when the hosts cannot be judged at all. A host that is not ready is no error but a failed subject.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let start = Instant::now();
    let Targets { hosts, region, project, environment } = targets::read(args)?;
    let config = deploy_aws::load(ctx, region.as_deref()).await?;
    let region = config.region().map(ToString::to_string).unwrap_or_default();
    let aws = Aws::new(&config);
    let several =
        if hosts.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", hosts.len()) };
    let group = ctx
        .progress()
        .group(&format!("waiting for {several} in {region}, {} at most", human(args.timeout)));
    let mut wait = Wait::new(args, ctx, &aws, region, hosts);
    let ended = tokio::select! {
        ended = wait.run() => ended.map(|()| None),
        exit = ctx.stopped() => wait.abandon().map(|()| Some(exit)),
    };
    wait.cancel_probes().await;
    drop(group);
    let stopped = ended?;
    let hosts = wait.hosts;
    ctx.progress().debug(&format!("{} API calls", aws.calls()));

    let exit = stopped.unwrap_or_else(|| report::exit(&hosts, args));
    let (counted, elapsed) = (report::counted(&hosts), human(start.elapsed()));
    let title = match exit {
        Exit::Success if hosts.len() == 1 => format!("{counted} after {elapsed}"),
        Exit::Success => format!("all {several} are done: {counted} after {elapsed}"),
        Exit::Timeout => format!("the deadline of {} has passed: {counted}", human(args.timeout)),
        Exit::Verdict => format!("not every host is ready: {counted} after {elapsed}"),
        _ => format!("stopped: {counted} after {elapsed}"),
    };
    let report = ctx
        .report()
        .project(ctx.project().or(project.as_deref()))
        .environment(ctx.environment().or(environment.as_deref()))
        .subjects(hosts.iter().map(|host| report::subject(host, args, start.elapsed())))
        .finish(exit.name(), title);
    let mut done = Done::new(exit, report);
    let failed: Vec<&str> = hosts
        .iter()
        .filter(|host| host.finding.as_ref().is_none_or(|finding| report::fails(finding, args)))
        .map(|host| host.name.as_str())
        .collect();
    done.outputs.push(("hosts".to_owned(), hosts.len().to_string()));
    done.outputs.push(("failed".to_owned(), failed.join(",")));
    done.summary = summary::boots(&hosts, Timestamp::now());
    Ok(done)
}
