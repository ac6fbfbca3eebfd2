//! Instance refreshes: the instances of a group are replaced by new ones, a few at a time. Pure, like [`super::plan`].
//!
//! Sources: user guide, "How an instance refresh works"; API reference, `RefreshPreferences`.

use jiff::{SignedDuration, Timestamp};

use super::Pace;
use super::group::{Group, Lifecycle, Member, TemplateSpec};
use super::plan::{self, Order};

/// The states of a refresh that can be reached here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    InProgress,
    Successful,
    Failed,
    Cancelling,
    Cancelled,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Cancelling => "Cancelling",
            Self::Cancelled => "Cancelled",
        }
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Successful | Self::Failed | Self::Cancelled)
    }
}

/// What to do with instances that are protected from scale-in, or on standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// Replace them all the same.
    Replace,
    /// Leave them alone.
    Ignore,
    /// Wait until somebody frees them.
    Wait,
}

/// How a refresh goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preferences {
    /// Percent of the desired capacity that stays healthy.
    pub(super) min_healthy: u32,
    /// Percent of the desired capacity that there may be.
    pub(super) max_healthy: Option<u32>,
    /// Seconds until a new instance counts, when a caller gave them.
    pub(super) warmup: Option<u32>,
    pub(super) skip_matching: bool,
    pub(super) protected: Handling,
    pub(super) standby: Handling,
}

/// A refresh.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) reason: Option<String>,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
    pub(super) preferences: Preferences,
    /// The launch template that the group has once it is done, when it is another one.
    pub(super) desired: Option<TemplateSpec>,
    /// What new instances are launched from, with the version's number.
    pub(super) target: TemplateSpec,
    /// Instances that still have to be replaced.
    pub(super) left: Vec<String>,
    /// How many there were.
    pub(super) total: usize,
    pub(super) percent: u8,
    pub(super) to_update: usize,
    /// When something last went on.
    pub(super) progressed: Timestamp,
}

impl Refresh {
    fn finish(&mut self, status: Status, reason: Option<String>, now: Timestamp) {
        (self.status, self.reason, self.end) = (status, reason, Some(now));
    }

    /// Whether an instance is left alone.
    fn ignores(&self, member: &Member) -> bool {
        (member.protected && self.preferences.protected == Handling::Ignore)
            || (member.lifecycle == Lifecycle::Standby
                && self.preferences.standby == Handling::Ignore)
    }

    /// Whether an instance has to be waited for.
    fn blocked(&self, member: &Member) -> bool {
        (member.protected && self.preferences.protected == Handling::Wait)
            || (member.lifecycle == Lifecycle::Standby
                && self.preferences.standby == Handling::Wait)
    }
}

/// Moves the refresh under way on; gives how many instances more than desired the group has for it.
pub(super) fn step(group: &mut Group, pace: &Pace, orders: &mut Vec<Order>, now: Timestamp) -> u32 {
    if group.suspends("InstanceRefresh") || group.refresh().is_none() {
        return 0;
    }
    let Some(mut refresh) = group.refreshes.pop() else { return 0 };
    let surge = match refresh.status {
        Status::Pending => {
            begin(&mut refresh, group, now);
            0
        }
        Status::Cancelling => {
            let moving = group.members.iter().any(|member| {
                matches!(member.lifecycle, Lifecycle::Pending | Lifecycle::Terminating)
            });
            if !moving {
                let reason = Some("Cancelled due to user request.".to_owned());
                refresh.finish(Status::Cancelled, reason, now);
            }
            0
        }
        _ => go_on(&mut refresh, group, pace, orders, now),
    };
    if refresh.status == Status::Successful
        && let Some(desired) = refresh.desired.clone()
    {
        group.template = desired;
    }
    group.refreshes.push(refresh);
    surge
}

fn begin(refresh: &mut Refresh, group: &Group, now: Timestamp) {
    (refresh.status, refresh.start, refresh.progressed) = (Status::InProgress, Some(now), now);
    let mut old: Vec<&Member> = group
        .members
        .iter()
        .filter(|member| member.is_active() || member.lifecycle == Lifecycle::Standby)
        .filter(|member| {
            !(refresh.preferences.skip_matching
                && member.template.as_ref() == Some(&refresh.target))
        })
        .filter(|member| !refresh.ignores(member))
        .collect();
    old.sort_by_key(|member| member.launched);
    refresh.left = old.into_iter().filter_map(|member| member.id.clone()).collect();
    (refresh.total, refresh.to_update) = (refresh.left.len(), refresh.left.len());
    if refresh.total == 0 {
        refresh.percent = 100;
        refresh.finish(Status::Successful, None, now);
    }
}

