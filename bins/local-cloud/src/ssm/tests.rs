//! The API and the real agent stand-in together: commands run on this machine, in a temporary folder.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::routing::{get, put};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::fate::Arrival;
use super::{Presence, Ssm, Timing};
use crate::faults::{Kind, Spec};
use crate::hosts::{HostInfo, HostState, Hosts};

const HOST: &str = "i-0123456789abcdef0";
/// Launched, but no agent ever came.
const SILENT: &str = "i-00000000000000001";
const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/agent/amazon-ssm-agent-stand-in.py");
/// Nothing here takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cloud {
    ssm: Ssm,
    hosts: Hosts,
    endpoint: String,
    folder: TempDir,
    agent: Option<Child>,
}

impl Cloud {
    /// Systems Manager with one host whose agent is online, and one that is silent.
    async fn new() -> Self {
        let mut cloud = Self::without_agent().await;
        cloud.start_agent();
        cloud.until("Online", |status| status == "Online").await;
        cloud
    }

    async fn without_agent() -> Self {
        let hosts = Hosts::default();
        hosts.put(host(HOST, Ipv4Addr::LOCALHOST, "sip"));
        hosts.put(host(SILENT, Ipv4Addr::new(127, 0, 0, 9), "sip"));
        let timing = Timing {
            registration: Duration::ZERO,
            poll: Duration::from_millis(300),
            lost: Duration::from_secs(2),
            visible: Duration::ZERO,
        };
        let ssm = Ssm::timed(hosts.clone(), timing);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let router = ssm.agent_router().merge(metadata());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let folder = tempfile::tempdir().expect("a folder");
        Self { ssm, hosts, endpoint, folder, agent: None }
    }

    fn start_agent(&mut self) {
        let child = Command::new("python3")
            .arg(AGENT)
            .args(["--endpoint", &self.endpoint, "--metadata", &self.endpoint])
            .arg("--state")
            .arg(self.state())
            .args(["--reboot-command", &format!("touch '{}'", self.path("rebooted").display())])
            .kill_on_drop(true)
            .spawn()
            .expect("python3 is there");
        self.agent = Some(child);
    }

