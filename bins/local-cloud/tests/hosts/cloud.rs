//! A rehearsal cloud of the test's own, and what a scenario does with it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use local_cloud::docker::{INSTANCE_LABEL, PROJECT_LABEL};
use serde_json::Value;

use crate::cli::{AwsError, Cli};
use crate::traces::{self, Made};

/// The binary under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_local-cloud");
/// How long `until` waits between two looks, at first and after a while: looking is work for the machine, too.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How long `until` waits at most: much longer than anything takes, on a machine that does more than it can.
const PATIENCE: Duration = Duration::from_secs(240);
/// The clouds that this test has started, so that each has a name of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);
/// The address ranges that this test has given away: `10.40.0.0/16` and the following.
static RANGES: AtomicU32 = AtomicU32::new(0);

/// What a program left behind.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A running rehearsal cloud with a network to launch hosts in. It is taken down when the value goes, also when the
/// test panics, and by a process of its own when the test is killed.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// Its project.
    pub(crate) project: String,
    /// Its port on loopback.
    pub(crate) port: u16,
    /// The VPC that scenarios share, and its range.
    pub(crate) vpc: String,
    pub(crate) cidr: String,
    /// Its subnet, with public addresses and a route to an internet gateway.
    pub(crate) subnet: String,
    /// A security group without any rule for what comes in.
    pub(crate) group: String,
    /// An instance profile whose role may be managed by Systems Manager.
    pub(crate) profile: String,
    cli: Cli,
    images: Mutex<BTreeMap<String, String>>,
    made: Mutex<Made>,
    watchdog: Option<Child>,
    begun: Instant,
    /// What every command finds in its environment.
    variables: Vec<(String, String)>,
}

impl Cloud {
    /// Starts one, with flags of `up` besides project and port.
    pub(crate) fn up(flags: &[&str]) -> Self {
        Self::up_with(&[], flags)
    }

    /// [`Cloud::up`] with variables in the environment of every command.
    pub(crate) fn up_with(variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let mut cloud = Self::empty_with(variables, flags);
        cloud.make_network();
        cloud
    }

    /// [`Cloud::up_with`] without network, group and profile.
    fn empty_with(variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let project = format!("hosts-{}-{number}", std::process::id());
        let port = free_port();
        let begun = Instant::now();
        let cloud = Self {
            watchdog: Some(watchdog(&project)),
            project,
            port,
            vpc: String::new(),
            cidr: String::new(),
            subnet: String::new(),
            group: String::new(),
            profile: String::new(),
            cli: Cli::new(&aws(), environment(port)),
            images: Mutex::default(),
            made: Mutex::default(),
            begun,
            variables: variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        };
        cloud.start(flags);
        println!("[{:4} s] {} is up on port {port}", begun.elapsed().as_secs(), cloud.project);
        cloud
    }

    /// Builds the images of all suites that are missing here.
    pub(crate) fn build_images(&self) {
        let run = self.local(&["image", "build", "--all"]);
        assert_eq!(run.code, 0, "local-cloud image build: {run}");
        println!("[{:4} s] images are there", self.begun.elapsed().as_secs());
    }

    /// Runs `up`; also again, after the daemon was killed.
    pub(crate) fn start(&self, flags: &[&str]) {
        let run = self.up_again(flags);
        assert_eq!(run.code, 0, "local-cloud up: {run}");
    }

    /// [`Cloud::start`], however it ends.
    pub(crate) fn up_again(&self, flags: &[&str]) -> Run {
        let port = self.port.to_string();
        let args: Vec<&str> =
            ["up", "--port", &port].into_iter().chain(flags.iter().copied()).collect();
        self.local(&args)
    }

