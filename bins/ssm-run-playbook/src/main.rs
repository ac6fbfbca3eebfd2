//! Command-line entry point of `ssm-run-playbook`; everything else is in the library.

use deploy_cli::Context;
use ssm_run_playbook::{Args, OF_ANSIBLE, run};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = deploy_cli::parse_with(&OF_ANSIBLE);
    let ctx = Context::from_process(deploy_cli::tool!(), &args.common);
    let outcome = run(&args, &ctx).await;
    ctx.finish(outcome)
}
