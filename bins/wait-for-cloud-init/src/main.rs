//! Command-line entry point of `wait-for-cloud-init`; everything else is in the library.

use deploy_cli::Context;
use std::process::ExitCode;
use wait_for_cloud_init::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = deploy_cli::parse();
    let ctx = Context::from_process(deploy_cli::tool!(), &args.common);
    let outcome = run(&args, &ctx).await;
    ctx.finish(outcome)
}
