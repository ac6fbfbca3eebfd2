//! This machine as the rehearsal uses it: runs scripts and tools, looks for what they left, and takes everything down when
//! the test ends, however it ends.

use crate::Deployment;
use serde_json::Value;
use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a command left behind.
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

pub(crate) struct Machine {
    root: PathBuf,
    scratch: tempfile::TempDir,
    start: Instant,
    stages: RefCell<u32>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("tests/ lies in the checkout")
            .to_owned();
        let scratch = tempfile::tempdir().expect("a temporary folder can be made");
        Self { root, scratch, start: Instant::now(), stages: RefCell::new(0) }
    }

    pub(crate) fn stage(&self, name: &str) {
        *self.stages.borrow_mut() += 1;
        println!("[{:4} s] {:2}. {name}", self.start.elapsed().as_secs(), self.stages.borrow());
    }

    /// The checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the set-up found Terraform's provider, when the registry did not answer.
    pub(crate) fn provider_mirror(&self) -> Option<String> {
        let state = folder("XDG_STATE_HOME", ".local/state");
        let text = fs::read_to_string(state.join("provider-mirror")).ok()?;
        Some(text.trim().to_owned())
    }

    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn script(&self, path: &str, args: &[&str]) -> Run {
        self.script_with_env(path, args, &[])
    }

    pub(crate) fn script_with_env(&self, path: &str, args: &[&str], env: &[(&str, &str)]) -> Run {
        let mut command = Command::new(self.root.join(path));
        command.args(args);
        self.with_endpoint(&mut command);
        command.envs(env.iter().copied());
        run(command, None)
    }

    /// Starts a deployment in a process group of its own, as a shell on a terminal does.
    pub(crate) fn start_deploy(&self, out: &Path) -> Child {
        let mut command = Command::new("env");
        // Who starts the tests in the background has them ignore SIGINT, and a shell cannot undo that for itself.
        command.arg("--default-signal=INT").arg(self.root.join("scripts/deploy-environment.sh"));
        command.args(["dev", "--local", "--out", out.to_str().unwrap()]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("the script starts")
    }

    pub(crate) fn tool(&self, name: &str, args: &[&str]) -> Run {
        self.tool_with_env(name, args, &[])
    }

    pub(crate) fn tool_with_env(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Run {
        let mut command = self.command(name, args);
        command.envs(env.iter().copied());
        run(command, None)
    }

    pub(crate) fn tool_with_stdin(&self, name: &str, args: &[&str], stdin: &str) -> Run {
        run(self.command(name, args), Some(stdin))
    }

    /// The tools that need the API, before it runs.
    pub(crate) fn without_cloud_the_tools_say_so(&self) {
        self.stage("the rehearsal cloud does not run, and the tools say so");
        for args in
            [&["logs", "i-0123456789abcdef0"][..], &["exec", "i-0123456789abcdef0", "--", "true"]]
        {
            let run = self.tool("local-cloud", args);
            assert!(run.code == 6 && run.stderr.contains("local-cloud up"), "{run}");
        }
    }

    pub(crate) fn playbook(&self, deployment: &Deployment, ansible: &Path, playbook: &str) -> Run {
        run(self.playbook_command(deployment, ansible, playbook), None)
    }

    /// Starts it in a process group of its own, as a shell on a terminal does.
    pub(crate) fn start_playbook(
        &self,
        deployment: &Deployment,
        ansible: &Path,
        playbook: &str,
    ) -> Child {
        let mut command = self.playbook_command(deployment, ansible, playbook);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the tool starts")
    }

    fn playbook_command(&self, deployment: &Deployment, ansible: &Path, playbook: &str) -> Command {
        let inventory = deployment.file("inventory.json");
        let paths = [inventory.to_str().unwrap(), ansible.to_str().unwrap()];
        self.command(
            "ssm-run-playbook",
            &["--inventory", paths[0], "--ansible-dir", paths[1], playbook],
        )
    }

    /// Ctrl-C: SIGINT to the whole process group.
    pub(crate) fn interrupt(&self, child: Child) -> Run {
        let status = Command::new("kill")
            .args(["-INT", "--", &format!("-{}", child.id())])
            .status()
            .unwrap();
        assert!(status.success());
        let output = child.wait_with_output().expect("the tool ends");
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn on_host(&self, instance: &str, command: &str) -> String {
        let run = self.tool("local-cloud", &["exec", instance, "--", "sh", "-c", command]);
        assert_eq!(run.code, 0, "{run}");
        run.stdout
    }

    pub(crate) fn until(&self, what: &str, limit: Duration, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < limit, "waited {limit:?} until {what}");
            std::thread::yield_now();
        }
    }

    /// The AWS CLI of the deployment's own virtual environment.
    pub(crate) fn aws(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.cache().join("venv/bin/aws"));
        command.args(args);
        self.with_endpoint(&mut command);
        let run = run(command, None);
        assert_eq!(run.code, 0, "{run}");
        run.stdout
    }

    pub(crate) fn terraform_state(&self) -> String {
        let mut command = Command::new("terraform");
        command.arg(format!("-chdir={}", self.root.join("terraform/environments/dev").display()));
        command.args(["state", "pull"]).env_remove("TF_CLI_CONFIG_FILE");
        self.with_endpoint(&mut command);
        let run = run(command, None);
        assert!(run.code == 0 && run.stdout.contains("aws_instance"), "{run}");
        run.stdout
    }

    /// One more instance, started as anybody would through the API.
    pub(crate) fn run_a_host(&self, exports: &str) {
        assert!(exports.contains("AWS_ENDPOINT_URL"), "{exports}");
        let images = self.aws(&[
            "ec2",
            "describe-images",
            "--filters",
            "Name=name,Values=debian-12-amd64-*",
            "--query",
            "Images[0].ImageId",
            "--output",
            "text",
        ]);
        let id = self.aws(&[
            "ec2",
            "run-instances",
            "--image-id",
            images.trim(),
            "--instance-type",
            "t3.micro",
            "--query",
            "Instances[0].InstanceId",
            "--output",
            "text",
        ]);
        assert!(id.starts_with("i-"), "{id}");
        assert!(!self.traces().is_empty(), "the host is a container");
    }

    /// What a rehearsal leaves on a machine: containers, networks, processes, packet rules, state. Empty when it is gone.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, args) in
            [("container", &["ps", "-aq"][..]), ("network", &["network", "ls", "-q"])]
        {
            let mut command = Command::new("docker");
            command.args(args).args(["--filter", LABEL]);
            found.extend(output(command).lines().map(|id| format!("{what} {id}")));
        }
        for (pid, command) in cloud_processes() {
            found.push(format!("process {pid} {}", command.replace('\0', " ")));
        }
        let mut tables = Command::new("nft");
        tables.args(["list", "tables"]);
        found.extend(
            output(tables)
                .lines()
                .filter(|line| line.ends_with(" local_cloud_calldata"))
                .map(str::to_owned),
        );
        if self.state().exists() {
            found.push(format!("state {}", self.state().display()));
        }
        let mut addresses = Command::new("ip");
        addresses.args(["-o", "addr", "show", "to", "198.51.100.0/24"]);
        // Rehearsals of other projects may run beside this one.
        let others = bridges_of_others();
        let ours = |line: &&str| !others.iter().any(|bridge| line.contains(bridge.as_str()));
        found.extend(output(addresses).lines().filter(ours).map(|line| format!("address {line}")));
        // `up` builds the host image in a folder of this name.
        let cache = fs::read_dir(self.cache()).expect("the cache folder can be read").flatten();
        found.extend(
            cache
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("local-cloud-work"))
                .map(|entry| format!("temporary {}", entry.path().display())),
        );
        found
    }

    /// `--destroy` may have stopped an engine that the scripts had started; looking for traces needs one.
    pub(crate) fn docker_again(&self) {
        let script = format!(
            ". '{0}/scripts/lib/common.sh'; . '{0}/scripts/lib/setup.sh'; docker_engine",
            self.root.display()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        let run = run(command, None);
        assert_eq!(run.code, 0, "{run}");
    }

    pub(crate) fn kill_daemon(&self) {
        let daemons: Vec<String> = cloud_processes()
            .into_iter()
            .filter(|(_, c)| c.contains("\0serve\0"))
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(daemons.len(), 1, "{daemons:?}");
        assert!(Command::new("kill").args(["-KILL", &daemons[0]]).status().unwrap().success());
    }

    /// Resident memory of moto, the daemon and everything on the hosts, in MiB; shared pages count once (PSS).
    pub(crate) fn resident_mib(&self) -> u64 {
        let mut pids: Vec<String> = cloud_processes().into_iter().map(|(pid, _)| pid).collect();
        assert!(pids.len() >= 2, "the daemon and moto run: {pids:?}");
        let mut command = Command::new("docker");
        command.args(["ps", "-q", "--filter", LABEL]);
        for container in output(command).lines() {
            let mut top = Command::new("docker");
            top.args(["top", container, "-eo", "pid"]);
            pids.extend(output(top).lines().skip(1).map(|pid| pid.trim().to_owned()));
        }
        let kib = |pid: &String| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line =
                text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default().to_owned();
            line.split_whitespace()
                .nth(1)
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
        };
        pids.iter().map(kib).sum::<u64>() / 1024
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut folder = std::env::current_exe().expect("a test knows where it is");
        folder.pop();
        folder.pop();
        let mut command = Command::new(folder.join(name));
        command.args(args);
        self.with_endpoint(&mut command);
        command
    }

    /// What `eval "$(local-cloud up)"` gives a person's shell, once the rehearsal cloud runs.
    fn with_endpoint(&self, command: &mut Command) {
        let Some(state) = fs::read_to_string(self.state().join("state.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .filter(|state| state["access_key"]["id"].is_string())
        else {
            return;
        };
        command
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", state["port"]))
            .env("AWS_ACCESS_KEY_ID", state["access_key"]["id"].as_str().unwrap())
            .env("AWS_SECRET_ACCESS_KEY", state["access_key"]["secret"].as_str().unwrap())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true");
    }

    fn cache(&self) -> PathBuf {
        folder("XDG_CACHE_HOME", ".cache")
    }

    fn state(&self) -> PathBuf {
        folder("XDG_STATE_HOME", ".local/state").join("local-cloud/calldata")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "[{:4} s]     failed: taking the rehearsal cloud down",
                self.start.elapsed().as_secs()
            );
            let run = self.tool("local-cloud", &["down"]);
            println!("{run}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test finds the folders that the tools use")]
fn folder(variable: &str, under_home: &str) -> PathBuf {
    let base =
        std::env::var_os(variable).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(under_home);
    base.unwrap_or_else(home).join("calldata-foundation")
}

fn run(mut command: Command, stdin: Option<&str>) -> Run {
    // What a person sees, also when this test is itself a step of a workflow.
    command.env_remove("GITHUB_ACTIONS").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).expect("the tool reads its stdin");
    }
    let output = child.wait_with_output().expect("the command ends");
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The label of what the default project makes.
const LABEL: &str = "label=calldata.local-cloud.project=calldata";

fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bridges of other projects' networks.
fn bridges_of_others() -> Vec<String> {
    let mut networks = Command::new("docker");
    let label = LABEL.split_once('=').and_then(|(_, label)| label.split_once('='));
    let (label, own) = label.expect("a label with a value");
    networks.args(["network", "ls", "-q", "--filter", &format!("label={label}")]);
    let format = format!(
        "{{{{index .Labels \"{label}\"}}}} {{{{index .Options \"com.docker.network.bridge.name\"}}}}"
    );
    let mut bridges = Vec::new();
    for network in output(networks).lines() {
        let inspect = Command::new("docker")
            .args(["network", "inspect", "--format", &format, network])
            .output();
        // One that has gone since has no bridge any more.
        let text = inspect.map(|run| run.stdout).unwrap_or_default();
        if let Some((project, bridge)) = String::from_utf8_lossy(&text).trim().split_once(' ')
            && project != own
        {
            bridges.push(bridge.to_owned());
        }
    }
    bridges
}

/// The daemon of the default project and its moto.
fn cloud_processes() -> Vec<(String, String)> {
    let mut found = processes();
    found.retain(|(_, command)| {
        command.contains("\0serve\0--") && command.contains("--project=calldata\0")
            || command.contains("local-cloud/calldata/moto")
    });
    found
}

/// Every process of this machine with its command line, arguments separated by NUL.
fn processes() -> Vec<(String, String)> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let numeric = pid.chars().all(|c| c.is_ascii_digit()) && pid != own;
            let command =
                numeric.then(|| fs::read_to_string(entry.path().join("cmdline")).ok()).flatten()?;
            Some((pid, command))
        })
        .collect()
}

pub(crate) fn for_each_file(folder: &Path, look: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() { for_each_file(&path, look) } else { look(&path) }
    }
}

/// All members of a zip archive, one after the other.
pub(crate) fn unzip(path: &Path) -> Vec<u8> {
    let output = Command::new("unzip").arg("-p").arg(path).output().expect("unzip is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