    /// Kills the agent, as a crash does.
    async fn kill_agent(&mut self) {
        self.agent.take().expect("an agent").kill().await.expect("it was running");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    async fn call(&self, operation: &str, request: Value) -> Result<Value, String> {
        let reply =
            self.ssm.handle(operation, &HeaderMap::new(), request.to_string().as_bytes()).await;
        let reply = reply.expect("answered here");
        match reply.status {
            200 => Ok(reply.body),
            _ => Err(reply.body["__type"].as_str().expect("a type").to_owned()),
        }
    }

    async fn send(&self, commands: &[&str], more: Value) -> String {
        let mut request = json!({
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": [HOST],
            "Parameters": {"commands": commands},
        });
        for (key, value) in more.as_object().expect("an object") {
            if key == "Parameters" {
                for (name, value) in value.as_object().expect("an object") {
                    request[key][name] = value.clone();
                }
            } else {
                request[key] = value.clone();
            }
        }
        let body = self.call("SendCommand", request).await.expect("sent");
        body["Command"]["CommandId"].as_str().expect("an id").to_owned()
    }

    async fn get(&self, command: &str) -> Value {
        let request = json!({"CommandId": command, "InstanceId": HOST});
        self.call("GetCommandInvocation", request).await.expect("there")
    }

    /// Looks again after every change until it sees what it waits for.
    async fn see<T>(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.ssm.changes.subscribe();
        let seen = timeout(PATIENCE, async {
            loop {
                if let Some(seen) = look(self).await {
                    return seen;
                }
                // Time alone changes things as well, and so does the host.
                let _ = timeout(Duration::from_millis(50), changes.changed()).await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    async fn invocation(&self, command: &str, status: &str) -> Value {
        self.see(status, async |cloud| {
            let invocation = cloud.get(command).await;
            (invocation["Status"] == status).then_some(invocation)
        })
        .await
    }

    async fn ended(&self, command: &str) -> Value {
        self.see("an end", async |cloud| {
            let invocation = cloud.get(command).await;
            let open = ["Pending", "Delayed", "InProgress", "Cancelling"];
            (!open.contains(&invocation["Status"].as_str()?)).then_some(invocation)
        })
        .await
    }

    async fn run(&self, commands: &[&str]) -> Value {
        let id = self.send(commands, json!({})).await;
        self.ended(&id).await
    }

    async fn until(&self, what: &str, fits: impl Fn(&str) -> bool) {
        self.see(what, async |cloud| {
            let body = cloud.call("DescribeInstanceInformation", json!({})).await.expect("a list");
            let list = body["InstanceInformationList"].as_array().expect("a list").clone();
            fits(list.first()?["PingStatus"].as_str()?).then_some(())
        })
        .await;
    }
}

/// Instance metadata as far as an agent reads it.
fn metadata() -> Router {
    let credentials =
        json!({"AccessKeyId": "ASIATEST", "SecretAccessKey": "secret", "Token": "token"});
    let path = |name: &str| format!("/latest/meta-data/{name}");
    Router::new()
        .route("/latest/api/token", put(async || "token"))
        .route(&path("placement/region"), get(async || "us-east-1"))
        .route(&path("iam/security-credentials/"), get(async || "role"))
        .route(&path("iam/security-credentials/role"), get(async move || Json(credentials)))
}

fn host(id: &str, private_ip: Ipv4Addr, role: &str) -> HostInfo {
    HostInfo {
        instance_id: id.to_owned(),
        name: Some(format!("{role}-1")),
        private_ip,
        state: HostState::Running,
        tags: BTreeMap::from([("role".to_owned(), role.to_owned())]),
        launched: Timestamp::now(),
    }
}

/// Status, details, exit status, standard output, standard error.
fn told(invocation: &Value) -> (&str, &str, i64, &str, &str) {
    let text = |key: &str| invocation[key].as_str().expect("a text");
    let code = invocation["ResponseCode"].as_i64().expect("a number");
    let (out, err) = (text("StandardOutputContent"), text("StandardErrorContent"));
    (text("Status"), text("StatusDetails"), code, out, err)
}

#[tokio::test]
async fn a_command_runs_on_the_host_and_its_end_is_told() {
    let cloud = Cloud::new().await;
    let id =
        cloud.send(&["echo \"$SSM_COMMAND_ID\"", "echo two >&2"], json!({"Comment": "hi"})).await;
    let invocation = cloud.ended(&id).await;
    let expected = format!("{id}\n");
    assert_eq!(told(&invocation), ("Success", "Success", 0, expected.as_str(), "two\n"));
    assert_eq!(invocation["Comment"], "hi");
    assert_eq!(invocation["PluginName"], "aws:runShellScript");
    assert!(invocation["ExecutionElapsedTime"].as_str().is_some_and(|t| t.starts_with("PT")));

    let request = json!({"CommandId": id, "Details": true});
    let list = cloud.call("ListCommandInvocations", request).await.expect("a list");
    let listed = &list["CommandInvocations"][0];
    assert_eq!(listed["InstanceId"], HOST);
    assert!(listed["RequestedDateTime"].is_f64());
    let output = format!("{id}\n\n----------ERROR-------\ntwo\n");
    assert_eq!(listed["CommandPlugins"][0]["Output"], output);
    assert_eq!(listed["CommandPlugins"][0]["ResponseCode"], 0);

    let commands = cloud.call("ListCommands", json!({"CommandId": id})).await.expect("a list");
    let command = &commands["Commands"][0];
    assert_eq!(command["Status"], "Success");
    assert_eq!((&command["TargetCount"], &command["CompletedCount"]), (&json!(1), &json!(1)));
    let expires = command["ExpiresAfter"].as_f64().expect("a time");
    let requested = command["RequestedDateTime"].as_f64().expect("a time");
    assert!((expires - requested - 7_200.0).abs() < 0.01);
}

#[tokio::test]
async fn another_exit_status_fails_and_is_told() {
    let cloud = Cloud::new().await;
    let failed = cloud.run(&["echo before", "echo why >&2", "exit 3"]).await;
    let stderr = "why\nfailed to run commands: exit status 3";
    assert_eq!(told(&failed), ("Failed", "Failed", 3, "before\n", stderr));
    // The shell goes on after a line that fails.
    let succeeded = cloud.run(&["false", "echo on"]).await;
    assert_eq!(told(&succeeded), ("Success", "Success", 0, "on\n", ""));
    // The shell that runs the script's shell.
    let killed = cloud.run(&["kill -TERM $PPID"]).await;
    let stderr = "failed to run commands: signal: terminated";
    assert_eq!(told(&killed), ("Failed", "Failed", -1, "", stderr));
}

#[tokio::test]
async fn exit_status_137_reads_as_timed_out_whoever_sent_it() {
    let cloud = Cloud::new().await;
    let invocation = cloud.run(&["sh -c 'kill -KILL $$'"]).await;
    assert_eq!(told(&invocation).0, "TimedOut");
    assert_eq!(told(&invocation).1, "ExecutionTimedOut");
    assert_eq!(told(&invocation).2, 137);
}

#[tokio::test]
async fn the_working_directory_holds_and_a_missing_one_fails() {
    let cloud = Cloud::new().await;
    let folder = cloud.folder.path().canonicalize().expect("a folder");
    let more = json!({"Parameters": {"workingDirectory": [folder]}});
    let id = cloud.send(&["pwd"], more).await;
    let expected = format!("{}\n", folder.display());
    assert_eq!(told(&cloud.ended(&id).await).3, expected);
    let more = json!({"Parameters": {"workingDirectory": ["/no/such/folder"]}});
    let id = cloud.send(&["pwd"], more).await;
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation).0, "Failed");
    assert!(told(&invocation).4.contains("/no/such/folder"), "{invocation}");
}

#[tokio::test]
async fn the_first_line_may_name_another_interpreter() {
    let cloud = Cloud::new().await;
    let invocation = cloud.run(&["#!/usr/bin/env python3", "print(6 * 7)"]).await;
    assert_eq!(told(&invocation).3, "42\n");
}

#[tokio::test]
async fn a_huge_output_is_cut_at_its_documented_lengths() {
    let cloud = Cloud::new().await;
    let id = cloud
        .send(
            &["head -c 50000000 /dev/zero | tr '\\0' o", "head -c 9000 /dev/zero | tr '\\0' e >&2"],
            json!({}),
        )
        .await;
    let invocation = cloud.ended(&id).await;
    let (status, _, _, stdout, stderr) = told(&invocation);
    assert_eq!(status, "Success");
    assert_eq!((stdout.len(), stderr.len()), (24_000, 8_000));
    assert!(stdout.ends_with("o--output truncated--"));
    assert!(stderr.ends_with("e--output truncated--"));
    let request = json!({"CommandId": id, "Details": true});
    let list = cloud.call("ListCommandInvocations", request).await.expect("a list");
    let listed = list["CommandInvocations"][0]["CommandPlugins"][0]["Output"].as_str();
    let listed = listed.expect("a text");
    assert!((2_400..=2_500).contains(&listed.len()), "{}", listed.len());
    assert!(listed.contains("\n---Output truncated---\n----------ERROR-------\n"));
    assert!(listed.ends_with("\n---Error truncated----"));
}

#[tokio::test]
async fn what_is_no_text_arrives_marked() {
    let cloud = Cloud::new().await;
    let invocation = cloud.run(&[r"printf 'a\377\000b'"]).await;
    assert_eq!(told(&invocation).3, "a\u{fffd}\0b");
}

#[tokio::test]
async fn a_command_that_runs_too_long_is_killed_with_its_children() {
    let cloud = Cloud::new().await;
    let left = cloud.path("left");
    let script = format!("echo begun; (sleep 7; touch '{}') & sleep 60", left.display());
    let more = json!({"Parameters": {"executionTimeout": ["5"]}});
    let id = cloud.send(&[&script], more).await;
    let running = cloud.invocation(&id, "InProgress").await;
    assert_eq!(told(&running), ("InProgress", "InProgress", -1, "", ""));
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation), ("TimedOut", "ExecutionTimedOut", 137, "begun\n", ""));
    let elapsed = invocation["ExecutionElapsedTime"].as_str().expect("a text");
    assert!(
        elapsed.starts_with("PT5."),
        "{elapsed}: the child that held the output was killed too"
    );
    assert!(!left.exists());
}

#[tokio::test]
async fn cancelling_kills_what_runs_and_keeps_its_output() {
    let cloud = Cloud::new().await;
    let begun = cloud.path("begun");
    let script = format!("trap '' TERM INT; echo begun; touch '{}'; sleep 600", begun.display());
    let id = cloud.send(&[&script], json!({})).await;
    cloud.see("the script", async |_| begun.exists().then_some(())).await;
    cloud.call("CancelCommand", json!({"CommandId": id})).await.expect("asked");
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation), ("Cancelled", "Cancelled", 137, "begun\n", ""));
    let commands = cloud.call("ListCommands", json!({"CommandId": id})).await.expect("a list");
    assert_eq!(commands["Commands"][0]["Status"], "Cancelled");
}

