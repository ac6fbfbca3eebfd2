//! What is known about an Auto Scaling group. Pure data; [`super::plan`] decides about it, [`super::refresh`] renews it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::refresh::Refresh;

/// A launch template as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TemplateSpec {
    /// Its id.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// A number, `$Latest` or `$Default`.
    pub(super) version: String,
}

/// A subnet that instances go to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Its availability zone.
    pub(super) zone: String,
    /// Its id.
    pub(super) subnet: String,
}

/// A tag of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// Its value.
    pub(super) value: String,
    /// Whether instances get it.
    pub(super) propagate: bool,
}

/// Where an instance is in its group (user guide, "Amazon EC2 Auto Scaling instance lifecycle").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    Pending,
    InService,
    EnteringStandby,
    Standby,
    Detaching,
    Terminating,
}

impl Lifecycle {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InService => "InService",
            Self::EnteringStandby => "EnteringStandby",
            Self::Standby => "Standby",
            Self::Detaching => "Detaching",
            Self::Terminating => "Terminating",
        }
    }
}

/// Why an instance is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Illness {
    /// It does not run any more.
    Ended,
    /// Its status checks fail.
    Impaired,
    /// `SetInstanceHealth` says so.
    Declared,
}

/// An instance of a group, or one that is being launched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its number in this group.
    pub(super) slot: u64,
    /// Its id, once EC2 has given one.
    pub(super) id: Option<String>,
    pub(super) place: Place,
    /// The launch template with the version's number.
    pub(super) template: Option<TemplateSpec>,
    pub(super) instance_type: String,
    pub(super) image: String,
    pub(super) lifecycle: Lifecycle,
    pub(super) illness: Option<Illness>,
    pub(super) protected: bool,
    /// When it was launched.
    pub(super) launched: Timestamp,
    /// When it last came into service.
    pub(super) in_service: Option<Timestamp>,
    /// What happens to it now, else what happened last.
    pub(super) activity: String,
}

impl Member {
    /// Whether it counts as capacity.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Pending | Lifecycle::InService)
    }
}

/// How far a scaling activity is (API reference, `Activity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    WaitingForInstanceId,
    PreInService,
    InProgress,
    Successful,
    Failed,
    Cancelled,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WaitingForInstanceId => "WaitingForInstanceId",
            Self::PreInService => "PreInService",
            Self::InProgress => "InProgress",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    pub(super) fn percent(self) -> u8 {
        match self {
            Self::WaitingForInstanceId => 0,
            Self::PreInService => 30,
            Self::InProgress => 50,
            Self::Successful | Self::Failed | Self::Cancelled => 100,
        }
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Successful | Self::Failed | Self::Cancelled)
    }
}

/// A scaling activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Activity {
    pub(super) id: String,
    pub(super) description: String,
    pub(super) cause: String,
    pub(super) start: Timestamp,
    pub(super) end: Option<Timestamp>,
    pub(super) progress: Stage,
    pub(super) message: Option<String>,
    pub(super) place: Option<Place>,
}

/// A group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) created: Timestamp,
    pub(super) template: TemplateSpec,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) desired: u32,
    /// Seconds.
    pub(super) cooldown: u32,
    /// As a caller named it; only EC2's own checks say anything here.
    pub(super) health_type: String,
    /// Seconds.
    pub(super) grace: u32,
    /// Seconds, when a caller gave them.
    pub(super) warmup: Option<u32>,
    pub(super) places: Vec<Place>,
    pub(super) policies: Vec<String>,
    pub(super) protect_new: bool,
    pub(super) service_role: String,
    pub(super) context: Option<String>,
    pub(super) tags: BTreeMap<String, Tag>,
    /// Name of the process → why it is suspended.
    pub(super) suspended: BTreeMap<String, String>,
    pub(super) members: Vec<Member>,
    /// Oldest first.
    pub(super) activities: Vec<Activity>,
    /// Oldest first.
    pub(super) refreshes: Vec<Refresh>,
    /// Being deleted with its instances.
    pub(super) deleting: bool,
    /// What a caller did to make the next activities necessary.
    pub(super) request: Option<String>,
    /// Launches that failed since the last one that succeeded.
    pub(super) failures: u32,
    /// No launch before this.
    pub(super) not_before: Option<Timestamp>,
    pub(super) next_slot: u64,
    /// One more than desired until the zones are even.
    pub(super) rebalancing: bool,
}

/// Activities that are kept (AWS keeps those of six weeks).
const KEPT: usize = 1000;

impl Group {
    pub(super) fn suspends(&self, process: &str) -> bool {
        self.suspended.contains_key(process)
    }

    /// How many instances count as capacity.
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.members.iter().filter(|member| member.is_active()).count())
            .unwrap_or(u32::MAX)
    }

    pub(super) fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id.as_deref() == Some(id))
    }

    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id.as_deref() == Some(id))
    }

    pub(super) fn slot(&self, slot: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.slot == slot)
    }

    pub(super) fn slot_mut(&mut self, slot: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.slot == slot)
    }

    pub(super) fn activity_mut(&mut self, id: &str) -> Option<&mut Activity> {
        self.activities.iter_mut().rfind(|activity| activity.id == id)
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.activities.iter().any(|activity| !activity.progress.has_ended())
    }

    /// Begins an activity and gives its id.
    pub(super) fn begin(
        &mut self,
        description: String,
        cause: String,
        progress: Stage,
        place: Option<Place>,
        now: Timestamp,
    ) -> String {
        if self.activities.len() >= KEPT {
            self.activities.remove(0);
        }
        let id = crate::ec2::answers::request_id();
        let end = progress.has_ended().then_some(now);
        self.activities.push(Activity {
            id: id.clone(),
            description,
            cause,
            start: now,
            end,
            progress,
            message: None,
            place,
        });
        id
    }

    /// Ends an activity.
    pub(super) fn end(&mut self, activity: &str, progress: Stage, now: Timestamp) {
        if let Some(activity) = self.activity_mut(activity).filter(|a| !a.progress.has_ended()) {
            activity.progress = progress;
            activity.end = Some(now);
        }
    }

    /// The refresh that is under way.
    pub(super) fn refresh(&self) -> Option<&Refresh> {
        self.refreshes.last().filter(|refresh| !refresh.status.has_ended())
    }

    /// The refresh that is under way, to change.
    pub(super) fn refresh_mut(&mut self) -> Option<&mut Refresh> {
        self.refreshes.last_mut().filter(|refresh| !refresh.status.has_ended())
    }

    /// What new instances are launched from.
    pub(super) fn launch_spec(&self) -> &TemplateSpec {
        self.refresh().and_then(|refresh| refresh.desired.as_ref()).unwrap_or(&self.template)
    }
}