    fn make_network(&mut self) {
        self.cidr = free_range();
        let subnet = self.cidr.replace("0.0/16", "1.0/24");
        let text = |value: Value, path: &str| {
            let found = value.pointer(path).and_then(Value::as_str);
            found.unwrap_or_else(|| panic!("{path} in {value}")).to_owned()
        };
        self.vpc = text(self.ok(&["ec2", "create-vpc", "--cidr-block", &self.cidr]), "/Vpc/VpcId");
        let made =
            self.ok(&["ec2", "create-subnet", "--vpc-id", &self.vpc, "--cidr-block", &subnet]);
        self.subnet = text(made, "/Subnet/SubnetId");
        self.ok(&[
            "ec2",
            "modify-subnet-attribute",
            "--subnet-id",
            &self.subnet,
            "--map-public-ip-on-launch",
        ]);
        let gateway = text(
            self.ok(&["ec2", "create-internet-gateway"]),
            "/InternetGateway/InternetGatewayId",
        );
        self.ok(&[
            "ec2",
            "attach-internet-gateway",
            "--internet-gateway-id",
            &gateway,
            "--vpc-id",
            &self.vpc,
        ]);
        let filter = format!("Name=vpc-id,Values={}", self.vpc);
        let tables = self.ok(&["ec2", "describe-route-tables", "--filters", &filter]);
        let table = text(tables, "/RouteTables/0/RouteTableId");
        self.ok(&[
            "ec2",
            "create-route",
            "--route-table-id",
            &table,
            "--destination-cidr-block",
            "0.0.0.0/0",
            "--gateway-id",
            &gateway,
        ]);
        self.group = self.make_group("hosts");
        self.profile = self.make_profile("hosts");
    }

    /// A security group of the shared VPC without any rule for what comes in.
    pub(crate) fn make_group(&self, name: &str) -> String {
        let args = [
            "ec2",
            "create-security-group",
            "--group-name",
            name,
            "--description",
            name,
            "--vpc-id",
            &self.vpc,
        ];
        self.ok(&args)["GroupId"].as_str().expect("a group has an id").to_owned()
    }

    /// A role that Systems Manager may manage, with an instance profile of the same name.
    pub(crate) fn make_profile(&self, name: &str) -> String {
        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
        self.ok(&[
            "iam",
            "create-role",
            "--role-name",
            name,
            "--assume-role-policy-document",
            trust,
        ]);
        let policy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        self.ok(&["iam", "attach-role-policy", "--role-name", name, "--policy-arn", policy]);
        self.ok(&["iam", "create-instance-profile", "--instance-profile-name", name]);
        self.ok(&[
            "iam",
            "add-role-to-instance-profile",
            "--instance-profile-name",
            name,
            "--role-name",
            name,
        ]);
        name.to_owned()
    }

