//! `local-cloud status`.

use std::fmt::Write as _;

use deploy_cli::report::{Subject, SubjectOutcome};
use deploy_cli::{Context, Done, Exit};
use serde_json::json;

use super::{ask, running};
use crate::daemon::{HostStatus, Status};
use crate::error::Error;
use crate::place::Place;

/// Shows what runs. Not running is an answer, with the status of something that is not there.
pub async fn status(project: &str, place: &Place, ctx: &Context) -> Result<Done, Error> {
    let Some(state) = running(place) else {
        let title = format!("the rehearsal cloud `{project}` is not running");
        let report = ctx.report().finish(Exit::Unavailable.name(), &title);
        let mut done = Done::new(Exit::Unavailable, report);
        done.stdout = Some(format!("not running\n{}", remains(place)));
        return Ok(done);
    };
    let status = ask(&state).await?;
    let title = format!("running, {} host(s)", status.hosts.len());
    let report = ctx
        .report()
        .project(Some(project))
        .subjects(status.hosts.iter().map(subject))
        .finish(Exit::Success.name(), &title);
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(render(&status, state.port, state.daemon.pid));
    Ok(done)
}

fn remains(place: &Place) -> String {
    if place.state_file().exists() {
        "an earlier one ended without cleaning up; `local-cloud down` removes what it left\n".into()
    } else {
        String::new()
    }
}

fn subject(host: &HostStatus) -> Subject {
    let outcome = if host.reachable { SubjectOutcome::Success } else { SubjectOutcome::Unknown };
    let name = host.name.as_deref().unwrap_or(&host.instance_id);
    Subject::new("host", name, outcome, host.state.name()).data(json!({
        "instance_id": host.instance_id,
        "private_ip": host.private_ip,
        "public_ip": host.public_ip,
        "container": host.container,
    }))
}

fn render(status: &Status, port: u16, pid: i32) -> String {
    let mut text = format!(
        "running: project {}, region {}, endpoint http://127.0.0.1:{port}, process {pid}\n",
        status.project, status.region
    );
    for host in &status.hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {}  {}{}  {}  {}",
            host.name.as_deref().unwrap_or("-"),
            host.instance_id,
            host.state.name(),
            if host.reachable { "" } else { " (not reachable)" },
            host.private_ip,
            host.public_ip.as_deref().unwrap_or("no public address"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::HostState;

    #[test]
    fn a_host_is_one_line() {
        let host = HostStatus {
            instance_id: "i-1".into(),
            name: Some("dev-platform-1".into()),
            state: HostState::Running,
            private_ip: "10.20.1.4".into(),
            public_ip: None,
            reachable: false,
            container: "calldata-i-1".into(),
        };
        let status =
            Status { project: "calldata".into(), region: "us-east-1".into(), hosts: vec![host] };
        insta::assert_snapshot!(render(&status, 4570, 7), @r"
        running: project calldata, region us-east-1, endpoint http://127.0.0.1:4570, process 7
        dev-platform-1  i-1  running (not reachable)  10.20.1.4  no public address
        ");
    }
}
