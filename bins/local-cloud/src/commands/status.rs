//! `local-cloud status`.

use deploy_cli::report::{Subject, SubjectOutcome};
use deploy_cli::{Context, Done, Exit};

use super::{ask, running};
use crate::control::{HostStatus, Status};
use crate::error::Error;
use crate::faults::{Listed, Standing};
use crate::hosts::HostState;
use crate::place::{Place, State};
use crate::table;
use crate::web;

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
    done.stdout = Some(render(&status, &state));
    Ok(done)
}

/// What an earlier one left, and why it ended.
fn remains(place: &Place) -> String {
    if !place.state_file().exists() {
        return String::new();
    }
    let log = std::fs::read_to_string(place.daemon_log()).unwrap_or_default();
    let why = last_error(&log).map_or_else(
        || "an earlier one ended without cleaning up".to_owned(),
        |error| format!("an earlier one ended: {error}"),
    );
    format!("{why}; `local-cloud down` removes what it left\n")
}

/// The error that a daemon ended with: the last one in its log, with its chain in one line.
fn last_error(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let parts = lines[at..]
        .iter()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("error: ") || line.starts_with("caused by: "));
    Some(parts.map(|line| line.trim_start_matches("error: ")).collect::<Vec<_>>().join(" "))
}

fn subject(host: &HostStatus) -> Subject {
    let outcome = if host.reachable { SubjectOutcome::Success } else { SubjectOutcome::Unknown };
    let name = host.name.as_deref().unwrap_or(&host.instance_id);
    let data = serde_json::to_value(host).unwrap_or_default();
    Subject::new("host", name, outcome, host.state.name()).data(data)
}

fn render(status: &Status, state: &State) -> String {
    let (port, pid) = (state.port, state.daemon.pid);
    let mut text = format!(
        "running: project {}, region {}, endpoint http://127.0.0.1:{port}, process {pid}\n\
         page:    {}\n",
        status.project,
        status.region,
        web::address(port, &state.token),
    );
    if !status.hosts.is_empty() {
        let head = [
            "NAME",
            "INSTANCE",
            "STATE",
            "SUITE",
            "CLOUD-INIT",
            "AGENT",
            "PRIVATE",
            "PUBLIC",
            "CPU",
            "MEMORY",
        ];
        let rows: Vec<Vec<String>> = std::iter::once(head.map(str::to_owned).to_vec())
            .chain(status.hosts.iter().map(row))
            .collect();
        text.push('\n');
        text.push_str(&table::render(&rows));
    }
    let active: Vec<Listed> =
        status.faults.iter().filter(|fault| fault.standing == Standing::Active).cloned().collect();
    if !active.is_empty() {
        text.push('\n');
        text.push_str(&super::fault::render(&active));
    }
    text
}

fn row(host: &HostStatus) -> Vec<String> {
    let or_dash = |text: Option<&str>| text.filter(|t| !t.is_empty()).unwrap_or("-").to_owned();
    let state = host.state.name();
    let state = if host.reachable || host.state != HostState::Running {
        state.to_owned()
    } else {
        format!("{state} (not reachable)")
    };
    vec![
        or_dash(host.name.as_deref()),
        host.instance_id.clone(),
        state,
        or_dash(Some(&host.suite)),
        or_dash(host.cloud_init.as_deref()),
        host.agent.clone().unwrap_or_else(|| "never".to_owned()),
        host.private_ip.clone(),
        or_dash(host.public_ip.as_deref()),
        or_dash(host.cpu_percent.map(|cpu| format!("{cpu:.0} %")).as_deref()),
        or_dash(host.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).as_deref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Faults, Kind, Spec};

    #[test]
    fn the_reason_of_an_end_is_the_last_error() {
        let log =
            "12:00 i-1 is running\nerror: the emulator ended: signal: 9\nhint: read its log\n";
        assert_eq!(last_error(log).as_deref(), Some("the emulator ended: signal: 9"));
        assert_eq!(last_error("12:00 i-1 is running\n"), None);
    }

    #[test]
    fn a_host_is_one_row() {
        let host = HostStatus {
            instance_id: "i-1".into(),
            name: Some("dev-platform-1".into()),
            state: HostState::Running,
            private_ip: "10.20.1.4".into(),
            public_ip: None,
            reachable: false,
            container: "calldata-i-1".into(),
            suite: "bookworm".into(),
            cloud_init: Some("running".into()),
            agent: None,
            cpu_percent: Some(12.3),
            memory_bytes: Some(61 << 20),
        };
        let faults = Faults::default();
        faults.add(Spec::of(Kind::Throttle)).expect("good");
        let status = Status {
            project: "calldata".into(),
            region: "us-east-1".into(),
            hosts: vec![host],
            faults: faults.list(),
        };
        let state = State {
            project: "calldata".into(),
            region: "us-east-1".into(),
            port: 4570,
            daemon: crate::process::Identity { pid: 7, start: 1 },
            upstream: None,
            token: crate::control::Token::default(),
            access_key: crate::credentials::AccessKey::default(),
            terms: crate::place::Terms::default(),
        };
        insta::assert_snapshot!(render(&status, &state), @r"
        running: project calldata, region us-east-1, endpoint http://127.0.0.1:4570, process 7
        page:    http://127.0.0.1:4570/_local-cloud/#token=

        NAME            INSTANCE  STATE                    SUITE     CLOUD-INIT  AGENT  PRIVATE    PUBLIC  CPU   MEMORY
        dev-platform-1  i-1       running (not reachable)  bookworm  running     never  10.20.1.4  -       12 %  61 MiB

        ID  KIND      STANDING  STRUCK  MATCHED  SCOPE
        1   throttle  active    0       0        everything
        ");
    }
}
