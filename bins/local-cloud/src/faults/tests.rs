use super::*;
use crate::hosts::HostState;

fn host(id: &str, name: &str) -> HostInfo {
    HostInfo {
        instance_id: id.into(),
        name: Some(name.into()),
        private_ip: [10, 0, 0, 1].into(),
        state: HostState::Running,
        tags: BTreeMap::from([("role".to_owned(), name.to_owned())]),
        launched: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn call<'a>(operation: &'a str, hosts: &'a [HostInfo]) -> Call<'a> {
    Call { service: "ec2", operation, hosts }
}

#[test]
fn the_same_seed_strikes_the_same_way() {
    let run = |seed, own: Option<u64>| -> Vec<bool> {
        let faults = Faults::seeded(seed);
        let spec = Spec { probability: 0.5, seed: own, ..Spec::of(Kind::Throttle) };
        faults.add(spec).expect("good");
        (0..64)
            .map(|_| faults.strike_call(Kind::Throttle, &call("RunInstances", &[])).is_some())
            .collect()
    };
    assert_eq!(run(1, None), run(1, None));
    assert_ne!(run(1, None), run(2, None));
    assert_eq!(run(1, Some(7)), run(2, Some(7)));
    let strikes = run(1, None).into_iter().filter(|struck| *struck).count();
    assert!((16..=48).contains(&strikes), "{strikes} of 64 at one half");
}

#[test]
fn the_generator_is_the_published_one() {
    // First outputs of SplitMix64 for seed 0, as in the reference implementation's test vector.
    let mut dice = Dice(0);
    assert_eq!(dice.next(), 0xE220_A839_7B1D_CDAF);
    assert_eq!(dice.next(), 0x6E78_9E6A_A1B9_65F4);
}

#[test]
fn a_fault_of_another_scope_draws_nothing() {
    let faults = Faults::seeded(1);
    let spec = Spec { operation: Some("Describe*".into()), ..Spec::of(Kind::Throttle) };
    faults.add(spec).expect("good");
    assert!(faults.strike_call(Kind::Throttle, &call("RunInstances", &[])).is_none());
    assert!(faults.strike_call(Kind::Latency, &call("DescribeVpcs", &[])).is_none());
    assert_eq!(faults.list()[0].matched, 0);
    assert!(faults.strike_call(Kind::Throttle, &call("DescribeVpcs", &[])).is_some());
    assert_eq!((faults.list()[0].matched, faults.list()[0].struck), (1, 1));
}

#[test]
fn a_host_is_named_in_three_ways() {
    let (one, two) = (host("i-1", "a"), host("i-2", "b"));
    for wanted in ["a", "i-1", "tag:role=a"] {
        let faults = Faults::default();
        let spec = Spec { host: Some(wanted.into()), ..Spec::of(Kind::KernelPanic) };
        faults.add(spec).expect("good");
        assert!(faults.strike(Kind::KernelPanic, Some(&one)).is_some(), "{wanted}");
        assert!(faults.strike(Kind::KernelPanic, Some(&two)).is_none(), "{wanted}");
        assert!(faults.strike(Kind::KernelPanic, None).is_none(), "{wanted}");
    }
}

#[test]
fn a_request_is_of_the_hosts_that_it_names() {
    let faults = Faults::default();
    let spec = Spec { host: Some("a".into()), ..Spec::of(Kind::Throttle) };
    faults.add(spec).expect("good");
    let hosts = [host("i-2", "b"), host("i-1", "a")];
    assert!(faults.strike_call(Kind::Throttle, &call("StopInstances", &hosts)).is_some());
    assert!(faults.strike_call(Kind::Throttle, &call("StopInstances", &hosts[..1])).is_none());
    assert!(faults.strike_call(Kind::Throttle, &call("StopInstances", &[])).is_none());
}

#[test]
fn the_first_matches_are_left_out_and_the_count_ends_it() {
    let faults = Faults::default();
    let mut changes = faults.changed();
    let spec = Spec { count: Some(2), after: 1, ..Spec::of(Kind::AgentDrop) };
    faults.add(spec).expect("good");
    changes.mark_unchanged();
    let one = host("i-1", "a");
    let struck: Vec<bool> =
        (0..5).map(|_| faults.strike(Kind::AgentDrop, Some(&one)).is_some()).collect();
    assert_eq!(struck, [false, true, true, false, false]);
    let listed = &faults.list()[0];
    assert_eq!((listed.standing, listed.matched, listed.struck), (Standing::Spent, 3, 2));
    assert!(changes.has_changed().expect("open"), "its end is told");
}

#[tokio::test(start_paused = true)]
async fn a_time_ends_it_and_those_who_follow_are_told() {
    let faults = Faults::default();
    let spec = Spec { lasting: Some(Duration::from_secs(30)), ..Spec::of(Kind::NetworkLost) };
    faults.add(spec).expect("good");
    let one = host("i-1", "a");
    assert!(faults.holds(Kind::NetworkLost, Some(&one)).is_some());
    let mut changes = faults.changed();
    let begun = Instant::now();
    changes.changed().await.expect("open");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert!(faults.holds(Kind::NetworkLost, Some(&one)).is_none());
    assert_eq!(faults.list()[0].standing, Standing::Expired);
}

#[test]
fn a_lasting_condition_chooses_hosts_and_keeps_its_choice() {
    let faults = Faults::seeded(3);
    let spec = Spec { probability: 0.5, ..Spec::of(Kind::PacketLoss) };
    faults.add(spec).expect("good");
    let hosts: Vec<_> = (0..64).map(|n| host(&format!("i-{n:017x}"), "a")).collect();
    let chosen = || -> Vec<bool> {
        hosts.iter().map(|h| faults.holds(Kind::PacketLoss, Some(h)).is_some()).collect()
    };
    let first = chosen();
    assert_eq!(first, chosen());
    let count = first.iter().filter(|chosen| **chosen).count();
    assert!((16..=48).contains(&count), "{count} of 64 at one half");
}

#[test]
fn a_loss_between_hosts_is_of_the_one_that_sends() {
    let faults = Faults::default();
    let [a, b, c] = [host("i-1", "a"), host("i-2", "b"), host("i-3", "c")];
    let spec =
        Spec { host: Some("a".into()), to: Some("i-2".into()), ..Spec::of(Kind::PacketLoss) };
    assert_eq!(describe(&spec), "packet-loss --host a --to i-2");
    faults.add(spec).expect("good");
    let between = |from, to| faults.holds_between(Kind::PacketLoss, from, to).is_some();
    assert!(between(&a, &b));
    assert!(!between(&b, &a) && !between(&a, &c) && !between(&c, &b));
    assert!(faults.holds(Kind::PacketLoss, Some(&a)).is_none(), "the rest of its packets pass");
    faults.add(Spec::of(Kind::PacketLoss)).expect("good");
    assert!(!between(&a, &c), "a fault without other end is none between two");
}

#[test]
fn parameters_have_defaults() {
    let faults = Faults::default();
    faults.add(Spec::of(Kind::ServerError)).expect("good");
    let spec = Spec { delay: Some(Duration::from_millis(1500)), ..Spec::of(Kind::AgentLate) };
    faults.add(spec).expect("good");
    let strike = faults.strike_call(Kind::ServerError, &call("x", &[])).expect("always");
    assert_eq!((strike.code.as_str(), strike.delay), ("500", Duration::ZERO));
    let strike = faults.strike(Kind::AgentLate, Some(&host("i-1", "a"))).expect("always");
    assert_eq!(strike.delay, Duration::from_millis(1500));
}

#[test]
fn removed_faults_are_gone() {
    let faults = Faults::default();
    let first = faults.add(Spec::of(Kind::Throttle)).expect("good");
    faults.add(Spec::of(Kind::Latency)).expect("good");
    assert!(faults.remove(first) && !faults.remove(first));
    assert!(!faults.any(Kind::Throttle) && faults.any(Kind::Latency));
    assert_eq!(faults.clear(), 1);
    assert!(faults.list().is_empty());
}

#[test]
fn durations_are_read_back_as_they_are_written() {
    for milliseconds in [1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 5_400_000] {
        let duration = Duration::from_millis(milliseconds);
        assert_eq!(deploy_cli::parse_duration(&text(duration)), Ok(duration), "{}", text(duration));
    }
}

#[test]
fn a_specification_reads_back_from_json() {
    let json = r#"{"kind":"latency","service":"ec2","for":"2m","delay":"250ms","probability":0.5}"#;
    let spec: Spec = serde_json::from_str(json).expect("JSON");
    assert_eq!(spec.lasting, Some(Duration::from_secs(120)));
    assert_eq!(describe(&spec), "latency --service ec2 --probability 0.5 --for 2m --delay 250ms");
    let again = serde_json::to_string(&spec).expect("JSON");
    assert_eq!(serde_json::from_str::<Spec>(&again).expect("JSON"), spec);
}
