//! EC2 made true: moto answers, containers follow, and what moto cannot know is adjusted in its answers.
//!
//! Managed services become real servers later ([`crate::pretended`] lists them).

mod address;
pub mod answers;
mod attributes;
mod boot;
pub mod catalogue;
pub mod check;
pub(crate) mod client;
mod container;
mod enforce;
mod front;
mod groups;
mod guard;
pub mod images;
mod launch;
pub mod lifecycle;
pub mod machine;
pub mod nat;
pub mod quota;
pub mod reason;
pub mod roles;
mod status;
pub(crate) mod templates;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri, header};
use base64::Engine as _;
use bytes::Bytes;

use self::answers::Refusal;
use self::catalogue::Catalogue;
use self::machine::{Machine, Seen};
use self::reason::{Change, Reason};
use self::roles::Roles;
use crate::coverage::{self, Class};
use crate::docker::Docker;
use crate::edge::Edge;
use crate::engine::Engine;
use crate::failure;
use crate::faults::Faults;
use crate::hosts::{HostInfo, HostState, Hosts};
use crate::image::Store;
use crate::log;
use crate::network::Networks;
use crate::operation::Form;
use crate::paging::Shelf;
use crate::rights::Rights;
use crate::timing::Timing;
use crate::upstream::{Answer, AskError, Lost, Upstream};

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names everything that is made.
    pub project: String,
    /// The only region where instances can be launched.
    pub region: String,
    /// The images that hosts boot from.
    pub images: Store,
    /// Whether the engine uses cgroup v2.
    pub unified_cgroup: bool,
    /// How long things take.
    pub timing: Timing,
    /// The Docker engine.
    pub engine: Engine,
    /// How many vCPUs may run at once.
    pub max_vcpus: u32,
}

