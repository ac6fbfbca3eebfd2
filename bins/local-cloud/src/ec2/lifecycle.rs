//! The life of an instance: launch, stop, start, reboot, terminate, and what a host does to itself.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::answers::{self, Refusal};
use super::boot::FirstBoot;
use super::machine::{Machine, Reachable, Seen};
use super::{Ec2, Request, describe, unknown_instance};
use crate::docker::{Docker, INSTANCE_LABEL};
use crate::error::Error;
use crate::hosts::{HostInfo, HostState};
use crate::log;
use crate::operation::Form;
use crate::process::{last_lines, run, run_all};

/// AWS APIs that a host finds at its usual name. A name of one bucket cannot be listed in `/etc/hosts`, hence `s3`
/// with path-style addresses only.
const HOST_SERVICES: [&str; 10] = [
    "sts",
    "ssm",
    "ssmmessages",
    "ec2messages",
    "ec2",
    "secretsmanager",
    "s3",
    "logs",
    "monitoring",
    "kms",
];

/// How long a host may take until its service manager answers.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);

/// How a container ends when its own service manager reboots: by SIGHUP (`reboot(2)`, in a PID namespace).
const ENDED_BY_REBOOT: &str = "129";

impl Ec2 {
    pub(super) async fn run_instances(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        if request.region != self.settings.region {
            let what = format!(
                "RunInstances in {}; this cloud was started for {}",
                request.region, self.settings.region
            );
            return Err(Refusal::not_implemented(&what));
        }
        self.tell_images().await?;
        let request = self.with_template(request).await?;
        if let Some(image) = request.form.get("ImageId") {
            self.image(image)?;
        }
        let answer = match self.default_subnet(&request.form).await? {
            Some(subnet) => {
                let mut request = request;
                request.form.push("SubnetId", subnet);
                self.pass_changed(request).await?
            }
            None => self.pass(request).await?,
        };
        let Some(root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        let launched = Seen::all(&root);
        for seen in &launched {
            if let Err(refusal) = self.launch(seen).await {
                self.take_back(&launched).await?;
                return Err(refusal);
            }
        }
        if let Err(refusal) = self.refresh().await {
            self.take_back(&launched).await?;
            return Err(refusal);
        }
        Ok(answer.into_response())
    }

    /// Where an instance goes whose request names no subnet: a default subnet, as on AWS. moto would take an address from
    /// no subnet at all.
    async fn default_subnet(&self, form: &Form) -> Result<Option<String>, Refusal> {
        let named = |name: &str| name == "SubnetId" || name.starts_with("NetworkInterface.");
        if form.names().any(named) {
            return Ok(None);
        }
        let mut question = Form::new([
            ("Action", "DescribeSubnets"),
            ("Version", "2016-11-15"),
            ("Filter.1.Name", "default-for-az"),
            ("Filter.1.Value.1", "true"),
        ]);
        if let Some(zone) = form.get("Placement.AvailabilityZone") {
            question.push("Filter.2.Name", "availability-zone");
            question.push("Filter.2.Value.1", zone);
        }
        let root = self.upstream.ask("ec2", &self.settings.region, &question).await?;
        root.text_at(&["subnetSet", "item", "subnetId"])
            .map(Some)
            .ok_or_else(|| Refusal::client("VPCIdNotSpecified", "No default VPC for this user."))
    }

    /// Nothing of a failed launch stays, as `RunInstances` starts all instances or none.
    async fn take_back(&self, launched: &[Seen]) -> Result<(), Refusal> {
        let mut form = Form::new([("Action", "TerminateInstances"), ("Version", "2016-11-15")]);
        let mut containers = Vec::new();
        for (number, seen) in launched.iter().enumerate() {
            form.push(format!("InstanceId.{}", number + 1), &seen.instance_id);
            self.set_state(&seen.instance_id, HostState::Terminated);
            containers.push(self.docker.container(&seen.instance_id));
        }
        // `docker rm --force` of what was never made is no error.
        Docker::remove(&containers).await.map_err(internal)?;
        self.upstream.ask("ec2", &self.settings.region, &form).await?;
        Ok(())
    }

    async fn launch(self: &Arc<Self>, seen: &Seen) -> Result<(), Refusal> {
        let private_ip = seen
            .private_ip
            .ok_or_else(|| Refusal::server("InternalError", "the instance has no address"))?;
        let machine = Machine {
            seen: seen.clone(),
            vpc_cidr: self.range("DescribeVpcs", "VpcId.1", &seen.vpc_id, "vpcSet").await?,
            subnet_cidr: self
                .range("DescribeSubnets", "SubnetId.1", &seen.subnet_id, "subnetSet")
                .await?,
            user_data: self.user_data(&seen.instance_id).await?,
            ..Machine::default()
        };
        self.networks
            .ensure(&seen.vpc_id, &machine.vpc_cidr, self.edge()?)
            .await
            .map_err(no_capacity)?;
        let mut host = HostInfo {
            instance_id: seen.instance_id.clone(),
            name: None,
            private_ip,
            state: HostState::Pending,
            tags: Default::default(),
            launched: jiff::Timestamp::now(),
        };
        describe(&mut host, seen);
        let mut first = FirstBoot::draw(&self.faults, &host);
        let id = &seen.instance_id;
        self.address_is_free(private_ip).await;
        // Known before it boots: its first question is who it is.
        self.hosts.put(host);
        let image = self.docker_image(&seen.image_id, id, first.without_cloud_init()).await?;
        let store = &self.settings.images;
        first.settle(id, &image, store).await.map_err(no_capacity)?;
        let arguments = self.container_arguments(&machine, &image, &first);
        self.machines().insert(id.clone(), machine);
        run_all("docker", &arguments, None).await.map_err(no_capacity)?;
        self.spoil(id, &first).await.map_err(no_capacity)?;
        self.start_container(id).await.map_err(no_capacity)?;
        self.booted(id).await
    }

    /// Waits while an instance that is shutting down still has this address. The emulator gives it to the next one at
    /// once; EC2 does when the interface is gone.
    async fn address_is_free(&self, address: Ipv4Addr) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let going = || {
            let host = self.hosts.by_address(address.into());
            host.is_some_and(|host| host.state == HostState::ShuttingDown)
        };
        let begun = tokio::time::Instant::now();
        while going() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sees that the container stays, and watches its boot from then on.
    async fn booted(self: &Arc<Self>, id: &str) -> Result<(), Refusal> {
        // A host whose init cannot start ends at once; then Docker "started" it for nothing.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !self.docker.running(id).await.map_err(internal)? {
            let why = last_lines(&self.console(id).await, 3);
            return Err(Refusal::server(
                "InsufficientInstanceCapacity",
                format!("the host ended while it started: {why}"),
            ));
        }
        self.settle_interface(id).await.map_err(internal)?;
        self.set_state(id, HostState::Running);
        self.watch_boot(id);
        self.after_start(id);
        Ok(())
    }