#[tokio::test]
async fn five_commands_run_at_a_time_and_the_sixth_waits() {
    let cloud = Cloud::new().await;
    let go = cloud.path("go");
    let script = format!("until [ -e '{}' ]; do sleep 0.1; done", go.display());
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(cloud.send(&[&script], json!({})).await);
    }
    for id in &ids[..5] {
        cloud.invocation(id, "InProgress").await;
    }
    assert_eq!(told(&cloud.get(&ids[5]).await).0, "Pending");
    std::fs::write(&go, "").expect("written");
    for id in &ids {
        assert_eq!(told(&cloud.ended(id).await).0, "Success");
    }
}

#[tokio::test]
async fn an_agent_that_dies_loses_its_connection_but_not_its_commands() {
    let mut cloud = Cloud::new().await;
    let go = cloud.path("go");
    let script = format!("echo $$; until [ -e '{}' ]; do sleep 0.1; done; echo done", go.display());
    let id = cloud.send(&[&script], json!({})).await;
    cloud.invocation(&id, "InProgress").await;
    cloud.kill_agent().await;
    cloud.until("ConnectionLost", |status| status == "ConnectionLost").await;
    assert_eq!(told(&cloud.get(&id).await).0, "InProgress");
    // Nobody can run this one now; it is taken all the same.
    let waiting = cloud.send(&["echo later"], json!({})).await;
    assert_eq!(told(&cloud.get(&waiting).await).0, "Delayed");

    std::fs::write(&go, "").expect("written");
    cloud.start_agent();
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation).0, "Success");
    assert!(told(&invocation).3.ends_with("\ndone\n"), "{invocation}");
    assert_eq!(told(&cloud.ended(&waiting).await).3, "later\n");
    cloud.until("Online", |status| status == "Online").await;
    cloud
        .see("an empty folder", async |cloud| {
            let mut jobs = std::fs::read_dir(cloud.state().join("jobs")).ok()?;
            jobs.next().is_none().then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_worker_that_dies_is_a_failure() {
    let cloud = Cloud::new().await;
    // The parent of the shell that runs the script's shell.
    let invocation = cloud.run(&["kill -KILL $(cut -d' ' -f4 /proc/$PPID/stat)"]).await;
    let stderr = "the worker of this command ended without a result";
    assert_eq!(told(&invocation), ("Failed", "Failed", -1, "", stderr));
}

#[tokio::test]
async fn exit_status_194_reboots_and_runs_once_more() {
    let mut cloud = Cloud::new().await;
    let first = cloud.path("first");
    let script =
        format!("[ -e '{0}' ] || {{ touch '{0}'; exit 194; }}; echo again", first.display());
    let id = cloud.send(&[&script], json!({})).await;
    cloud.see("the reboot", async |cloud| cloud.path("rebooted").exists().then_some(())).await;
    assert_eq!(told(&cloud.get(&id).await).0, "InProgress");
    cloud.kill_agent().await;
    // Of the reboot only this is left here: the job was started by another run of the host.
    let job = cloud.state().join("jobs").join(&id).join("job.json");
    let text = std::fs::read_to_string(&job).expect("a job");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value["boot"] = "an earlier one".into();
    std::fs::write(&job, value.to_string()).expect("written");
    cloud.start_agent();
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation), ("Success", "Success", 0, "again\n", ""));
}