/// EC2 and what makes it true.
#[derive(Debug)]
pub struct Ec2 {
    pub(crate) settings: Settings,
    pub(crate) upstream: Upstream,
    pub(crate) hosts: Hosts,
    /// What shall go wrong.
    pub faults: Faults,
    pub(crate) docker: Docker,
    pub(crate) engine: Engine,
    pub(crate) networks: Networks,
    pub(crate) roles: Roles,
    /// Who may do what.
    pub rights: Rights,
    nat_gateways: nat::NatGateways,
    quota: quota::Quota,
    pub(crate) catalogue: Catalogue,
    shelf: Shelf,
    machines: Mutex<BTreeMap<String, Machine>>,
    /// Instances that no list shows any more.
    gone: Mutex<BTreeSet<String>>,
    /// Places for hosts that are being made.
    launching: tokio::sync::Semaphore,
    edge: OnceLock<Edge>,
    enforcing: enforce::Enforcing,
    /// One look at the emulator at a time, so that an older one never overwrites a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

/// A request whose service is EC2.
#[derive(Debug)]
pub struct Request {
    /// Region of its signature.
    pub region: String,
    /// Its fields.
    pub form: Form,
    /// As it came.
    pub method: Method,
    /// As it came.
    pub uri: Uri,
    /// As it came.
    pub headers: HeaderMap,
    /// As it came.
    pub body: Bytes,
}

impl Request {
    /// Makes it one with these fields.
    pub(crate) fn replace(&mut self, form: Form) {
        self.form = form;
        self.rewrite();
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        Self::server("InternalError", error.to_string())
    }
}

impl From<Lost> for Refusal {
    fn from(error: Lost) -> Self {
        let message = format!("the emulator behind the rehearsal cloud does not answer: {error}");
        Self::server("InternalError", message)
    }
}

impl Ec2 {
    /// EC2 before this emulator, without any host yet.
    pub fn new(settings: Settings, upstream: Upstream, hosts: Hosts, faults: Faults) -> Self {
        Self {
            docker: Docker::new(&settings.project),
            networks: Networks::new(&settings.project),
            engine: settings.engine.clone(),
            rights: Rights::new(upstream.clone(), &settings.region),
            roles: Roles::new(upstream.clone(), &settings.region, &settings.timing),
            nat_gateways: nat::NatGateways::new(nat::NatTiming::from(&settings.timing)),
            quota: quota::Quota::new(settings.max_vcpus),
            catalogue: Catalogue::new(settings.images.clone()),
            shelf: Shelf::default(),
            settings,
            upstream,
            hosts,
            faults,
            machines: Mutex::default(),
            gone: Mutex::default(),
            launching: tokio::sync::Semaphore::new(launch::MADE_AT_ONCE),
            edge: OnceLock::new(),
            enforcing: enforce::Enforcing::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// Tells what serves at the edge of a VPC; before the first launch.
    pub fn set_edge(&self, edge: Edge) {
        // Called once, when the daemon starts; a second one would change nothing.
        let _ = self.edge.set(edge);
    }

    pub(crate) fn edge(&self) -> Result<&Edge, Refusal> {
        self.edge.get().ok_or_else(|| Refusal::server("InternalError", "still starting"))
    }

    pub(crate) fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what is known about an instance.
    pub fn machine(&self, id: &str) -> Option<Machine> {
        self.machines().get(id).cloned()
    }

    /// How many hops instance metadata may go to this caller.
    pub fn metadata_hops(&self, caller: std::net::IpAddr) -> Option<u32> {
        let host = self.hosts.by_address(caller)?;
        Some(u32::from(self.machine(&host.instance_id)?.seen.metadata_hops))
    }

    /// Whether this is the address of a living host of this VPC.
    pub fn is_guest(&self, caller: std::net::IpAddr, vpc: &str) -> bool {
        let Some(host) = self.hosts.by_address(caller) else { return false };
        // A stopped host has no process that could call.
        let lives = !matches!(host.state, HostState::Stopped | HostState::Terminated);
        lives && self.machine(&host.instance_id).is_some_and(|m| m.seen.vpc_id == vpc)
    }

    pub(crate) fn state(&self, id: &str) -> Option<HostState> {
        self.hosts.by_instance(id).map(|host| host.state)
    }

    pub(crate) fn set_state(&self, id: &str, state: HostState) {
        if self.hosts.update(id, |host| host.state = state) {
            log::line(format_args!("{id} is {}", state.name()));
        }
    }

    /// Changes the state of an instance that is in this one; `false` when it is in another by now.
    pub(crate) fn advance(&self, id: &str, from: HostState, to: HostState) -> bool {
        let mut changed = false;
        self.hosts.update(id, |host| {
            if host.state == from {
                host.state = to;
                changed = true;
            }
        });
        if changed {
            log::line(format_args!("{id} is {}", to.name()));
        }
        changed
    }

    pub(crate) fn set_reason(&self, id: &str, reason: Option<Reason>) {
        if let Some(machine) = self.machines().get_mut(id) {
            machine.reason = reason;
        }
    }

    /// Answers a request whose form is right, with the whole list where it is one.
    async fn handle(self: &std::sync::Arc<Self>, request: Request) -> Response<Body> {
        let operation = request.form.get("Action").unwrap_or_default().to_owned();
        if let Some(what) = answers::pretended(&operation, &request.form) {
            log::line(format_args!("refused: {what}"));
            return coverage::mark(Refusal::not_implemented(&what).response(), Class::Refused);
        }
        let allowed = match self.refuse_vanished(&request.form) {
            Ok(()) => self.guard(&operation, &request).await,
            refused => refused,
        };
        if let Err(refusal) = allowed {
            log::line(format_args!("{operation}: {}: {}", refusal.code, refusal.message));
            return coverage::mark(refusal.response(), Class::True);
        }
        if let Some(change) = Change::of(&operation) {
            let outcome = self.change_states(change, request).await;
            return coverage::mark(self.said(&operation, outcome), Class::True);
        }
        let outcome = match operation.as_str() {
            "RunInstances" => self.run_instances(request).await,
            "GetConsoleOutput" => self.console_output(&request.form).await,
            "DescribeInstances" => self.describe_instances(request).await,
            "DescribeImages" => self.describe_images(request).await,
            "DescribeInstanceStatus" => self.describe_status(request).await,
            "CreateLaunchTemplateVersion" => self.create_template_version(request).await,
            "DescribeLaunchTemplateVersions" => self.describe_template_versions(request).await,
            "ModifyInstanceAttribute" => self.modify_attribute(request).await,
            "DeleteVpc" => self.delete_vpc(request).await,
            "CreateNatGateway" => self.create_nat_gateway(request).await,
            "DeleteNatGateway" => self.delete_nat_gateway(request).await,
            "DescribeNatGateways" => self.describe_nat_gateways(request).await,
            "DeleteNetworkAcl"
            | "DeleteNetworkInterface"
            | "DeleteRouteTable"
            | "DeleteSecurityGroup"
            | "DeleteSubnet"
            | "DetachInternetGateway" => self.pass_and_refresh(request).await,
            "AssociateAddress"
            | "DisassociateAddress"
            | "ReleaseAddress"
            | "CreateTags"
            | "DeleteTags"
            | "AssociateIamInstanceProfile"
            | "DisassociateIamInstanceProfile"
            | "ReplaceIamInstanceProfileAssociation"
            | "ModifyInstanceMetadataOptions" => self.pass_and_refresh(request).await,
            "ModifyNetworkInterfaceAttribute" => self.modify_interface(request).await,
            "CreateVpc" => self.create_vpc(request).await,
            "ModifySecurityGroupRules" => self.modify_rules(request).await,
            "CreateVpcEndpoint" => self.create_endpoint(request).await,
            changing if enforce::CHANGES.contains(&changing) => {
                self.pass_and_enforce(request).await
            }
            _ => {
                let answer = self.pass(request).await;
                answer.map(|answer| coverage::mark(answer.into_response(), Class::Answered))
            }
        };
        coverage::mark(self.said(&operation, outcome), Class::True)
    }

    /// The answer; a refusal is also said in the log.
    fn said(&self, operation: &str, outcome: Result<Response<Body>, Refusal>) -> Response<Body> {
        outcome.unwrap_or_else(|refusal| {
            log::line(format_args!("{operation}: {}: {}", refusal.code, refusal.message));
            refusal.response()
        })
    }

    pub(crate) async fn pass(&self, request: Request) -> Result<Answer, Refusal> {
        let Request { method, uri, headers, body, .. } = request;
        let answer = self.upstream.fetch(method, &uri, &headers, body).await?;
        if failure::is_page(answer.status, answer.headers.get(header::CONTENT_TYPE)) {
            return Err(Refusal::of_the_emulator(self.upstream.last_words().await.as_deref()));
        }
        Ok(answer)
    }

    /// Passes a request on with other fields than it came with.
    pub(crate) async fn pass_changed(&self, mut request: Request) -> Result<Answer, Refusal> {
        let form = std::mem::take(&mut request.form);
        request.replace(form);
        self.pass(request).await
    }

    pub(crate) async fn pass_and_refresh(
        &self,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let answer = self.pass(request).await?;
        if answer.status.is_success() {
            self.refresh().await?;
        }
        Ok(answer.into_response())
    }

    async fn describe_instances(&self, mut request: Request) -> Result<Response<Body>, Refusal> {
        let wanted = answers::take_state_filter(&mut request.form);
        let answer = self.pass_changed(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        answers::adjust_instances(&mut root, wanted.as_deref(), |id| self.truth(id));
        Ok(answer.with_body(root.write()))
    }

    async fn describe_images(&self, request: Request) -> Result<Response<Body>, Refusal> {
        self.tell_images().await?;
        self.pass(request).await.map(Answer::into_response)
    }

    fn truth(&self, id: &str) -> answers::Truth {
        if self.vanished(id) {
            return answers::Truth::Gone;
        }
        match (self.hosts.by_instance(id), self.machine(id)) {
            (Some(host), Some(machine)) => answers::Truth::Known {
                state: host.state,
                reason: machine.reason,
                launched: host.launched,
            },
            _ => answers::Truth::Unknown,
        }
    }

    async fn delete_vpc(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let vpc = request.form.get("VpcId").unwrap_or_default().to_owned();
        let answer = self.pass(request).await?;
        if answer.status.is_success() {
            self.networks
                .remove(&vpc)
                .await
                .map_err(|error| Refusal::server("InternalError", error.to_string()))?;
        }
        Ok(answer.into_response())
    }

    async fn console_output(&self, form: &Form) -> Result<Response<Body>, Refusal> {
        let id = form.get("InstanceId").unwrap_or_default();
        let Some(machine) = self.machine(id) else {
            return Err(reason::unknown(&[id]));
        };
        let text = match machine.last_console {
            Some(text) => text,
            None => self.console(id).await,
        };
        let output = base64::engine::general_purpose::STANDARD.encode(text);
        let now = format!("{:.3}", jiff::Timestamp::now());
        Ok(answers::console_output(id, &now, &output))
    }

    /// Looks at all instances again: tags, public addresses, profiles; then makes the addresses lead there.
    pub(crate) async fn refresh(&self) -> Result<(), Refusal> {
        let _one = self.refreshing.lock().await;
        let form = Form::new([("Action", "DescribeInstances"), ("Version", "2016-11-15")]);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        for seen in Seen::all(&root) {
            let id = seen.instance_id.clone();
            self.hosts.update(&id, |host| describe(host, &seen));
            if let Some(machine) = self.machines().get_mut(&id) {
                machine.seen = seen;
            }
        }
        self.enforce().await
    }
}

/// Takes over into the registry what an answer shows.
pub(crate) fn describe(host: &mut HostInfo, seen: &Seen) {
    host.name = seen.tags.get("Name").filter(|name| !name.is_empty()).cloned();
    host.tags = seen.tags.clone();
}
