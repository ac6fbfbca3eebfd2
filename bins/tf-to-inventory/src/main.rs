//! Command-line entry point of `tf-to-inventory`; everything else is in the library.

use deploy_cli::Context;
use std::process::ExitCode;
use tf_to_inventory::{Args, check, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args: Args = deploy_cli::parse();
    let checked = check(&args);
    if checked.is_err() {
        // The report of this error may be what would overwrite a source.
        args.common.report = None;
    }
    let ctx = Context::from_process(deploy_cli::tool!(), &args.common);
    let outcome = match checked {
        Ok(()) => run(&args, &ctx).await,
        Err(error) => Err(error),
    };
    ctx.finish(outcome)
}
