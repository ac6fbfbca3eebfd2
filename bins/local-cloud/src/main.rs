//! Command-line entry point of `local-cloud`; everything else is in the library.

use std::process::ExitCode;

use deploy_cli::Context;
use local_cloud::args::Args;
use local_cloud::{Ending, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = deploy_cli::parse();
    let ctx = Context::from_process(deploy_cli::tool!(), args.command.common());
    match run(&args, &ctx).await {
        Ok(Ending::Status(status)) => ExitCode::from(status),
        Ok(Ending::Done(done)) => ctx.finish::<local_cloud::error::Error>(Ok(*done)),
        Err(error) => ctx.finish(Err(error)),
    }
}
