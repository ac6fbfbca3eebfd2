//! The real binary against the rehearsal cloud with real hosts, and against an IAM that refuses what no policy allows.
//! Needs root, Docker and minutes, so a feature turns it on:
//!
//!     cargo test --locked -p tf-to-inventory --features cloud --test cloud
//!
//! `local-cloud` must be built (`cargo build -p local-cloud`); its `up` installs the AWS CLI's and moto's environments.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

use deploy_testkit::{Outcome, Tool};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_tf-to-inventory");
const LIMIT: Duration = Duration::from_secs(240);
const README: &str = include_str!("../../README.md");

fn cache() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test looks for programs as scripts do")]
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let caches =
        variable("XDG_CACHE_HOME").unwrap_or_else(|| variable("HOME").unwrap().join(".cache"));
    caches.join("calldata-foundation")
}

fn local_cloud(args: &[&str]) -> String {
    let program = Path::new(BINARY).with_file_name("local-cloud");
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "local-cloud {args:?}: {:?}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Asks until it holds.
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// Who asks, and where.
#[derive(Clone)]
struct Caller(Vec<(String, String)>);

impl Caller {
    fn new(endpoint: &str, key: &str, secret: &str) -> Self {
        let all = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ];
        Self(all.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    fn aws(&self, args: &[&str]) -> Value {
        let program = cache().join("venv/bin/aws");
        let output = Command::new(program)
            .args(args)
            .args(["--output", "json"])
            .envs(self.0.iter().cloned())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn tool(&self, args: &[&str]) -> Outcome {
        let tool =
            self.0.iter().fold(Tool::new(BINARY), |tool, (name, value)| tool.env(name, value));
        tool.args(args).run()
    }
}

/// A state with the output `inventory` that has one scaling group, `web`, and no host.
fn state() -> String {
    let value = json!({"version": 1, "project": "p", "environment": "dev", "region": "us-east-1", "hosts": {},
        "scaling_groups": {"web": {"name": "inventory-web", "groups": ["web"]}}});
    json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l", "resources": [],
        "outputs": {"inventory": {"value": value, "type": "dynamic"}}})
    .to_string()
}

/// Bucket with the state of the workspace `dev`, scaling group of two.
fn prepare(caller: &Caller, subnet: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    fs::write(&file, state()).unwrap();
    caller.aws(&["s3api", "create-bucket", "--bucket", "my-states"]);
    let put = [
        "s3api",
        "put-object",
        "--bucket",
        "my-states",
        "--key",
        "env:/dev/net/t.tfstate",
        "--body",
    ];
    caller.aws(&[&put[..], &[file.to_str().unwrap()]].concat());
    let data = r#"{"ImageId": "ami-0deb120000b00c0de", "InstanceType": "t3.micro"}"#;
    caller.aws(&[
        "ec2",
        "create-launch-template",
        "--launch-template-name",
        "inventory",
        "--launch-template-data",
        data,
    ]);
    caller.aws(&[
        "autoscaling",
        "create-auto-scaling-group",
        "--auto-scaling-group-name",
        "inventory-web",
        "--launch-template",
        "LaunchTemplateName=inventory",
        "--min-size",
        "0",
        "--max-size",
        "2",
        "--desired-capacity",
        "2",
        "--vpc-zone-identifier",
        subnet,
    ]);
}

const READ: [&str; 5] =
    ["s3://my-states/net/t.tfstate", "--workspace", "dev", "--require-group", "web"];

struct Project(String);

impl Drop for Project {
    fn drop(&mut self) {
        local_cloud(&["down", "--project", &self.0]);
    }
}

#[test]
fn scaling_groups_become_the_hosts_that_are_in_service() {
    let project = Project(format!("inventory-{}", std::process::id()));
    let lines = local_cloud(&["up", "--project", &project.0, "--port", &free_port()]);
    let exported = |name: &str| {
        let start = format!("export {name}=");
        lines.lines().find_map(|line| line.strip_prefix(&start)).unwrap()
    };
    let (id, secret) = (exported("AWS_ACCESS_KEY_ID"), exported("AWS_SECRET_ACCESS_KEY"));
    let caller = Caller::new(exported("AWS_ENDPOINT_URL"), id, secret);
    let text =
        |value: Value, pointer: &str| value.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let vpc =
        text(caller.aws(&["ec2", "create-vpc", "--cidr-block", "10.63.0.0/16"]), "/Vpc/VpcId");
    let made =
        caller.aws(&["ec2", "create-subnet", "--vpc-id", &vpc, "--cidr-block", "10.63.1.0/24"]);
    prepare(&caller, &text(made, "/Subnet/SubnetId"));

    let hosts = || -> Vec<(String, Value)> {
        let outcome = caller.tool(&READ);
        if outcome.code == 3 {
            return Vec::new();
        }
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
        value["all"]["hosts"].as_object().unwrap().clone().into_iter().collect()
    };
    until("two hosts are in service", || hosts().len() == 2);
    let (name, vars) = hosts().remove(0);
    let id = vars["instance_id"].as_str().unwrap().to_owned();
    assert_eq!(name, format!("web-{id}"));
    let known = caller.aws(&["ec2", "describe-instances", "--instance-ids", &id]);
    assert_eq!(
        known.pointer("/Reservations/0/Instances/0/PrivateIpAddress"),
        Some(&vars["private_ip"])
    );

    // Out of service it is no host, and why is said.
    caller.aws(&[
        "autoscaling",
        "enter-standby",
        "--auto-scaling-group-name",
        "inventory-web",
        "--instance-ids",
        &id,
        "--should-decrement-desired-capacity",
    ]);
    until("one is left", || hosts().len() == 1);
    let explained = caller.tool(&[&READ[..], &["--explain"]].concat()).stdout;
    assert!(explained.contains("left out: not in service: Standby"), "{explained}");

    // The same state by a folder whose backend is that bucket.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".terraform")).unwrap();
    let config = json!({"bucket": "my-states", "key": "net/t.tfstate", "region": "us-east-1"});
    let pointer = json!({"version": 3, "backend": {"type": "s3", "config": config}});
    fs::write(folder.path().join(".terraform/terraform.tfstate"), pointer.to_string()).unwrap();
    let by_folder = caller.tool(&[folder.path().to_str().unwrap(), "--workspace", "dev"]);
    assert_eq!(by_folder.stdout, caller.tool(&READ).stdout, "{}", by_folder.stderr);
    caller.aws(&[
        "autoscaling",
        "delete-auto-scaling-group",
        "--auto-scaling-group-name",
        "inventory-web",
        "--force-delete",
    ]);
}

/// moto, judging every call by signature and policy once it is told to.
struct Judge {
    process: Child,
    endpoint: String,
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Judge {
    fn start() -> Self {
        let folder =
            fs::read_dir(cache()).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        let program =
            folder.map(|path| path.join("bin/moto_server")).find(|path| path.is_file()).unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        // Nobody is judged before `judge`.
        command.args(["-p", &port]).env("INITIAL_NO_AUTH_ACTION_COUNT", "1000000");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("moto answers", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
        Self { process, endpoint: format!("http://127.0.0.1:{port}") }
    }

    fn judge(&self) {
        let url = format!("{}/moto-api/reset-auth", self.endpoint);
        let post = ["-sf", "-X", "POST", "-H", "Content-Type: text/plain", "-d", "0", &url];
        assert!(Command::new("curl").args(post).stdout(Stdio::null()).status().unwrap().success());
    }

    /// A caller with these statements and no other right.
    fn user(&self, root: &Caller, name: &str, statements: &[Value]) -> Caller {
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        root.aws(&["iam", "create-user", "--user-name", name]);
        root.aws(&[
            "iam",
            "put-user-policy",
            "--user-name",
            name,
            "--policy-name",
            "p",
            "--policy-document",
            &policy,
        ]);
        let key = root.aws(&["iam", "create-access-key", "--user-name", name]);
        let text = |pointer: &str| key.pointer(pointer).unwrap().as_str().unwrap();
        Caller::new(
            &self.endpoint,
            text("/AccessKey/AccessKeyId"),
            text("/AccessKey/SecretAccessKey"),
        )
    }
}

#[test]
fn the_policy_of_the_readme_is_enough_and_no_statement_too_much() {
    let (_, rest) = README.split_once("```json\n{\n  \"Version\"").unwrap();
    let (policy, _) = rest.split_once("```").unwrap();
    let policy: Value = serde_json::from_str(&format!("{{\"Version\"{policy}")).unwrap();
    let statements = policy["Statement"].as_array().unwrap().clone();
    let judge = Judge::start();
    let root = Caller::new(&judge.endpoint, "test", "test");
    let subnets = root.aws(&["ec2", "describe-subnets"]);
    prepare(&root, subnets.pointer("/Subnets/0/SubnetId").unwrap().as_str().unwrap());
    let all = judge.user(&root, "all", &statements);
    let without: Vec<(Value, Caller)> = statements
        .iter()
        .map(|missing| {
            let rest: Vec<Value> =
                statements.iter().filter(|kept| *kept != missing).cloned().collect();
            (missing["Action"].clone(), judge.user(&root, missing["Sid"].as_str().unwrap(), &rest))
        })
        .collect();
    judge.judge();
    let outcome = all.tool(&READ);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    for (action, caller) in without {
        let action = action.as_str().unwrap();
        let outcome = caller.tool(&READ);
        // moto's S3 decrypts for everybody: this one right cannot be judged here.
        if action == "kms:Decrypt" {
            continue;
        }
        assert_eq!(outcome.code, 5, "{action}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(&format!("{action} was denied")),
            "{action}: {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains(&format!("needs `{action}`")),
            "{action}: {}",
            outcome.stderr
        );
    }
}
