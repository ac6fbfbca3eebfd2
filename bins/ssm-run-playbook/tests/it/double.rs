//! `ssm double`: answers Systems Manager's calls like AWS and really runs the commands on this machine, each instance in
//! a folder of its own. What it cannot do (cut outputs, lose replies, forget agents) is asked of it by faults.

use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The second SendCommand is carried out, but its answer is an error.
    LoseReply,
    /// The first list of commands does not hold what was sent last.
    LateList,
    /// Lists come one item at a time, after an empty page.
    Pages,
    /// The token of a page leads to that page again.
    SamePage,
    /// The first SendCommand is throttled.
    ThrottleOnce,
    /// Every command succeeds and prints nothing that this tool knows.
    SwallowOutput,
    /// The recap line ends in its middle.
    CutRecap,
    /// No instance is known.
    NoAgents,
    /// The second instance was terminated: every call that names it is refused.
    Gone,
    /// As `Gone`, but only from the first SendCommand on.
    GoneSinceAsked,
    /// No answer ever comes.
    Hang,
    /// Everything is denied.
    Deny,
    /// Ansible is not on a host's PATH.
    NoAnsible,
    /// The agent never takes a command.
    Silent,
    /// A command that is killed with all that it started is not ended for the service: the host went down.
    Reboots,
    /// Agents are lost from the first SendCommand on.
    LostSinceAsked,
    /// Another request writes the object when it is first put.
    ConflictOnce,
    /// The role of the host cannot be assumed.
    NoRole,
    /// Nothing may be put into the bucket.
    DenyBucket,
    /// The object is gone when it is first read.
    ObjectGone,
    /// The instances' role may not read secrets.
    DenySecrets,
    /// Secrets are asked for in vain.
    SilentSecrets,
}

#[derive(Debug, Default)]
struct Invocation {
    status: &'static str,
    details: &'static str,
    stdout: String,
    stderr: String,
    group: Option<u32>,
}

#[derive(Debug)]
struct Sent {
    id: String,
    comment: String,
    invocations: HashMap<String, Invocation>,
}

#[derive(Debug, Default)]
struct State {
    faults: HashSet<Fault>,
    commands: Vec<Sent>,
    requests: Vec<(String, String)>,
    /// What the bucket holds, by path.
    objects: HashMap<String, Vec<u8>>,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The double, its server and its instances' folders.
pub(crate) struct Double {
    _runtime: tokio::runtime::Runtime,
    server: MockServer,
    state: Shared,
    root: tempfile::TempDir,
}

impl Double {
    pub(crate) fn start(faults: &[Fault]) -> Self {
        // Here and not first where a command runs: a panic there would leave the tool without an answer.
        drop(search_path());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let root = tempfile::tempdir().unwrap();
        let state = Shared::default();
        lock(&state).faults.extend(faults);
        let server = runtime.block_on(async {
            let server = MockServer::start().await;
            let url = server.uri();
            let answer = Answer { state: Arc::clone(&state), root: root.path().to_owned(), url };
            Mock::given(any()).respond_with(answer).mount(&server).await;
            server
        });
        Self { _runtime: runtime, server, state, root }
    }

    pub(crate) fn url(&self) -> String {
        self.server.uri()
    }

    /// `--host-folder`: `INSTANCE` becomes the instance's ID where a command runs.
    pub(crate) fn host_folder(&self) -> String {
        self.root.path().join("INSTANCE/base").display().to_string()
    }

    /// The base folder of one instance.
    pub(crate) fn base(&self, id: &str) -> PathBuf {
        self.root.path().join(id).join("base")
    }

    /// All that one instance has.
    pub(crate) fn home(&self, id: &str) -> PathBuf {
        self.root.path().join(id)
    }

    /// The operations that were asked for, in order.
    pub(crate) fn operations(&self) -> Vec<String> {
        lock(&self.state).requests.iter().map(|(name, _)| name.clone()).collect()
    }

    /// How often an operation was asked for.
    pub(crate) fn count(&self, operation: &str) -> usize {
        self.operations().iter().filter(|name| *name == operation).count()
    }

    /// Everything that was asked, by the tool and by hosts.
    pub(crate) fn bodies(&self) -> Vec<String> {
        lock(&self.state).requests.iter().map(|(_, body)| body.clone()).collect()
    }

    /// Bodies of the requests of one operation.
    pub(crate) fn bodies_of(&self, operation: &str) -> Vec<String> {
        let state = lock(&self.state);
        let asked = state.requests.iter().filter(|(name, _)| name == operation);
        asked.map(|(_, body)| body.clone()).collect()
    }

