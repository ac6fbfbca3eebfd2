//! The rehearsal cloud with real hosts: needs root, Docker and minutes, so a feature turns it on.
//!
//!     cargo test --locked -p local-cloud --features hosts --test hosts -- --nocapture
//!
//! One test, because one cloud serves all scenarios; each says its name and time, and a failing one does not stop the
//! others. `LOCAL_CLOUD_HOSTS=net,ssm` runs only those.

#![expect(clippy::print_stdout, reason = "a test says what it does")]

mod answers;
mod asg;
mod bad_input;
mod boot;
mod browser;
mod cli;
mod cloud;
mod conformance;
mod doors;
mod fault;
mod host_cli;
mod isolation;
mod life;
mod moto;
mod net;
mod skeleton;
mod soak;
mod ssm;
mod traces;

use std::panic::AssertUnwindSafe;
use std::process::Command;

use cloud::Cloud;

type Scenarios = (&'static str, fn(&Cloud));

/// The scenarios of a group run at the same time: each keeps to hosts and names of its own, and to faults scoped to them.
/// In two groups, since a host boots in seconds only while there are not many more than processors to boot them.
const TOGETHER: [&[Scenarios]; 2] = [
    &[
        ("skeleton", skeleton::scenarios),
        ("conformance", conformance::scenarios),
        ("fault", fault::scenarios),
        ("isolation", isolation::scenarios),
        ("doors", doors::scenarios),
        ("bad-input", bad_input::scenarios),
        ("asg", asg::scenarios),
        ("moto", moto::scenarios),
        ("ssm", ssm::scenarios),
    ],
    &[("net", net::scenarios), ("boot", boot::scenarios), ("life", life::scenarios)],
];
/// These change the whole cloud (faults without scope, its end): one after the other, when the others are done.
const ALONE: &[Scenarios] = &[("soak", soak::scenarios)];

#[test]
fn the_rehearsal_cloud_is_true() {
    machine_can_boot_hosts();
    let wanted = wanted();
    let cloud = Cloud::up(&[]);
    // A host whose image is missing waits for it, and nothing here is about that.
    cloud.build_images();
    let mut failed = Vec::new();
    for group in TOGETHER {
        std::thread::scope(|scope| {
            let running: Vec<_> = select(group, &wanted)
                .map(|(name, scenarios)| {
                    let cloud = &cloud;
                    let thread = std::thread::Builder::new().name(name.to_owned());
                    (name, thread.spawn_scoped(scope, move || scenarios(cloud)).expect("a thread"))
                })
                .collect();
            failed.extend(running.into_iter().filter_map(|(name, run)| reason(name, run.join())));
        });
    }
    for (name, scenarios) in select(ALONE, &wanted) {
        let ended = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn_scoped(scope, || scenarios(&cloud)).expect("a thread").join()
        });
        failed.extend(reason(name, ended));
    }
    if !answers::judged(wanted.is_empty() && failed.is_empty()) {
        failed.push("answers: see above".to_owned());
    }
    if !failed.is_empty() {
        println!("--- the end of the daemon's log\n{}", end_of(&cloud.log(), 2000));
    }
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| cloud.finish()));
    assert!(failed.is_empty(), "failed:\n  {}", failed.join("\n  "));
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Which scenario panicked, and the first line of why.
fn reason(name: &str, ended: std::thread::Result<()>) -> Option<String> {
    let panic = ended.err()?;
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().take(3).collect();
    Some(format!("{name}: {}", lines.join(" | ")))
}

fn select<'a>(all: &'a [Scenarios], wanted: &'a [String]) -> impl Iterator<Item = Scenarios> + 'a {
    all.iter()
        .copied()
        .filter(move |(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
}

/// The scenarios that were asked for; none means all.
fn wanted() -> Vec<String> {
    let text = cloud::variable("LOCAL_CLOUD_HOSTS").unwrap_or_default();
    let text = text.to_string_lossy();
    let wanted: Vec<String> =
        text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    for name in &wanted {
        let known = TOGETHER.into_iter().flatten().chain(ALONE).any(|(known, _)| known == name);
        assert!(known, "LOCAL_CLOUD_HOSTS: no scenario `{name}`");
    }
    wanted
}

/// Says what is missing before anything fails for want of it.
fn machine_can_boot_hosts() {
    let uid = traces::output("id", &["-u"]);
    assert_eq!(uid.trim(), "0", "these tests need root: they make networks and packet rules");
    let docker = Command::new("docker").arg("info").output();
    assert!(
        docker.is_ok_and(|output| output.status.success()),
        "these tests need a Docker engine that answers: `apt-get install docker.io`, then start `dockerd`"
    );
}

fn end_of(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