#[tokio::test]
async fn an_agent_registers_again_with_a_service_that_forgot_it() {
    let cloud = Cloud::new().await;
    cloud.ssm.change_book(|book, _| book.advance(Timestamp::now(), |_| Presence::Gone));
    cloud.until("Online", |status| status == "Online").await;
    assert_eq!(told(&cloud.run(&["echo still"]).await).3, "still\n");
}

#[tokio::test]
async fn who_is_not_registered_cannot_be_sent_to_by_id() {
    let cloud = Cloud::without_agent().await;
    let to = |ids: Value| {
        json!({
            "DocumentName": "AWS-RunShellScript", "InstanceIds": ids,
            "Parameters": {"commands": ["true"]},
        })
    };
    let sent = cloud.call("SendCommand", to(json!([HOST]))).await;
    assert_eq!(sent, Err("InvalidInstanceId".into()), "launched, but its agent has not come");
    let body = cloud.call("DescribeInstanceInformation", json!({})).await.expect("a list");
    assert_eq!(body["InstanceInformationList"], json!([]));
    let sent = cloud.call("SendCommand", to(json!(["i-ffffffffffffffff0"]))).await;
    assert_eq!(sent, Err("InvalidInstanceId".into()));
}

#[tokio::test]
async fn a_terminated_host_is_no_managed_instance_any_more() {
    let cloud = Cloud::new().await;
    cloud.hosts.update(HOST, |host| host.state = HostState::Terminated);
    let body = cloud.call("DescribeInstanceInformation", json!({})).await.expect("a list");
    assert_eq!(body["InstanceInformationList"], json!([]));
    let request = json!({
        "DocumentName": "AWS-RunShellScript", "InstanceIds": [HOST],
        "Parameters": {"commands": ["true"]},
    });
    assert_eq!(cloud.call("SendCommand", request).await, Err("InvalidInstanceId".into()));
}

