//! `wait-for-cloud-init` against hosts that really boot: four versions of cloud-init in every state, and hosts that never
//! get there. Needs root, Docker and minutes, so a feature turns it on.
//!
//!     cargo test --locked -p pipeline-tests --features rehearsal --test wait -- --nocapture
//!
//! One test, because one cloud and one wave of hosts serve all checks; each begins where the one before ended.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it does and ends where something is wrong"
)]

#[path = "../cloud/mod.rs"]
mod cloud;
mod permissions;

use cloud::{Cloud, Ended, Host, Run, Tool};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TOOL: Tool<'_> = Tool { program: "wait-for-cloud-init", key: None, region: "us-east-1" };

fn wait(cloud: &Cloud, name: &str, hosts: &[String], args: &[&str]) -> Run {
    cloud.start(&TOOL, name, hosts, args)
}

/// A host's verdict and its cause.
fn verdict_of<'a>(ended: &'a Ended, host: &str) -> (&'a str, &'a str) {
    let data = &ended.host(host)["data"];
    (data["verdict"].as_str().unwrap(), data["cause"].as_str().unwrap())
}

/// A version of cloud-init, by the suite that has it, and how `cloud-init status` words the states of the matrix.
struct Version {
    suite: &'static str,
    image: &'static str,
    cloud_init: &'static str,
    not_started: &'static str,
    error_running: &'static str,
    error_done: &'static str,
    warned_running: &'static str,
    warned_done: &'static str,
}

const VERSIONS: [Version; 4] = [
    Version {
        suite: "bullseye",
        image: "ami-0deb110000b00c0de",
        cloud_init: "20.4",
        not_started: "status: not run",
        error_running: "status: error",
        error_done: "status: error",
        warned_running: "status: running",
        warned_done: "status: done",
    },
    Version {
        suite: "bookworm",
        image: "ami-0deb120000b00c0de",
        cloud_init: "22.4",
        not_started: "status: not run",
        error_running: "status: error",
        error_done: "status: error",
        warned_running: "status: running",
        warned_done: "status: done",
    },
    Version {
        suite: "trixie",
        image: "ami-0deb130000b00c0de",
        cloud_init: "25.1",
        not_started: "extended_status: not started",
        error_running: "extended_status: error - running",
        error_done: "extended_status: error - done",
        warned_running: "extended_status: degraded running",
        warned_done: "extended_status: degraded done",
    },
    Version {
        suite: "sid",
        image: "ami-0deb130051db00c0d",
        cloud_init: "26.2",
        not_started: "extended_status: not started",
        error_running: "extended_status: error - running",
        error_done: "extended_status: error - done",
        warned_running: "extended_status: degraded running",
        warned_done: "extended_status: degraded done",
    },
];

/// The last stage goes on until a file is there.
const GATE: &str = "runcmd:\n  - until [ -e /root/go ]; do sleep 1; done\n";
/// An error of a stage before the last.
const ERROR: &str = "locale: xx_XX.UTF-8\n";
/// Wrong, but cloud-init goes on; versions from 23.4 on remember it.
const WARNING: &str = "no_such_key: 1\n";
/// Right, but of old.
const DEPRECATED: &str = "users:\n  - default\n  - name: probe\n    sudo: false\n";
/// A host that finds itself in want of a reboot in the middle of its first boot.
const REBOOT: &str = "bootcmd:\n  - '[ -e /root/rebooted ] || touch /run/reboot-required; touch /root/rebooted'\n\
                      package_upgrade: true\npackage_reboot_if_required: true\n";
/// cloud-init waits before its first stage, and the agent does not wait for cloud-init.
const HELD_BACK: &str = r#"set -e
for unit in cloud-init-local cloud-init-main; do
  mkdir -p /etc/systemd/system/$unit.service.d
  cat >/etc/systemd/system/$unit.service.d/held.conf <<'UNIT'
