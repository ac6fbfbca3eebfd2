//! Carries out what groups decide: looks at them every second, launches and terminates through EC2.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::AutoScaling;
use super::group::{Group, Place, Stage, TemplateSpec};
use super::plan::{self, Order, Sight};
use crate::ec2::client::CallError;
use crate::ec2::machine::{Reachable, Seen};
use crate::ec2::templates::{Template, merged};
use crate::hosts::HostState;
use crate::log;
use crate::operation::Form;

/// What an instance is launched with.
#[derive(Debug)]
struct Launch {
    group: String,
    slot: u64,
    spec: TemplateSpec,
    place: Place,
    tags: BTreeMap<String, String>,
}

impl AutoScaling {
    /// Looks after the groups, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.step();
            // Whatever comes first: the next look, or a caller who changed something.
            let _ = tokio::time::timeout(self.pace.look_every, self.wake.notified()).await;
        }
    }

    /// One look at every group.
    fn step(self: &Arc<Self>) {
        let now = Timestamp::now();
        let see = |id: &str| -> Option<Sight> {
            let state = self.ec2.state(id)?;
            let impaired = self
                .ec2
                .machine(id)
                .is_some_and(|machine| machine.reachable == Reachable::Impaired);
            Some(Sight { state, impaired })
        };
        let mut launches = Vec::new();
        let mut ends = Vec::new();
        let mut groups = self.groups();
        groups.retain(|name, group| {
            for order in plan::step(group, &see, &self.pace, now) {
                match order {
                    Order::Launch(slot) => launches.extend(launch_of(group, slot)),
                    Order::Terminate(id) => ends.push(id),
                }
            }
            if !group.deleting || !group.members.is_empty() {
                return true;
            }
            log::line(format_args!("auto scaling group {name} is deleted"));
            self.past()
                .extend(group.activities.drain(..).map(|a| (name.clone(), group.arn.clone(), a)));
            false
        });
        drop(groups);
        for launch in launches {
            let own = Arc::clone(self);
            tokio::spawn(async move { own.launch(launch).await });
        }
        for id in ends {
            self.end_instance(id);
        }
    }

    /// Terminates an instance, however often that takes.
    pub(super) fn end_instance(self: &Arc<Self>, id: String) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let over = |state: Option<HostState>| {
                matches!(state, None | Some(HostState::ShuttingDown | HostState::Terminated))
            };
            while !over(own.ec2.state(&id)) {
                let form = Form::new([("InstanceId.1", id.as_str())]);
                match own.ec2.call_for_scaling("TerminateInstances", form).await {
                    Ok(_) => return,
                    // "Termination protection does not prevent Auto Scaling from terminating" (user guide, "Use
                    // instance scale-in protection").
                    Err(error) if error.code == "OperationNotPermitted" => {
                        let form = Form::new([
                            ("InstanceId", id.as_str()),
                            ("DisableApiTermination.Value", "false"),
                        ]);
                        if let Err(error) = own.ec2.call("ModifyInstanceAttribute", form).await {
                            log::line(format_args!("{id}: {error}"));
                        }
                    }
                    Err(error) => log::line(format_args!("{id}: {error}")),
                }
                tokio::time::sleep(own.pace.look_every).await;
            }
        });
    }

    async fn launch(self: Arc<Self>, launch: Launch) {
        let outcome = self.run_instance(&launch).await;
        let now = Timestamp::now();
        let mut groups = self.groups();
        let member =
            groups.get_mut(&launch.group).filter(|group| group.slot(launch.slot).is_some());
        match (outcome, member) {
            (Ok((seen, template)), Some(group)) => {
                log::line(format_args!(
                    "{} is launched for auto scaling group {}",
                    seen.instance_id, launch.group
                ));
                settle(group, launch.slot, seen, template);
            }
            (Ok((seen, _)), None) => self.end_instance(seen.instance_id),
            (Err(error), Some(group)) => {
                log::line(format_args!("auto scaling group {}: {error}", launch.group));
                plan::launch_failed(group, launch.slot, &reason(error), &self.pace, now);
            }
            (Err(_), None) => {}
        }
        drop(groups);
        self.wake.notify_one();
    }

    async fn run_instance(
        self: &Arc<Self>,
        launch: &Launch,
    ) -> Result<(Seen, TemplateSpec), CallError> {
        let template = self.template(&launch.spec).await?;
        let form = launch_form(&template, &launch.place, &launch.tags)?;
        let root = self.ec2.call_for_scaling("RunInstances", form).await?;
        let seen = Seen::all(&root).into_iter().next().ok_or_else(|| CallError {
            code: "InternalError".into(),
            message: "the answer to RunInstances shows no instance.".into(),
        })?;
        let version = template.version.to_string();
        Ok((seen, TemplateSpec { id: template.id, name: template.name, version }))
    }

    /// The version that this means now.
    pub(super) async fn template(&self, spec: &TemplateSpec) -> Result<Template, CallError> {
        let region = self.ec2.settings.region.clone();
        let found = self.ec2.template(&region, Some(&spec.id), None, &spec.version).await;
        Ok(found?)
    }
}

