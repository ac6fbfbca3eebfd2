//! Decisions of groups, without hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Pace;
use super::group::{Group, Lifecycle, Member, Place, Stage, TemplateSpec};
use super::plan::{self, Order, Sight, next_place, step, victims};
use super::refresh::{Handling, Preferences, Refresh, Status};
use crate::hosts::HostState;

fn pace() -> Pace {
    Pace {
        look_every: Duration::from_secs(1),
        launch_retry: Duration::from_secs(5),
        launch_retry_most: Duration::from_secs(60),
        longest_wait: Duration::from_secs(5),
        refresh_patience: Duration::from_secs(120),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn place(zone: &str) -> Place {
    Place { zone: zone.into(), subnet: format!("subnet-{zone}") }
}

fn spec(version: &str) -> TemplateSpec {
    TemplateSpec { id: "lt-1".into(), name: "web".into(), version: version.into() }
}

fn group(desired: u32) -> Group {
    Group {
        name: "web".into(),
        arn: "arn".into(),
        created: at(0),
        template: spec("$Latest"),
        min: 0,
        max: 10,
        desired,
        cooldown: 300,
        health_type: "EC2".into(),
        grace: 0,
        warmup: None,
        places: vec![place("a"), place("b")],
        policies: vec!["Default".into()],
        protect_new: false,
        service_role: String::new(),
        context: None,
        tags: BTreeMap::new(),
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
    }
}

/// A member in service: its zone, the version it was launched from, when.
fn add(group: &mut Group, zone: &str, version: &str, launched: i64) -> u64 {
    let slot = group.next_slot;
    group.next_slot += 1;
    group.members.push(Member {
        slot,
        id: Some(format!("i-{slot}")),
        place: place(zone),
        template: Some(spec(version)),
        instance_type: "t3.micro".into(),
        image: "ami-1".into(),
        lifecycle: Lifecycle::InService,
        illness: None,
        protected: false,
        launched: at(launched),
        in_service: Some(at(launched)),
        activity: String::new(),
    });
    slot
}

/// Everything that was ever launched runs.
fn runs(_: &str) -> Option<Sight> {
    Some(Sight { state: HostState::Running, impaired: false })
}

/// EC2 has done what was ordered: launches have ids of `version`, and what was terminated is gone.
fn carry_out(group: &mut Group, orders: &[Order], version: &str) {
    for order in orders {
        match order {
            Order::Launch(slot) => {
                let member = group.slot_mut(*slot).expect("a member");
                member.id = Some(format!("i-{slot}"));
                member.template = Some(spec(version));
            }
            Order::Terminate(id) => {
                group.members.retain(|member| member.id.as_deref() != Some(id.as_str()));
            }
        }
    }
}

fn states(group: &Group) -> Vec<&'static str> {
    group.members.iter().map(|member| member.lifecycle.name()).collect()
}

#[test]
fn a_group_grows_over_its_zones_and_comes_into_service() {
    let mut group = group(3);
    group.request = Some("At X a user request.".into());
    let orders = step(&mut group, &runs, &pace(), at(0));
    assert_eq!(orders, [Order::Launch(0), Order::Launch(1), Order::Launch(2)]);
    let zones: Vec<&str> = group.members.iter().map(|m| m.place.zone.as_str()).collect();
    assert_eq!(zones, ["a", "b", "a"]);
    assert_eq!(
        group.activities[0].cause,
        "At X a user request.  At 1970-01-01T00:00:00Z an instance was started in response to a difference between \
         desired and actual capacity, increasing the capacity from 0 to 3."
    );
    // Nothing is launched twice while ids are awaited.
    assert_eq!(step(&mut group, &runs, &pace(), at(1)), []);
    carry_out(&mut group, &orders, "1");
    assert_eq!(step(&mut group, &runs, &pace(), at(2)), []);
    assert_eq!(states(&group), ["InService", "InService", "InService"]);
    assert!(group.activities.iter().all(|a| a.progress == Stage::Successful));
    assert_eq!(next_place(&group).map(|place| place.zone), Some("b".into()));
}

#[test]
fn scale_in_keeps_the_zones_balanced_and_takes_the_oldest_template() {
    let check =
        |members: &[(&str, &str, i64)], policies: &[&str], count: usize, expected: &[u64]| {
            let mut group = group(0);
            group.policies = policies.iter().map(|policy| (*policy).to_owned()).collect();
            for (zone, version, launched) in members {
                add(&mut group, zone, version, *launched);
            }
            assert_eq!(victims(&group, count, at(4000)), expected, "{members:?} {policies:?}");
        };
    // The fuller zone first.
    check(&[("a", "1", 0), ("b", "1", 0), ("b", "1", 5)], &["Default"], 1, &[1]);
    check(&[("a", "1", 0), ("b", "1", 0), ("b", "1", 5)], &["Default"], 2, &[1, 0]);
    // Then the oldest launch template, whatever its age.
    check(&[("a", "2", 0), ("a", "1", 9), ("a", "3", 0)], &["Default"], 2, &[1, 0]);
    // Then who is closest to the next full hour: 3600 - 400 s against 3600 - 3999 % 3600 s.
    check(&[("a", "1", 1), ("a", "1", 450)], &["Default"], 1, &[1]);
    check(&[("a", "1", 9), ("a", "1", 3)], &["OldestInstance"], 1, &[1]);
    check(&[("a", "1", 9), ("a", "1", 3)], &["NewestInstance"], 1, &[0]);
}

#[test]
fn protected_instances_stay_and_their_zone_is_passed_over() {
    let mut group = group(1);
    for slot in [add(&mut group, "b", "1", 0), add(&mut group, "b", "1", 1)] {
        group.slot_mut(slot).expect("a member").protected = true;
    }
    let free = add(&mut group, "a", "1", 2);
    assert_eq!(victims(&group, 2, at(10)), [free]);
    let orders = step(&mut group, &runs, &pace(), at(10));
    assert_eq!(orders, [Order::Terminate("i-2".into())]);
    assert_eq!(states(&group), ["InService", "InService", "Terminating"]);
    assert!(
        group.activities[0].cause.ends_with("instance i-2 was selected for termination."),
        "{}",
        group.activities[0].cause
    );
}

#[test]
fn what_ended_outside_is_replaced() {
    let check = |sight: Option<Sight>, now: i64, cause: Option<&str>| {
        let mut group = group(2);
        group.grace = 300;
        add(&mut group, "a", "1", 0);
        add(&mut group, "b", "1", 0);
        let see = |id: &str| if id == "i-0" { sight } else { runs(id) };
        let orders = step(&mut group, &see, &pace(), at(now));
        match cause {
            None => assert_eq!(orders, [], "{sight:?}"),
            Some(cause) => {
                assert_eq!(orders, [Order::Terminate("i-0".into()), Order::Launch(2)], "{sight:?}");
                assert!(group.activities[0].cause.contains(cause), "{}", group.activities[0].cause);
                assert!(
                    group.activities[1].cause.contains("unhealthy instance needing to be replaced")
                );
            }
        }
    };
    let ended = "an EC2 health check indicating it has been terminated or stopped";
    let seen = |state, impaired| Some(Sight { state, impaired });
    check(None, 1, Some(ended));
    check(seen(HostState::Terminated, false), 1, Some(ended));
    check(seen(HostState::Stopping, false), 1, Some(ended));
    // Failing checks count after the grace period: 300 s, of which the short pace leaves 5.
    check(seen(HostState::Running, true), 4, None);
    check(seen(HostState::Running, true), 5, Some("status checks failure"));
    check(seen(HostState::Running, false), 9, None);
}

#[test]
fn zones_that_differ_are_evened_out() {
    let mut group = group(3);
    for number in 0..3 {
        add(&mut group, "a", "1", number);
    }
    let orders = step(&mut group, &runs, &pace(), at(10));
    assert_eq!(orders, [Order::Launch(3)]);
    assert_eq!(group.members[3].place.zone, "b");
    assert!(
        group.activities[0].cause.contains("to balance instances in zones a with other zones"),
        "{}",
        group.activities[0].cause
    );
    // Nobody goes before the new one is in service.
    assert_eq!(step(&mut group, &runs, &pace(), at(11)), []);
    carry_out(&mut group, &orders, "1");
    let orders = step(&mut group, &runs, &pace(), at(12));
    assert_eq!(orders, [Order::Terminate("i-0".into())]);
    carry_out(&mut group, &orders, "1");
    assert_eq!(step(&mut group, &runs, &pace(), at(13)), []);

    add(&mut group, "a", "1", 20);
    add(&mut group, "a", "1", 20);
    group.desired = 5;
    group.suspended.insert("AZRebalance".into(), "test".into());
    assert_eq!(step(&mut group, &runs, &pace(), at(21)), []);
}

#[test]
fn suspended_processes_do_nothing() {
    let ended = |_: &str| None;
    let check = |process: &str, desired: u32, expected: &[Order]| {
        let mut group = group(desired);
        add(&mut group, "a", "1", 0);
        group.suspended.insert(process.into(), "test".into());
        assert_eq!(step(&mut group, &ended, &pace(), at(1)), expected, "{process}");
    };
    check("Launch", 1, &[Order::Terminate("i-0".into())]);
    check("ReplaceUnhealthy", 1, &[]);
    check("Terminate", 1, &[]);
    check("HealthCheck", 1, &[]);
    check("HealthCheck", 0, &[Order::Terminate("i-0".into())]);
}

#[test]
fn a_launch_that_fails_is_told_and_tried_again_later() {
    let mut group = group(1);
    step(&mut group, &runs, &pace(), at(0));
    plan::launch_failed(&mut group, 0, "The image id '[ami-1]' does not exist", &pace(), at(1));
    let activity = &group.activities[0];
    assert_eq!(activity.progress, Stage::Failed);
    assert_eq!(
        activity.description,
        "Launching a new EC2 instance.  Status Reason: The image id '[ami-1]' does not exist. Launching EC2 instance \
         failed."
    );
    assert_eq!(step(&mut group, &runs, &pace(), at(5)), []);
    assert_eq!(step(&mut group, &runs, &pace(), at(6)), [Order::Launch(1)]);
    plan::launch_failed(&mut group, 1, "x", &pace(), at(7));
    assert_eq!(group.not_before, Some(at(17)));
}

#[test]
fn an_instance_that_ends_while_it_is_pending_is_cancelled() {
    let mut group = group(1);
    let orders = step(&mut group, &runs, &pace(), at(0));
    carry_out(&mut group, &orders, "1");
    let ended = |_: &str| Some(Sight { state: HostState::ShuttingDown, impaired: false });
    assert_eq!(step(&mut group, &ended, &pace(), at(1)), []);
    assert_eq!(group.activities[0].progress, Stage::Cancelled);
    assert_eq!(group.members, []);
    assert_eq!(step(&mut group, &runs, &pace(), at(6)), [Order::Launch(1)]);
}

#[test]
fn a_group_being_deleted_ends_everything_and_launches_nothing() {
    let mut group = group(0);
    add(&mut group, "a", "1", 0);
    add(&mut group, "b", "1", 0);
    group.slot_mut(1).expect("a member").protected = true;
    group.deleting = true;
    let orders = step(&mut group, &runs, &pace(), at(1));
    assert_eq!(orders, [Order::Terminate("i-0".into()), Order::Terminate("i-1".into())]);
    assert_eq!(step(&mut group, &|_| None, &pace(), at(2)), []);
    assert!(group.members.is_empty());
}

fn refreshed(desired: u32, preferences: Preferences) -> Group {
    let mut group = group(desired);
    for number in 0..desired {
        add(&mut group, if number % 2 == 0 { "a" } else { "b" }, "1", i64::from(number));
    }
    group.refreshes.push(Refresh {
        id: "r".into(),
        status: Status::Pending,
        reason: None,
        start: None,
        end: None,
        preferences,
        desired: None,
        target: spec("2"),
        left: Vec::new(),
        total: 0,
        percent: 0,
        to_update: 0,
        progressed: at(0),
    });
    group
}

fn rolling(min: u32, max: Option<u32>) -> Preferences {
    Preferences {
        min_healthy: min,
        max_healthy: max,
        warmup: Some(2),
        skip_matching: false,
        protected: Handling::Wait,
        standby: Handling::Wait,
    }
}

/// Runs a refresh to its end; gives the fewest instances in service and the most instances that there were.
fn run(group: &mut Group) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    for second in 10..200 {
        let orders = step(group, &runs, &pace(), at(second));
        let in_service =
            group.members.iter().filter(|m| m.lifecycle == Lifecycle::InService).count();
        fewest = fewest.min(in_service);
        most = most.max(group.members.iter().filter(|member| member.is_active()).count());
        carry_out(group, &orders, "2");
        if group.refresh().is_none() {
            return (fewest, most);
        }
    }
    panic!("no end: {:?}", group.refreshes);
}

