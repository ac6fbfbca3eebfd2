//! What a group does next. Pure: hosts are seen through a function, the time is an argument, and what has to be done
//! comes back as orders.
//!
//! Sources: user guide, "Instance lifecycle", "Health checks", "Default termination policy", "Suspend and resume
//! processes"; wording of causes from scaling activities that users of AWS show.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Pace;
use super::group::{Group, Illness, Lifecycle, Member, Place, Stage};
use super::refresh;
use crate::hosts::HostState;

/// A host as a group sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Its state.
    pub(super) state: HostState,
    /// Whether its status checks fail.
    pub(super) impaired: bool,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Launch the member of this slot.
    Launch(u64),
    /// Terminate this instance.
    Terminate(String),
}

/// Sees what became of the instances and decides what has to be done.
pub(super) fn step(
    group: &mut Group,
    see: &dyn Fn(&str) -> Option<Sight>,
    pace: &Pace,
    now: Timestamp,
) -> Vec<Order> {
    let mut orders = Vec::new();
    follow(group, see, pace, now);
    if group.deleting {
        let all: Vec<u64> = group
            .members
            .iter()
            .filter(|member| member.id.is_some() && member.lifecycle != Lifecycle::Terminating)
            .map(|member| member.slot)
            .collect();
        let cause = group.request.clone().unwrap_or_default();
        for slot in all {
            orders.extend(terminate(group, slot, &cause, now));
        }
        return orders;
    }
    if !group.suspends("HealthCheck") {
        judge(group, see, pace, now);
    }
    let replaced = replace_unhealthy(group, &mut orders, now);
    let surge = refresh::step(group, pace, &mut orders, now);
    let wanted = group.desired + surge + rebalance(group, now);
    let capacity = group.capacity();
    if capacity < wanted {
        launch(group, wanted - capacity, replaced, &mut orders, now);
    } else if capacity > wanted {
        scale_in(group, capacity - wanted, &mut orders, now);
    }
    orders
}

/// Moves members on with their hosts.
fn follow(group: &mut Group, see: &dyn Fn(&str) -> Option<Sight>, pace: &Pace, now: Timestamp) {
    let mut ended: Vec<(String, Stage)> = Vec::new();
    let mut launched = false;
    group.members.retain_mut(|member| {
        let Some(id) = &member.id else { return true };
        let state = see(id).map(|sight| sight.state);
        let gone = matches!(state, None | Some(HostState::Terminated));
        match member.lifecycle {
            Lifecycle::Pending if state == Some(HostState::Running) => {
                member.lifecycle = Lifecycle::InService;
                member.in_service = Some(now);
                launched = true;
                ended.push((member.activity.clone(), Stage::Successful));
            }
            Lifecycle::Pending if gone || state == Some(HostState::ShuttingDown) => {
                ended.push((member.activity.clone(), Stage::Cancelled));
                return false;
            }
            Lifecycle::EnteringStandby => {
                member.lifecycle = Lifecycle::Standby;
                ended.push((member.activity.clone(), Stage::Successful));
            }
            Lifecycle::Terminating if gone => {
                ended.push((member.activity.clone(), Stage::Successful));
                return false;
            }
            Lifecycle::Detaching => {
                ended.push((member.activity.clone(), Stage::Successful));
                return false;
            }
            _ => {}
        }
        true
    });
    if launched {
        (group.failures, group.not_before) = (0, None);
    }
    for (activity, progress) in ended {
        if progress == Stage::Cancelled
            && let Some(activity) = group.activity_mut(&activity)
        {
            let why =
                "Instance became unhealthy while waiting for instance to be in InService state.";
            activity.message = Some(why.into());
        }
        if progress == Stage::Cancelled {
            hold_back(group, pace, now);
        }
        group.end(&activity, progress, now);
    }
}

/// Finds out who is unhealthy. What does not run is so at once; failing status checks count after the grace period
/// ("Health check grace period": a state other than running is not covered by it).
fn judge(group: &mut Group, see: &dyn Fn(&str) -> Option<Sight>, pace: &Pace, now: Timestamp) {
    let grace = pace.seconds(group.grace);
    for member in &mut group.members {
        let Some(id) = member.id.as_deref() else { continue };
        if member.lifecycle != Lifecycle::InService || member.illness.is_some() {
            continue;
        }
        let sight = see(id);
        if sight.is_none_or(|sight| sight.state != HostState::Running) {
            member.illness = Some(Illness::Ended);
        } else if sight.is_some_and(|sight| sight.impaired)
            && member.in_service.is_none_or(|since| now.duration_since(since) >= grace)
        {
            member.illness = Some(Illness::Impaired);
        }
    }
}

