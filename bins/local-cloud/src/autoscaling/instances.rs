//! Instances of groups on request: attach, detach, standby, health, protection, terminate one.

use std::sync::Arc;

use jiff::Timestamp;

use super::group::{Activity, Group, Illness, Lifecycle, Member, Place, Stage};
use super::plan::{self, Order, at};
use super::wire::{Fault, Params};
use super::{AutoScaling, Outcome, describe, refuse};
use crate::hosts::HostState;
use crate::operation::Form;
use crate::xml::Element;

/// `AttachInstances` and its like take so many (API reference).
const MOST: usize = 20;

impl AutoScaling {
    pub(super) fn terminate_instance(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        if !params.list("InstanceIds").is_empty() {
            return Err(refuse("TerminateInstanceInAutoScalingGroup with InstanceIds"));
        }
        let id = params.required("InstanceId")?;
        params.required("ShouldDecrementDesiredCapacity")?;
        let decrement = params.flag("ShouldDecrementDesiredCapacity")?.unwrap_or_default();
        let group = self.group_of(id).ok_or_else(|| Fault::no_instance(id))?;
        let (activity, order) = self.with_group(&group, |group| {
            let now = Timestamp::now();
            let member = group.member(id).ok_or_else(|| Fault::no_instance(id))?;
            let counted = member.is_active();
            if matches!(member.lifecycle, Lifecycle::Terminating | Lifecycle::Detaching) {
                return Err(Fault::client(
                    "ScalingActivityInProgress",
                    format!("The instance {id} is already being taken out of the group."),
                ));
            }
            let slot = member.slot;
            let mut cause = format!(
                "{} instance {id} was taken out of service in response to a user request",
                at(now)
            );
            if decrement && counted {
                if group.desired <= group.min {
                    return Err(Fault::validation(format!(
                        "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will \
                         violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to \
                         false or lower group's min size.",
                        group.min
                    )));
                }
                cause += &shrink(group);
            }
            cause += ".";
            let order = plan::terminate(group, slot, &cause, now);
            Ok((activity_of(group, id), order))
        })?;
        if let Some(Order::Terminate(id)) = order {
            self.end_instance(id);
        }
        let group = self.with_group(&group, |group| Ok((group.name.clone(), group.arn.clone())))?;
        let activity =
            activity.map(|activity| describe::activity(&group.0, &group.1, &activity, false));
        Ok(Some(vec![Element::node("Activity", activity.unwrap_or_default())]))
    }

    pub(super) fn detach(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        let moved = self.take_out(params, Lifecycle::Detaching)?;
        for id in params.list("InstanceIds") {
            self.untag(id.to_owned());
        }
        Ok(Some(vec![moved]))
    }

    pub(super) fn enter_standby(&self, params: Params<'_>) -> Outcome {
        Ok(Some(vec![self.take_out(params, Lifecycle::EnteringStandby)?]))
    }

    /// Detach and standby have all but their words in common.
    fn take_out(&self, params: Params<'_>, to: Lifecycle) -> Result<Element, Fault> {
        let name = params.required("AutoScalingGroupName")?;
        let ids = ids(params)?;
        params.required("ShouldDecrementDesiredCapacity")?;
        let decrement = params.flag("ShouldDecrementDesiredCapacity")?.unwrap_or_default();
        self.with_group(name, |group| {
            let now = Timestamp::now();
            let mut counted = 0;
            for id in &ids {
                let member = group.member(id).ok_or_else(|| not_part(id, name))?;
                let allowed = member.lifecycle == Lifecycle::InService
                    || (to == Lifecycle::Detaching && member.lifecycle == Lifecycle::Standby);
                if !allowed {
                    return Err(Fault::validation(format!(
                        "The instance {id} is in {} and cannot be moved to {}.",
                        member.lifecycle.name(),
                        if to == Lifecycle::Detaching { "Detached" } else { "Standby" }
                    )));
                }
                counted += u32::from(member.is_active());
            }
            if decrement && group.desired - group.min.min(group.desired) < counted {
                let what = if to == Lifecycle::Detaching { "detach" } else { "place into standby" };
                return Err(Fault::validation(format!(
                    "AutoScalingGroup {name} has min-size={}, max-size={}, and desired-size={}. To {what} {counted} \
                     instance(s), please update the AutoScalingGroup sizes appropriately.",
                    group.min, group.max, group.desired
                )));
            }
            let mut activities = Vec::new();
            for id in &ids {
                let Some(member) = group.member(id) else { continue };
                let (place, active) = (member.place.clone(), member.is_active());
                let (description, what) = if to == Lifecycle::Detaching {
                    (format!("Detaching EC2 instance: {id}"), "detached")
                } else {
                    (format!("Moving EC2 instance to Standby: {id}"), "moved to standby")
                };
                let mut cause =
                    format!("{} instance {id} was {what} in response to a user request", at(now));
                if decrement && active {
                    cause += &shrink(group);
                }
                cause += ".";
                let activity =
                    group.begin(description, cause, Stage::InProgress, Some(place), now);
                if let Some(member) = group.member_mut(id) {
                    member.lifecycle = to;
                    member.activity = activity;
                }
                activities.extend(activity_of(group, id));
            }
            Ok(describe::activities(group, &activities))
        })
    }