#[tokio::test]
async fn targets_are_found_by_tag_and_unknown_ids_are_undeliverable() {
    let cloud = Cloud::new().await;
    let send = async |key: &str, value: &str| {
        let request = json!({
            "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["echo hit"]},
            "Targets": [{"Key": key, "Values": [value]}],
        });
        cloud.call("SendCommand", request).await.expect("sent")["Command"].clone()
    };
    let command = send("tag:role", "sip").await;
    assert_eq!(command["TargetCount"], 1, "the silent host is not managed");
    let id = command["CommandId"].as_str().expect("an id");
    assert_eq!(told(&cloud.ended(id).await).3, "hit\n");
    let command = send("tag:role", "none").await;
    assert_eq!(command["StatusDetails"], "Pending", "as on AWS, targets are looked for later");
    let request = json!({"CommandId": command["CommandId"]});
    let settled = cloud.call("ListCommands", request).await.expect("a list");
    assert_eq!(settled["Commands"][0]["StatusDetails"], "NoInstancesInTag");
    let command = send("InstanceIds", SILENT).await;
    let request = json!({"CommandId": command["CommandId"], "InstanceId": SILENT});
    let invocation = cloud.call("GetCommandInvocation", request).await.expect("there");
    assert_eq!(told(&invocation), ("Failed", "Undeliverable", -1, "", ""));
}

