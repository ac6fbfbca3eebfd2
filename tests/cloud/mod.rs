//! A rehearsal cloud of a test's own, and the tool under test in it. What one tool alone needs is in its own test.

pub(crate) mod policy;

use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long `until` waits between two looks: the machine has better things to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The role of the hosts.
pub(crate) const ROLE: &str = "hosts";

pub(crate) struct Cloud {
    project: String,
    port: u16,
    /// The key that `up` made for this cloud.
    key: (String, String),
    api: RefCell<Child>,
    watchdog: Child,
    scratch: tempfile::TempDir,
    subnet: RefCell<String>,
    ids: RefCell<BTreeMap<String, String>>,
    begun: Instant,
    /// The slowest machine that runs this has two busy processors.
    patience: Duration,
}

/// A host to launch.
#[derive(Default)]
pub(crate) struct Host<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) user_data: &'a str,
    pub(crate) without_profile: bool,
}

/// What to run, and as whom.
pub(crate) struct Tool<'a> {
    pub(crate) program: &'a str,
    /// The key that signs its calls; without one the account's own.
    pub(crate) key: Option<(&'a str, &'a str)>,
    /// The inventory's region.
    pub(crate) region: &'a str,
}

/// A run of the tool.
pub(crate) struct Run {
    child: Child,
    name: String,
    folder: PathBuf,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: Value,
    pub(crate) summary: String,
}

impl Cloud {
    pub(crate) fn up(name: &str, patience: Duration) -> Self {
        let project = format!("{name}-{}", std::process::id());
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let scratch = tempfile::tempdir().unwrap();
        let watchdog = watchdog(&project);
        let mut up = Command::new(program("local-cloud"));
        up.args(["up", "--port", &port.to_string()]).env("LOCAL_CLOUD_PROJECT", &project);
        let up = up.env_remove("GITHUB_ACTIONS").stdin(Stdio::null()).output().unwrap();
        assert!(up.status.success(), "local-cloud up: {up:?}");
        let exports = String::from_utf8_lossy(&up.stdout).into_owned();
        let exported = |name: &str| {
            let start = format!("export {name}=");
            exports.lines().find_map(|line| line.strip_prefix(&start)).expect(name).to_owned()
        };
        let key = (exported("AWS_ACCESS_KEY_ID"), exported("AWS_SECRET_ACCESS_KEY"));
        let python = virtual_environment().join("bin/python");
        let api = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud/api.py"))
            .envs(environment(port, &key))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let cloud = Self {
            watchdog,
            project,
            port,
            key,
            api: RefCell::new(api),
            scratch,
            subnet: RefCell::default(),
            ids: RefCell::default(),
            begun: Instant::now(),
            patience,
        };
        cloud.make_network();
        cloud.say("the cloud is up");
        cloud
    }

    pub(crate) fn say(&self, what: &str) {
        println!("[{:4} s] {what}", self.begun.elapsed().as_secs());
    }