    /// Gives the host's interface the hardware address that the API shows. From outside, since older engines cannot
    /// set it for a network of one's own. (Security groups go into the same namespace, later.)
    async fn settle_interface(&self, id: &str) -> Result<(), Error> {
        let Some(Seen { mac, vpc_id, .. }) = self.machine(id).map(|machine| machine.seen) else {
            return Ok(());
        };
        self.networks.open_hairpin(&vpc_id).await?;
        if mac.is_empty() {
            return Ok(());
        }
        let name = self.docker.container(id);
        let pid = run("docker", ["inspect", "--format", "{{.State.Pid}}", &name], None).await?;
        let command = ["ip", "link", "set", "dev", "eth0", "address", &mac];
        let mut args = vec!["--target", pid.trim(), "--net"];
        args.extend(command);
        run_all("nsenter", &args, None).await.map(drop)
    }

    fn watch_boot(self: &Arc<Self>, id: &str) {
        let (ec2, id) = (Arc::clone(self), id.to_owned());
        let boot = {
            let mut machines = self.machines();
            let Some(machine) = machines.get_mut(&id) else { return };
            machine.end_boot();
            machine.boots
        };
        tokio::spawn(async move {
            // One process inside the host instead of many from outside.
            let wait = "until systemctl is-active --quiet basic.target; do sleep 0.2; done";
            let command = ["sh", "-c", wait];
            let waited = tokio::time::timeout(BOOT_PATIENCE, ec2.docker.exec(&id, &command)).await;
            let up = matches!(waited, Ok(Ok(output)) if output.status.success());
            if let Some(machine) = ec2.machines().get_mut(&id).filter(|m| m.boots == boot) {
                machine.reachable = if up { Reachable::Ok } else { Reachable::Impaired };
                log::line(format_args!(
                    "{id} {}",
                    if up { "is reachable" } else { "did not come up" }
                ));
            }
        });
    }

