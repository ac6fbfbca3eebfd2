//! Instance refreshes on request.

use std::sync::Arc;

use jiff::Timestamp;

use super::group::TemplateSpec;
use super::refresh::{Handling, Preferences, Refresh, Status};
use super::wire::{Fault, Params};
use super::{AutoScaling, Outcome, refuse, wire};
use crate::ec2::answers::request_id;
use crate::xml::Element;

/// Percent (API reference, `RefreshPreferences`).
const DEFAULT_MIN_HEALTHY: u32 = 90;

impl AutoScaling {
    pub(super) async fn start_refresh(self: &Arc<Self>, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        only_known(params)?;
        let preferences = preferences(params)?;
        let template = self.with_group(name, |group| Ok(group.template.clone()))?;
        let desired = self.template_spec(params, "DesiredConfiguration.LaunchTemplate.").await?;
        // The version that is the latest now is what all new instances get (user guide, "How an instance refresh
        // works": later versions do not change a refresh under way).
        let spec = desired.clone().unwrap_or(template);
        let found = self.template(&spec).await?;
        let target =
            TemplateSpec { id: found.id, name: found.name, version: found.version.to_string() };
        let id = request_id();
        self.with_group(name, |group| {
            if group.refresh().is_some() {
                return Err(Fault::client(
                    "InstanceRefreshInProgress",
                    "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
                ));
            }
            group.refreshes.push(Refresh {
                id: id.clone(),
                status: Status::Pending,
                reason: None,
                start: None,
                end: None,
                preferences,
                desired,
                target,
                left: Vec::new(),
                total: 0,
                percent: 0,
                to_update: 0,
                progressed: Timestamp::now(),
            });
            Ok(())
        })?;
        Ok(Some(vec![Element::leaf("InstanceRefreshId", &id)]))
    }

    pub(super) fn cancel_refresh(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        if params.flag("WaitForTransitioningInstances")? == Some(false) {
            return Err(refuse("CancelInstanceRefresh without WaitForTransitioningInstances"));
        }
        self.with_group(name, |group| {
            let refresh = group
                .refresh_mut()
                .filter(|refresh| refresh.status != Status::Cancelling)
                .ok_or_else(|| {
                    Fault::client(
                        "ActiveInstanceRefreshNotFound",
                        format!(
                            "No in progress or pending Instance Refresh found for Auto Scaling group {name}"
                        ),
                    )
                })?;
            refresh.status = Status::Cancelling;
            refresh.reason = Some("Cancelling due to user request.".into());
            Ok(Some(vec![Element::leaf("InstanceRefreshId", &refresh.id)]))
        })
    }

    pub(super) fn describe_refreshes(&self, params: Params<'_>) -> Outcome {
        let name = params.required("AutoScalingGroupName")?;
        let ids = params.list("InstanceRefreshIds");
        let groups = self.groups();
        let group = groups.get(name).ok_or_else(|| Fault::no_group(name))?;
        let all: Vec<Vec<Element>> = group
            .refreshes
            .iter()
            .rev()
            .filter(|refresh| ids.is_empty() || ids.contains(&refresh.id.as_str()))
            .map(|refresh| parts(name, refresh))
            .collect();
        let (all, token) = wire::page(params, all, 50, 100)?;
        Ok(Some([wire::list("InstanceRefreshes", all)].into_iter().chain(token).collect()))
    }
}