[Service]
TimeoutStartSec=0
ExecStartPre=/bin/sh -c "until [ -e /run/go ]; do sleep 1; done"
UNIT
done
sed -i -e '/^After=/d; /^Wants=/d; s/^\[Unit\]/[Unit]\nDefaultDependencies=no/' \
  "$(systemctl show -P FragmentPath amazon-ssm-agent.service)"
touch /run/before"#;

#[test]
fn every_boot_is_judged_by_its_truth() {
    let cloud = Cloud::up("wait", Duration::from_secs(600));
    // What is there already is looked at and left.
    cloud.local(&["image", "build", "--all"]);
    cloud.say("images are there");
    launch(&cloud);
    the_matrix_of_versions_and_states(&cloud);
    hosts_that_never_get_there(&cloud);
    sigterm_leaves_nothing_behind(&cloud);
    after_a_reboot(&cloud);
    faults_change_no_verdict(&cloud);
    permissions::the_least_policy_is_enough_and_each_part_needed(&cloud, "clean-sid", "no-profile");
    another_region_does_not_know_them(&cloud);
    cloud.say("all is judged");
}

fn of(kind: &str) -> Vec<String> {
    VERSIONS.iter().map(|version| format!("{kind}-{}", version.suite)).collect()
}

fn names(hosts: &[&str]) -> Vec<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

fn launch(cloud: &Cloud) {
    for (kind, host) in
        [("never-boots", "dead"), ("cloud-init-hang", "hanging"), ("no-cloud-init", "bare")]
    {
        cloud.fault(&["add", kind, "--host", host]);
    }
    let [_, bookworm, trixie, _] = VERSIONS.map(|version| version.image);
    cloud.launch(&Host { name: "dead", image: bookworm, ..Host::default() });
    for version in &VERSIONS {
        let warning = if version.suite == "sid" { DEPRECATED } else { WARNING };
        for (kind, more) in [("clean", ""), ("error", ERROR), ("warned", warning)] {
            let name = format!("{kind}-{}", version.suite);
            let user_data = format!("#cloud-config\n{more}{GATE}");
            let host = Host {
                name: &name,
                image: version.image,
                user_data: &user_data,
                ..Host::default()
            };
            cloud.launch(&host);
        }
    }
    let user_data = format!("#cloud-config\n{REBOOT}");
    cloud.launch(&Host {
        name: "rebooting",
        image: bookworm,
        user_data: &user_data,
        ..Host::default()
    });
    cloud.launch(&Host { name: "hanging", image: trixie, ..Host::default() });
    cloud.launch(&Host { name: "bare", image: bookworm, ..Host::default() });
    cloud.launch(&Host {
        name: "no-profile",
        image: trixie,
        without_profile: true,
        ..Host::default()
    });
    cloud.say("all are launched");
}

