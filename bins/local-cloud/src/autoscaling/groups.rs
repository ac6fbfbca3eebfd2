//! Groups themselves: create, update, delete, desired capacity, suspended processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::group::{Group, Place, TemplateSpec};
use super::plan::at;
use super::wire::{Fault, Params};
use super::{AutoScaling, Outcome, engine, refuse, tags};
use crate::ec2::answers::request_id;
use crate::operation::Form;

/// Seconds (API reference, `CreateAutoScalingGroup`).
const DEFAULT_COOLDOWN: u32 = 300;

/// Parameters that hold here.
const KNOWN: [&str; 18] = [
    "Action",
    "Version",
    "AutoScalingGroupName",
    "LaunchTemplate",
    "MinSize",
    "MaxSize",
    "DesiredCapacity",
    "DefaultCooldown",
    "AvailabilityZones",
    "HealthCheckType",
    "HealthCheckGracePeriod",
    "VPCZoneIdentifier",
    "TerminationPolicies",
    "NewInstancesProtectedFromScaleIn",
    "Tags",
    "ServiceLinkedRoleARN",
    "Context",
    "DefaultInstanceWarmup",
];

/// Parameters that hold with this value only, which is what happens without them.
const HARMLESS: [(&str, &str); 9] = [
    ("CapacityRebalance", "false"),
    ("MaxInstanceLifetime", "0"),
    ("DesiredCapacityType", "units"),
    ("DeletionProtection", "none"),
    ("AvailabilityZoneDistribution.CapacityDistributionStrategy", "balanced-best-effort"),
    ("CapacityReservationSpecification.CapacityReservationPreference", "default"),
    ("InstanceMaintenancePolicy.MinHealthyPercentage", "-1"),
    ("InstanceMaintenancePolicy.MaxHealthyPercentage", "-1"),
    ("SkipZonalShiftValidation", "false"),
];

/// Policies that are followed (user guide, "Configure termination policies").
const POLICIES: [&str; 6] = [
    "Default",
    "OldestInstance",
    "NewestInstance",
    "OldestLaunchTemplate",
    "ClosestToNextInstanceHour",
    // Nothing is launched from a launch configuration here, so this one makes no difference, as on AWS.
    "OldestLaunchConfiguration",
];