fn parts(group: &str, refresh: &Refresh) -> Vec<Element> {
    let Preferences { min_healthy, max_healthy, warmup, skip_matching, protected, standby } =
        &refresh.preferences;
    let mut preferences = vec![
        Element::leaf("MinHealthyPercentage", &min_healthy.to_string()),
        Element::leaf("SkipMatching", &skip_matching.to_string()),
        Element::leaf("AutoRollback", "false"),
        Element::leaf(
            "ScaleInProtectedInstances",
            match protected {
                Handling::Replace => "Refresh",
                Handling::Ignore => "Ignore",
                Handling::Wait => "Wait",
            },
        ),
        Element::leaf(
            "StandbyInstances",
            match standby {
                Handling::Replace => "Terminate",
                Handling::Ignore => "Ignore",
                Handling::Wait => "Wait",
            },
        ),
    ];
    let number = |name: &str, value: &u32| Element::leaf(name, &value.to_string());
    preferences.extend(max_healthy.iter().map(|value| number("MaxHealthyPercentage", value)));
    preferences.extend(warmup.iter().map(|value| number("InstanceWarmup", value)));
    let mut all = vec![
        Element::leaf("InstanceRefreshId", &refresh.id),
        Element::leaf("AutoScalingGroupName", group),
        Element::leaf("Status", refresh.status.name()),
    ];
    all.extend(refresh.reason.iter().map(|reason| Element::leaf("StatusReason", reason)));
    all.extend(refresh.start.map(|start| wire::time("StartTime", start)));
    all.extend(refresh.end.map(|end| wire::time("EndTime", end)));
    if refresh.start.is_some() {
        all.push(Element::leaf("PercentageComplete", &refresh.percent.to_string()));
        all.push(Element::leaf("InstancesToUpdate", &refresh.to_update.to_string()));
    }
    all.push(Element::node("Preferences", preferences));
    if let Some(desired) = &refresh.desired {
        let template = wire::template(desired);
        all.push(Element::node("DesiredConfiguration", vec![template]));
    }
    all.push(Element::leaf("Strategy", "Rolling"));
    all
}

fn preferences(params: Params<'_>) -> Result<Preferences, Fault> {
    let number = |name: &str| params.number(&format!("Preferences.{name}"));
    let percent = |name: &str, least: u32, most: u32| -> Result<Option<u32>, Fault> {
        let value = number(name)?;
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value at 'preferences.{name}' failed to satisfy constraint: Member must \
                 have value between {least} and {most}"
            )));
        }
        Ok(value)
    };
    let min = percent("MinHealthyPercentage", 0, 100)?;
    let max_healthy = percent("MaxHealthyPercentage", 100, 200)?;
    if let Some(max) = max_healthy {
        let min = min.ok_or_else(|| {
            Fault::validation(
                "You must specify MinHealthyPercentage when you specify MaxHealthyPercentage.",
            )
        })?;
        if max - min > 100 {
            return Err(Fault::validation(
                "The difference between MaxHealthyPercentage and MinHealthyPercentage cannot be greater than 100.",
            ));
        }
    }
    let handling = |name: &str, replace: &str| match params.get(&format!("Preferences.{name}")) {
        None | Some("Wait") => Ok(Handling::Wait),
        Some("Ignore") => Ok(Handling::Ignore),
        Some(other) if other == replace => Ok(Handling::Replace),
        Some(other) => Err(Fault::validation(format!(
            "'{other}' is no value of {name}: {replace}, Ignore or Wait"
        ))),
    };
    Ok(Preferences {
        min_healthy: min.unwrap_or(DEFAULT_MIN_HEALTHY),
        max_healthy,
        warmup: number("InstanceWarmup")?,
        skip_matching: params.flag("Preferences.SkipMatching")?.unwrap_or_default(),
        protected: handling("ScaleInProtectedInstances", "Refresh")?,
        standby: handling("StandbyInstances", "Terminate")?,
    })
}

/// Refuses what would be pretended: checkpoints, roll-backs, alarms, other strategies.
fn only_known(params: Params<'_>) -> Result<(), Fault> {
    const KNOWN: [&str; 16] = [
        "Action",
        "Version",
        "AutoScalingGroupName",
        "Strategy",
        "DesiredConfiguration.LaunchTemplate.LaunchTemplateId",
        "DesiredConfiguration.LaunchTemplate.LaunchTemplateName",
        "DesiredConfiguration.LaunchTemplate.Version",
        "Preferences.MinHealthyPercentage",
        "Preferences.MaxHealthyPercentage",
        "Preferences.InstanceWarmup",
        "Preferences.SkipMatching",
        "Preferences.ScaleInProtectedInstances",
        "Preferences.StandbyInstances",
        "Preferences.AutoRollback",
        "Preferences.CheckpointDelay",
        "Preferences.BakeTime",
    ];
    for (name, value) in params.0.fields() {
        let usual = match name {
            "Strategy" => value == "Rolling",
            "Preferences.AutoRollback" => value == "false",
            "Preferences.BakeTime" => value == "0",
            // Says nothing without checkpoints.
            "Preferences.CheckpointDelay" => true,
            _ => KNOWN.contains(&name),
        };
        if !usual && !value.is_empty() {
            return Err(refuse(&format!("StartInstanceRefresh with {name}={value}")));
        }
    }
    Ok(())
}