/// Running, running with an error, running with warnings, and each of them done; a reboot; no cloud-init.
fn the_matrix_of_versions_and_states(cloud: &Cloud) {
    let mut hosts = [of("clean"), of("error"), of("warned")].concat();
    hosts.extend(names(&["rebooting", "bare"]));
    let args = ["--timeout", "15m", "--linger", "15m", "--deprecated", "accept"];
    let running = wait(cloud, "matrix", &hosts, &args);
    for (kind, words) in [
        ("clean", "cloud-init in modules-final\n"),
        ("error", "cloud-init in modules-final, 1 error so far\n"),
        ("warned", "cloud-init in modules-final\n"),
    ] {
        for host in of(kind) {
            cloud.until(&format!("{host} is in its last stage"), || {
                running.said().contains(&format!("{host}: {words}"))
            });
        }
    }
    let judged = [": ready: ", ": degraded: ", ": failed: "];
    let said = running.said().replace("rebooting: ready: ", "");
    assert!(!judged.iter().any(|words| said.contains(words)), "{said}");
    cloud.say("all are in their last stage, and none is judged");
    for version in &VERSIONS {
        for (kind, expected) in [
            ("clean", "status: running"),
            ("error", version.error_running),
            ("warned", version.warned_running),
        ] {
            says(cloud, &format!("{kind}-{}", version.suite), expected, "touch /root/go");
        }
    }
    let ended = running.ended();
    assert_eq!(ended.code, 1, "{ended}");
    for version in &VERSIONS {
        let [clean, error, warned] =
            ["clean", "error", "warned"].map(|kind| format!("{kind}-{}", version.suite));
        let (verdict, cause) = verdict_of(&ended, &clean);
        let expected = format!("cloud-init {}", version.cloud_init);
        assert!(verdict == "ready" && cause.starts_with(&expected), "{clean}: {ended}");
        let (verdict, cause) = verdict_of(&ended, &error);
        assert!(verdict == "failed" && cause.contains("'locale'"), "{error}: {ended}");
        let outcome = ended.host(&warned)["outcome"].as_str().unwrap();
        let (verdict, cause) = verdict_of(&ended, &warned);
        match version.suite {
            // They keep no account of what they recovered from.
            "bullseye" | "bookworm" => assert_eq!(verdict, "ready", "{warned}: {ended}"),
            "trixie" => {
                assert_eq!((verdict, outcome), ("degraded", "warned"), "{warned}: {ended}");
                assert!(cause.contains("WARNING: "), "{warned}: {ended}");
            }
            _ => {
                assert_eq!((verdict, outcome), ("degraded", "success"), "{warned}: {ended}");
                assert!(cause.contains("DEPRECATED: "), "{warned}: {ended}");
            }
        }
        says(cloud, &clean, "status: done", "");
        says(cloud, &error, version.error_done, "");
        says(cloud, &warned, version.warned_done, "");
        stages_are_of_this_boot(&ended, &clean);
    }
    assert_eq!(verdict_of(&ended, "bare").0, "absent", "{ended}");
    assert_eq!(verdict_of(&ended, "rebooting").0, "ready", "{ended}");
    let events = cloud.local(&["events", "--since", "1h", "--format", "json"]);
    let rebooted = events
        .lines()
        .find(|line| line.contains(&cloud.id("rebooting")) && line.contains("reboots by itself"));
    assert!(rebooted.is_some(), "it did not reboot: {events}");
    let judged = judged_after(cloud, &ended, &of("clean"));
    println!("           judged after the truth: {judged:?} s");
    assert!(ended.summary.contains("```mermaid\ngantt\n"), "{}", ended.summary);
    assert!(ended.summary.contains("  section clean-sid\n"), "{}", ended.summary);
}

/// What `cloud-init status` says on a host; `then` is done there in the same breath.
fn says(cloud: &Cloud, host: &str, expected: &str, then: &str) {
    let said = cloud.exec(host, &format!("cloud-init status --long; {then}"));
    assert!(said.lines().any(|line| line == expected), "{host}: {expected}: {said}");
}

/// Some versions count from the boot and not from 1970.
fn stages_are_of_this_boot(ended: &Ended, host: &str) {
    let data = &ended.host(host)["data"];
    let launched = data["timeline"]["launched_at"].as_str().unwrap();
    let stages = data["cloud_init"]["stages"].as_array().unwrap();
    assert!(stages.len() >= 4, "{data}");
    for stage in stages {
        let start = stage["start"].as_str().unwrap();
        assert!(launched <= start && start <= ended.report["ended_at"].as_str().unwrap(), "{data}");
    }
}