    pub(super) fn exit_standby(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let ids = ids(params)?;
        self.with_group(name, |group| {
            let now = Timestamp::now();
            for id in &ids {
                let member = group.member(id).ok_or_else(|| not_part(id, name))?;
                if member.lifecycle != Lifecycle::Standby {
                    return Err(Fault::validation(format!(
                        "The instance {id} is not in Standby but in {}.",
                        member.lifecycle.name()
                    )));
                }
            }
            room_for(group, &ids, "move out of standby")?;
            let mut activities = Vec::new();
            for id in &ids {
                let cause = format!(
                    "{} instance {id} was moved out of standby in response to a user request, increasing the capacity \
                     from {} to {}.",
                    at(now),
                    group.desired,
                    group.desired + 1
                );
                join(group, id, format!("Moving EC2 instance out of Standby: {id}"), cause, now);
                activities.extend(activity_of(group, id));
            }
            Ok(Some(vec![describe::activities(group, &activities)]))
        })
    }

    pub(super) async fn attach(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let ids = ids(params)?;
        let mut seen = Vec::new();
        for id in &ids {
            if let Some(other) = self.group_of(id) {
                return Err(Fault::validation(format!(
                    "The instance {id} is already part of AutoScalingGroup:{other}"
                )));
            }
            let machine = self.ec2.machine(id).ok_or_else(|| {
                Fault::validation(format!("Invalid Instance ID(s): [{id}] specified"))
            })?;
            if self.ec2.state(id) != Some(HostState::Running) {
                return Err(Fault::validation(format!(
                    "Instance {id} is not in correct state. Instance(s) must be in 'running' state."
                )));
            }
            seen.push(machine.seen);
        }
        self.with_group(name, |group| {
            room_for(group, &ids, "attach")?;
            let zones: Vec<&str> = group.places.iter().map(|place| place.zone.as_str()).collect();
            if let Some(other) = seen.iter().find(|seen| !zones.contains(&seen.zone.as_str())) {
                return Err(Fault::validation(format!(
                    "Instance {} is in {}, which is no availability zone of AutoScalingGroup:{name}",
                    other.instance_id, other.zone
                )));
            }
            let now = Timestamp::now();
            for seen in &seen {
                let id = &seen.instance_id;
                let cause = format!(
                    "{} an instance was attached in response to a user request, increasing the capacity from {} to \
                     {}.",
                    at(now),
                    group.desired,
                    group.desired + 1
                );
                let slot = group.next_slot;
                group.next_slot += 1;
                group.members.push(Member {
                    slot,
                    id: Some(id.clone()),
                    place: Place { zone: seen.zone.clone(), subnet: seen.subnet_id.clone() },
                    template: None,
                    instance_type: seen.instance_type.clone(),
                    image: seen.image_id.clone(),
                    lifecycle: Lifecycle::Pending,
                    illness: None,
                    protected: group.protect_new,
                    launched: now,
                    in_service: None,
                    activity: String::new(),
                });
                join(group, id, format!("Attaching an existing EC2 instance: {id}"), cause, now);
            }
            Ok(())
        })?;
        for id in ids {
            let form = Form::new([
                ("ResourceId.1", id),
                ("Tag.1.Key", "aws:autoscaling:groupName"),
                ("Tag.1.Value", name),
            ]);
            self.ec2.tag_itself("CreateTags", form).await?;
        }
        Ok(None)
    }