    /// Puts an object there as somebody else.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        lock(&self.state).objects.insert(path.to_owned(), bytes.to_vec());
    }

    /// How many commands asked hosts to run the playbook. Questions about progress are asked by the clock.
    pub(crate) fn runs(&self) -> usize {
        self.bodies_of("SendCommand").iter().filter(|body| body.contains(r#" run""#)).count()
    }

    /// Paths of the objects in buckets.
    pub(crate) fn objects(&self) -> Vec<String> {
        lock(&self.state).objects.keys().cloned().collect()
    }

    /// Sizes of the SendCommand bodies.
    pub(crate) fn sent_sizes(&self) -> Vec<usize> {
        let state = lock(&self.state);
        let sends = state.requests.iter().filter(|(name, _)| name == "SendCommand");
        sends.map(|(_, body)| body.len()).collect()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        lock(&self.state).faults.insert(fault);
    }

    pub(crate) fn clear(&self) {
        lock(&self.state).requests.clear();
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        // A failed test leaves no process behind.
        for command in &lock(&self.state).commands {
            for invocation in command.invocations.values() {
                if let Some(group) = invocation.group {
                    kill_group(group);
                }
            }
        }
    }
}

/// The instance of `Fault::Gone`.
const GONE: &str = crate::SECOND;

struct Answer {
    state: Shared,
    root: PathBuf,
    url: String,
}

impl Respond for Answer {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let faults = lock(&self.state).faults.clone();
        if let Some(answer) = metadata(request, &faults) {
            return answer;
        }
        if request.url.path().starts_with("/bundles/") {
            return self.object(request);
        }
        let target = request.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let operation =
            target.and_then(|target| target.split_once('.')).map_or("?", |(_, name)| name);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let (faults, earlier) = {
            let mut state = lock(&self.state);
            let earlier = state.requests.iter().filter(|(name, _)| name == operation).count();
            state.requests.push((operation.to_owned(), text));
            (state.faults.clone(), earlier)
        };
        if faults.contains(&Fault::Deny) {
            return error(400, "AccessDeniedException", "not allowed");
        }
        if faults.contains(&Fault::Hang) {
            return ok(&json!({})).set_delay(std::time::Duration::from_secs(60));
        }
        let gone = faults.contains(&Fault::Gone)
            || (faults.contains(&Fault::GoneSinceAsked) && self.asked_to_send());
        let names =
            |field: &Value| field.as_array().is_some_and(|ids| ids.iter().any(|id| id == GONE));
        if gone && (names(&body["InstanceIds"]) || names(&body["Filters"][0]["Values"])) {
            return error(
                400,
                "InvalidInstanceId",
                "an instance is not in a valid state for account",
            );
        }
        match operation {
            "DescribeInstanceInformation" if faults.contains(&Fault::NoAgents) => {
                ok(&json!({"InstanceInformationList": []}))
            }
            "DescribeInstanceInformation" if faults.contains(&Fault::SamePage) => {
                ok(&json!({"InstanceInformationList": [], "NextToken": "again"}))
            }
            "DescribeInstanceInformation" => {
                let lost = faults.contains(&Fault::LostSinceAsked) && self.asked_to_send();
                describe(&body, &faults, if lost { "ConnectionLost" } else { "Online" })
            }
            "SendCommand" if faults.contains(&Fault::ThrottleOnce) && earlier == 0 => {
                error(400, "ThrottlingException", "Rate exceeded")
            }
            "SendCommand" => {
                let answer = self.send(&body, &faults);
                if faults.contains(&Fault::LoseReply) && earlier == 1 {
                    return error(500, "InternalServerError", "lost");
                }
                answer
            }
            "ListCommands" => self.list_commands(&body, &faults, earlier),
            "ListCommandInvocations" => self.list_invocations(&body, &faults),
            "GetCommandInvocation" => self.invocation(&body, &faults),
            "CancelCommand" => self.cancel(&body),
            "GetSecretValue" | "GetParameter" if faults.contains(&Fault::DenySecrets) => {
                error(400, "AccessDeniedException", "not for this role: hunter2")
            }
            "GetSecretValue" if faults.contains(&Fault::SilentSecrets) => {
                ok(&json!({})).set_delay(std::time::Duration::from_secs(60))
            }
            "GetSecretValue" => secret(&body["SecretId"], "SecretString"),
            "GetParameter" => match secret(&body["Name"], "Value") {
                _ if body["WithDecryption"] != true => {
                    error(400, "ValidationException", "encrypted")
                }
                answer => answer,
            },
            _ => error(400, "NotImplemented", operation),
        }
    }
}

fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.to_string(), "application/x-amz-json-1.1")
}