    /// What a client needs to call it, and nothing of the person's own.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut environment = environment(self.port);
        environment.extend(self.key());
        environment
    }

    /// The key that `up` made for this cloud.
    pub(crate) fn key(&self) -> Vec<(String, String)> {
        let file = self.state_folder().join("state.json");
        // None before the first `up` and after `down`.
        let Ok(text) = std::fs::read_to_string(file) else { return Vec::new() };
        let state: Value = serde_json::from_str(&text).expect("JSON");
        let text = |field: &str| state["access_key"][field].as_str().expect("a key").to_owned();
        vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), text("id")),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), text("secret")),
        ]
    }

    /// A call of the AWS CLI: `aws(&["ec2", "describe-vpcs"])`.
    pub(crate) fn aws(&self, args: &[&str]) -> Result<Value, AwsError> {
        self.aws_with(&[], args)
    }

    /// [`Cloud::aws`] with variables, e.g. `AWS_MAX_ATTEMPTS`.
    pub(crate) fn aws_with(&self, env: &[(&str, &str)], args: &[&str]) -> Result<Value, AwsError> {
        let key = self.key();
        let own = key.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let env: Vec<(&str, &str)> = own.chain(env.iter().copied()).collect();
        self.cli.call(args, &env)
    }

    /// A call that has to succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Value {
        self.aws(args).unwrap_or_else(|error| panic!("aws {}: {error:?}", args.join(" ")))
    }

    /// A call that has to be refused with this code; gives the message.
    pub(crate) fn refused(&self, code: &str, args: &[&str]) -> String {
        match self.aws(args) {
            Err(error) if error.code == code => error.message,
            other => panic!("aws {}: {code} was expected: {other:?}", args.join(" ")),
        }
    }

    /// Launches a host in the shared subnet. `image` is a suite (`bookworm`), a pattern of image names, or an id;
    /// `more` are further arguments of `run-instances` and come instead of the defaults of the same name.
    pub(crate) fn launch(&self, name: &str, image: &str, user_data: &str, more: &[&str]) -> String {
        let launched = self.try_launch(name, image, user_data, more);
        launched.unwrap_or_else(|error| panic!("{name} cannot be launched: {error:?}"))
    }

    /// [`Cloud::launch`], however it ends.
    pub(crate) fn try_launch(
        &self,
        name: &str,
        image: &str,
        user_data: &str,
        more: &[&str],
    ) -> Result<String, AwsError> {
        let image = self.image(image);
        let tags = format!("ResourceType=instance,Tags=[{{Key=Name,Value={name}}}]");
        let profile = format!("Name={}", self.profile);
        let mut args =
            vec!["ec2", "run-instances", "--image-id", &image, "--tag-specifications", &tags];
        for (flag, value) in [
            ("--instance-type", "t3.micro"),
            ("--subnet-id", &self.subnet),
            ("--security-group-ids", &self.group),
            ("--iam-instance-profile", &profile),
            ("--user-data", user_data),
        ] {
            if !more.contains(&flag) && !value.is_empty() {
                args.extend([flag, value]);
            }
        }
        args.extend(more);
        let answer = self.aws(&args)?;
        let id = answer.pointer("/Instances/0/InstanceId").and_then(Value::as_str);
        Ok(id.unwrap_or_else(|| panic!("no instance in {answer}")).to_owned())
    }

    /// The newest image that a person means by this.
    pub(crate) fn image(&self, wanted: &str) -> String {
        if wanted.starts_with("ami-") {
            return wanted.to_owned();
        }
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let find = || {
            let pattern = match wanted {
                "bullseye" => "debian-11-amd64-*",
                "bookworm" => "debian-12-amd64-*",
                "trixie" => "debian-13-amd64-*",
                pattern => pattern,
            };
            let filter = format!("Name=name,Values={pattern}");
            let answer = self.ok(&["ec2", "describe-images", "--filters", &filter]);
            let mut found: Vec<(&str, &str)> = answer["Images"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|image| {
                    Some((image["CreationDate"].as_str()?, image["ImageId"].as_str()?))
                })
                .collect();
            found.sort_unstable();
            found.last().unwrap_or_else(|| panic!("no image `{wanted}`")).1.to_owned()
        };
        images.entry(wanted.to_owned()).or_insert_with(find).clone()
    }

    /// An instance as `describe-instances` shows it.
    pub(crate) fn instance(&self, id: &str) -> Value {
        let answer = self.ok(&["ec2", "describe-instances", "--instance-ids", id]);
        answer.pointer("/Reservations/0/Instances/0").unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// Its state.
    pub(crate) fn state(&self, id: &str) -> String {
        self.instance(id)["State"]["Name"].as_str().unwrap_or_default().to_owned()
    }

    /// Its ping status in Systems Manager, empty when it never registered.
    pub(crate) fn ping(&self, id: &str) -> String {
        let filter = format!("Key=InstanceIds,Values={id}");
        let answer = self.ok(&["ssm", "describe-instance-information", "--filters", &filter]);
        let status = answer.pointer("/InstanceInformationList/0/PingStatus");
        status.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Waits until Systems Manager can reach a host.
    pub(crate) fn online(&self, id: &str) {
        self.until(&format!("{id} is online"), || self.ping(id) == "Online");
    }

    /// Waits until the instance is in a state.
    pub(crate) fn until_state(&self, id: &str, state: &str) {
        let what = format!("{id} is {state}");
        self.until(&what, || self.state(id) == state);
    }

    /// Ends instances and waits until they are terminated.
    pub(crate) fn terminate(&self, ids: &[&str]) {
        let args: Vec<&str> = ["ec2", "terminate-instances", "--instance-ids"]
            .into_iter()
            .chain(ids.iter().copied())
            .collect();
        self.ok(&args);
        for id in ids {
            self.until_state(id, "terminated");
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
            std::thread::sleep((begun.elapsed() / 10).clamp(LOOKS[0], LOOKS[1]));
        }
    }

    /// Runs a shell command on a host, as root, past everything that could be broken.
    pub(crate) fn exec(&self, host: &str, command: &str) -> Run {
        self.local(&["exec", host, "--", "sh", "-c", command])
    }

    /// `local-cloud fault …`, which has to succeed; gives what it says.
    pub(crate) fn fault(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["fault"].into_iter().chain(args.iter().copied()).collect();
        let run = self.local(&args);
        assert_eq!(run.code, 0, "local-cloud {}: {run}", args.join(" "));
        run.stdout
    }

    /// The tool itself, for this cloud's project.
    pub(crate) fn local(&self, args: &[&str]) -> Run {
        self.local_with(&[], args)
    }

    /// [`Cloud::local`] with more variables.
    pub(crate) fn local_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Run {
        let output = local(&self.project)
            .args(args)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The folder of its state.
    pub(crate) fn state_folder(&self) -> PathBuf {
        folder("XDG_STATE_HOME", ".local/state").join("local-cloud").join(&self.project)
    }

    /// What its daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state_folder().join("daemon.log")).unwrap_or_default()
    }

    /// Says a check's name and time; a panic in it is named and ends the scenario.
    pub(crate) fn check<T>(&self, name: &str, check: impl FnOnce() -> T) -> T {
        let scenario = std::thread::current().name().unwrap_or("?").to_owned();
        let begun = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let (total, took) = (self.begun.elapsed().as_secs(), begun.elapsed().as_secs_f32());
        match outcome {
            Ok(value) => {
                println!("[{total:4} s] ok      {scenario}: {name} ({took:.1} s)");
                value
            }
            Err(panic) => {
                println!("[{total:4} s] FAILED  {scenario}: {name} ({took:.1} s)");
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Takes it down and looks whether anything is left.
    pub(crate) fn finish(mut self) {
        self.end();
    }

    /// What is left of it on this machine.
    pub(crate) fn traces(&self) -> Vec<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        traces::traces(&self.project, &self.state_folder(), &made)
    }

    /// Notes what it has made by now, to be looked for when it is gone.
    pub(crate) fn note(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).look(&self.project);
    }

    /// How many disks of a limited size it has made.
    pub(crate) fn disks(&self) -> usize {
        self.note();
        self.made.lock().unwrap_or_else(PoisonError::into_inner).disks()
    }

    /// What the state file says.
    fn noted(&self) -> Value {
        let file = self.state_folder().join("state.json");
        let text = std::fs::read_to_string(file).expect("a running cloud has a state file");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The process of its daemon.
    pub(crate) fn daemon(&self) -> u64 {
        self.noted()["daemon"]["pid"].as_u64().expect("a process")
    }

    /// The token of its control API.
    pub(crate) fn token(&self) -> String {
        self.noted()["token"].as_str().expect("a token").to_owned()
    }

    /// The process of the emulator behind it.
    pub(crate) fn upstream_process(&self) -> u64 {
        self.noted()["upstream"]["pid"].as_u64().expect("a process")
    }

    /// The port of the emulator behind it.
    pub(crate) fn upstream_port(&self) -> u16 {
        let pid = self.upstream_process();
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
        let mut words = command.split('\0').skip_while(|word| *word != "--port");
        words.nth(1).and_then(|port| port.parse().ok()).expect("a port on its command line")
    }

    /// The instance ids of all containers of the project.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label={PROJECT_LABEL}={}", self.project);
        let label = format!("{{{{.Label \"{INSTANCE_LABEL}\"}}}}");
        let ids = traces::output("docker", &["ps", "-a", "--filter", &filter, "--format", &label]);
        ids.lines().map(str::to_owned).collect()
    }

    /// The bridges that it has made.
    pub(crate) fn bridges(&self) -> Vec<String> {
        self.note();
        self.made.lock().unwrap_or_else(PoisonError::into_inner).bridges()
    }

    /// The control groups of its containers, also of those that have ended.
    pub(crate) fn control_groups(&self) -> Vec<String> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).control_groups()
    }

    fn end(&mut self) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        self.note();
        let (begun, log) = (Instant::now(), self.log());
        let run = self.local(&["down"]);
        let took = begun.elapsed();
        if run.code == 0
            && let Some(mut stdin) = watchdog.stdin.take()
        {
            // It is alive, since only we end it.
            let _ = stdin.write_all(b"down\n");
        }
        let _ = watchdog.wait();
        let left = self.traces();
        println!(
            "[{:4} s] down in {:.1} s: {}",
            self.begun.elapsed().as_secs(),
            took.as_secs_f32(),
            run.stdout.trim()
        );
        if std::thread::panicking() {
            println!("{run}\nleft behind: {left:#?}\n--- its daemon's log\n{log}");
        } else {
            assert_eq!(run.code, 0, "local-cloud down: {run}");
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.end();
    }
}