/// Processes that can be suspended.
const PROCESSES: [&str; 9] = [
    "AZRebalance",
    "AddToLoadBalancer",
    "AlarmNotification",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// What a caller wants changed.
#[derive(Debug, Default)]
struct Wanted {
    template: Option<TemplateSpec>,
    places: Option<Vec<Place>>,
    min: Option<u32>,
    max: Option<u32>,
    desired: Option<u32>,
    cooldown: Option<u32>,
    health_type: Option<String>,
    grace: Option<u32>,
    warmup: Option<u32>,
    policies: Option<Vec<String>>,
    protect_new: Option<bool>,
    service_role: Option<String>,
    context: Option<String>,
}

impl AutoScaling {
    pub(super) async fn create_group(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?.to_owned();
        valid_name(&name)?;
        if self.groups().contains_key(&name) {
            return Err(exists(&name));
        }
        let wanted = self.wanted("CreateAutoScalingGroup", params).await?;
        let (Some(min), Some(max)) = (wanted.min, wanted.max) else {
            params.required("MinSize")?;
            params.required("MaxSize")?;
            return Err(Fault::validation("MinSize and MaxSize are needed."));
        };
        let template = wanted.template.clone().ok_or_else(|| {
            Fault::validation(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or \
                 MixedInstancesPolicy parameter.",
            )
        })?;
        let places = wanted.places.clone().ok_or_else(|| {
            Fault::validation("At least one Availability Zone or VPC Subnet is required.")
        })?;
        let now = Timestamp::now();
        let account = self.account(&places).await?;
        let region = &self.ec2.settings.region;
        let role = format!(
            "arn:aws:iam::{account}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
        );
        let mut group = Group {
            arn: format!(
                "arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{}:autoScalingGroupName/{name}",
                request_id()
            ),
            name: name.clone(),
            created: now,
            template,
            min,
            max,
            desired: wanted.desired.unwrap_or(min),
            cooldown: DEFAULT_COOLDOWN,
            health_type: "EC2".into(),
            grace: 0,
            warmup: None,
            places,
            policies: vec!["Default".into()],
            protect_new: false,
            service_role: role,
            context: None,
            tags: tags::read(params, Some(&name))?,
            suspended: BTreeMap::new(),
            members: Vec::new(),
            activities: Vec::new(),
            refreshes: Vec::new(),
            deleting: false,
            request: None,
            failures: 0,
            not_before: None,
            next_slot: 0,
            rebalancing: false,
        };
        apply(&mut group, wanted);
        fits(&group)?;
        group.request = Some(format!(
            "{} a user request created an AutoScalingGroup changing the desired capacity from 0 to {}.",
            at(now),
            group.desired
        ));
        {
            // Two may have asked at once.
            let mut groups = self.groups();
            if groups.contains_key(&name) {
                return Err(exists(&name));
            }
            groups.insert(name, group);
        }
        self.wake.notify_one();
        Ok(None)
    }

    pub(super) async fn update_group(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?.to_owned();
        self.with_group(&name, |_| Ok(()))?;
        let wanted = self.wanted("UpdateAutoScalingGroup", params).await?;
        self.with_group(&name, |group| {
            let mut changed = group.clone();
            let (before, desired) = (group.desired, wanted.desired);
            apply(&mut changed, wanted);
            if desired.is_none() {
                // API reference, `UpdateAutoScalingGroup`: new limits move the desired capacity.
                changed.desired = changed.desired.max(changed.min).min(changed.max.max(changed.min));
            }
            fits(&changed)?;
            if changed.desired != before {
                changed.request = Some(format!(
                    "{} a user request update of AutoScalingGroup constraints to min: {}, max: {}, desired: {} \
                     changing the desired capacity from {before} to {}.",
                    at(Timestamp::now()),
                    changed.min,
                    changed.max,
                    changed.desired,
                    changed.desired
                ));
            }
            // What failed before may work now.
            (changed.failures, changed.not_before) = (0, None);
            *group = changed;
            Ok(None)
        })
    }

    /// Reads and checks what Create and Update have in common; asks EC2 about templates and subnets.
    async fn wanted(
        self: &Arc<Self>,
        operation: &str,
        params: Params<'_>,
    ) -> Result<Wanted, Fault> {
        only_known(operation, params)?;
        let policies: Vec<String> =
            params.list("TerminationPolicies").into_iter().map(str::to_owned).collect();
        if let Some(unknown) = policies.iter().find(|name| !POLICIES.contains(&name.as_str())) {
            return Err(refuse(&format!("{operation} with the termination policy {unknown}")));
        }
        match params.get("HealthCheckType") {
            // Without a load balancer its checks change nothing.
            None | Some("EC2" | "ELB" | "EC2,ELB") => {}
            Some(other) => {
                return Err(refuse(&format!("{operation} with the health check type {other}")));
            }
        }
        let wanted = Wanted {
            template: self.template_spec(params, "LaunchTemplate.").await?,
            places: self.places(params).await?,
            min: params.number("MinSize")?,
            max: params.number("MaxSize")?,
            desired: params.number("DesiredCapacity")?,
            cooldown: params.number("DefaultCooldown")?,
            health_type: params.get("HealthCheckType").map(str::to_owned),
            grace: params.number("HealthCheckGracePeriod")?,
            warmup: params.number("DefaultInstanceWarmup").or_else(|fault| {
                // -1 takes it back.
                if params.get("DefaultInstanceWarmup") == Some("-1") {
                    Ok(None)
                } else {
                    Err(fault)
                }
            })?,
            policies: Some(policies).filter(|policies| !policies.is_empty()),
            protect_new: params.flag("NewInstancesProtectedFromScaleIn")?,
            service_role: params.get("ServiceLinkedRoleARN").map(str::to_owned),
            context: params.get("Context").map(str::to_owned),
        };
        if let (Some(template), Some(place)) =
            (&wanted.template, wanted.places.as_ref().and_then(|places| places.first()))
        {
            self.try_template(template, place).await?;
        } else if let Some(template) = &wanted.template {
            let place = Place { zone: String::new(), subnet: String::new() };
            self.try_template(template, &place).await?;
        }
        Ok(wanted)
    }

    /// The launch template that a request names, with its id and name.
    pub(super) async fn template_spec(
        &self,
        params: Params<'_>,
        prefix: &str,
    ) -> Result<Option<TemplateSpec>, Fault> {
        let field = |name: &str| params.get(&format!("{prefix}{name}"));
        let (id, name) = (field("LaunchTemplateId"), field("LaunchTemplateName"));
        let version = field("Version").unwrap_or("$Default");
        if id.is_none() && name.is_none() {
            return Ok(None);
        }
        if id.is_some() && name.is_some() {
            return Err(Fault::validation(
                "Valid requests must contain either launchTemplateId or LaunchTemplateName",
            ));
        }
        let region = &self.ec2.settings.region;
        let template = self.ec2.template(region, id, name, version).await.map_err(unusable)?;
        let version = version.to_owned();
        Ok(Some(TemplateSpec { id: template.id, name: template.name, version }))
    }

    /// Auto Scaling tries a template before it takes it.
    async fn try_template(&self, spec: &TemplateSpec, place: &Place) -> Result<(), Fault> {
        let template = self.template(spec).await?;
        let form = engine::launch_form(&template, place, &BTreeMap::new())
            .map_err(|error| unusable_call(&error))?;
        let image = form.get("ImageId").unwrap_or_default();
        if self.ec2.image(image).is_err() {
            return Err(unusable_text(&format!("The image id '[{image}]' does not exist")));
        }
        Ok(())
    }

    /// Where instances go: subnets, else the default subnets of zones.
    async fn places(self: &Arc<Self>, params: Params<'_>) -> Result<Option<Vec<Place>>, Fault> {
        let zones = params.list("AvailabilityZones");
        let subnets: Vec<&str> = params
            .get("VPCZoneIdentifier")
            .map(|list| list.split(',').map(str::trim).filter(|id| !id.is_empty()).collect())
            .unwrap_or_default();
        if zones.is_empty() && subnets.is_empty() {
            return Ok(None);
        }
        let mut form = Form::default();
        if subnets.is_empty() {
            form.push("Filter.1.Name", "default-for-az");
            form.push("Filter.1.Value.1", "true");
        }
        for (number, subnet) in subnets.iter().enumerate() {
            form.push(format!("SubnetId.{}", number + 1), *subnet);
        }
        let root = self
            .ec2
            .call("DescribeSubnets", form)
            .await
            .map_err(|error| Fault::validation(error.message))?;
        let found: Vec<(Place, String)> = root
            .items(&["subnetSet"])
            .filter_map(|item| {
                let place = Place {
                    subnet: item.text_at(&["subnetId"])?,
                    zone: item.text_at(&["availabilityZone"])?,
                };
                Some((place, item.text_at(&["vpcId"])?))
            })
            .collect();
        if subnets.is_empty() {
            let of_zone = |zone: &&str| {
                found.iter().find(|(place, _)| place.zone == **zone).map(|(place, _)| place.clone())
            };
            return zones
                .iter()
                .map(|zone| {
                    of_zone(zone).ok_or_else(|| {
                        Fault::validation(format!(
                            "Invalid availability zones: no default subnet in [{zone}]"
                        ))
                    })
                })
                .collect::<Result<Vec<_>, _>>()
                .map(Some);
        }
        let vpcs: BTreeSet<&str> = found.iter().map(|(_, vpc)| vpc.as_str()).collect();
        if vpcs.len() > 1 {
            return Err(Fault::validation("The subnets are not all in the same VPC."));
        }
        let places: Vec<Place> = subnets
            .iter()
            .filter_map(|id| found.iter().find(|(place, _)| place.subnet == **id))
            .map(|(place, _)| place.clone())
            .collect();
        if let Some(zone) =
            zones.iter().find(|zone| !places.iter().any(|place| place.zone == **zone))
        {
            return Err(Fault::validation(format!(
                "The availability zones of the specified subnets and the AutoScalingGroup do not match: {zone}"
            )));
        }
        Ok(Some(places))
    }

    async fn account(self: &Arc<Self>, places: &[Place]) -> Result<String, Fault> {
        let subnet = places.first().map(|place| place.subnet.clone()).unwrap_or_default();
        let form = Form::new([("SubnetId.1", subnet.as_str())]);
        let root = self.ec2.call("DescribeSubnets", form).await?;
        Ok(root.text_at(&["subnetSet", "item", "ownerId"]).unwrap_or_default())
    }

    pub(super) fn delete_group(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let force = params.flag("ForceDelete")?.unwrap_or_default();
        let mut groups = self.groups();
        let group = groups.get_mut(name).ok_or_else(|| Fault::no_group(name))?;
        if !force {
            if group.is_busy() && !group.deleting {
                return Err(Fault::client(
                    "ScalingActivityInProgress",
                    "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that \
                     group.",
                ));
            }
            if !group.members.is_empty() && !group.deleting {
                return Err(Fault::client(
                    "ResourceInUse",
                    "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance \
                     request(s) still in the group.",
                ));
            }
        }
        if !group.deleting {
            let before = group.desired;
            (group.deleting, group.min, group.max, group.desired) = (true, 0, 0, 0);
            group.request = Some(format!(
                "{} a user request force deleted AutoScalingGroup changing the desired capacity from {before} to 0.",
                at(Timestamp::now())
            ));
        }
        drop(groups);
        self.wake.notify_one();
        Ok(None)
    }

    pub(super) fn set_desired_capacity(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        params.required("DesiredCapacity")?;
        let desired = params.number("DesiredCapacity")?.unwrap_or_default();
        let honor = params.flag("HonorCooldown")?.unwrap_or_default();
        self.with_group(name, |group| {
            let now = Timestamp::now();
            if desired > group.max {
                return Err(Fault::validation(format!(
                    "New SetDesiredCapacity value {desired} is above max value {} for the AutoScalingGroup.",
                    group.max
                )));
            }
            if desired < group.min {
                return Err(Fault::validation(format!(
                    "New SetDesiredCapacity value {desired} is below min value {} for the AutoScalingGroup.",
                    group.min
                )));
            }
            if honor && (group.is_busy() || self.cools_down(group, now)) {
                return Err(Fault::client(
                    "ScalingActivityInProgress",
                    "Scaling activity is in progress or the cooldown period has not ended, and blocks this action.",
                ));
            }
            if desired != group.desired {
                group.request = Some(format!(
                    "{} a user request explicitly set group desired capacity changing the desired capacity from {} to \
                     {desired}.",
                    at(now),
                    group.desired
                ));
                group.desired = desired;
                (group.failures, group.not_before) = (0, None);
            }
            Ok(None)
        })
    }

    fn cools_down(&self, group: &Group, now: Timestamp) -> bool {
        let last = group.activities.iter().filter_map(|activity| activity.end).max();
        last.is_some_and(|end| now.duration_since(end) < self.pace.seconds(group.cooldown))
    }

    pub(super) fn suspend(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let processes = processes(params)?;
        self.with_group(name, |group| {
            let reason = format!("User suspended at {:.0}", Timestamp::now());
            for process in processes {
                group.suspended.entry(process.to_owned()).or_insert_with(|| reason.clone());
            }
            Ok(None)
        })
    }

    pub(super) fn resume(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let processes = processes(params)?;
        self.with_group(name, |group| {
            group.suspended.retain(|process, _| !processes.contains(&process.as_str()));
            Ok(None)
        })
    }
}

/// The processes that a request names; none means all.
fn processes(params: Params<'_>) -> Result<Vec<&str>, Fault> {
    let named = params.list("ScalingProcesses");
    if let Some(unknown) = named.iter().find(|name| !PROCESSES.contains(name)) {
        return Err(Fault::validation(format!("'{unknown}' is not a valid Scaling Process Type")));
    }
    Ok(if named.is_empty() { PROCESSES.to_vec() } else { named })
}

fn exists(name: &str) -> Fault {
    Fault::client(
        "AlreadyExists",
        format!(
            "AutoScalingGroup by this name already exists - A group with the name {name} already exists"
        ),
    )
}

fn valid_name(name: &str) -> Result<(), Fault> {
    if name.chars().count() > 255 || name.contains(':') {
        return Err(Fault::validation(format!(
            "1 validation error detected: Value '{name}' at 'autoScalingGroupName' failed to satisfy constraint: \
             Member must have length less than or equal to 255 and hold no colon"
        )));
    }
    Ok(())
}

/// Refuses what would be pretended.
fn only_known(operation: &str, params: Params<'_>) -> Result<(), Fault> {
    for (name, value) in params.0.fields() {
        let top = name.split('.').next().unwrap_or_default();
        let harmless = HARMLESS.iter().any(|(known, usual)| *known == name && *usual == value);
        if !KNOWN.contains(&top) && !harmless && !value.is_empty() {
            return Err(refuse(&format!("{operation} with {name}")));
        }
    }
    Ok(())
}

/// Whether the capacities fit each other.
fn fits(group: &Group) -> Result<(), Fault> {
    let Group { min, max, desired, .. } = group;
    if min > max {
        return Err(Fault::validation(format!(
            "Max bound, {max}, must be greater than or equal to min bound, {min}"
        )));
    }
    if !(min..=max).contains(&desired) {
        return Err(Fault::validation(format!(
            "Desired capacity:{desired} must be between the specified min size:{min} and max size:{max}"
        )));
    }
    Ok(())
}

fn apply(group: &mut Group, wanted: Wanted) {
    fn set<T>(place: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *place = value;
        }
    }
    set(&mut group.template, wanted.template);
    set(&mut group.places, wanted.places);
    set(&mut group.min, wanted.min);
    set(&mut group.max, wanted.max);
    set(&mut group.desired, wanted.desired);
    set(&mut group.cooldown, wanted.cooldown);
    set(&mut group.health_type, wanted.health_type);
    set(&mut group.grace, wanted.grace);
    set(&mut group.policies, wanted.policies);
    set(&mut group.protect_new, wanted.protect_new);
    set(&mut group.service_role, wanted.service_role);
    group.warmup = wanted.warmup.or(group.warmup);
    group.context = wanted.context.or(group.context.take());
}

fn unusable_text(why: &str) -> Fault {
    Fault::validation(format!("You must use a valid fully-formed launch template. {why}"))
}

fn unusable(refusal: crate::ec2::answers::Refusal) -> Fault {
    unusable_call(&refusal.into())
}

fn unusable_call(error: &crate::ec2::client::CallError) -> Fault {
    match error.code.as_str() {
        "NotImplemented" | "InternalError" => error.clone().into(),
        _ => unusable_text(&error.message),
    }
}
