//! EC2 (query protocol, XML) and Systems Manager (JSON 1.1) as far as the tool calls them.

use crate::id;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers};

/// One host: each list gives one answer per question, the last one for good.
#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    pub(crate) states: Vec<&'static str>,
    pub(crate) reason: &'static str,
    pub(crate) checks: Vec<&'static str>,
    pub(crate) pings: Vec<&'static str>,
    pub(crate) probes: Vec<Probe>,
}

#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// The agent has it and has not answered.
    Working,
    Answers(String),
    Lost(&'static str),
    /// The list shows the first 2,500 characters only.
    Long(String),
    /// The first question is answered once a second one was asked, which is never answered.
    LateAnswers(String),
}

impl FakeHost {
    pub(crate) fn ready() -> Self {
        Self {
            states: vec!["running"],
            reason: "",
            checks: vec!["ok"],
            pings: vec!["Online"],
            probes: vec![Probe::Answers(answer(None, &json!([]), &json!({}), true))],
        }
    }

    pub(crate) fn probes(self, probes: Vec<Probe>) -> Self {
        Self { probes, ..self }
    }
}

/// What the probe prints.
pub(crate) fn answer(
    stage: Option<&str>,
    errors: &Value,
    recoverable: &Value,
    done: bool,
) -> String {
    let end = if done { json!(1_700_000_034.5) } else { Value::Null };
    let status = json!({"v1": {"datasource": "DataSourceEc2", "stage": stage,
        "init-local": {"start": 1_700_000_004.0, "finished": 1_700_000_005.0, "errors": []},
        "modules-final": {"start": 1_700_000_020.0, "finished": end, "errors": errors, "recoverable_errors": recoverable}}});
    let result = if done {
        json!({"v1": {"datasource": "DataSourceEc2", "errors": errors}}).to_string()
    } else {
        String::new()
    };
    format!(
        "probe=1\nbinary=/usr/bin/cloud-init\nversion=/usr/bin/cloud-init 25.1.4\nboot=b\nfinal=active\nresult={result}\nstatus={status}\nlong=status: x|\nend=1\n"
    )
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<String, FakeHost>,
    /// Command ID → the hosts that have to answer it.
    commands: HashMap<String, Vec<String>>,
    calls: Vec<String>,
    /// Operation → answers that come before the real ones.
    faults: HashMap<String, Vec<(u16, &'static str)>>,
}

/// The double.
pub(crate) struct Cloud {
    server: MockServer,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    /// Hosts by their number; the others are unknown.
    pub(crate) fn new(hosts: impl IntoIterator<Item = (usize, FakeHost)>) -> Self {
        let hosts = hosts.into_iter().map(|(number, host)| (id(number), host)).collect();
        let state = Arc::new(Mutex::new(State { hosts, ..State::default() }));
        let server =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
                async {
                    let server = MockServer::start().await;
                    Mock::given(matchers::any())
                        .respond_with(Double(Arc::clone(&state)))
                        .mount(&server)
                        .await;
                    server
                },
            );
        Self { server, state }
    }

    /// The next calls of this operation are answered with this HTTP status and error code.
    pub(crate) fn fault(&self, operation: &str, status: u16, code: &'static str, times: usize) {
        self.state.lock().unwrap().faults.insert(operation.to_owned(), vec![(status, code); times]);
    }

    pub(crate) fn endpoint(&self) -> String {
        self.server.uri()
    }

    /// The operations in the order of their calls.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn count(&self, operation: &str) -> usize {
        self.calls().iter().filter(|call| *call == operation).count()
    }
}

struct Double(Arc<Mutex<State>>);

impl Respond for Double {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let target = request.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let mut state = self.0.lock().unwrap();
        match target.and_then(|target| target.strip_prefix("AmazonSSM.")) {
            Some(operation) => {
                state.calls.push(operation.to_owned());
                if let Some((status, code)) = state.fault(operation) {
                    let body =
                        json!({"__type": code, "message": format!("{operation} says {code}")});
                    return json_answer(status, &body);
                }
                let request: Value = serde_json::from_str(&body).unwrap();
                state.ssm(operation, &request)
            }
            None => {
                let form: HashMap<String, String> = body
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect();
                let operation = form["Action"].clone();
                state.calls.push(operation.clone());
                if let Some((status, code)) = state.fault(&operation) {
                    return ec2_error(status, code, &format!("{operation} says {code}"));
                }
                state.ec2(&operation, &form)
            }
        }
    }
}

/// The next answer of a list whose last one stays.
fn next<T: Clone>(answers: &mut Vec<T>) -> T {
    if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
}

impl State {
    fn fault(&mut self, operation: &str) -> Option<(u16, &'static str)> {
        self.faults.get_mut(operation)?.pop()
    }

