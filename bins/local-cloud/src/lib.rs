//! The rehearsal cloud: an AWS endpoint on one machine whose instances really boot.
//!
//! A reverse proxy before an emulator (moto). Ordinary calls pass; EC2's lifecycle calls are answered by the emulator
//! and then made true with containers that boot systemd and cloud-init; Systems Manager is implemented here and runs
//! commands on those hosts. What cannot be done truly is refused with `NotImplemented`, never pretended.
//!
//! Entry points: [`run`] for the commands, [`daemon::serve`] for the daemon, [`proxy`] for a request's way through it.

pub mod args;
pub mod authentication;
pub mod autoscaling;
pub mod commands;
pub mod control;
pub mod coverage;
pub mod credentials;
pub mod daemon;
pub mod docker;
pub mod ec2;
pub mod edge;
pub mod engine;
pub mod error;
pub mod events;
pub mod failure;
pub mod faults;
pub mod firewall;
pub mod guard;
pub mod hosts;
pub mod image;
pub mod imds;
pub mod listener;
mod log;
pub mod model;
pub mod network;
pub mod operation;
pub mod paging;
pub mod passed;
pub mod place;
pub mod policy;
pub mod pretended;
pub mod process;
pub mod proxy;
pub mod reach;
pub mod requests;
pub mod rights;
pub mod secrets;
pub mod signature;
pub mod ssm;
mod table;
pub mod timing;
pub mod tls;
pub mod upstream;
pub mod venv;
pub mod vitals;
pub mod web;
pub mod xml;

use deploy_cli::{Context, Done};

use crate::args::{Args, Command};
use crate::error::Error;

/// The region where nothing else was asked for.
pub const DEFAULT_REGION: &str = "us-east-1";

/// How a command ended.
#[derive(Debug)]
pub enum Ending {
    /// With a report.
    Done(Box<Done>),
    /// With the exit status of a program that ran on this terminal.
    Status(u8),
}

/// Runs a command.
pub async fn run(args: &Args, ctx: &Context) -> Result<Ending, Error> {
    args.command.check()?;
    let project = args.command.project()?;
    let place = args.command.folders().place(project)?;
    let done = match &args.command {
        Command::Up(up) => commands::up::up(up, project, &place, ctx).await?,
        Command::Down(down) => commands::down::down(down, project, &place, ctx).await?,
        Command::Status(_) => commands::status::status(project, &place, ctx).await?,
        Command::Fault(fault) => commands::fault::fault(fault, project, &place, ctx).await?,
        Command::Events(events) => {
            return commands::events::events(events, project, &place, ctx)
                .await
                .map(Ending::Status);
        }
        Command::Logs(logs) => {
            return commands::hosts::logs(logs, project, &place).await.map(Ending::Status);
        }
        Command::Exec(exec) => {
            return commands::hosts::exec(exec, project, &place).await.map(Ending::Status);
        }
        Command::Image(image) => commands::image::image(image, project, &place, ctx).await?,
        Command::Serve(serve) => {
            let exit = daemon::serve(serve, project, &place, ctx).await?;
            return Ok(Ending::Status(exit.code()));
        }
    };
    Ok(Ending::Done(Box::new(done)))
}