fn error(status: u16, code: &str, message: &str) -> ResponseTemplate {
    let body = json!({"__type": code, "message": message}).to_string();
    ResponseTemplate::new(status).set_body_raw(body, "application/x-amz-json-1.1")
}

/// Instance metadata, version 2 only, for the role `hosts`.
fn metadata(request: &Request, faults: &HashSet<Fault>) -> Option<ResponseTemplate> {
    let path = request.url.path().strip_prefix("/latest/")?;
    let text = |text: &str| ResponseTemplate::new(200).set_body_string(text);
    if path == "api/token" && request.method.as_str() == "PUT" {
        return Some(text("the-token"));
    }
    let token = request.headers.get("x-aws-ec2-metadata-token");
    if token.is_none_or(|token| token != "the-token") {
        return Some(ResponseTemplate::new(401));
    }
    Some(match path.strip_prefix("meta-data/iam/security-credentials/") {
        Some("") => text("hosts"),
        Some("hosts") if faults.contains(&Fault::NoRole) => {
            text(r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume it"}"#)
        }
        Some("hosts") => {
            text(r#"{"AccessKeyId": "ASIAHOST", "SecretAccessKey": "hunter2-key", "Token": "t"}"#)
        }
        _ => ResponseTemplate::new(404),
    })
}

/// What is kept for hosts, by name.
fn secret(name: &Value, field: &str) -> ResponseTemplate {
    let text = match name.as_str().unwrap_or_default() {
        "db" => {
            r#"{"password": "hunter2 'quoted' {{ x }}", "port": 5432, "host": "sip-1", "state": "fail"}"#
        }
        "/demo/key" => "-----BEGIN-----\nhunter2-in-lines\n-----END-----\n",
        "/demo/vault" => "hunter2vault",
        _ if field == "Value" => return error(400, "ParameterNotFound", ""),
        _ => return error(400, "ResourceNotFoundException", "cannot find the secret"),
    };
    let parameter = json!({"Parameter": {"Value": text}});
    if field == "Value" { ok(&parameter) } else { ok(&json!({field: text})) }
}

fn describe(body: &Value, faults: &HashSet<Fault>, status: &str) -> ResponseTemplate {
    let ids = body["Filters"][0]["Values"].as_array().cloned().unwrap_or_default();
    let agent =
        |id| json!({"InstanceId": id, "PingStatus": status, "LastPingDateTime": 1_767_225_600.5});
    let list: Vec<Value> = ids.iter().map(agent).collect();
    ok(&paged("InstanceInformationList", list, body, faults))
}

impl Answer {
    /// One bucket: conditional PUT and DELETE for who signs, GET for who has a presigned address.
    fn object(&self, request: &Request) -> ResponseTemplate {
        let path = request.url.path().to_owned();
        let refused = |status, code: &str| {
            let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
            ResponseTemplate::new(status).set_body_raw(body, "application/xml")
        };
        let query: HashMap<_, _> = request.url.query_pairs().collect();
        let signed = request.headers.contains_key("authorization");
        let presigned = query.contains_key("X-Amz-Signature")
            && query.get("X-Amz-Expires").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s <= 900));
        let mut state = lock(&self.state);
        let method = request.method.as_str();
        state.requests.push((format!("{method} object"), path.clone()));
        let faults = state.faults.clone();
        match method {
            "PUT" if faults.contains(&Fault::DenyBucket) => refused(403, "AccessDenied"),
            "PUT" if faults.contains(&Fault::ConflictOnce) => {
                state.faults.remove(&Fault::ConflictOnce);
                refused(409, "ConditionalRequestConflict")
            }
            "PUT" if !signed || !request.headers.contains_key("if-none-match") => {
                refused(400, "InvalidRequest")
            }
            "PUT" if state.objects.contains_key(&path) => refused(412, "PreconditionFailed"),
            "PUT" => {
                state.objects.insert(path, request.body.clone());
                ResponseTemplate::new(200)
            }
            "DELETE" if signed => {
                state.objects.remove(&path);
                ResponseTemplate::new(204)
            }
            "GET" if presigned && !signed => {
                if faults.contains(&Fault::ObjectGone) {
                    state.faults.remove(&Fault::ObjectGone);
                    state.objects.remove(&path);
                }
                match state.objects.get(&path) {
                    Some(bytes) => ResponseTemplate::new(200).set_body_bytes(bytes.clone()),
                    None => refused(404, "NoSuchKey"),
                }
            }
            _ => refused(403, "AccessDenied"),
        }
    }

    fn asked_to_send(&self) -> bool {
        lock(&self.state).requests.iter().any(|(name, _)| name == "SendCommand")
    }

    fn send(&self, body: &Value, faults: &HashSet<Fault>) -> ResponseTemplate {
        let size = body["Parameters"].to_string().len();
        if size > 64 * 1024 {
            return error(400, "MaxDocumentSizeExceeded", &size.to_string());
        }
        assert!(body["Comment"].as_str().unwrap_or_default().len() <= 100, "comment too long");
        let limit = body["Parameters"]["executionTimeout"][0].as_str().unwrap_or_default();
        assert!((5..=172_800).contains(&limit.parse::<u64>().unwrap_or(0)), "bad timeout {limit}");
        let script = body["Parameters"]["commands"][0].as_str().unwrap_or_default().to_owned();
        let comment = body["Comment"].as_str().unwrap_or_default().to_owned();
        let ids: Vec<String> =
            serde_json::from_value(body["InstanceIds"].clone()).unwrap_or_default();
        let mut state = lock(&self.state);
        let command = format!("command-{}", state.commands.len() + 1);
        let silent = faults.contains(&Fault::Silent);
        let (status, details) =
            if silent { ("Pending", "Pending") } else { ("InProgress", "In Progress") };
        let pending = || Invocation { status, details, ..Invocation::default() };
        let invocations: HashMap<String, Invocation> =
            ids.iter().map(|id| (id.clone(), pending())).collect();
        state.commands.push(Sent { id: command.clone(), comment: comment.clone(), invocations });
        drop(state);
        if !silent {
            for id in ids {
                let (script, command) = (script.replace("INSTANCE", &id), command.clone());
                self.execute(id, command, &script, faults.contains(&Fault::NoAnsible));
            }
        }
        ok(&json!({"Command": {"CommandId": command, "Comment": comment}}))
    }

    /// Like the agent: a file, `sh`, a process group of its own.
    fn execute(&self, id: String, command: String, script: &str, without_ansible: bool) {
        let home = self.root.join(&id);
        std::fs::create_dir_all(&home).unwrap();
        let file = home.join(format!("{command}.sh"));
        std::fs::write(&file, script).unwrap();
        std::fs::create_dir_all(home.join("tmp")).unwrap();
        let path = if without_ansible { python_only(&home) } else { search_path() };
        let mut run = Command::new("/bin/sh");
        run.arg(&file)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &home)
            .env("TMPDIR", home.join("tmp"))
            .env("AWS_SSM_INSTANCE_ID", &id)
            .env("AWS_SSM_REGION_NAME", "us-east-1")
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = run.spawn().unwrap();
        self.update(&command, &id, |invocation| invocation.group = Some(child.id()));
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            let mut output = child.wait_with_output().unwrap();
            // "Reboot the host and run the script again"; here without the reboot.
            while output.status.code() == Some(194) {
                output = run.output().unwrap();
            }
            let mut state = lock(&state);
            let faults = state.faults.clone();
            let sent = state.commands.iter_mut().find(|sent| sent.id == command);
            let Some(invocation) = sent.and_then(|sent| sent.invocations.get_mut(&id)) else {
                return;
            };
            invocation.group = None;
            if faults.contains(&Fault::Reboots) && output.status.code().is_none() {
                return;
            }
            invocation.stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            invocation.stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            (invocation.status, invocation.details) =
                match (invocation.details, output.status.code()) {
                    ("Cancelled", _) => ("Cancelled", "Cancelled"),
                    (_, Some(0)) => ("Success", "Success"),
                    (_, Some(137)) => ("TimedOut", "Execution Timed Out"),
                    _ => ("Failed", "Failed"),
                };
        });
    }

    fn update(&self, command: &str, id: &str, change: impl FnOnce(&mut Invocation)) {
        let mut state = lock(&self.state);
        let sent = state.commands.iter_mut().find(|sent| sent.id == command);
        if let Some(invocation) = sent.and_then(|sent| sent.invocations.get_mut(id)) {
            change(invocation);
        }
    }

    fn list_commands(
        &self,
        body: &Value,
        faults: &HashSet<Fault>,
        earlier: usize,
    ) -> ResponseTemplate {
        let state = lock(&self.state);
        let commands: Vec<Value> = state
            .commands
            .iter()
            .rev()
            .skip(usize::from(faults.contains(&Fault::LateList) && earlier == 0))
            .map(|sent| json!({"CommandId": sent.id, "Comment": sent.comment}))
            .collect();
        ok(&paged("Commands", commands, body, faults))
    }

    fn list_invocations(&self, body: &Value, faults: &HashSet<Fault>) -> ResponseTemplate {
        let state = lock(&self.state);
        let Some(sent) = state.commands.iter().find(|sent| body["CommandId"] == sent.id.as_str())
        else {
            return error(400, "InvalidCommandId", "");
        };
        let list: Vec<Value> = sent
            .invocations
            .iter()
            .map(|(id, invocation)| {
                let output = printed(&invocation.stdout, faults, 2500);
                json!({"InstanceId": id, "CommandId": sent.id, "Status": invocation.status,
                    "StatusDetails": invocation.details, "CommandPlugins": [{"Output": output}]})
            })
            .collect();
        ok(&paged("CommandInvocations", list, body, faults))
    }

    fn invocation(&self, body: &Value, faults: &HashSet<Fault>) -> ResponseTemplate {
        let state = lock(&self.state);
        let sent = state.commands.iter().find(|sent| body["CommandId"] == sent.id.as_str());
        let id = body["InstanceId"].as_str().unwrap_or_default();
        let Some(invocation) = sent.and_then(|sent| sent.invocations.get(id)) else {
            return error(400, "InvocationDoesNotExist", "");
        };
        ok(&json!({"InstanceId": id, "Status": invocation.status,
            "StandardOutputContent": printed(&invocation.stdout, faults, 24_000),
            "StandardErrorContent": printed(&invocation.stderr, faults, 8_000)}))
    }

    fn cancel(&self, body: &Value) -> ResponseTemplate {
        let command = body["CommandId"].as_str().unwrap_or_default();
        let ids: Vec<String> =
            serde_json::from_value(body["InstanceIds"].clone()).unwrap_or_default();
        for id in &ids {
            self.update(command, id, |invocation| {
                if matches!(invocation.status, "InProgress" | "Pending") {
                    invocation.details = "Cancelled";
                }
                match invocation.group {
                    Some(group) => kill_group(group),
                    None if invocation.details == "Cancelled" => invocation.status = "Cancelled",
                    None => {}
                }
            });
        }
        ok(&json!({}))
    }
}

