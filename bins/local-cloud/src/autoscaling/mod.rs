//! Auto Scaling groups whose instances are hosts.
//!
//! The groups live here; the emulator knows nothing of them. It launches synchronously and in its own process, without
//! states in between, activities or refreshes, so its groups are of no use. A group launches and terminates through
//! EC2 ([`crate::ec2`]) as any other client, and follows its hosts: [`plan`] and [`refresh`] decide, [`engine`] acts.
//! What nothing here would ever trigger (policies, schedules, hooks, warm pools) is refused by name.

mod describe;
mod engine;
mod group;
mod groups;
mod instances;
mod plan;
mod refresh;
mod refreshes;
mod tags;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use jiff::SignedDuration;
use tokio::sync::Notify;

use self::group::{Activity, Group};
use self::wire::{Fault, Params};
use crate::coverage::{self, Class};
use crate::ec2::Ec2;
use crate::log;
use crate::operation::Form;
use crate::timing::Timing;
use crate::xml::Element;

/// Operations that the emulator answers: lists that never change.
pub const PASSED: [&str; 10] = [
    "CreateLaunchConfiguration",
    "DeleteLaunchConfiguration",
    "DescribeAccountLimits",
    "DescribeAdjustmentTypes",
    "DescribeAutoScalingNotificationTypes",
    "DescribeLaunchConfigurations",
    "DescribeLifecycleHookTypes",
    "DescribeMetricCollectionTypes",
    "DescribeScalingProcessTypes",
    "DescribeTerminationPolicyTypes",
];

/// How fast things go.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Time between two looks at a group.
    pub(crate) look_every: Duration,
    /// How long the first attempt after a failed launch waits; each further one twice as long.
    pub(crate) launch_retry: Duration,
    /// How long it waits at most.
    pub(crate) launch_retry_most: Duration,
    /// How long grace periods, warm-ups and cooldowns are at most, whatever callers ask for.
    pub(crate) longest_wait: Duration,
    /// How long a refresh may stand still before it fails.
    pub(crate) refresh_patience: Duration,
}

impl Pace {
    fn of(timing: &Timing) -> Self {
        Self {
            look_every: timing.scaling_look,
            launch_retry: timing.scaling_retry,
            launch_retry_most: timing.scaling_retry * 16,
            longest_wait: timing.scaling_wait,
            refresh_patience: timing.refresh_patience,
        }
    }

    /// Seconds that a caller asked for.
    pub(crate) fn seconds(&self, seconds: u32) -> SignedDuration {
        let wanted = Duration::from_secs(seconds.into()).min(self.longest_wait);
        SignedDuration::try_from(wanted).unwrap_or(SignedDuration::MAX)
    }

    fn refresh_patience(&self) -> SignedDuration {
        refresh::patience(self)
    }
}

/// All groups of a region.
#[derive(Debug)]
pub struct AutoScaling {
    ec2: Arc<Ec2>,
    pace: Pace,
    groups: Mutex<BTreeMap<String, Group>>,
    /// Activities of deleted groups: name, ARN, activity; oldest first.
    past: Mutex<Vec<(String, String, Activity)>>,
    wake: Notify,
}

/// What an operation answers: the parts of its result, `None` where the API has none.
type Outcome = Result<Option<Vec<Element>>, Fault>;

impl AutoScaling {
    /// Without any group.
    pub fn new(ec2: Arc<Ec2>) -> Self {
        let pace = Pace::of(&ec2.settings.timing);
        Self { ec2, pace, groups: Mutex::default(), past: Mutex::default(), wake: Notify::new() }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past(&self) -> MutexGuard<'_, Vec<(String, String, Activity)>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a group that is not being deleted.
    fn with_group<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Group) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut groups = self.groups();
        let group = groups.get_mut(name).ok_or_else(|| Fault::no_group(name))?;
        if group.deleting {
            return Err(Fault::client(
                "ScalingActivityInProgress",
                format!("AutoScalingGroup '{name}' is being deleted."),
            ));
        }
        let outcome = work(group);
        drop(groups);
        self.wake.notify_one();
        outcome
    }

    /// Answers a request; `None`: the emulator answers it.
    pub async fn handle(self: &Arc<Self>, region: &str, form: &Form) -> Option<Response<Body>> {
        let operation = form.get("Action").unwrap_or_default();
        let own = &self.ec2.settings.region;
        // In other regions there is nothing, which the emulator says.
        if PASSED.contains(&operation) || (region != own && operation.starts_with("Describe")) {
            return None;
        }
        let outcome = if region != own {
            let what = format!("{operation} in {region}; this cloud was started for {own}");
            Err(crate::ec2::answers::Refusal::not_implemented(&format!("autoscaling {what}"))
                .into())
        } else {
            self.answer(operation, Params(form)).await
        };
        let response =
            outcome.map(|result| wire::answer(operation, result)).unwrap_or_else(|fault| {
                log::line(format_args!("{operation}: {}: {}", fault.code, fault.message));
                fault.response()
            });
        Some(coverage::mark(response, Class::True))
    }

    async fn answer(self: &Arc<Self>, operation: &str, params: Params<'_>) -> Outcome {
        match operation {
            "AttachInstances" => self.attach(params).await,
            "CancelInstanceRefresh" => self.cancel_refresh(params),
            "CreateAutoScalingGroup" => self.create_group(params).await,
            "CreateOrUpdateTags" => self.create_tags(params),
            "DeleteAutoScalingGroup" => self.delete_group(params),
            "DeleteTags" => self.delete_tags(params),
            "DescribeAutoScalingGroups" => self.describe_groups(params),
            "DescribeAutoScalingInstances" => self.describe_instances(params),
            "DescribeInstanceRefreshes" => self.describe_refreshes(params),
            "DescribeScalingActivities" => self.describe_activities(params),
            "DescribeTags" => self.describe_tags(params),
            "DetachInstances" => self.detach(params),
            "EnterStandby" => self.enter_standby(params),
            "ExitStandby" => self.exit_standby(params),
            "ResumeProcesses" => self.resume(params),
            "SetDesiredCapacity" => self.set_desired_capacity(params),
            "SetInstanceHealth" => self.set_health(params),
            "SetInstanceProtection" => self.set_protection(params),
            "StartInstanceRefresh" => self.start_refresh(params).await,
            "SuspendProcesses" => self.suspend(params),
            "TerminateInstanceInAutoScalingGroup" => self.terminate_instance(params),
            "UpdateAutoScalingGroup" => self.update_group(params).await,
            _ => match describe::nothing(operation) {
                Some(empty) => Ok(Some(empty)),
                None => Err(refuse(operation)),
            },
        }
    }
}

/// Refuses by name.
fn refuse(what: &str) -> Fault {
    log::line(format_args!("refused: autoscaling {what}"));
    crate::ec2::answers::Refusal::not_implemented(&format!("autoscaling {what}")).into()
}