#[test]
fn a_refresh_replaces_all_and_keeps_enough_healthy() {
    let check = |desired, preferences: Preferences, fewest: usize, most: usize| {
        let mut group = refreshed(desired, preferences.clone());
        assert_eq!(run(&mut group), (fewest, most), "{desired} {preferences:?}");
        let refresh = group.refreshes.last().expect("a refresh");
        assert_eq!(
            (refresh.status, refresh.percent, refresh.to_update),
            (Status::Successful, 100, 0)
        );
        assert_eq!(group.members.len(), usize::try_from(desired).expect("small"));
        assert!(group.members.iter().all(|m| m.template == Some(spec("2"))), "{:?}", group.members);
    };
    check(4, rolling(50, None), 2, 4);
    check(4, rolling(0, None), 0, 4);
    // Rounded up nothing may go; then one at a time.
    check(2, rolling(90, None), 1, 2);
    check(1, rolling(90, None), 0, 1);
    check(3, rolling(100, None), 2, 3);
    // New ones first.
    check(2, rolling(100, Some(110)), 2, 3);
    check(4, rolling(100, Some(200)), 4, 8);
}

#[test]
fn a_refresh_leaves_alone_what_it_shall() {
    let mut group = refreshed(2, Preferences { skip_matching: true, ..rolling(50, None) });
    group.slot_mut(0).expect("a member").template = Some(spec("2"));
    run(&mut group);
    assert_eq!(group.members.iter().filter(|member| member.slot == 0).count(), 1);
    assert_eq!(group.refreshes[0].total, 1);

    let mut group = refreshed(2, Preferences { protected: Handling::Ignore, ..rolling(50, None) });
    group.slot_mut(1).expect("a member").protected = true;
    run(&mut group);
    assert!(group.slot(1).is_some() && group.slot(0).is_none());

    let mut group = refreshed(2, rolling(50, None));
    group.slot_mut(1).expect("a member").protected = true;
    run(&mut group);
    assert_eq!(group.refreshes[0].status, Status::Failed);
    assert!(group.refreshes[0].reason.as_ref().is_some_and(|why| why.contains("protected")));
    assert_eq!((group.refreshes[0].percent, group.refreshes[0].to_update), (50, 1));
}

#[test]
fn a_cancelled_refresh_ends_when_nothing_moves() {
    let mut group = refreshed(2, rolling(50, None));
    step(&mut group, &runs, &pace(), at(10));
    let orders = step(&mut group, &runs, &pace(), at(11));
    assert!(orders.contains(&Order::Terminate("i-0".into())), "{orders:?}");
    group.refresh_mut().expect("a refresh").status = Status::Cancelling;
    step(&mut group, &runs, &pace(), at(12));
    assert_eq!(group.refreshes[0].status, Status::Cancelling);
    carry_out(&mut group, &orders, "2");
    step(&mut group, &runs, &pace(), at(13));
    assert_eq!(group.refreshes[0].status, Status::Cancelled);
    assert!(group.slot(1).is_some(), "the second one stays");
}
