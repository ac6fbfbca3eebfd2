//! `local-cloud down`: removes everything that was made, whether or not the daemon still lives.

use std::time::Duration;

use deploy_cli::{Context, Done, Exit};

use crate::docker::Docker;
use crate::error::Error;
use crate::firewall;
use crate::place::Place;
use crate::process::run;

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
pub async fn down(project: &str, place: &Place, ctx: &Context) -> Result<Done, Error> {
    let removed = remove(project, place).await?;
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
        Ok(())
    }
    .await;
    let firewall = firewall::remove(project).await;
    docker_things.and(firewall)?;
    crate::image::sweep(&place.cache)?;
    match std::fs::remove_dir_all(&place.state) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { doing: "remove", path: place.state.clone(), source })
        }
        _ => Ok(removed),
    }
}
