//! Command-line entry point of `smoke-test-http`; everything else is in the library.

use deploy_cli::Context;
use smoke_test_http::{Args, run};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = deploy_cli::parse(); // bad usage ends here with status 2
    let ctx = Context::from_process(deploy_cli::tool!(), &args.common);
    let outcome = run(&args, &ctx).await;
    ctx.finish(outcome)
}