    fn container_arguments(
        &self,
        machine: &Machine,
        image: &str,
        first: &FirstBoot,
    ) -> Vec<String> {
        let Seen { instance_id, vpc_id, private_ip, .. } = &machine.seen;
        let region = &self.settings.region;
        let private_dns = machine.private_dns(region);
        let hostname = private_dns.split('.').next().unwrap_or_default();
        let mut args: Vec<String> = [
            "create",
            "--tty",
            "--stop-signal",
            "SIGRTMIN+3",
            "--cap-add",
            "SYS_ADMIN",
            "--cap-add",
            "NET_ADMIN",
            "--cap-add",
            "SYS_BOOT",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
            "--tmpfs",
            "/tmp",
            "--env",
            "container=docker",
            "--log-opt",
            "max-size=5m",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--name", self.docker.container(instance_id));
        option("--hostname", hostname.to_owned());
        option("--network", self.networks.name(vpc_id));
        option("--ip", private_ip.map(|ip| ip.to_string()).unwrap_or_default());
        option("--label", self.docker.label());
        option("--label", format!("{INSTANCE_LABEL}={instance_id}"));
        for service in HOST_SERVICES {
            option("--add-host", format!("{service}.{region}.amazonaws.com:169.254.169.254"));
        }
        option("--add-host", "sts.amazonaws.com:169.254.169.254".into());
        if self.settings.unified_cgroup {
            option("--cgroupns", "private".into());
        } else {
            option("--cgroupns", "host".into());
            option("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw".into());
        }
        args.extend(first.options());
        args.extend([image.to_owned(), "/usr/sbin/rehearsal-boot".to_owned()]);
        if self.settings.unified_cgroup {
            args.push("unified-cgroup".to_owned());
        }
        args
    }

    async fn range(
        &self,
        action: &str,
        field: &str,
        id: &str,
        set: &str,
    ) -> Result<String, Refusal> {
        let form = Form::new([("Action", action), ("Version", "2016-11-15"), (field, id)]);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        root.text_at(&[set, "item", "cidrBlock"])
            .ok_or_else(|| Refusal::server("InternalError", format!("{id} has no address range")))
    }

    /// From the emulator and not from the request, since a launch template may hold it.
    async fn user_data(&self, id: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let form = Form::new([
            ("Action", "DescribeInstanceAttribute"),
            ("Version", "2016-11-15"),
            ("InstanceId", id),
            ("Attribute", "userData"),
        ]);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        let Some(text) = root.text_at(&["userData", "value"]) else { return Ok(None) };
        let text: String = text.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(text).map(Some).map_err(|error| {
            Refusal::client(
                "InvalidUserData.Malformed",
                format!("Invalid BASE64 encoding of user data: {error}"),
            )
        })
    }

    pub(super) async fn start_instances(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        for id in request.form.list("InstanceId") {
            match self.state(id) {
                None => return Err(unknown_instance(id)),
                Some(HostState::Stopped | HostState::Running | HostState::Pending) => {}
                Some(state) => {
                    let message = format!(
                        "The instance '{id}' is not in a state from which it can be started: {}",
                        state.name()
                    );
                    return Err(Refusal::client("IncorrectInstanceState", message));
                }
            }
        }
        let ids: Vec<String> =
            request.form.list("InstanceId").into_iter().map(str::to_owned).collect();
        let answer = self.pass(request).await?;
        if !answer.status.is_success() {
            return Ok(answer.into_response());
        }
        for id in ids.iter().filter(|id| self.state(id) == Some(HostState::Stopped)) {
            if let Err(refusal) = self.start(id).await {
                let form = Form::new([
                    ("Action", "StopInstances"),
                    ("Version", "2016-11-15"),
                    ("InstanceId.1", id),
                ]);
                self.upstream.ask("ec2", &self.settings.region, &form).await?;
                return Err(refusal);
            }
        }
        self.refresh().await?;
        Ok(answer.into_response())
    }

    async fn start(self: &Arc<Self>, id: &str) -> Result<(), Refusal> {
        self.set_state(id, HostState::Pending);
        let started = match self.start_container(id).await {
            Ok(()) => self.booted(id).await,
            Err(error) => Err(no_capacity(error)),
        };
        if started.is_err() {
            self.set_state(id, HostState::Stopped);
        }
        started
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.before_boot(id).await?;
        run("docker", ["start", &self.docker.container(id)], None).await.map(drop)
    }

    /// Stop, reboot and terminate: answered at once, as on AWS, and followed by the hosts.
    pub(super) async fn end_instances(
        self: &Arc<Self>,
        operation: &str,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let answer = self.pass(request.rebuilt()).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        let ids = request.form.list("InstanceId");
        for id in ids {
            let Some(before) = self.state(id) else { continue };
            let ec2 = Arc::clone(self);
            let id = id.to_owned();
            match operation {
                "StopInstances" if matches!(before, HostState::Pending | HostState::Running) => {
                    self.set_state(&id, HostState::Stopping);
                    tokio::spawn(async move { ec2.stop(&id).await });
                }
                "RebootInstances" if before == HostState::Running => {
                    tokio::spawn(async move { ec2.reboot(&id).await });
                }
                "TerminateInstances" if before != HostState::Terminated => {
                    self.set_state(&id, HostState::ShuttingDown);
                    tokio::spawn(async move { ec2.terminate(&id).await });
                }
                _ => {}
            }
        }
        answers::adjust_change(&mut root, |id| self.state(id));
        Ok(answer.with_body(root.write()))
    }

    async fn stop(&self, id: &str) {
        if let Some(machine) = self.machines().get_mut(id) {
            machine.end_boot();
        }
        let name = self.docker.container(id);
        if let Err(error) = run("docker", ["stop", "--time", "30", &name], None).await {
            log::line(format_args!("{id}: {error}"));
        }
        self.set_state(id, HostState::Stopped);
        self.refresh_or_log(id).await;
    }

    async fn reboot(self: &Arc<Self>, id: &str) {
        self.set_rebooting(id, true);
        let name = self.docker.container(id);
        let restarted = match run("docker", ["stop", "--time", "30", &name], None).await {
            Ok(_) => self.start_container(id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = restarted {
            log::line(format_args!("{id}: {error}"));
        }
        self.set_rebooting(id, false);
        self.boot_again(id).await;
    }

    async fn boot_again(self: &Arc<Self>, id: &str) {
        if let Err(refusal) = self.booted(id).await {
            log::line(format_args!("{id}: {}", refusal.message));
        }
    }

    fn set_rebooting(&self, id: &str, rebooting: bool) {
        if let Some(machine) = self.machines().get_mut(id) {
            machine.rebooting = rebooting;
            machine.end_boot();
        }
    }

    async fn terminate(&self, id: &str) {
        let console = self.console(id).await;
        if let Err(error) = Docker::remove(&[self.docker.container(id)]).await {
            log::line(format_args!("{id}: {error}"));
        }
        if let Some(machine) = self.machines().get_mut(id) {
            machine.last_console = Some(console);
        }
        self.set_state(id, HostState::Terminated);
        self.refresh_or_log(id).await;
    }

    async fn refresh_or_log(&self, id: &str) {
        if let Err(refusal) = self.refresh().await {
            log::line(format_args!("{id}: {}", refusal.message));
        }
    }

    /// Follows hosts that end by themselves: a reboot boots them again, a power-off stops the instance.
    pub async fn watch_hosts(self: Arc<Self>) -> Result<(), Error> {
        let label = format!("label={}", self.docker.label());
        let format = format!(
            "{{{{index .Actor.Attributes \"{INSTANCE_LABEL}\"}}}} {{{{.Actor.Attributes.exitCode}}}}"
        );
        let mut child = tokio::process::Command::new("docker")
            .args(["events", "--filter", &label, "--filter", "event=die", "--format", &format])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::setup("cannot watch hosts", error))?;
        let Some(stdout) = child.stdout.take() else { return Ok(()) };
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Some((id, status)) = line.split_once(' ') else { continue };
            self.ended_by_itself(id, status).await;
        }
        Err(Error::setup("cannot watch hosts any more", "`docker events` ended"))
    }

    async fn ended_by_itself(self: &Arc<Self>, id: &str, status: &str) {
        if self.state(id) != Some(HostState::Running)
            || self.machine(id).is_none_or(|machine| machine.rebooting || machine.panicked)
        {
            return;
        }
        if status == ENDED_BY_REBOOT {
            log::line(format_args!("{id} reboots"));
            if let Err(error) = self.start_container(id).await {
                log::line(format_args!("{id}: {error}"));
            }
            self.boot_again(id).await;
            return;
        }
        log::line(format_args!("{id} powered itself off (status {status})"));
        let form = Form::new([
            ("Action", "StopInstances"),
            ("Version", "2016-11-15"),
            ("InstanceId.1", id),
        ]);
        if let Err(error) = self.upstream.ask("ec2", &self.settings.region, &form).await {
            log::line(format_args!("{id}: {error}"));
        }
        self.set_state(id, HostState::Stopped);
        self.refresh_or_log(id).await;
    }
}

impl Request {
    /// The same request once more, for passing it on while its fields are still needed.
    fn rebuilt(&self) -> Self {
        Self {
            region: self.region.clone(),
            form: Form::default(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }
}

/// The host cannot be started on this machine: EC2's error for that, with the cause.
fn no_capacity(error: Error) -> Refusal {
    Refusal::server("InsufficientInstanceCapacity", format!("the host cannot be started: {error}"))
}

fn internal(error: Error) -> Refusal {
    Refusal::server("InternalError", error.to_string())
}