/// Why a launch failed, as activities show it: want of capacity with its code (user guide, "Troubleshoot: insufficient
/// capacity"; the form is that of activities that users of AWS show), everything else by its message.
fn reason(error: CallError) -> String {
    let CallError { code, message } = error;
    match code.as_str() {
        "InsufficientInstanceCapacity" | "InstanceLimitExceeded" | "VcpuLimitExceeded" => {
            format!("Could not launch On-Demand Instances. {code} - {message}")
        }
        _ => message,
    }
}

fn launch_of(group: &mut Group, slot: u64) -> Option<Launch> {
    let spec = group.launch_spec().clone();
    let mut tags: BTreeMap<String, String> = group
        .tags
        .iter()
        .filter(|(_, tag)| tag.propagate)
        .map(|(key, tag)| (key.clone(), tag.value.clone()))
        .collect();
    tags.insert("aws:autoscaling:groupName".into(), group.name.clone());
    let place = group.slot_mut(slot)?.place.clone();
    Some(Launch { group: group.name.clone(), slot, spec, place, tags })
}

/// The fields of `RunInstances`: the template's, in this subnet, with these tags before the template's.
pub(super) fn launch_form(
    template: &Template,
    place: &Place,
    tags: &BTreeMap<String, String>,
) -> Result<Form, CallError> {
    let mut request = Form::new([("MinCount", "1"), ("MaxCount", "1")]);
    request.push("TagSpecification.1.ResourceType", "instance");
    for (number, (key, value)) in tags.iter().enumerate() {
        request.push(format!("TagSpecification.1.Tag.{}.Key", number + 1), key);
        request.push(format!("TagSpecification.1.Tag.{}.Value", number + 1), value);
    }
    let mut form = merged(template, &request)?;
    // The group says where, not the template (user guide, "Create a launch template": do not specify subnets).
    let interface = form.names().any(|name| name.starts_with("NetworkInterface.1."));
    form.remove(|name| {
        matches!(name, "SubnetId" | "NetworkInterface.1.SubnetId" | "Placement.AvailabilityZone")
    });
    form.push(if interface { "NetworkInterface.1.SubnetId" } else { "SubnetId" }, &place.subnet);
    Ok(form)
}

fn settle(group: &mut Group, slot: u64, seen: Seen, template: TemplateSpec) {
    let Some(member) = group.slot_mut(slot) else { return };
    member.id = Some(seen.instance_id.clone());
    member.template = Some(template);
    member.instance_type = seen.instance_type;
    member.image = seen.image_id;
    let activity = member.activity.clone();
    if let Some(activity) = group.activity_mut(&activity) {
        activity.description = format!("Launching a new EC2 instance: {}", seen.instance_id);
        activity.progress = Stage::PreInService;
    }
}
