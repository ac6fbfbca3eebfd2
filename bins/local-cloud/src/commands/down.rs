//! `local-cloud down`: removes everything that was made, whether or not the daemon still lives.

use std::time::Duration;

use deploy_cli::{Context, Done, Exit};

use crate::args::DownArgs;
use crate::docker::Docker;
use crate::error::Error;
use crate::place::Place;
use crate::process::{run, within};
use crate::{firewall, guard, network};

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Hosts.
    pub hosts: usize,
    /// Networks.
    pub networks: usize,
    /// Whether a daemon ran.
    pub daemon: bool,
}

/// Removes everything and says what.
pub async fn down(
    args: &DownArgs,
    project: &str,
    place: &Place,
    ctx: &Context,
) -> Result<Done, Error> {
    let removed = tokio::select! {
        biased;
        exit = ctx.stopped() => return Err(Error::Stopped(exit)),
        removed = within(args.timeout, remove(project, place)) => removed?,
    };
    let title = if removed == Removed::default() {
        format!("nothing of the rehearsal cloud `{project}` was left")
    } else {
        format!(
            "the rehearsal cloud `{project}` is gone: {} host(s), {} network(s)",
            removed.hosts, removed.networks
        )
    };
    let report = ctx.report().project(Some(project)).finish(Exit::Success.name(), &title);
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(title + "\n");
    Ok(done)
}

/// Removes everything: processes first, so that nothing new is made meanwhile. Fails only after having tried all.
pub async fn remove(project: &str, place: &Place) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    if let Some(state) = place.read_state() {
        removed.daemon = state.daemon.alive();
        state.daemon.end(Duration::from_secs(2)).await;
        if let Some(upstream) = state.upstream {
            upstream.end(Duration::from_secs(2)).await;
        }
    }
    let docker = Docker::new(project);
    let docker_things = async {
        let containers = docker.containers().await?;
        removed.hosts = containers.len();
        Docker::remove(&containers).await?;
        let networks = docker.networks().await?;
        removed.networks = networks.len();
        for network in &networks {
            if let Some(bridge) = network::bridge_of(project, network) {
                guard::open_routes(&bridge).await?;
            }
        }
        for network in &networks {
            if let Err(error) = run("docker", ["network", "rm", network], None).await {
                // A host in it that the engine made only now, as below.
                let late = docker.containers().await?;
                if late.is_empty() {
                    return Err(error);
                }
                removed.hosts += late.len();
                Docker::remove(&late).await?;
                run("docker", ["network", "rm", network], None).await?;
            }
        }
        // A daemon that was killed may have asked for a host that the engine made only now.
        let late = docker.containers().await?;
        removed.hosts += late.len();
        Docker::remove(&late).await?;
        Ok::<(), Error>(())
    }
    .await;
    let steps = [
        ("hosts and networks", docker_things),
        ("packet rules", firewall::remove(project).await),
        ("what image builds left", crate::image::sweep(&place.cache)),
    ];
    let mut failed: Vec<(&str, Error)> =
        steps.into_iter().filter_map(|(what, step)| Some((what, step.err()?))).collect();
    // The state says what there is; it stays until that is gone.
    if failed.is_empty()
        && let Err(source) = std::fs::remove_dir_all(&place.state)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        let error = Error::File { doing: "remove", path: place.state.clone(), source };
        failed.push(("the state", error));
    }
    if failed.len() == 1 && !matches!(failed[0].1, Error::TooLate { .. }) {
        return Err(failed.remove(0).1);
    }
    if failed.is_empty() {
        return Ok(removed);
    }
    let late = failed.iter().any(|(_, error)| matches!(error, Error::TooLate { .. }));
    let left = failed.into_iter().map(|(what, error)| format!("{what} ({error})")).collect();
    Err(Error::Left { left, late })
}
