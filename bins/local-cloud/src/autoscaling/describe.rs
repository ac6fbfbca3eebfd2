//! What groups, their instances and their activities look like from outside.

use super::group::{Activity, Group, Member};
use super::wire::{self, Fault, Params};
use super::{AutoScaling, Outcome, refuse, tags};
use crate::xml::Element;

/// The empty answer to questions about what cannot be put here: nothing is there.
pub(super) fn nothing(operation: &str) -> Option<Vec<Element>> {
    let list = match operation {
        "DescribeLifecycleHooks" => "LifecycleHooks",
        "DescribeLoadBalancerTargetGroups" => "LoadBalancerTargetGroups",
        "DescribeLoadBalancers" => "LoadBalancers",
        "DescribeNotificationConfigurations" => "NotificationConfigurations",
        "DescribePolicies" => "ScalingPolicies",
        "DescribeScheduledActions" => "ScheduledUpdateGroupActions",
        "DescribeTrafficSources" => "TrafficSources",
        "DescribeWarmPool" => "Instances",
        _ => return None,
    };
    Some(vec![Element::node(list, Vec::new())])
}

impl AutoScaling {
    pub(super) fn describe_groups(&self, params: Params<'_>) -> Outcome {
        let names = params.list("AutoScalingGroupNames");
        let instances = params.flag("IncludeInstances")?.unwrap_or(true);
        let filters = wire::filters(params);
        let groups = self.groups();
        let mut found = Vec::new();
        for group in groups.values() {
            if (names.is_empty() || names.contains(&group.name.as_str()))
                && matches(group, &filters)?
            {
                found.push(parts(group, instances));
            }
        }
        let (found, token) = wire::page(params, found, 50, 100)?;
        Ok(Some([wire::list("AutoScalingGroups", found)].into_iter().chain(token).collect()))
    }

    pub(super) fn describe_instances(&self, params: Params<'_>) -> Outcome {
        let ids = params.list("InstanceIds");
        let groups = self.groups();
        let found: Vec<Vec<Element>> = groups
            .values()
            .flat_map(|group| group.members.iter().map(move |member| (group, member)))
            .filter_map(|(group, member)| Some((group, member, member.id.as_deref()?)))
            .filter(|(_, _, id)| ids.is_empty() || ids.contains(id))
            .map(|(group, member, id)| {
                let mut parts = instance(member, id);
                parts.push(Element::leaf("AutoScalingGroupName", &group.name));
                // This operation writes the health in capitals (its example in the API reference).
                let health = if member.illness.is_some() { "UNHEALTHY" } else { "HEALTHY" };
                parts.retain(|part| part.name != "HealthStatus");
                parts.push(Element::leaf("HealthStatus", health));
                parts
            })
            .collect();
        let (found, token) = wire::page(params, found, 50, 50)?;
        Ok(Some([wire::list("AutoScalingInstances", found)].into_iter().chain(token).collect()))
    }

    pub(super) fn describe_activities(&self, params: Params<'_>) -> Outcome {
        if !params.entries("Filters").is_empty() {
            return Err(refuse("DescribeScalingActivities with Filters"));
        }
        let name = params.get("AutoScalingGroupName");
        let ids = params.list("ActivityIds");
        let deleted = params.flag("IncludeDeletedGroups")?.unwrap_or_default();
        let groups = self.groups();
        let past = self.past();
        if let Some(name) = name
            && !groups.contains_key(name)
            && !(deleted && past.iter().any(|(gone, ..)| gone == name))
        {
            return Err(Fault::no_group(name));
        }
        let mut all: Vec<(&str, &str, &Activity, bool)> = groups
            .values()
            .flat_map(|group| {
                group.activities.iter().map(|a| (group.name.as_str(), group.arn.as_str(), a, false))
            })
            .collect();
        if deleted {
            all.extend(past.iter().map(|(name, arn, a)| (name.as_str(), arn.as_str(), a, true)));
        }
        all.retain(|(group, _, activity, _)| {
            name.is_none_or(|name| name == *group)
                && (ids.is_empty() || ids.contains(&activity.id.as_str()))
        });
        all.sort_by_key(|(_, _, activity, _)| activity.start);
        let all = all
            .into_iter()
            .rev()
            .map(|(group, arn, one, gone)| activity(group, arn, one, gone))
            .collect();
        let (all, token) = wire::page(params, all, 100, 100)?;
        Ok(Some([wire::list("Activities", all)].into_iter().chain(token).collect()))
    }
}