/// A list, or one page of it: page 0 is empty, every other one holds one item.
fn paged(name: &str, list: Vec<Value>, body: &Value, faults: &HashSet<Fault>) -> Value {
    if !faults.contains(&Fault::Pages) {
        return json!({name: list});
    }
    let number: usize = body["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
    let items: Vec<&Value> = list.iter().skip(number.wrapping_sub(1)).take(1).collect();
    let next = (number < list.len()).then(|| (number + 1).to_string());
    json!({name: items, "NextToken": next})
}

/// What the service keeps of an output.
fn printed(text: &str, faults: &HashSet<Fault>, limit: usize) -> String {
    if faults.contains(&Fault::SwallowOutput) && text.contains("\"state\":\"done\"") {
        return String::new();
    }
    if faults.contains(&Fault::CutRecap) && text.contains("\"state\":\"done\"") {
        return format!("{}\n---Output truncated---", text.chars().take(60).collect::<String>());
    }
    let cut = text.chars().count() > limit;
    let kept: String = text.chars().take(limit).collect();
    if cut { format!("{kept}\n--output truncated--") } else { kept }
}

/// SIGKILL to the whole group, as the agent does.
fn kill_group(group: u32) {
    let status = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
    assert!(status.is_ok(), "kill cannot be run");
}

#[expect(clippy::disallowed_methods, reason = "a test looks for Ansible where the test run put it")]
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = match std::env::var("DEPLOY_VENV") {
        Ok(venv) => format!("{venv}/bin:{path}"),
        Err(_) => path,
    };
    let found = path.split(':').any(|folder| Path::new(folder).join("ansible-playbook").is_file());
    assert!(found, "these tests need ansible-playbook on PATH or in $DEPLOY_VENV/bin");
    path
}

/// A PATH with the ordinary programs but without Ansible.
fn python_only(home: &Path) -> String {
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in
        ["python3", "mkdir", "base64", "sha256sum", "cut", "cat", "mv", "rm", "tar", "touch"]
    {
        let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let Some(real) = real.into_iter().find(|path| path.exists()) else { continue };
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(real, link).unwrap();
        }
    }
    bin.display().to_string()
}