    fn untag(self: &Arc<Self>, id: String) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let form = Form::new([
                ("ResourceId.1", id.as_str()),
                ("Tag.1.Key", "aws:autoscaling:groupName"),
            ]);
            if let Err(refusal) = own.ec2.tag_itself("DeleteTags", form).await {
                crate::log::line(format_args!("{id}: {}", refusal.message));
            }
        });
    }

    pub(super) fn set_health(&self, params: Params<'_>) -> Outcome {
        let id = params.required("InstanceId")?;
        let healthy = match params.required("HealthStatus")? {
            "Healthy" => true,
            "Unhealthy" => false,
            other => {
                return Err(Fault::validation(format!(
                    "'{other}' is no health status: Healthy or Unhealthy"
                )));
            }
        };
        let respect = params.flag("ShouldRespectGracePeriod")?.unwrap_or(true);
        let group = self.group_of(id).ok_or_else(|| Fault::no_instance(id))?;
        self.with_group(&group, |group| {
            let grace = self.pace.seconds(group.grace);
            let member = group.member_mut(id).ok_or_else(|| Fault::no_instance(id))?;
            let young = member
                .in_service
                .is_none_or(|since| Timestamp::now().duration_since(since) < grace);
            if healthy {
                member.illness = None;
            } else if !(respect && young && grace.is_positive()) {
                member.illness = Some(Illness::Declared);
            }
            Ok(None)
        })
    }

    pub(super) fn set_protection(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let ids = ids(params)?;
        params.required("ProtectedFromScaleIn")?;
        let protected = params.flag("ProtectedFromScaleIn")?.unwrap_or_default();
        self.with_group(name, |group| {
            for id in &ids {
                group.member(id).ok_or_else(|| not_part(id, name))?;
            }
            for id in &ids {
                if let Some(member) = group.member_mut(id) {
                    member.protected = protected;
                }
            }
            Ok(Some(Vec::new()))
        })
    }

    /// The group that an instance is in.
    fn group_of(&self, id: &str) -> Option<String> {
        let groups = self.groups();
        groups.values().find(|group| group.member(id).is_some()).map(|group| group.name.clone())
    }
}

/// One instance less is wished for, and so says the cause of an activity.
fn shrink(group: &mut Group) -> String {
    let before = group.desired;
    group.desired -= 1;
    format!(", shrinking the capacity from {before} to {}", group.desired)
}

fn ids(params: Params<'_>) -> Result<Vec<&str>, Fault> {
    let ids = params.list("InstanceIds");
    if ids.is_empty() {
        params.required("InstanceIds")?;
    }
    if ids.len() > MOST {
        return Err(Fault::validation(format!(
            "You may not specify more than {MOST} instances in a request."
        )));
    }
    Ok(ids)
}

fn not_part(id: &str, group: &str) -> Fault {
    Fault::validation(format!("The instance {id} is not part of Auto Scaling group {group}."))
}

fn room_for(group: &Group, ids: &[&str], what: &str) -> Result<(), Fault> {
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if group.desired.saturating_add(count) <= group.max {
        return Ok(());
    }
    Err(Fault::validation(format!(
        "AutoScalingGroup {} has min-size={}, max-size={}, and desired-size={}. To {what} {count} more instance(s), \
         please update the AutoScalingGroup sizes appropriately.",
        group.name, group.min, group.max, group.desired
    )))
}

/// Lets an instance that runs become part of the group's capacity.
fn join(group: &mut Group, id: &str, description: String, cause: String, now: Timestamp) {
    let Some(place) = group.member(id).map(|member| member.place.clone()) else { return };
    let activity = group.begin(description, cause, Stage::PreInService, Some(place), now);
    group.desired += 1;
    if let Some(member) = group.member_mut(id) {
        member.lifecycle = Lifecycle::Pending;
        member.illness = None;
        member.activity = activity;
    }
}

fn activity_of(group: &Group, id: &str) -> Option<Activity> {
    let current = &group.member(id)?.activity;
    group.activities.iter().rfind(|activity| activity.id == *current).cloned()
}