fn matches(group: &Group, filters: &[(&str, Vec<&str>)]) -> Result<bool, Fault> {
    for (name, values) in filters {
        let found = match *name {
            "tag-key" => group.tags.keys().any(|key| values.contains(&key.as_str())),
            "tag-value" => group.tags.values().any(|tag| values.contains(&tag.value.as_str())),
            other => match other.strip_prefix("tag:") {
                Some(key) => {
                    group.tags.get(key).is_some_and(|tag| values.contains(&tag.value.as_str()))
                }
                None => {
                    return Err(Fault::validation(format!("Filter type {other} is not correct.")));
                }
            },
        };
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parts(group: &Group, instances: bool) -> Vec<Element> {
    let leaf = |name: &str, value: &str| Element::leaf(name, value);
    let number = |name: &str, value: u32| Element::leaf(name, &value.to_string());
    let mut zones: Vec<&str> = group.places.iter().map(|place| place.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    let subnets: Vec<&str> = group.places.iter().map(|place| place.subnet.as_str()).collect();
    let mut all = vec![
        leaf("AutoScalingGroupName", &group.name),
        leaf("AutoScalingGroupARN", &group.arn),
        wire::template(&group.template),
        number("MinSize", group.min),
        number("MaxSize", group.max),
        number("DesiredCapacity", group.desired),
        number("DefaultCooldown", group.cooldown),
        wire::texts("AvailabilityZones", zones),
        wire::texts("LoadBalancerNames", []),
        wire::texts("TargetGroupARNs", []),
        leaf("HealthCheckType", &group.health_type),
        number("HealthCheckGracePeriod", group.grace),
    ];
    if instances {
        let members = group.members.iter().filter_map(|member| {
            let id = member.id.as_deref()?;
            Some(instance(member, id))
        });
        all.push(wire::list("Instances", members));
    }
    all.push(wire::time("CreatedTime", group.created));
    all.push(wire::list(
        "SuspendedProcesses",
        group.suspended.iter().map(|(process, reason)| {
            vec![leaf("ProcessName", process), leaf("SuspensionReason", reason)]
        }),
    ));
    all.push(leaf("VPCZoneIdentifier", &subnets.join(",")));
    all.push(wire::list("EnabledMetrics", []));
    if group.deleting {
        all.push(leaf("Status", "Delete in progress"));
    }
    all.push(wire::list(
        "Tags",
        group.tags.iter().map(|(key, tag)| tags::parts(&group.name, key, tag)),
    ));
    all.push(wire::texts("TerminationPolicies", group.policies.iter().map(String::as_str)));
    all.push(leaf("NewInstancesProtectedFromScaleIn", &group.protect_new.to_string()));
    all.push(leaf("ServiceLinkedRoleARN", &group.service_role));
    all.extend(group.context.iter().map(|context| leaf("Context", context)));
    all.extend(group.warmup.map(|seconds| number("DefaultInstanceWarmup", seconds)));
    all.push(wire::list("TrafficSources", []));
    all.push(Element::node(
        "AvailabilityZoneDistribution",
        vec![leaf("CapacityDistributionStrategy", "balanced-best-effort")],
    ));
    all.push(Element::node(
        "CapacityReservationSpecification",
        vec![leaf("CapacityReservationPreference", "default")],
    ));
    all
}

/// What both kinds of descriptions of an instance have.
fn instance(member: &Member, id: &str) -> Vec<Element> {
    let leaf = |name: &str, value: &str| Element::leaf(name, value);
    let health = if member.illness.is_some() { "Unhealthy" } else { "Healthy" };
    let mut all = vec![
        leaf("InstanceId", id),
        leaf("InstanceType", &member.instance_type),
        leaf("AvailabilityZone", &member.place.zone),
        leaf("LifecycleState", member.lifecycle.name()),
        leaf("HealthStatus", health),
        leaf("ProtectedFromScaleIn", &member.protected.to_string()),
        leaf("ImageId", &member.image),
    ];
    all.extend(member.template.as_ref().map(wire::template));
    all
}

/// A list of activities as operations answer them that begin some.
pub(super) fn activities(group: &Group, activities: &[Activity]) -> Element {
    wire::list(
        "Activities",
        activities.iter().map(|one| activity(&group.name, &group.arn, one, false)),
    )
}

/// The parts of an `Activity`.
pub(super) fn activity(group: &str, arn: &str, activity: &Activity, deleted: bool) -> Vec<Element> {
    // Causes hold 1023 characters, messages 255 (botocore's model).
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let mut all = vec![
        Element::leaf("ActivityId", &activity.id),
        Element::leaf("AutoScalingGroupName", group),
        Element::leaf("Description", &activity.description),
        Element::leaf("Cause", &cut(&activity.cause, 1023)),
        wire::time("StartTime", activity.start),
    ];
    all.extend(activity.end.map(|end| wire::time("EndTime", end)));
    all.push(Element::leaf("StatusCode", activity.progress.name()));
    all.extend(activity.message.iter().map(|text| Element::leaf("StatusMessage", &cut(text, 255))));
    all.push(Element::leaf("Progress", &activity.progress.percent().to_string()));
    if let Some(place) = &activity.place {
        let details =
            serde_json::json!({"Subnet ID": place.subnet, "Availability Zone": place.zone});
        all.push(Element::leaf("Details", &details.to_string()));
    }
    if deleted {
        all.push(Element::leaf("AutoScalingGroupState", "Deleted"));
    }
    all.push(Element::leaf("AutoScalingGroupARN", arn));
    all
}