fn environment(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let env = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_DEFAULT_OUTPUT", "json"),
        ("AWS_PAGER", ""),
        // Every error is seen; a scenario that wants repetition asks for it.
        ("AWS_MAX_ATTEMPTS", "1"),
        // Files of the person who runs the tests decide nothing.
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// Ends the cloud when this test is gone without having done so.
fn watchdog(project: &str) -> Child {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read -r _ || exec \"$0\" down", PROGRAM])
        .env("LOCAL_CLOUD_PROJECT", project);
    // Ctrl-C on the terminal is for the test, not for what cleans up after it.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
    shell.spawn().expect("a shell starts")
}

fn local(project: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("LOCAL_CLOUD_PROJECT", project).env_remove("GITHUB_ACTIONS");
    command
}

/// A loopback port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound port").port()
}

/// A `/16` of 10.40–10.99 that neither this machine nor another test uses.
pub(crate) fn free_range() -> String {
    let used = traces::output("ip", &["-4", "-o", "address"]);
    // Two tests started at once begin at different places.
    let own = std::process::id();
    let free = (0..60)
        .map(|_| 40 + (own + RANGES.fetch_add(1, Ordering::Relaxed)) % 60)
        .find(|second| !used.contains(&format!(" 10.{second}.")));
    format!("10.{}.0.0/16", free.expect("one of 60 ranges is free"))
}

/// The AWS CLI of a deployment's virtual environment, else the one on `PATH`.
fn aws() -> PathBuf {
    let own = cache().join("venv/bin/aws");
    if own.exists() {
        return own;
    }
    let path = variable("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("aws")).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("no AWS CLI: neither {} nor `aws` on PATH", own.display()))
}

/// The folder of caches.
pub(crate) fn cache() -> PathBuf {
    folder("XDG_CACHE_HOME", ".cache")
}

fn folder(name: &str, under_home: &str) -> PathBuf {
    let base = variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Path::new(&variable("HOME").expect("HOME is set")).join(under_home);
    base.unwrap_or_else(home).join("calldata-foundation")
}

#[expect(clippy::disallowed_methods, reason = "a test finds the folders that the tool uses")]
pub(crate) fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
