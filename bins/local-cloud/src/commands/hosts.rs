//! `local-cloud logs` and `local-cloud exec`: into a host, without the network.

use std::io::IsTerminal as _;
use std::process::ExitStatus;

use deploy_cli::actions::console;

use super::{ask, running};
use crate::args::{ExecArgs, LogsArgs};
use crate::control::HostStatus;
use crate::error::Error;
use crate::hosts::HostState;
use crate::place::Place;

/// Shows a host's console.
pub async fn logs(args: &LogsArgs, project: &str, place: &Place) -> Result<u8, Error> {
    let host = find(&args.host, project, place).await?;
    let mut line = vec!["logs"];
    if args.follow {
        line.push("--follow");
    }
    line.push(&host.container);
    attached(&line).await
}

/// Runs a command on a host.
pub async fn exec(args: &ExecArgs, project: &str, place: &Place) -> Result<u8, Error> {
    let host = find(&args.host, project, place).await?;
    if host.state != HostState::Running {
        let (host, state) = (host.instance_id, host.state.name().to_owned());
        return Err(Error::HostDown { host, state });
    }
    let mut line = vec!["exec", "--interactive"];
    if std::io::stdin().is_terminal() && console::stdout_is_terminal() {
        line.push("--tty");
    }
    line.push(&host.container);
    line.extend(args.line.iter().map(String::as_str));
    attached(&line).await
}

async fn find(wanted: &str, project: &str, place: &Place) -> Result<HostStatus, Error> {
    let not_running = || Error::NotRunning { project: project.to_owned() };
    let state = running(place).ok_or_else(not_running)?;
    let hosts = ask(&state).await?.hosts;
    pick(wanted, hosts)
}

fn pick(wanted: &str, hosts: Vec<HostStatus>) -> Result<HostStatus, Error> {
    let matches =
        |host: &&HostStatus| host.instance_id == wanted || host.name.as_deref() == Some(wanted);
    let mut found = hosts.iter().filter(matches);
    match (found.next(), found.next()) {
        (Some(host), None) => Ok(host.clone()),
        (Some(_), Some(_)) => Err(Error::BadInput(format!(
            "more than one host is called `{wanted}`; use the instance id"
        ))),
        (None, _) => {
            let name = |host: HostStatus| host.name.unwrap_or(host.instance_id);
            let known = hosts.into_iter().map(name).collect();
            Err(Error::NoSuchHost { wanted: wanted.to_owned(), known })
        }
    }
}

/// Runs `docker` on this terminal; its exit status is ours.
async fn attached(args: &[&str]) -> Result<u8, Error> {
    let status = crate::process::on_terminal("docker", args)
        .await
        .map_err(|error| Error::setup("cannot run docker", error))?;
    Ok(code(status))
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str, name: &str) -> HostStatus {
        HostStatus {
            instance_id: id.into(),
            name: Some(name.into()),
            state: HostState::Running,
            private_ip: String::new(),
            public_ip: None,
            reachable: true,
            container: format!("calldata-{id}"),
            suite: String::new(),
            cloud_init: None,
            agent: None,
            cpu_percent: None,
            memory_bytes: None,
        }
    }

    #[test]
    fn a_host_is_found_by_name_or_id() {
        let hosts = || vec![host("i-1", "a"), host("i-2", "b"), host("i-3", "b")];
        assert_eq!(pick("a", hosts()).expect("by name").instance_id, "i-1");
        assert_eq!(pick("i-3", hosts()).expect("by id").instance_id, "i-3");
        assert!(pick("b", hosts()).expect_err("two").to_string().starts_with("more than one"));
        let error = pick("c", hosts()).expect_err("none").to_string();
        assert_eq!(error, "no host `c` in the rehearsal cloud; it has a, b, b");
    }
}
