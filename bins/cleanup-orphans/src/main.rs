//! Command-line entry point of `cleanup-orphans`; everything else is in the library.

use cleanup_orphans::{Args, run};
use deploy_cli::Context;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = deploy_cli::parse();
    let ctx = Context::from_process(deploy_cli::tool!(), &args.common);
    let outcome = run(&args, &ctx).await;
    ctx.finish(outcome)
}
