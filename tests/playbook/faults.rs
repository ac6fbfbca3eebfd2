//! What goes wrong with a run, on purpose.

use crate::cloud::{Cloud, Ended, Run, Tool};
use crate::start;
use serde_json::json;
use std::time::{Duration, Instant};

/// The outcome and the detail of a host.
fn said<'a>(ended: &'a Ended, host: &str) -> (&'a str, &'a str) {
    let host = ended.host(host);
    (host["outcome"].as_str().unwrap(), host["detail"].as_str().unwrap())
}

/// A run that counted itself on the host and waits there.
fn begin_slow(cloud: &Cloud, name: &str, host: &str, args: &[&str]) -> Run {
    cloud.exec(host, "rm -f /run/go /root/count");
    let run = start(cloud, name, &[host], "slow.yml", args);
    cloud.until(&format!("{name} has begun"), || {
        let said = run.said();
        assert!(!said.contains("error: "), "{said}");
        count(cloud, host) > 0
    });
    run
}

fn count(cloud: &Cloud, host: &str) -> usize {
    cloud.exec(host, "cat /root/count").lines().count()
}

fn go(cloud: &Cloud, host: &str) {
    cloud.exec(host, "touch /run/go");
}

/// Nothing of a run is left: no process, and nobody has the lock.
fn until_free(cloud: &Cloud, host: &str) {
    let free = "flock -n /var/lib/ssm-run-playbook/lock true && ! pgrep -f [b]in/ansible-playbook >/dev/null && echo free";
    cloud.until(&format!("{host} is free"), || cloud.exec(host, free) == "free\n");
}

pub(crate) fn begin_a_run_on_a_host_that_is_terminated(cloud: &Cloud, host: &str) -> Run {
    let run = begin_slow(cloud, "terminated", host, &[]);
    cloud.ec2("terminate_instances", json!({"InstanceIds": [cloud.id(host)]}));
    run
}

/// Long before the deadline.
pub(crate) fn a_terminated_host_is_no_success(cloud: &Cloud, run: Run, host: &str) {
    let ended = run.ended();
    assert_eq!(ended.code, 6, "{ended}");
    let (outcome, detail) = said(&ended, host);
    assert_eq!(outcome, "unknown", "{ended}");
    assert!(detail.contains("was its instance stopped or terminated?"), "{ended}");
    cloud.say("a host that was terminated in the middle of a play is said to be gone");
}