/// Seconds between `result.json` on the host and the tool's verdict.
fn judged_after(cloud: &Cloud, ended: &Ended, hosts: &[String]) -> Vec<f64> {
    let started = ended.report["started_at"].as_str().unwrap();
    let date = std::process::Command::new("date").args(["-d", started, "+%s.%N"]).output().unwrap();
    let started: f64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    let seconds = |host: &String| {
        let truth = cloud.exec(host, "stat -L -c %.Y /run/cloud-init/result.json");
        let elapsed = ended.host(host)["elapsed_ms"].as_f64().unwrap() / 1000.0;
        let after = started + elapsed - truth.trim().parse::<f64>().unwrap();
        assert!(after >= 0.0, "{host} was judged before it had finished");
        (after * 10.0).round() / 10.0
    };
    hosts.iter().map(seconds).collect()
}

fn hosts_that_never_get_there(cloud: &Cloud) {
    cloud.until("it hangs", || !cloud.exec("hanging", "pgrep -f 'sleep infinity'").is_empty());
    let hosts = names(&["hanging", "dead", "no-profile"]);
    let ended = wait(cloud, "late", &hosts, &["--timeout", "15s"]).ended();
    assert_eq!(ended.code, 4, "{ended}");
    within(&ended, 15_000);
    assert_eq!(verdict_of(&ended, "hanging").0, "timed-out", "{ended}");
    assert_eq!(ended.host("hanging")["data"]["stage"], "cloud-init", "{ended}");
    let (verdict, cause) = verdict_of(&ended, "dead");
    assert!(verdict == "never-online" && cause.contains("; its console ends: "), "{ended}");
    let (verdict, cause) = verdict_of(&ended, "no-profile");
    assert_eq!(verdict, "never-online", "{ended}");
    assert!(cause.contains("it has no instance profile") && cause.contains("launched "), "{ended}");
    cloud.say("hosts that never get there are late, and what can be seen of them is said");
}

/// The deadline is overrun by less than a second.
fn within(ended: &Ended, deadline_ms: u64) {
    let elapsed = ended.report["elapsed_ms"].as_u64().unwrap();
    assert!((deadline_ms..deadline_ms + 1000).contains(&elapsed), "{elapsed} ms: {ended}");
}

fn sigterm_leaves_nothing_behind(cloud: &Cloud) {
    let running = wait(cloud, "stopped", &names(&["hanging"]), &[]);
    cloud.until("it is asked", || running_commands(cloud, "hanging") > 0);
    let begun = Instant::now();
    running.signal("TERM");
    let ended = running.ended();
    assert_eq!(ended.code, 143, "{ended}");
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    assert_eq!(verdict_of(&ended, "hanging").0, "pending", "{ended}");
    cloud.until("nothing is asked any more", || running_commands(cloud, "hanging") == 0);
    cloud.say("SIGTERM ends it at once, and its question on the host");
}

fn running_commands(cloud: &Cloud, host: &str) -> usize {
    let answer = cloud.call("ssm", "list_commands", json!({"InstanceId": cloud.id(host)}));
    let running = ["Pending", "InProgress", "Cancelling"];
    let all = answer["Commands"].as_array().unwrap();
    all.iter().filter(|command| running.contains(&command["Status"].as_str().unwrap())).count()
}