#[tokio::test]
async fn managed_instances_are_described_and_filtered() {
    let cloud = Cloud::new().await;
    let body = cloud.call("DescribeInstanceInformation", json!({})).await.expect("a list");
    let info = &body["InstanceInformationList"][0];
    assert_eq!(info["InstanceId"], HOST);
    assert_eq!(info["AgentVersion"], "0.0.1.0");
    assert_eq!(info["ResourceType"], "EC2Instance");
    assert_eq!(info["IPAddress"], "127.0.0.1");
    assert!(info["LastPingDateTime"].is_f64());
    let count = async |key: &str, value: &str| {
        let filter = json!([{"Key": key, "Values": [value]}]);
        let request = json!({"Filters": filter});
        let body = cloud.call("DescribeInstanceInformation", request).await?;
        Ok::<_, String>(body["InstanceInformationList"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(count("InstanceIds", HOST).await, Ok(1));
    assert_eq!(count("InstanceIds", SILENT).await, Ok(0));
    assert_eq!(count("PingStatus", "ConnectionLost").await, Ok(0));
    assert_eq!(count("tag:role", "sip").await, Ok(1));
    assert_eq!(
        count("PingStatus", "Alive").await,
        Err("InvalidInstanceInformationFilterValue".into())
    );
    assert_eq!(count("Colour", "red").await, Err("InvalidFilterKey".into()));
    let request =
        json!({"InstanceInformationFilterList": [{"key": "PingStatus", "valueSet": ["Online"]}]});
    let body = cloud.call("DescribeInstanceInformation", request).await.expect("a list");
    assert_eq!(body["InstanceInformationList"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn commands_are_listed_in_pages_newest_first() {
    let cloud = Cloud::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(cloud.send(&["true"], json!({})).await);
    }
    for id in &ids {
        cloud.ended(id).await;
    }
    ids.reverse();
    for (operation, list) in
        [("ListCommands", "Commands"), ("ListCommandInvocations", "CommandInvocations")]
    {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let request = json!({"MaxResults": 2, "NextToken": token});
            let body = cloud.call(operation, request).await.expect("a page");
            let page = body[list].as_array().expect("a list");
            assert!(page.len() <= 2);
            seen.extend(page.iter().map(|c| c["CommandId"].as_str().expect("id").to_owned()));
            body["NextToken"].as_str().expect("a token").clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ids, "{operation}");
    }
    let filtered = async |filter: Value| {
        let request = json!({"Filters": [filter]});
        let body = cloud.call("ListCommands", request).await?;
        Ok::<_, String>(body["Commands"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(filtered(json!({"key": "Status", "value": "Success"})).await, Ok(5));
    assert_eq!(filtered(json!({"key": "ExecutionStage", "value": "Executing"})).await, Ok(0));
    assert_eq!(
        filtered(json!({"key": "InvokedAfter", "value": "2999-01-01T00:00:00Z"})).await,
        Ok(0)
    );
    assert_eq!(
        filtered(json!({"key": "InvokedBefore", "value": "2999-01-01T00:00:00Z"})).await,
        Ok(5)
    );
    let bad = filtered(json!({"key": "Colour", "value": "red"})).await;
    assert_eq!(bad, Err("InvalidFilterKey".into()));
}

#[tokio::test]
async fn an_invocation_cannot_be_read_just_after_sending() {
    let mut cloud = Cloud::without_agent().await;
    let slow = Timing { visible: Duration::from_secs(3_600), ..cloud.ssm.timing };
    cloud.ssm = Ssm::timed(cloud.hosts.clone(), slow);
    let about = serde_json::from_value(json!({
        "agent_version": "stand-in", "platform_name": "", "platform_version": "",
        "computer_name": "", "workers": 5,
    }));
    cloud.ssm.change_book(|book, now| book.register(HOST, about.expect("valid"), now));
    let id = cloud.send(&["true"], json!({})).await;
    let got =
        cloud.call("GetCommandInvocation", json!({"CommandId": id, "InstanceId": HOST})).await;
    assert_eq!(got, Err("InvocationDoesNotExist".into()));
    let list =
        cloud.call("ListCommandInvocations", json!({"CommandId": id})).await.expect("a list");
    assert_eq!(list["CommandInvocations"], json!([]));
    let list = cloud.call("ListCommands", json!({"CommandId": id})).await.expect("a list");
    assert_eq!(list["Commands"][0]["Status"], "Pending");
}

#[tokio::test]
async fn what_does_not_exist_or_cannot_be_done_is_named() {
    let cloud = Cloud::without_agent().await;
    let unknown = "00000000-0000-0000-0000-000000000000";
    let check = async |operation: &str, request: Value, code: &str| {
        assert_eq!(cloud.call(operation, request).await, Err(code.to_owned()), "{operation}");
    };
    let invocation = json!({"CommandId": unknown, "InstanceId": HOST});
    check("GetCommandInvocation", invocation, "InvocationDoesNotExist").await;
    check("GetCommandInvocation", json!({}), "ValidationException").await;
    check("ListCommandInvocations", json!({"CommandId": unknown}), "InvalidCommandId").await;
    check("ListCommands", json!({"CommandId": "short"}), "ValidationException").await;
    check("CancelCommand", json!({"CommandId": unknown}), "InvalidCommandId").await;
    check("ListCommands", json!({"MaxResults": 51}), "ValidationException").await;
    check("DescribeInstanceInformation", json!({"MaxResults": 4}), "ValidationException").await;
    check("ListCommands", json!({"NextToken": "nonsense"}), "InvalidNextToken").await;
    check("SendCommand", json!({"DocumentName": 5}), "SerializationException").await;
    check("StartSession", json!({"Target": HOST}), "NotImplemented").await;
    check("CreateAssociation", json!({}), "NotImplemented").await;
    assert_eq!(
        cloud.ssm.handle("GetParameter", &HeaderMap::new(), br#"{"Name": "a"}"#).await,
        None,
        "the emulator keeps it"
    );
    let reply = cloud.ssm.handle("StartSession", &HeaderMap::new(), b"{}").await.expect("answered");
    assert_eq!(reply.status, 501);
    assert!(reply.body["Message"].as_str().is_some_and(|text| text.contains("`StartSession`")));
}

#[tokio::test]
async fn a_stranger_is_no_agent() {
    let cloud = Cloud::without_agent().await;
    cloud.hosts.update(HOST, |host| host.private_ip = Ipv4Addr::new(10, 20, 1, 10));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}/rehearsal/agent/poll", cloud.endpoint);
    let answer = client.post(url).json(&json!({"held": []})).send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
}

fn fault(cloud: &Cloud, kind: Kind, change: impl FnOnce(&mut Spec)) -> u64 {
    let mut spec = Spec { count: Some(1), ..Spec::of(kind) };
    change(&mut spec);
    cloud.ssm.faults.add(spec).expect("a fault")
}

#[tokio::test]
async fn an_agent_stays_away_while_its_fault_is_listed_and_then_comes_late() {
    let mut cloud = Cloud::without_agent().await;
    let never = fault(&cloud, Kind::AgentNever, |_| ());
    let late = Duration::from_secs(2);
    fault(&cloud, Kind::AgentLate, |spec| spec.delay = Some(late));
    let begun = std::time::Instant::now();
    cloud.start_agent();
    // It struck once, for this host, and keeps it away however often it asks.
    cloud
        .see("a first question", async |c| c.ssm.faults.list()[1].struck.eq(&1).then_some(()))
        .await;
    let host = cloud.hosts.by_instance(HOST).expect("known");
    assert_eq!(cloud.ssm.arrival(&host), Arrival::Never);
    assert!(cloud.ssm.faults.remove(never));
    cloud.until("Online", |status| status == "Online").await;
    assert!(begun.elapsed() >= late);
}

#[tokio::test]
async fn a_slow_agent_takes_commands_late_and_says_late_how_they_ended() {
    let cloud = Cloud::new().await;
    let delay = Duration::from_secs(1);
    fault(&cloud, Kind::AgentSlow, |spec| {
        spec.delay = Some(delay);
        spec.count = Some(2);
    });
    let begun = std::time::Instant::now();
    assert_eq!(told(&cloud.run(&["echo late"]).await).3, "late\n");
    assert!(begun.elapsed() >= 2 * delay, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_agent_that_is_cut_off_comes_back_with_its_result() {
    let cloud = Cloud::new().await;
    fault(&cloud, Kind::AgentDrop, |spec| {
        spec.delay = Some(Duration::from_secs(4));
        spec.seconds = Some(0);
    });
    let go = cloud.path("go");
    let script = format!("until [ -e '{}' ]; do sleep 0.1; done; echo done", go.display());
    let id = cloud.send(&[&script], json!({})).await;
    cloud.until("ConnectionLost", |status| status == "ConnectionLost").await;
    std::fs::write(&go, "").expect("written");
    assert_eq!(told(&cloud.get(&id).await).0, "InProgress");
    let invocation = cloud.ended(&id).await;
    assert_eq!(told(&invocation), ("Success", "Success", 0, "done\n", ""));
    cloud.until("Online", |status| status == "Online").await;
}