/// Takes unhealthy instances out of service; gives how many.
fn replace_unhealthy(group: &mut Group, orders: &mut Vec<Order>, now: Timestamp) -> u32 {
    if group.suspends("ReplaceUnhealthy") || group.suspends("Terminate") {
        return 0;
    }
    let ill: Vec<(u64, Illness)> = group
        .members
        .iter()
        .filter(|member| member.lifecycle == Lifecycle::InService)
        .filter_map(|member| Some((member.slot, member.illness?)))
        .collect();
    let at = at(now);
    for (slot, illness) in &ill {
        let why = match illness {
            Illness::Ended => "an EC2 health check indicating it has been terminated or stopped",
            Illness::Impaired => "an EC2 instance status checks failure",
            Illness::Declared => "a user health-check",
        };
        let cause = format!("{at} an instance was taken out of service in response to {why}.");
        orders.extend(terminate(group, *slot, &cause, now));
    }
    u32::try_from(ill.len()).unwrap_or(u32::MAX)
}

fn launch(group: &mut Group, count: u32, replaced: u32, orders: &mut Vec<Order>, now: Timestamp) {
    let waiting = group.not_before.is_some_and(|then| now < then);
    if waiting || group.suspends("Launch") {
        return;
    }
    let capacity = group.capacity();
    let request = group.request.take().map(|request| request + "  ").unwrap_or_default();
    for number in 0..count {
        let Some(place) = next_place(group) else { return };
        let at = at(now);
        let cause = if group.refresh().is_some() && request.is_empty() {
            format!("{at} an instance was launched in response to an instance refresh.")
        } else if number < replaced && request.is_empty() {
            format!(
                "{at} an instance was launched in response to an unhealthy instance needing to be replaced."
            )
        } else {
            format!(
                "{request}{at} an instance was started in response to a difference between desired and actual \
                 capacity, increasing the capacity from {capacity} to {}.",
                capacity + count
            )
        };
        let activity = group.begin(
            "Launching a new EC2 instance".into(),
            cause,
            Stage::WaitingForInstanceId,
            Some(place.clone()),
            now,
        );
        let slot = group.next_slot;
        group.next_slot += 1;
        group.members.push(Member {
            slot,
            id: None,
            place,
            template: None,
            instance_type: String::new(),
            image: String::new(),
            lifecycle: Lifecycle::Pending,
            illness: None,
            protected: group.protect_new,
            launched: now,
            in_service: None,
            activity,
        });
        orders.push(Order::Launch(slot));
    }
}

/// Zones that differ by two instances or more are evened out: first one more where there are few, then one less where
/// there are many (user guide, "Rebalancing activities"). Gives how many more there are meanwhile.
fn rebalance(group: &mut Group, now: Timestamp) -> u32 {
    let steady = group
        .members
        .iter()
        .all(|member| !matches!(member.lifecycle, Lifecycle::Pending | Lifecycle::Terminating));
    if group.rebalancing && steady {
        group.rebalancing = false;
        return 0;
    }
    let held = ["AZRebalance", "Launch", "Terminate"].iter().any(|name| group.suspends(name));
    if !group.rebalancing && steady && !held && group.refresh().is_none() && group.failures == 0 {
        let mut zones: BTreeMap<String, usize> =
            group.places.iter().map(|place| (place.zone.clone(), 0)).collect();
        for member in group.members.iter().filter(|member| member.is_active()) {
            *zones.entry(member.place.zone.clone()).or_default() += 1;
        }
        let fewest = zones.values().min().copied().unwrap_or_default();
        let fuller: Vec<&str> = zones
            .iter()
            .filter(|(_, count)| **count >= fewest + 2)
            .map(|(zone, _)| zone.as_str())
            .collect();
        let movable = group
            .members
            .iter()
            .any(|member| !member.protected && fuller.contains(&member.place.zone.as_str()));
        if movable && group.capacity() == group.desired {
            group.request = Some(format!(
                "{} instances were launched to balance instances in zones {} with other zones resulting in more than \
                 desired number of instances in the group.",
                at(now),
                fuller.join(" ")
            ));
            group.rebalancing = true;
        }
    }
    u32::from(group.rebalancing)
}

/// The zone with the fewest instances, and in it the subnet with the fewest; the first of equals.
pub(super) fn next_place(group: &Group) -> Option<Place> {
    let count = |matches: &dyn Fn(&Place) -> bool| {
        group.members.iter().filter(|member| member.is_active() && matches(&member.place)).count()
    };
    group
        .places
        .iter()
        .min_by_key(|place| {
            (count(&|other| other.zone == place.zone), count(&|other| other.subnet == place.subnet))
        })
        .cloned()
}

fn scale_in(group: &mut Group, count: u32, orders: &mut Vec<Order>, now: Timestamp) {
    if group.suspends("Terminate") {
        return;
    }
    let capacity = group.capacity();
    let victims = victims(group, usize::try_from(count).unwrap_or(usize::MAX), now);
    let request = group.request.take().map(|request| request + "  ").unwrap_or_default();
    let left = capacity - u32::try_from(victims.len()).unwrap_or(0);
    for slot in victims {
        let id = group.slot_mut(slot).and_then(|member| member.id.clone()).unwrap_or_default();
        let at = at(now);
        let cause = format!(
            "{request}{at} an instance was taken out of service in response to a difference between desired and \
             actual capacity, shrinking the capacity from {capacity} to {left}.  {at} instance {id} was selected for \
             termination."
        );
        orders.extend(terminate(group, slot, &cause, now));
    }
}