/// In the middle of a play, and before one; the agent itself needs a little room.
pub(crate) fn a_disk_that_fills_is_named(cloud: &Cloud, host: &str) {
    cloud.until("its disk is almost full", || {
        let full = "[ \"$(df --output=pcent / | tail -n 1 | tr -d ' %')\" -ge 98 ] && echo full";
        cloud.exec(host, full) == "full\n"
    });
    let ended = start(cloud, "fill", &[host], "fill.yml", &[]).ended();
    assert_eq!(ended.code, 1, "{ended}");
    let failed = &ended.host(host)["data"]["failed_tasks"][0];
    assert_eq!(failed["task"], "Take all room", "{ended}");
    assert!(failed["message"].as_str().unwrap().contains("No space left on device"), "{ended}");
    let room = "rm -f /root/rest; head -c 80K /dev/zero >/root/room; cat /dev/zero >/root/rest; rm /root/room";
    cloud.exec(host, room);
    let ended = start(cloud, "full", &[host], "site.yml", &[]).ended();
    assert_eq!(ended.code, 6, "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("No space left on device"), "{ended}");

    // Not one block is left: the agent still says what it was told, and both tools name the disk.
    cloud.exec(host, "cat /dev/zero >/root/more; cat /dev/zero >>/root/rest");
    let ended = start(cloud, "no-block", &[host], "site.yml", &[]).ended();
    assert_eq!(ended.code, 6, "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("No space left on device"), "{ended}");
    let wait = Tool { program: "wait-for-cloud-init", ..crate::TOOL };
    let ended = cloud.start(&wait, "wait-full", &[host.to_owned()], &["--timeout", "1m"]).ended();
    assert_eq!(ended.code, 1, "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("the disk of the host is full"), "{ended}");
    cloud.say("a disk that fills is named");
}

/// The fault strikes at the agent's next command: the tool asks now and then how far the run is.
pub(crate) fn begin_a_run_whose_agent_dies(cloud: &Cloud, host: &str) -> Run {
    let run = begin_slow(cloud, "agent-dies", host, &["--timeout", "25s"]);
    let more = ["--count", "1", "--seconds", "0", "--delay", "5s", "--code", "dies"];
    cloud.fault(&[&["add", "agent-drop", "--host", host], &more[..]].concat());
    run
}

pub(crate) fn an_agent_that_died_is_no_success(cloud: &Cloud, run: Run, host: &str) {
    let ended = run.ended();
    assert_ne!(ended.code, 0, "{ended}");
    let (outcome, _) = said(&ended, host);
    assert_eq!(outcome, "unknown", "{ended}");
    assert_eq!(count(cloud, host), 1, "{ended}");
    until_free(cloud, host);
    cloud.say("a run whose agent died is no success, and nothing of it goes on");
}

pub(crate) fn an_agent_that_is_away_for_a_while_changes_no_verdict(cloud: &Cloud, host: &str) {
    let run = begin_slow(cloud, "agent-away", host, &[]);
    let more = ["--count", "1", "--seconds", "0", "--delay", "5s", "--code", "goes-on"];
    cloud.fault(&[&["add", "agent-drop", "--host", host], &more[..]].concat());
    cloud.until("its agent is cut off", || {
        cloud
            .local(&["fault", "list"])
            .lines()
            .any(|fault| fault.contains("agent-drop") && fault.contains("spent"))
    });
    go(cloud, host);
    let ended = run.ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(count(cloud, host), 1, "{ended}");
    cloud.say("an agent that is away for a while changes no verdict");
}

/// The agent is gone after it was asked for.
pub(crate) fn a_command_that_no_agent_takes_is_said(cloud: &Cloud, host: &str) {
    cloud.exec(host, "systemctl stop amazon-ssm-agent");
    let ended = start(cloud, "no-agent", &[host], "site.yml", &["--timeout", "5s"]).ended();
    assert_eq!(ended.code, 4, "{ended}");
    let (outcome, detail) = said(&ended, host);
    assert_eq!(outcome, "unknown", "{ended}");
    assert!(detail.contains("its agent has not taken the command"), "{ended}");
    cloud.say("a command that no agent takes is said to wait for one");
}

pub(crate) fn throttling_changes_no_verdict(cloud: &Cloud, host: &str) {
    cloud.fault(&["add", "throttle", "--service", "ssm", "--probability", "0.2"]);
    for name in ["throttled-1", "throttled-2"] {
        let ended = start(cloud, name, &[host], "site.yml", &[]).ended();
        assert_eq!(ended.code, 0, "{ended}");
    }
    cloud.fault(&["remove", "--all"]);
    cloud.say("throttling changes no verdict");
}

pub(crate) fn a_lost_reply_runs_the_play_once(cloud: &Cloud, host: &str) {
    cloud.fault(&[
        "add",
        "lost-reply",
        "--operation",
        "ssm:SendCommand",
        "--host",
        host,
        "--count",
        "1",
    ]);
    let run = begin_slow(cloud, "lost-reply", host, &[]);
    go(cloud, host);
    let ended = run.ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(count(cloud, host), 1, "{ended}");
    cloud.fault(&["remove", "--all"]);
    cloud.say("a play whose command's reply was lost runs once");
}

pub(crate) fn the_deadline_ends_ansible_after_its_task(cloud: &Cloud, host: &str) {
    let begun = Instant::now();
    let ended = start(cloud, "deadline", &[host], "steps.yml", &["--timeout", "10s"]).ended();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(ended.code, 4, "{ended}");
    let (outcome, detail) = said(&ended, host);
    assert_eq!(outcome, "failed", "{ended}");
    assert!(
        detail.contains("ended at the deadline after ") && detail.contains("at Step "),
        "{ended}"
    );
    until_free(cloud, host);
    cloud.say("the deadline ends Ansible after its task");
}

pub(crate) fn a_kill_by_the_kernel_is_told_from_the_deadline(cloud: &Cloud, host: &str) {
    let ended = start(
        cloud,
        "ansible-killed",
        &[host],
        "killed.yml",
        &["-e", "victim=bin/ansible-playbook"],
    )
    .ended();
    assert_eq!(ended.code, 1, "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("status 137") && detail.contains("out of memory"), "{ended}");
    assert!(detail.contains("Take all memory"), "{ended}");
    until_free(cloud, host);
    let args = ["-e", "victim=ssm-run-playbook/run.py"];
    let ended = start(cloud, "command-killed", &[host], "killed.yml", &args).ended();
    assert_eq!(ended.code, 6, "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("killed") && detail.contains("out of memory"), "{ended}");
    until_free(cloud, host);
    cloud.say("a kill by the kernel is told from the deadline");
}

pub(crate) fn a_second_run_names_who_has_the_host(cloud: &Cloud, host: &str) {
    let first = begin_slow(cloud, "first", host, &[]);
    let second = start(cloud, "second", &[host], "site.yml", &["--lock-wait", "0s"]).ended();
    assert_eq!(second.code, 6, "{second}");
    let (_, detail) = said(&second, host);
    assert!(detail.contains("locked by another run (run "), "{second}");
    go(cloud, host);
    let first = first.ended();
    assert_eq!(first.code, 0, "{first}");
    cloud.say("a second run on a locked host is told who has it");
}

pub(crate) fn sigint_cancels_and_frees_the_host(cloud: &Cloud, host: &str) {
    let run = start(cloud, "interrupted", &[host], "steps.yml", &[]);
    cloud.until("Ansible sleeps", || !cloud.exec(host, "pgrep -x sleep").is_empty());
    let begun = Instant::now();
    run.signal("INT");
    let ended = run.ended();
    assert_eq!(ended.code, 130, "{ended}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let commands = cloud.call("ssm", "list_commands", json!({"InstanceId": cloud.id(host)}));
    // The last question for the progress ends by itself.
    let runs = commands["Commands"].as_array().unwrap().iter().filter(|command| {
        command["Comment"].as_str().is_some_and(|comment| comment.ends_with(" run"))
    });
    let mut states = runs.map(|command| command["Status"].as_str().unwrap());
    assert!(!states.any(|state| ["Pending", "InProgress"].contains(&state)), "{ended}");
    until_free(cloud, host);
    // Neither what the module that was killed had unpacked, nor what was about to be put in place.
    assert_eq!(cloud.exec(host, "ls -d /tmp/ansible* /tmp/ssm-run* /root/.ansible/tmp/*"), "");
    cloud.say("SIGINT cancels within five seconds, and the host is free after it");
}

pub(crate) fn expired_credentials_end_the_run_and_name_what_goes_on(cloud: &Cloud, host: &str) {
    let run = begin_slow(cloud, "expired", host, &[]);
    cloud.fault(&["add", "expired-credentials", "--service", "ssm"]);
    let ended = run.ended();
    cloud.fault(&["remove", "--all"]);
    assert_eq!(ended.code, 5, "{ended}");
    assert!(ended.stderr.contains("expired"), "{ended}");
    assert!(ended.stderr.contains("cannot cancel command"), "{ended}");
    let (_, detail) = said(&ended, host);
    assert!(detail.contains("it may run on"), "{ended}");
    go(cloud, host);
    until_free(cloud, host);
    cloud.say("credentials that expire end the run, and what goes on is named");
}