    fn ec2(&mut self, operation: &str, form: &HashMap<String, String>) -> ResponseTemplate {
        let asked = |prefix: &str| -> Vec<String> {
            let mut found: Vec<(String, String)> = form
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            found.sort();
            found.into_iter().map(|(_, value)| value).collect()
        };
        match operation {
            "DescribeInstances" => {
                assert_eq!(form["Filter.1.Name"], "instance-id");
                let mut items = String::new();
                for id in asked("Filter.1.Value.") {
                    let Some(host) = self.hosts.get_mut(&id) else { continue };
                    items.push_str(&format!(
                        "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><code>16</code><name>{}</name></instanceState>\
                         <stateReason><code>x</code><message>{}</message></stateReason><launchTime>2023-11-14T22:13:20.000Z</launchTime>\
                         <subnetId>subnet-1</subnetId></item></instancesSet></item>",
                        next(&mut host.states),
                        host.reason
                    ));
                }
                ec2_answer(operation, &format!("<reservationSet>{}</reservationSet>", items))
            }
            "DescribeInstanceStatus" => {
                assert_eq!(form["IncludeAllInstances"], "true");
                let mut items = String::new();
                for id in asked("InstanceId.") {
                    let host = self
                        .hosts
                        .get_mut(&id)
                        .expect("only instances that are known are asked for");
                    let (state, checks) = (host.states[0], next(&mut host.checks));
                    items.push_str(&format!(
                        "<item><instanceId>{id}</instanceId><instanceState><code>16</code><name>{state}</name></instanceState>\
                         <systemStatus><status>{checks}</status></systemStatus><instanceStatus><status>ok</status></instanceStatus></item>"
                    ));
                }
                ec2_answer(operation, &format!("<instanceStatusSet>{items}</instanceStatusSet>"))
            }
            "GetConsoleOutput" => {
                // `Booting\nGave up waiting for root file system device.\n`
                let text =
                    "Qm9vdGluZwpHYXZlIHVwIHdhaXRpbmcgZm9yIHJvb3QgZmlsZSBzeXN0ZW0gZGV2aWNlLgo=";
                let id = &form["InstanceId"];
                ec2_answer(
                    operation,
                    &format!("<instanceId>{id}</instanceId><output>{text}</output>"),
                )
            }
            other => ec2_error(400, "InvalidAction", other),
        }
    }

    fn ssm(&mut self, operation: &str, request: &Value) -> ResponseTemplate {
        let strings = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        match operation {
            "DescribeInstanceInformation" => {
                assert_eq!(request["MaxResults"], 50);
                let ids = strings(&request["Filters"][0]["Values"]);
                assert!(ids.len() <= 50);
                let list: Vec<Value> = ids
                    .iter()
                    .filter_map(|id| Some((id, next(&mut self.hosts.get_mut(id)?.pings))))
                    .filter(|(_, ping)| !ping.is_empty())
                    .map(|(id, ping)| json!({"InstanceId": id, "PingStatus": ping, "LastPingDateTime": 1_700_000_000}))
                    .collect();
                json_answer(200, &json!({ "InstanceInformationList": list }))
            }
            "SendCommand" => {
                let ids = strings(&request["InstanceIds"]);
                assert!(ids.len() <= 50);
                assert_eq!(request["DocumentName"], "AWS-RunShellScript");
                let command = format!("00000000-0000-4000-8000-{:012}", self.commands.len());
                self.commands.insert(command.clone(), ids);
                json_answer(200, &json!({"Command": {"CommandId": command, "Status": "Pending"}}))
            }
            "ListCommandInvocations" => {
                assert_eq!(request["Details"], true);
                let ids = self.commands[request["CommandId"].as_str().unwrap()].clone();
                let list: Vec<Value> = ids
                    .iter()
                    .map(|id| {
                        let first = request["CommandId"].as_str().unwrap().ends_with("0000");
                        let (status, output) = match next(&mut self.hosts.get_mut(id).unwrap().probes) {
                            Probe::LateAnswers(text) if first && self.commands.len() > 1 => ("Success", text),
                            Probe::LateAnswers(_) => ("InProgress", String::new()),
                            Probe::Working => ("InProgress", String::new()),
                            Probe::Answers(text) => ("Success", text),
                            Probe::Lost(details) => (details, String::new()),
                            Probe::Long(text) => ("Success", text.chars().take(2500).collect()),
                        };
                        let plain = if status.ends_with("TimedOut") { "TimedOut" } else { status };
                        json!({"InstanceId": id, "Status": plain, "StatusDetails": status,
                            "CommandPlugins": [{"Name": "aws:runShellScript", "ResponseCode": 0, "Output": output}]})
                    })
                    .collect();
                json_answer(200, &json!({ "CommandInvocations": list }))
            }
            "GetCommandInvocation" => {
                let Probe::Long(text) =
                    &self.hosts[request["InstanceId"].as_str().unwrap()].probes[0]
                else {
                    panic!("only a cut answer is asked for again");
                };
                json_answer(200, &json!({"StandardOutputContent": text, "Status": "Success"}))
            }
            "CancelCommand" => json_answer(200, &json!({})),
            other => json_answer(400, &json!({"__type": "UnknownOperation", "message": other})),
        }
    }
}

fn json_answer(status: u16, body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/x-amz-json-1.1")
}

fn ec2_answer(operation: &str, inner: &str) -> ResponseTemplate {
    let body = format!(
        "<{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">{inner}</{operation}Response>"
    );
    ResponseTemplate::new(200).set_body_raw(body, "text/xml")
}

fn ec2_error(status: u16, code: &str, message: &str) -> ResponseTemplate {
    let body = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    );
    ResponseTemplate::new(status).set_body_raw(body, "text/xml")
}