fn go_on(
    refresh: &mut Refresh,
    group: &mut Group,
    pace: &Pace,
    orders: &mut Vec<Order>,
    now: Timestamp,
) -> u32 {
    let before = (refresh.left.len(), refresh.percent);
    refresh.left.retain(|id| {
        group.member(id).is_some_and(|member| {
            !matches!(member.lifecycle, Lifecycle::Terminating | Lifecycle::Detaching)
        })
    });
    // API reference, `InstanceWarmup`: by default the group's default warm-up, else its grace period.
    let warmup = refresh.preferences.warmup.or(group.warmup).unwrap_or(group.grace);
    let warmup = pace.seconds(warmup);
    let is_old = |member: &Member| member.id.as_ref().is_some_and(|id| refresh.left.contains(id));
    let is_ready = |member: &Member| {
        member.lifecycle == Lifecycle::InService
            && member.illness.is_none()
            && (is_old(member)
                || member.in_service.is_some_and(|since| now.duration_since(since) >= warmup))
    };
    let active: Vec<&Member> = group.members.iter().filter(|member| member.is_active()).collect();
    let healthy = number(active.iter().filter(|member| is_ready(member)).count());
    let cold = active.iter().find(|member| !is_ready(member) && !is_old(member));
    let cold_count = active.iter().filter(|member| !is_ready(member) && !is_old(member)).count();
    refresh.reason = cold.map(|member| {
        let id = member.id.as_deref().unwrap_or("a new instance");
        format!(
            "Waiting for instances to warm up before continuing. For example: {id} is warming up."
        )
    });

    let left = number(refresh.left.len());
    let missing = usize::try_from(group.desired.saturating_sub(number(active.len()))).unwrap_or(0);
    let replaced = refresh.total - refresh.left.len();
    let done = replaced.saturating_sub(cold_count + missing);
    refresh.to_update = refresh.total - done;
    refresh.percent = u8::try_from(done * 100 / refresh.total.max(1)).unwrap_or(100);
    if before != (refresh.left.len(), refresh.percent) {
        refresh.progressed = now;
    }
    let blocked: Vec<String> = refresh
        .left
        .iter()
        .filter(|id| group.member(id).is_some_and(|member| refresh.blocked(member)))
        .cloned()
        .collect();
    if left == 0 {
        if cold_count + missing == 0 {
            refresh.percent = 100;
            refresh.to_update = 0;
            refresh.finish(Status::Successful, None, now);
        }
        return 0;
    }
    if cold.is_none() && blocked.len() == refresh.left.len() {
        refresh.reason = Some(format!(
            "Waiting for instances that are on standby or protected from scale in. For example: {}.",
            blocked[0]
        ));
    }
    if now.duration_since(refresh.progressed) > pace.refresh_patience() {
        let reason = refresh.reason.take();
        refresh.finish(Status::Failed, reason, now);
        return 0;
    }
    if group.suspends("Terminate") || group.suspends("Launch") {
        return 0;
    }
    let surge = surge(&refresh.preferences, group.desired).min(left - number(blocked.len()));
    let moving = cold_count + missing > 0
        || group.members.iter().any(|member| member.lifecycle == Lifecycle::Terminating);
    let mut spare = spare(&refresh.preferences, group.desired, healthy);
    if spare == 0 && surge == 0 && !moving {
        // Rounding never stops a refresh: then one at a time.
        spare = 1;
    }
    let at = plan::at(now);
    let free: Vec<String> =
        refresh.left.iter().filter(|id| !blocked.contains(id)).cloned().collect();
    for id in free.into_iter().take(usize::try_from(spare).unwrap_or(0)) {
        let cause = format!(
            "{at} an instance was taken out of service in response to an instance refresh.  \
             {at} instance {id} was selected for termination."
        );
        let slot = group.member(&id).map(|member| member.slot);
        orders.extend(slot.and_then(|slot| plan::terminate(group, slot, &cause, now)));
        refresh.progressed = now;
    }
    surge
}

/// How many instances more than desired there may be: at least one when any may.
fn surge(preferences: &Preferences, desired: u32) -> u32 {
    match preferences.max_healthy {
        Some(percent) if percent > 100 => (desired * percent / 100 - desired).max(1),
        _ => 0,
    }
}

/// How many of the healthy instances may go ("rounded up to the nearest integer": what has to stay).
fn spare(preferences: &Preferences, desired: u32, healthy: u32) -> u32 {
    healthy.saturating_sub((desired * preferences.min_healthy).div_ceil(100))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How long a refresh may stand still before it fails.
pub(super) fn patience(pace: &Pace) -> SignedDuration {
    SignedDuration::try_from(pace.refresh_patience).unwrap_or(SignedDuration::MAX)
}