    fn make_network(&self) {
        let text = |answer: Value, path: &str| {
            answer.pointer(path).and_then(Value::as_str).unwrap().to_owned()
        };
        let range = free_range();
        let vpc = text(
            self.ec2("create_vpc", json!({"CidrBlock": format!("{range}.0.0/16")})),
            "/Vpc/VpcId",
        );
        let subnet = json!({"VpcId": vpc, "CidrBlock": format!("{range}.1.0/24")});
        let subnet = text(self.ec2("create_subnet", subnet), "/Subnet/SubnetId");
        self.ec2(
            "modify_subnet_attribute",
            json!({"SubnetId": subnet, "MapPublicIpOnLaunch": {"Value": true}}),
        );
        let gateway = text(
            self.ec2("create_internet_gateway", json!({})),
            "/InternetGateway/InternetGatewayId",
        );
        self.ec2("attach_internet_gateway", json!({"InternetGatewayId": gateway, "VpcId": vpc}));
        let of_vpc = json!({"Filters": [{"Name": "vpc-id", "Values": [vpc]}]});
        let table = text(self.ec2("describe_route_tables", of_vpc), "/RouteTables/0/RouteTableId");
        self.ec2("create_route", json!({"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway}));
        self.subnet.replace(subnet);

        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
        self.call(
            "iam",
            "create_role",
            json!({"RoleName": ROLE, "AssumeRolePolicyDocument": trust}),
        );
        let policy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        self.call("iam", "attach_role_policy", json!({"RoleName": ROLE, "PolicyArn": policy}));
        self.call("iam", "create_instance_profile", json!({"InstanceProfileName": ROLE}));
        self.call(
            "iam",
            "add_role_to_instance_profile",
            json!({"InstanceProfileName": ROLE, "RoleName": ROLE}),
        );
    }

    pub(crate) fn launch(&self, host: &Host<'_>) {
        let mut wanted = json!({
            "ImageId": host.image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1,
            "SubnetId": *self.subnet.borrow(), "UserData": host.user_data,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [
                {"Key": "Name", "Value": host.name}, {"Key": "project", "Value": "calldata-foundation"}]}]
        });
        if !host.without_profile {
            wanted["IamInstanceProfile"] = json!({"Name": ROLE});
        }
        let answer = self.ec2("run_instances", wanted);
        let id = answer.pointer("/Instances/0/InstanceId").and_then(Value::as_str).unwrap();
        self.ids.borrow_mut().insert(host.name.to_owned(), id.to_owned());
    }

    pub(crate) fn id(&self, host: &str) -> String {
        self.ids.borrow()[host].clone()
    }

    pub(crate) fn ec2(&self, operation: &str, parameters: Value) -> Value {
        self.call("ec2", operation, parameters)
    }

    /// A call that has to succeed.
    pub(crate) fn call(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let mut api = self.api.borrow_mut();
        let call = json!({"service": service, "operation": operation, "parameters": parameters});
        writeln!(api.stdin.as_mut().unwrap(), "{call}").unwrap();
        let mut line = String::new();
        BufReader::new(api.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{service} {operation}: {answer}");
        answer
    }

    /// A shell command on a host, past everything that could be broken.
    pub(crate) fn exec(&self, host: &str, command: &str) -> String {
        let output = self
            .local_command(&["exec", &self.id(host), "--", "sh", "-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn fault(&self, args: &[&str]) {
        let args: Vec<&str> = ["fault"].iter().chain(args).copied().collect();
        self.local(&args);
    }

    /// `local-cloud …`, which has to succeed.
    pub(crate) fn local(&self, args: &[&str]) -> String {
        let output = self.local_command(args).output().unwrap();
        assert!(output.status.success(), "local-cloud {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn local_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("local-cloud"));
        command.args(args).envs(self.environment()).stdin(Stdio::null());
        command.env_remove("GITHUB_ACTIONS");
        command
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < self.patience, "waited {:?} until {what}", self.patience);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Starts the tool for some hosts, in Actions, in a folder of this name that holds their inventory.
    pub(crate) fn start(
        &self,
        tool: &Tool<'_>,
        name: &str,
        hosts: &[String],
        args: &[&str],
    ) -> Run {
        let folder = self.folder(name);
        let listed: Map<String, Value> = hosts
            .iter()
            .map(|host| (host.clone(), json!({"instance_id": self.id(host)})))
            .collect();
        let inventory = json!({"all": {"hosts": listed, "vars": {"deploy_region": tool.region}}});
        fs::write(folder.join("inventory.json"), inventory.to_string()).unwrap();
        let file = |name: &str| File::create(folder.join(name)).unwrap();
        let mut command = Command::new(program(tool.program));
        command.args(["--inventory", "inventory.json", "--report", "report.json"]).args(args);
        command.env_clear().envs(environment(self.port, &self.key)).current_dir(&folder);
        // The tool's region is that of its inventory.
        command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        if let Some((id, secret)) = tool.key {
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", folder.join("summary.md"));
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Run { child: command.spawn().expect("the tool starts"), name: name.to_owned(), folder }
    }

    /// What a person's shell needs for this cloud.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = environment(self.port, &self.key).to_vec();
        environment.push(("LOCAL_CLOUD_PROJECT", self.project.clone()));
        environment
    }

    /// A folder for a run, perhaps with files in it before it starts.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.scratch.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

impl Run {
    /// What it has said by now.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    /// `INT` or `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(killed.unwrap().success());
    }

    pub(crate) fn ended(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let report = serde_json::from_str(&read("report.json")).unwrap_or_default();
        let code = status.code().unwrap_or(-1);
        let (stdout, stderr, summary) = (read("stdout"), read("stderr"), read("summary.md"));
        println!(
            "           {}: status {code}, {}",
            self.name,
            stdout.lines().next().unwrap_or(&stderr)
        );
        Ended { code, stdout, stderr, report, summary }
    }
}

impl Ended {
    /// The report's entry of a host.
    pub(crate) fn host(&self, name: &str) -> &Value {
        let hosts =
            self.report["subjects"].as_array().unwrap_or_else(|| panic!("no report: {self}"));
        hosts
            .iter()
            .find(|host| host["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {self}"))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let begun = Instant::now();
        let down = self.local_command(&["down"]).output().unwrap();
        let mut api = self.api.borrow_mut();
        drop(api.stdin.take());
        let _ = api.wait();
        drop(api);
        if let Some(mut stdin) = self.watchdog.stdin.take() {
            // It is alive, since only this ends it.
            let _ = stdin.write_all(b"down\n");
        }
        let _ = self.watchdog.wait();
        self.say(&format!("down in {} s", begun.elapsed().as_secs()));
        if std::thread::panicking() {
            println!("{down:?}");
        } else {
            assert!(down.status.success(), "{down:?}");
        }
    }
}

/// Ends the cloud when this test is gone without having done so.
fn watchdog(project: &str) -> Child {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read -r _ || exec \"$0\" down"])
        .arg(program("local-cloud"))
        .env("LOCAL_CLOUD_PROJECT", project);
    // Ctrl-C on the terminal is for the test, not for what cleans up after it.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
    shell.spawn().expect("a shell starts")
}

fn environment(port: u16, (id, secret): &(String, String)) -> [(&'static str, String); 7] {
    [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", id.clone()),
        ("AWS_SECRET_ACCESS_KEY", secret.clone()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
    ]
}

/// A binary of this workspace, beside the test's own.
pub(crate) fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test knows where it is");
    folder.pop();
    folder.pop();
    folder.join(name)
}

/// The first two numbers of a range that this machine does not use.
fn free_range() -> String {
    let output = Command::new("ip").args(["-4", "-o", "address"]).output().unwrap();
    let used = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = std::process::id();
    let free = (0..90).map(|next| 100 + (own + next) % 90);
    let second = free.into_iter().find(|second| !used.contains(&format!(" 10.{second}.")));
    format!("10.{}", second.expect("one of 90 ranges is free"))
}

/// Where the set-up put boto3.
#[expect(clippy::disallowed_methods, reason = "a test finds the folders that the set-up uses")]
fn virtual_environment() -> PathBuf {
    std::env::var_os("DEPLOY_VENV")
        .map(PathBuf::from)
        .expect("DEPLOY_VENV names a virtual environment with boto3")
}
