//! `RunInstances`: answered as soon as the emulator has the records; the hosts boot behind the answer.
//!
//! What the call itself can refuse is what EC2 refuses there: unknown images, types, subnets, an address range that
//! cannot be used. What goes wrong later ends the instance, as on EC2, with a state reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use base64::Engine as _;
use tokio::time::Instant;

use super::answers::{self, Refusal};
use super::boot::FirstBoot;
use super::images::ROOT_DEVICE;
use super::machine::{Machine, Seen};
use super::reason::Reason;
use super::{Ec2, Request, describe};
use crate::error::Error;
use crate::hosts::{HostInfo, HostState};
use crate::log;
use crate::operation::Form;
use crate::process::{last_lines, run_all};

/// How many hosts are made at the same time: more would only slow each other down.
pub(super) const MADE_AT_ONCE: usize = 4;

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
        let mut request = self.with_template(request).await?;
        if let Some(image) = request.form.get("ImageId") {
            self.image(image)?;
        }
        let least = complete(&mut request.form)?;
        root_volume(&mut request.form);
        if let Some(subnet) = self.default_subnet(&request.form).await? {
            request.form.push("SubnetId", subnet);
        }
        self.private_address(&request.form).await?;
        let _turn = self.quota.turn().await;
        self.cut_to_quota(&mut request.form, least).await?;
        let answer = self.pass_changed(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        let launched = Seen::all(&root);
        if let Err(refusal) = self.begin(&launched).await {
            self.take_back(&launched).await?;
            return Err(refusal);
        }
        answers::adjust_launch(&mut root);
        Ok(answer.with_body(root.write()))
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

    /// Nothing of a refused launch stays, as `RunInstances` starts all instances or none.
    async fn take_back(self: &Arc<Self>, launched: &[Seen]) -> Result<(), Refusal> {
        let mut form = Form::new([("Action", "TerminateInstances"), ("Version", "2016-11-15")]);
        for (number, seen) in launched.iter().enumerate() {
            form.push(format!("InstanceId.{}", number + 1), &seen.instance_id);
        }
        self.upstream.ask("ec2", &self.settings.region, &form).await?;
        for seen in launched {
            self.forget(&seen.instance_id).await;
        }
        Ok(())
    }

    /// Makes the instances of one launch known and lets their hosts boot.
    async fn begin(self: &Arc<Self>, launched: &[Seen]) -> Result<(), Refusal> {
        let Some(first) = launched.first() else { return Ok(()) };
        // The same for all of one launch; no need to ask for each.
        let user_data = self.user_data(&first.instance_id).await?;
        let mut ranges: BTreeMap<&str, String> = BTreeMap::new();
        for seen in launched {
            for (id, action, field, set) in [
                (seen.vpc_id.as_str(), "DescribeVpcs", "VpcId.1", "vpcSet"),
                (seen.subnet_id.as_str(), "DescribeSubnets", "SubnetId.1", "subnetSet"),
            ] {
                if !ranges.contains_key(id) {
                    ranges.insert(id, self.range(action, field, id, set).await?);
                }
            }
            let range = |id: &str| ranges.get(id).cloned().unwrap_or_default();
            let machine = Machine {
                seen: seen.clone(),
                vpc_cidr: range(&seen.vpc_id),
                subnet_cidr: range(&seen.subnet_id),
                user_data: user_data.clone(),
                ..Machine::default()
            };
            self.networks
                .ensure(&seen.vpc_id, &machine.vpc_cidr, self.edge()?)
                .await
                .map_err(|error| unusable_range(&seen.vpc_id, &error))?;
            let private_ip = seen
                .private_ip
                .ok_or_else(|| Refusal::server("InternalError", "the instance has no address"))?;
            let mut host = HostInfo {
                instance_id: seen.instance_id.clone(),
                name: None,
                private_ip,
                state: HostState::Pending,
                tags: Default::default(),
                launched: jiff::Timestamp::now(),
            };
            describe(&mut host, seen);
            // Known before it boots: its first question is who it is.
            self.machines().insert(seen.instance_id.clone(), machine);
            self.hosts.put(host);
            log::line(format_args!("{} is pending", seen.instance_id));
        }
        self.refresh().await?;
        for seen in launched {
            let (ec2, id) = (Arc::clone(self), seen.instance_id.clone());
            tokio::spawn(async move { ec2.bring_up(&id).await });
        }
        Ok(())
    }

    /// From `pending` to `running`; or to `terminated`, with the reason.
    async fn bring_up(self: Arc<Self>, id: &str) {
        let begun = Instant::now();
        let brought = match self.make(id).await {
            Ok(()) => self.run(id, begun).await,
            Err(error) => Err(error),
        };
        let Err(error) = brought else { return };
        if self.state(id) != Some(HostState::Pending) {
            // Terminated meanwhile; nobody waits for it any more.
            return log::line(format_args!("{id}: {error}"));
        }
        let image = self.machine(id).map(|machine| machine.seen.image_id).unwrap_or_default();
        let error = self.image_fault(&image).await.unwrap_or(error);
        log::line(format_args!("{id} cannot be launched: {error}"));
        let form = Form::new([
            ("Action", "TerminateInstances"),
            ("Version", "2016-11-15"),
            ("InstanceId.1", id),
        ]);
        if let Err(error) = self.upstream.ask("ec2", &self.settings.region, &form).await {
            log::line(format_args!("{id}: {error}"));
        }
        self.set_reason(id, Some(Reason::failed(&error.to_string())));
        self.set_state(id, HostState::ShuttingDown);
        self.terminate(id).await;
    }

    /// Makes and starts the container, unless the instance is terminated before.
    async fn make(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Some(host) = self.hosts.by_instance(id) else { return Ok(()) };
        let Some(machine) = self.machine(id) else { return Ok(()) };
        let mut first = FirstBoot::draw(&self.faults, &host);
        // Building it may take minutes; that stands in nobody's way.
        let image = self
            .docker_image(&machine.seen.image_id, id, first.without_cloud_init())
            .await
            .map_err(|refusal| Error::setup("there is nothing to boot", refusal.message))?;
        first.settle(id, &image, &self.settings.images).await?;
        self.address_is_free(&host).await;
        let _work = machine.work.lock().await;
        let Ok(_place) = self.launching.acquire().await else { return Ok(()) };
        if self.state(id) != Some(HostState::Pending) {
            return Ok(());
        }
        run_all("docker", &self.container_arguments(&machine, &image, &first), None).await?;
        self.spoil(id, &first).await?;
        self.start_container(id).await
    }

    /// Waits for the hosts that are being made, and makes no more.
    pub async fn rest(&self) {
        let places = u32::try_from(MADE_AT_ONCE).unwrap_or(u32::MAX);
        // It fails only when it was closed before.
        drop(self.launching.acquire_many(places).await);
        self.launching.close();
    }

    /// Waits for a host that is shutting down and whose address was given away already.
    async fn address_is_free(&self, host: &HostInfo) {
        let taken = || {
            self.hosts.all().into_iter().any(|other| {
                other.private_ip == host.private_ip
                    && other.instance_id != host.instance_id
                    && self.same_vpc(&other.instance_id, &host.instance_id)
                    && other.state != HostState::Terminated
            })
        };
        let patience = self.settings.timing.shutdown_patience + Duration::from_secs(10);
        let deadline = Instant::now() + patience;
        while taken() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn same_vpc(&self, one: &str, other: &str) -> bool {
        let machines = self.machines();
        let vpc = |id: &str| machines.get(id).map(|machine| machine.seen.vpc_id.as_str());
        vpc(one) == vpc(other)
    }

    /// Sees that a started container stays, calls the instance running when its time has come, and watches its boot.
    pub(super) async fn run(self: &Arc<Self>, id: &str, begun: Instant) -> Result<(), Error> {
        if self.state(id) != Some(HostState::Pending) {
            return Ok(());
        }
        let pid = self.settle(id).await?;
        tokio::time::sleep_until(begun + self.settings.timing.pending).await;
        // A host whose init cannot start ends at once; then Docker "started" it for nothing.
        if !is_alive(pid) {
            let said = last_lines(&self.console(id).await, 3);
            return Err(Error::setup("the host ended while it started", said));
        }
        if self.advance(id, HostState::Pending, HostState::Running) {
            if let Some(machine) = self.machines().get_mut(id) {
                machine.running_since = Some(Instant::now());
                machine.ran_before = true;
            }
            self.watch_boot(id, pid);
            self.after_start(id);
        }
        Ok(())
    }

    pub(super) async fn range(
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
    pub(super) async fn user_data(&self, id: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let text = self.attribute(id, "userData").await?.unwrap_or_default();
        let text: String = text.split_whitespace().collect();
        if text.is_empty() {
            return Ok(None);
        }
        base64::engine::general_purpose::STANDARD.decode(text).map(Some).map_err(|error| {
            Refusal::client(
                "InvalidUserData.Malformed",
                format!("Invalid BASE64 encoding of user data: {error}"),
            )
        })
    }
}

/// Whether a process runs; a zombie does not.
pub(super) fn is_alive(pid: u32) -> bool {
    crate::process::Identity::of(pid).is_some()
}

/// What EC2 would settle itself where a request says nothing: as many instances as wished for, and metadata as Debian's
/// images ask for it (`ImdsSupport` v2.0: tokens required, two hops; user guide, "Configure instance metadata options").
///
/// Gives the minimum that was asked for.
fn complete(form: &mut Form) -> Result<u32, Refusal> {
    let count = |name: &str| {
        form.get(name).map_or(Ok(1), |text| {
            text.parse::<u32>().ok().filter(|count| (1..=1000).contains(count)).ok_or_else(|| {
                let message = format!("Value ({text}) for parameter {name} is invalid.");
                Refusal::client("InvalidParameterValue", message)
            })
        })
    };
    let (least, most) = (count("MinCount")?, count("MaxCount")?);
    if least > most {
        let message = format!("The minimum count {least} exceeds the maximum count {most}.");
        return Err(Refusal::client("InvalidParameterCombination", message));
    }
    // The emulator launches the minimum.
    form.remove(|name| name == "MinCount");
    form.push("MinCount", most.to_string());
    for (name, value) in [
        ("MetadataOptions.HttpTokens", "required"),
        ("MetadataOptions.HttpPutResponseHopLimit", "2"),
    ] {
        if form.get(name).is_none() {
            form.push(name, value);
        }
    }
    Ok(least)
}

/// The root volume, whatever the request says of others: 8 GiB that go with the instance, as Debian's images have it. The
/// emulator makes none beside others, and keeps one of which the request does not say that it goes.
fn root_volume(form: &mut Form) {
    const MAPPING: &str = "BlockDeviceMapping.";
    let numbers: Vec<u32> = form
        .names()
        .filter_map(|name| name.strip_prefix(MAPPING)?.strip_suffix(".DeviceName")?.parse().ok())
        .collect();
    let is_root =
        |number: &&u32| form.get(&format!("{MAPPING}{number}.DeviceName")) == Some(ROOT_DEVICE);
    let known = numbers.iter().find(is_root).copied();
    let number = known.unwrap_or_else(|| numbers.iter().max().map_or(1, |last| last + 1));
    for (field, value) in
        [("DeviceName", ROOT_DEVICE), ("Ebs.VolumeSize", "8"), ("Ebs.DeleteOnTermination", "true")]
    {
        let name = format!("{MAPPING}{number}.{field}");
        if form.get(&name).is_none() {
            form.push(name, value);
        }
    }
}

/// The VPC cannot be made on this machine. No 5xx, since clients repeat those and nothing would change.
fn unusable_range(vpc: &str, error: &Error) -> Refusal {
    let message = format!(
        "the network of {vpc} cannot be made: {error} (choose another range for the VPC, or end what uses this one)"
    );
    Refusal::client("InvalidVpc.Range", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_instances_are_launched_as_wished_for() {
        let check = |form: &str, expected: Result<&str, &str>| {
            let mut form = Form::parse(form.as_bytes());
            match complete(&mut form) {
                Ok(_) => assert_eq!(form.get("MinCount"), expected.ok(), "{form:?}"),
                Err(refusal) => assert_eq!(Err(refusal.code), expected, "{form:?}"),
            }
        };
        check("MinCount=1&MaxCount=5", Ok("5"));
        check("MinCount=2&MaxCount=2", Ok("2"));
        check("", Ok("1"));
        check("MinCount=3&MaxCount=2", Err("InvalidParameterCombination"));
        check("MinCount=0&MaxCount=2", Err("InvalidParameterValue"));
        check("MinCount=1&MaxCount=many", Err("InvalidParameterValue"));
    }

    #[test]
    fn there_is_a_root_volume_which_goes_with_the_instance() {
        let check = |form: &str, expected: &[(&str, Option<&str>)]| {
            let mut form = Form::parse(form.as_bytes());
            root_volume(&mut form);
            for (field, value) in expected {
                let name = format!("BlockDeviceMapping.{field}");
                assert_eq!(form.get(&name), *value, "{name} in {form:?}");
            }
        };
        check(
            "",
            &[("1.DeviceName", Some("/dev/xvda")), ("1.Ebs.DeleteOnTermination", Some("true"))],
        );
        check(
            "BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.VolumeSize=1",
            &[
                ("1.Ebs.DeleteOnTermination", None),
                ("2.DeviceName", Some("/dev/xvda")),
                ("2.Ebs.VolumeSize", Some("8")),
            ],
        );
        check(
            "BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.Ebs.VolumeSize=20\
             &BlockDeviceMapping.1.Ebs.DeleteOnTermination=false",
            &[
                ("1.Ebs.VolumeSize", Some("20")),
                ("1.Ebs.DeleteOnTermination", Some("false")),
                ("2.DeviceName", None),
            ],
        );
    }

    #[test]
    fn metadata_asks_for_tokens_unless_the_request_says_otherwise() {
        let mut form = Form::parse(b"MetadataOptions.HttpTokens=optional");
        complete(&mut form).expect("good");
        assert_eq!(form.get("MetadataOptions.HttpTokens"), Some("optional"));
        assert_eq!(form.get("MetadataOptions.HttpPutResponseHopLimit"), Some("2"));
    }
}