/// Who goes when the group shrinks, in this order: one at a time from the zone that then has the most instances, among
/// those without protection; there by the group's termination policies, the first that makes a difference.
///
/// Ties go to the older instance, so that the same group always shrinks the same way (AWS takes any).
pub(super) fn victims(group: &Group, count: usize, now: Timestamp) -> Vec<u64> {
    let mut left: Vec<&Member> =
        group.members.iter().filter(|member| member.is_active() && member.id.is_some()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &left {
            *zones.entry(member.place.zone.as_str()).or_default() += 1;
        }
        let candidates = |most: Option<usize>| -> Vec<&Member> {
            left.iter()
                .copied()
                .filter(|member| !member.protected)
                .filter(|member| most.is_none_or(|most| zones[member.place.zone.as_str()] == most))
                .collect()
        };
        // A zone whose instances are all protected is passed over ("Default termination policy").
        let most = candidates(None).iter().map(|member| zones[member.place.zone.as_str()]).max();
        let Some(victim) = choose(candidates(most), &group.policies, now) else { break };
        chosen.push(victim);
        left.retain(|member| member.slot != victim);
    }
    chosen
}

fn choose(mut candidates: Vec<&Member>, policies: &[String], now: Timestamp) -> Option<u64> {
    let default = ["OldestLaunchTemplate", "ClosestToNextInstanceHour"];
    let names = policies.iter().map(String::as_str).flat_map(|policy| match policy {
        "Default" => default.to_vec(),
        other => vec![other],
    });
    for policy in names {
        let key = |member: &Member| -> i64 {
            match policy {
                "OldestInstance" => member.launched.as_nanosecond_i64(),
                "NewestInstance" => -member.launched.as_nanosecond_i64(),
                "OldestLaunchTemplate" => version(member),
                "ClosestToNextInstanceHour" => {
                    3600 - now.duration_since(member.launched).as_secs().rem_euclid(3600)
                }
                _ => 0,
            }
        };
        let Some(best) = candidates.iter().map(|member| key(member)).min() else { break };
        candidates.retain(|member| key(member) == best);
    }
    candidates.into_iter().min_by_key(|member| member.launched).map(|member| member.slot)
}

fn version(member: &Member) -> i64 {
    member.template.as_ref().and_then(|template| template.version.parse().ok()).unwrap_or(0)
}

trait Nanoseconds {
    fn as_nanosecond_i64(&self) -> i64;
}

impl Nanoseconds for Timestamp {
    fn as_nanosecond_i64(&self) -> i64 {
        i64::try_from(self.as_nanosecond()).unwrap_or(i64::MAX)
    }
}

/// Takes a member out of service and ends its instance, unless that has happened already.
pub(super) fn terminate(
    group: &mut Group,
    slot: u64,
    cause: &str,
    now: Timestamp,
) -> Option<Order> {
    let (id, place, old) = {
        let member = group.slot_mut(slot)?;
        (member.id.clone()?, member.place.clone(), member.activity.clone())
    };
    group.end(&old, Stage::Cancelled, now);
    let description = format!("Terminating EC2 instance: {id}");
    let activity = group.begin(description, cause.to_owned(), Stage::InProgress, Some(place), now);
    let member = group.slot_mut(slot)?;
    member.lifecycle = Lifecycle::Terminating;
    member.activity = activity;
    Some(Order::Terminate(id))
}

/// A launch has failed: the member goes, and the next attempt waits, longer each time.
pub(super) fn launch_failed(group: &mut Group, slot: u64, why: &str, pace: &Pace, now: Timestamp) {
    let Some(activity) = group.slot_mut(slot).map(|member| member.activity.clone()) else { return };
    group.members.retain(|member| member.slot != slot);
    let message = format!("{}. Launching EC2 instance failed.", why.trim_end_matches(['.', ' ']));
    if let Some(activity) = group.activity_mut(&activity) {
        activity.description = format!("Launching a new EC2 instance.  Status Reason: {message}");
        activity.message = Some(message);
    }
    group.end(&activity, Stage::Failed, now);
    hold_back(group, pace, now);
}

/// The next launch waits, longer after each failure.
fn hold_back(group: &mut Group, pace: &Pace, now: Timestamp) {
    group.failures += 1;
    let wait = pace
        .launch_retry
        .saturating_mul(1 << group.failures.saturating_sub(1).min(8))
        .min(pace.launch_retry_most);
    group.not_before = Some(now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
}

/// `At <time>`, as causes begin.
pub(super) fn at(now: Timestamp) -> String {
    format!("At {now:.0}")
}