/// Not started and disabled, each in every version; an instance that was stopped, and one terminated while waited for.
fn after_a_reboot(cloud: &Cloud) {
    for host in of("clean") {
        cloud.exec(&host, HELD_BACK);
    }
    for host in of("error") {
        cloud.exec(&host, "touch /etc/cloud/cloud-init.disabled /run/before");
    }
    cloud.ec2("stop_instances", json!({"InstanceIds": [cloud.id("rebooting")]}));
    let hosts = [of("clean"), of("error")].concat();
    cloud.ec2(
        "reboot_instances",
        json!({"InstanceIds": hosts.iter().map(|host| cloud.id(host)).collect::<Vec<_>>()}),
    );
    for host in &hosts {
        cloud.until(&format!("{host} was rebooted"), || {
            cloud.exec(host, "[ -e /run/before ] || echo rebooted") == "rebooted\n"
        });
    }
    let hosts = [hosts, names(&["rebooting", "hanging"])].concat();
    let running = wait(cloud, "again", &hosts, &["--timeout", "15m", "--linger", "15m"]);
    for host in of("clean") {
        cloud.until(&format!("{host} is seen before cloud-init"), || {
            running.said().contains(&format!("{host}: cloud-init has not begun\n"))
        });
    }
    for version in &VERSIONS {
        says(cloud, &format!("clean-{}", version.suite), version.not_started, "");
    }
    cloud.ec2("terminate_instances", json!({"InstanceIds": [cloud.id("hanging")]}));
    for host in of("clean") {
        cloud.exec(&host, "touch /run/go");
    }
    let ended = running.ended();
    assert_eq!(ended.code, 1, "{ended}");
    for host in of("clean") {
        assert_eq!(verdict_of(&ended, &host).0, "ready", "{host}: {ended}");
    }
    for host in of("error") {
        assert_eq!(verdict_of(&ended, &host).0, "disabled", "{host}: {ended}");
        says(cloud, &host, "status: disabled", "");
    }
    let (verdict, cause) = verdict_of(&ended, "rebooting");
    assert!(verdict == "stopped" && cause.contains("User initiated"), "{ended}");
    let (verdict, cause) = verdict_of(&ended, "hanging");
    assert!(verdict == "terminated" && cause.contains("User initiated"), "{ended}");
    cloud.say("not started, disabled, stopped and terminated are told apart");
}

fn faults_change_no_verdict(cloud: &Cloud) {
    for fault in [
        &["throttle", "--probability", "0.2"][..],
        &["server-error", "--probability", "0.05"],
        &["drop-connection", "--probability", "0.05"],
        &["stale-describe", "--delay", "3s"],
    ] {
        cloud.fault(&[&["add"], fault].concat());
    }
    let hosts = [of("clean"), of("error")].concat();
    let args = ["--timeout", "15m", "--linger", "15m", "--disabled", "accept"];
    let ended = wait(cloud, "faults", &hosts, &args).ended();
    assert_eq!(ended.code, 0, "{ended}");
    for host in of("clean") {
        assert_eq!(verdict_of(&ended, &host).0, "ready", "{host}: {ended}");
    }
    for host in of("error") {
        assert_eq!(verdict_of(&ended, &host).0, "disabled", "{host}: {ended}");
    }
    let ended =
        wait(cloud, "faults-late", &names(&["no-profile", "dead"]), &["--timeout", "8s"]).ended();
    assert_eq!(ended.code, 4, "{ended}");
    within(&ended, 8_000);
    assert_eq!(verdict_of(&ended, "no-profile").0, "never-online", "{ended}");
    cloud.fault(&["remove", "--all"]);
    cloud.say("throttling, errors, dropped connections and stale reads change no verdict");

    cloud.fault(&[
        "add",
        "agent-drop",
        "--host",
        "clean-trixie",
        "--count",
        "1",
        "--seconds",
        "0",
        "--code",
        "dies",
    ]);
    let ended = wait(cloud, "agent-drop", &names(&["clean-trixie"]), &["--timeout", "5m"]).ended();
    assert_eq!((ended.code, verdict_of(&ended, "clean-trixie").0), (0, "ready"), "{ended}");
    cloud.fault(&["remove", "--all"]);
    cloud.say("a question that an agent lost is asked again");
}

fn another_region_does_not_know_them(cloud: &Cloud) {
    let tool = Tool { region: "eu-west-1", ..TOOL };
    let hosts = names(&["clean-sid"]);
    let ended = cloud.start(&tool, "region", &hosts, &["--unknown-grace", "1s"]).ended();
    assert_eq!(ended.code, 2, "{ended}");
    let words =
        format!("EC2 in eu-west-1 does not know `{}` (host `clean-sid`)", cloud.id("clean-sid"));
    assert!(ended.stderr.contains(&words), "{ended}");
    assert_eq!(ended.report["outcome"], Value::from("usage"), "{ended}");
}
