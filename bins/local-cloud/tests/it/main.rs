//! The tool as a person meets it: bad input, and a rehearsal cloud that does not run. What needs root and Docker is
//! proven by the rehearsal itself, in the workspace's `tests/`.

mod control;
mod coverage;
mod endpoint;
mod faults;
mod garbage;
mod malformed;
mod moto;
mod proxy;
mod signatures;

use deploy_testkit::{Outcome, Tool};

fn run(args: &[&str]) -> Outcome {
    Tool::new(env!("CARGO_BIN_EXE_local-cloud")).args(args).run()
}

#[test]
fn help_names_every_command_and_hides_the_daemon() {
    let outcome = run(&["--help"]);
    assert_eq!(outcome.code, 0);
    for command in ["up", "down", "status", "fault", "events", "logs", "exec"] {
        assert!(outcome.stdout.contains(&format!("\n  {command} ")), "{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("serve"), "{}", outcome.stdout);
}

#[test]
fn status_says_not_running() {
    let outcome = run(&["status"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, "not running\n"));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn status_as_json_is_a_report() {
    let outcome = run(&["status", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(report["outcome"], "unavailable");
    assert_eq!(report["title"], "the rehearsal cloud `calldata` is not running");
}

#[test]
fn commands_that_need_it_say_how_to_start_it() {
    for args in [
        &["logs", "dev-platform-1"][..],
        &["exec", "dev-platform-1", "--", "true"],
        &["fault", "add", "throttle"],
        &["fault", "list"],
        &["events"],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, 6, "{args:?}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(outcome.stderr, @r#"
            error: the rehearsal cloud `calldata` is not running
            hint: start it: `eval "$(local-cloud up --project calldata)"`
            "#);
        }
    }
}

#[test]
fn a_state_of_a_dead_daemon_counts_as_not_running() {
    let tool = Tool::new(env!("CARGO_BIN_EXE_local-cloud"));
    let folder = tool.home().join(".local/state/calldata-foundation/local-cloud/calldata");
    std::fs::create_dir_all(&folder).expect("folder");
    let state = r#"{"project":"calldata","region":"us-east-1","port":1,"daemon":{"pid":1,"start":1},"upstream":null}"#;
    std::fs::write(folder.join("state.json"), state).expect("file");
    let outcome = tool.args(["status"]).run();
    assert_eq!(outcome.code, 6);
    assert_eq!(
        outcome.stdout,
        "not running\nan earlier one ended without cleaning up; `local-cloud down` removes what it left\n"
    );
}

#[test]
fn bad_input_ends_with_one_clear_error() {
    let check = |args: &[&str], expected: &str| {
        let outcome = run(args);
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{args:?}");
    };
    check(&["status", "--project", "Not A Name"], "`Not A Name` cannot name a project");
    check(&["up", "--port", "70000"], "invalid value '70000' for '--port <PORT>'");
    check(&["up", "--upstream", "gopher://x"], "`gopher://x` is no http address of an emulator");
    check(&["up", "--timeout", "soon"], "expected a duration");
    check(&["exec", "dev-platform-1"], "required arguments were not provided");
    check(&["fault", "add", "throttled"], "invalid value 'throttled' for '<KIND>'");
    check(&["fault", "add", "throttle", "--count", "some"], "invalid value 'some' for '--count");
    check(
        &["fault", "add", "throttle", "--probability", "2"],
        "error: --probability: 2 is not above 0 and at most 1",
    );
    check(
        &["fault", "add", "packet-loss", "--seconds", "-2"],
        "error: --seconds: `packet-loss` has no such parameter; it has percent",
    );
    check(
        &["fault", "add", "network-lost", "--count", "1"],
        "error: --count: `network-lost` lasts; end it with `for` or by removing it",
    );
    check(&["events", "--report", "r.json"], "error: --report: `events` writes no report");
    check(&["up", "--suite", "sarge"], "[possible values: bullseye, bookworm, trixie, trixie-sid]");
    check(&["up", "--timing", "short,sleep=1s"], "no time is called `sleep`; there is pending");
    check(&["fault", "remove"], "required arguments were not provided");
    check(&["rehearse"], "unrecognized subcommand 'rehearse'");
}

#[test]
fn every_kind_of_fault_is_explained_without_a_running_cloud() {
    let outcome = run(&["fault", "kinds"]);
    assert_eq!(outcome.code, 0);
    for (kind, strikes, parameter) in [
        ("throttle", "requests, from the next one on", ""),
        ("clock-skew", "hosts launched from now on", "--seconds 600"),
        ("kernel-panic", "hosts, at every boot from the next one on", "--delay 2s"),
        ("packet-loss", "hosts, at once", "--percent 30"),
    ] {
        let mut lines = outcome.stdout.lines().filter(|line| line.starts_with(kind));
        let told = |line: &str| line.contains(strikes) && line.ends_with(parameter);
        assert!(lines.any(told), "{}", outcome.stdout);
    }
}
