//! What becomes of hosts, and of calls that go wrong.

use crate::cloud::{Cloud, FakeHost, Probe, answer};
use crate::{id, inventory, tool};
use deploy_testkit::Outcome;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

fn run(cloud: &Cloud, hosts: usize, args: &[&str]) -> Outcome {
    tool(&inventory(hosts)).aws(&cloud.endpoint()).args(args).run()
}

/// The report, from stdout.
fn report(cloud: &Cloud, hosts: usize, code: i32, args: &[&str]) -> Value {
    let outcome =
        tool(&inventory(hosts)).aws(&cloud.endpoint()).args(["--format", "json"]).args(args).run();
    assert_eq!(outcome.code, code, "{}{}", outcome.stdout, outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn running(stage: &str) -> Probe {
    Probe::Answers(answer(Some(stage), &json!([]), &json!({}), false))
}

fn done() -> Probe {
    Probe::Answers(answer(None, &json!([]), &json!({}), true))
}

#[test]
fn fifty_ready_hosts_take_five_calls() {
    let cloud = Cloud::new((1..=50).map(|number| (number, FakeHost::ready())));
    let report = report(&cloud, 50, 0, &[]);
    assert_eq!(
        cloud.calls(),
        [
            "DescribeInstances",
            "DescribeInstanceStatus",
            "DescribeInstanceInformation",
            "SendCommand",
            "ListCommandInvocations"
        ]
    );
    let host = &report["subjects"][0];
    assert_eq!((&host["outcome"], &host["data"]["verdict"]), (&json!("success"), &json!("ready")));
    assert_eq!(host["detail"], "ready: cloud-init 25.1.4 finished 34 s after launch");
    assert_eq!(host["data"]["timeline"]["launched_at"], "2023-11-14T22:13:20Z");
    assert_eq!(
        host["data"]["cloud_init"]["stages"][1],
        json!({"name": "modules-final", "start": "2023-11-14T22:13:40Z", "finished": "2023-11-14T22:13:54.5Z"})
    );
    assert!(
        report["title"].as_str().unwrap().starts_with("all 50 hosts are done: 50 ready after "),
        "{report}"
    );
    assert_eq!((&report["project"], &report["environment"]), (&json!("p"), &json!("dev")));
}

#[test]
fn a_host_that_boots_is_followed_to_its_end() {
    let host = FakeHost {
        states: vec!["pending", "running"],
        checks: vec!["initializing", "ok"],
        pings: vec!["", "Online"],
        ..FakeHost::ready().probes(vec![Probe::Working, running("modules-final"), done()])
    };
    let cloud = Cloud::new([(1, host)]);
    let outcome = run(&cloud, 1, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for words in [
        "instance pending",
        "waiting for its agent",
        "asking cloud-init",
        "cloud-init in modules-final",
        "host-1: ready: ",
    ] {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    assert_eq!(cloud.count("SendCommand"), 2, "one per window");
}

#[test]
fn an_error_of_cloud_init_is_a_verdict_with_its_words() {
    let failed = answer(
        None,
        &json!(["('scripts_user', RuntimeError('Runparts: 1 failures'))"]),
        &json!({}),
        true,
    );
    let cloud = Cloud::new([
        (1, FakeHost::ready().probes(vec![Probe::Answers(failed)])),
        (2, FakeHost::ready()),
    ]);
    let outcome = tool(&inventory(2)).aws(&cloud.endpoint()).actions().run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let words = "failed: modules-final: ('scripts_user', RuntimeError('Runparts: 1 failures')) (read /var/log/cloud-init-output.log on the host)";
    assert!(outcome.stdout.contains(words), "{}", outcome.stdout);
    assert!(
        outcome
            .stderr
            .contains("::error title=wait-for-cloud-init%3A host host-1::failed: modules-final"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.summary.contains("| ❌ | host `host-1` | failed |"), "{}", outcome.summary);
    assert_eq!(
        (outcome.outputs["failed"].as_str(), outcome.outputs["outcome"].as_str()),
        ("host-1", "verdict")
    );
}

#[test]
fn degraded_disabled_and_absent_are_what_the_flags_say() {
    let degraded = || {
        let text = answer(None, &json!([]), &json!({"WARNING": ["no route"]}), true);
        Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Answers(text)]))])
    };
    let warned = report(&degraded(), 1, 0, &[]);
    assert_eq!(warned["subjects"][0]["outcome"], "warned");
    assert!(
        warned["subjects"][0]["detail"]
            .as_str()
            .unwrap()
            .starts_with("degraded: modules-final: WARNING: no route")
    );
    assert_eq!(
        report(&degraded(), 1, 0, &["--degraded", "accept"])["subjects"][0]["outcome"],
        "success"
    );
    assert_eq!(
        report(&degraded(), 1, 1, &["--degraded", "fail"])["subjects"][0]["outcome"],
        "failed"
    );

    let old = || {
        let text = answer(None, &json!([]), &json!({"DEPRECATED": ["old key"]}), true);
        Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Answers(text)]))])
    };
    let both = ["--degraded", "fail", "--deprecated", "accept"];
    assert_eq!(report(&old(), 1, 0, &both)["subjects"][0]["outcome"], "success");
    assert_eq!(report(&old(), 1, 1, &both[..2])["subjects"][0]["outcome"], "failed");

    let text = "probe=1\nbinary=/usr/bin/cloud-init\nlong=status: disabled|boot_status_code: disabled-by-marker-file|\nend=1\n";
    let disabled =
        || Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Answers(text.into())]))]);
    let failed = report(&disabled(), 1, 1, &[]);
    assert!(
        failed["subjects"][0]["detail"]
            .as_str()
            .unwrap()
            .starts_with("disabled: cloud-init is off: disabled-by-marker-file")
    );
    assert_eq!(
        report(&disabled(), 1, 0, &["--disabled", "accept"])["subjects"][0]["outcome"],
        "success"
    );

    let absent = Cloud::new([(
        1,
        FakeHost::ready().probes(vec![Probe::Answers("probe=1\nbinary=\nlong=\nend=1\n".into())]),
    )]);
    assert_eq!(report(&absent, 1, 1, &[])["subjects"][0]["data"]["verdict"], "absent");
}

#[test]
fn an_instance_that_ec2_does_not_know_is_a_wrong_inventory() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    let outcome = run(&cloud, 2, &["--unknown-grace", "0s"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("error: ").count(), 1);
    let words =
        format!("error: EC2 in us-east-1 does not know `{}` (host `host-2`)\nhint: ", id(2));
    assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
}

#[test]
fn a_denied_call_names_the_missing_permission() {
    let check = |operation: &str, code: &'static str, permission: &str| {
        let cloud = Cloud::new([(1, FakeHost::ready())]);
        cloud.fault(operation, 400, code, 9);
        let outcome = run(&cloud, 1, &[]);
        assert_eq!(outcome.code, 5, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(&format!("needs `{permission}`")), "{}", outcome.stderr);
        assert_eq!(cloud.count(operation), 1, "a refusal is not repeated");
        cloud
    };
    check("DescribeInstances", "UnauthorizedOperation", "ec2:DescribeInstances");
    check(
        "DescribeInstanceInformation",
        "AccessDeniedException",
        "ssm:DescribeInstanceInformation",
    );
    let cloud =
        check("ListCommandInvocations", "AccessDeniedException", "ssm:ListCommandInvocations");
    assert_eq!(cloud.count("CancelCommand"), 1, "nothing is left behind");
}

#[test]
fn throttling_and_server_errors_change_no_verdict() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    cloud.fault("DescribeInstances", 503, "RequestLimitExceeded", 2);
    cloud.fault("SendCommand", 400, "ThrottlingException", 2);
    cloud.fault("ListCommandInvocations", 500, "InternalServerError", 1);
    assert_eq!(report(&cloud, 1, 0, &[])["subjects"][0]["data"]["verdict"], "ready");
}

#[test]
fn nobody_there_is_said_long_before_the_deadline() {
    let start = Instant::now();
    let outcome = tool(&inventory(1)).aws("http://127.0.0.1:9").run();
    assert_eq!(outcome.code, 6, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("error: ec2:DescribeInstances got no answer"),
        "{}",
        outcome.stderr
    );
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn nobody_there_until_a_short_deadline_is_not_a_late_host() {
    let outcome = tool(&inventory(1)).aws("http://127.0.0.1:9").args(["--timeout", "1s"]).run();
    assert_eq!(outcome.code, 6, "{}{}", outcome.stdout, outcome.stderr);
    assert!(
        outcome.stderr.contains("error: ec2:DescribeInstances got no answer"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("not known to EC2"), "{}", outcome.stderr);
}

#[test]
fn what_answers_in_the_place_of_aws_is_told_from_aws() {
    let page = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", page.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in page.incoming().flatten() {
            // The request fits into one read; an answer before it is read could be lost.
            let _ = stream.read(&mut [0; 8192]);
            let page = "HTTP/1.1 403 Forbidden\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{\"a\": 1}";
            let _ = stream.write_all(page.as_bytes());
        }
    });
    let outcome = tool(&inventory(1)).aws(&address).run();
    assert_eq!(outcome.code, 6, "{}", outcome.stderr);
    let words = "got no answer: HTTP status 403, and no answer as AWS writes it";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
}

#[test]
fn an_ec2_that_only_fails_is_said_once_and_ends_with_its_error() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    cloud.fault("DescribeInstances", 503, "RequestLimitExceeded", 1000);
    let outcome = run(&cloud, 1, &["--timeout", "12s"]);
    assert_eq!(outcome.code, 6, "{}{}", outcome.stdout, outcome.stderr);
    let words = "error: ec2:DescribeInstances got no answer";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    assert!(outcome.stderr.matches("trying again").count() <= 1, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("not known to EC2"), "{}", outcome.stderr);
}

#[test]
fn a_service_that_fails_until_the_deadline_is_named_in_the_cause() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    cloud.fault("DescribeInstanceInformation", 500, "InternalServerError", 1000);
    let report = report(&cloud, 1, 4, &["--timeout", "12s"]);
    let data = &report["subjects"][0]["data"];
    assert_eq!(data["verdict"], "timed-out", "nobody knows whether its agent is online");
    let cause = data["cause"].as_str().unwrap();
    let words = "the last call failed: ssm:DescribeInstanceInformation got no answer: ";
    assert!(cause.starts_with(words) && cause.contains("InternalServerError"), "{cause}");
}

#[test]
fn an_unknown_instance_at_a_deadline_before_the_grace_is_a_wrong_inventory_too() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    let outcome = run(&cloud, 2, &["--timeout", "2s"]);
    assert_eq!(outcome.code, 2, "{}{}", outcome.stdout, outcome.stderr);
    let words =
        format!("error: EC2 in us-east-1 does not know `{}` (host `host-2`)\nhint: ", id(2));
    assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
}

#[test]
fn the_deadline_holds_and_says_how_far_each_host_came() {
    let cloud = Cloud::new([
        (1, FakeHost::ready().probes(vec![Probe::Working])),
        (2, FakeHost { pings: vec![""], ..FakeHost::ready() }),
        (3, FakeHost { checks: vec!["impaired"], ..FakeHost::ready() }),
        (4, FakeHost { states: vec!["pending"], ..FakeHost::ready() }),
        (5, FakeHost { pings: vec!["ConnectionLost"], ..FakeHost::ready() }),
        (6, FakeHost::ready()),
    ]);
    let start = Instant::now();
    let report = report(&cloud, 6, 4, &["--timeout", "4s"]);
    assert!((4..6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let seen: Vec<(&str, &str)> = report["subjects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            (host["data"]["verdict"].as_str().unwrap(), host["data"]["stage"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("timed-out", "cloud-init"),
            ("never-online", "agent"),
            ("timed-out", "instance"),
            ("timed-out", "instance"),
            ("timed-out", "agent"),
            ("ready", "cloud-init")
        ]
    );
    let cause = |host: usize| report["subjects"][host]["data"]["cause"].as_str().unwrap();
    assert!(cause(1).contains("it has no instance profile, its subnet subnet-1"), "{}", cause(1));
    let console = "; its console ends: Booting | Gave up waiting for root file system device.";
    assert!(cause(1).ends_with(console) && cause(4).ends_with(console), "{}", cause(1));
    assert_eq!(report["subjects"][1]["data"]["console"][0], "Booting");
    assert_eq!(cloud.count("GetConsoleOutput"), 2, "only of hosts that cannot speak");
    assert!(cause(2).contains("system impaired"), "{}", cause(2));
    assert!(cause(4).contains("silent since 2023-11-14T22:13:20Z"), "{}", cause(4));
    let sent = cloud.count("SendCommand");
    assert_eq!(cloud.count("CancelCommand"), sent, "every question that is out");
}

#[test]
fn a_console_that_may_not_be_read_is_no_error_but_said() {
    let cloud = Cloud::new([(1, FakeHost { pings: vec![""], ..FakeHost::ready() })]);
    cloud.fault("GetConsoleOutput", 403, "UnauthorizedOperation", 1);
    let report = report(&cloud, 1, 4, &["--timeout", "2s"]);
    let cause = report["subjects"][0]["data"]["cause"].as_str().unwrap();
    assert!(cause.contains("its console was not read: ec2:GetConsoleOutput was denied"), "{cause}");
}

#[test]
fn a_late_answer_counts() {
    let cloud = Cloud::new([(
        1,
        FakeHost::ready().probes(vec![Probe::LateAnswers(answer(
            None,
            &json!([]),
            &json!({}),
            true,
        ))]),
    )]);
    assert_eq!(report(&cloud, 1, 0, &[])["subjects"][0]["data"]["verdict"], "ready");
    assert_eq!(cloud.count("SendCommand"), 2);
}

#[test]
fn the_step_summary_draws_the_boot() {
    let cloud = Cloud::new([(1, FakeHost::ready())]);
    let outcome = tool(&inventory(1)).aws(&cloud.endpoint()).actions().run();
    let chart = "```mermaid\ngantt\n  dateFormat x\n  axisFormat %M:%S\n  section host-1\n  until cloud-init :0, 4000\n  \
                 init-local :4000, 5000\n  modules-final :20000, 34500\n```\n";
    assert!(outcome.summary.contains(chart), "{}", outcome.summary);
}

#[test]
fn a_secret_in_what_a_host_says_is_shown_nowhere() {
    let words = "Command: ['mysql', '--password=hunter2'] failed; DB_TOKEN=hunter2";
    let text = answer(None, &json!([words]), &json!({}), true);
    let cloud = Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Answers(text)]))]);
    let tool = tool(&inventory(1)).aws(&cloud.endpoint()).actions();
    let outcome = tool.args(["--format", "json", "--verbose"]).run();
    assert!(outcome.stdout.contains("--password=***"), "{}", outcome.stdout);
    let all = format!("{}{}{}", outcome.stdout, outcome.stderr, outcome.summary);
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn a_hopeless_host_ends_the_wait_early() {
    let gone = FakeHost {
        states: vec!["terminated"],
        reason: "Server.SpotInstanceTermination",
        ..FakeHost::ready()
    };
    let cloud = Cloud::new([(1, gone), (2, FakeHost::ready().probes(vec![Probe::Working]))]);
    let start = Instant::now();
    let report = report(&cloud, 2, 1, &["--linger", "1s"]);
    assert!(start.elapsed() < Duration::from_secs(10));
    let hosts = &report["subjects"];
    assert_eq!(hosts[0]["data"]["verdict"], "terminated");
    assert!(
        hosts[0]["detail"]
            .as_str()
            .unwrap()
            .contains("EC2 says terminated: Server.SpotInstanceTermination")
    );
    assert_eq!(
        (&hosts[1]["data"]["verdict"], &hosts[1]["outcome"]),
        (&json!("pending"), &json!("unknown"))
    );
}

#[test]
fn a_host_that_goes_while_it_is_asked_is_noticed() {
    // Running when first seen; the status checks already tell of the end.
    let host = FakeHost {
        states: vec!["running", "stopping"],
        reason: "Client.UserInitiatedShutdown",
        ..FakeHost::ready().probes(vec![Probe::Working])
    };
    let cloud = Cloud::new([(1, host)]);
    let report = report(&cloud, 1, 1, &[]);
    assert_eq!(report["subjects"][0]["data"]["verdict"], "stopped");
}

#[test]
fn a_probe_lost_to_a_reboot_is_sent_again() {
    let host = FakeHost {
        pings: vec!["Online", "ConnectionLost", "Online"],
        ..FakeHost::ready().probes(vec![Probe::Lost("DeliveryTimedOut"), done()])
    };
    let cloud = Cloud::new([(1, host)]);
    assert_eq!(report(&cloud, 1, 0, &[])["subjects"][0]["data"]["verdict"], "ready");
    assert_eq!(cloud.count("SendCommand"), 2);
}

#[test]
fn an_answer_that_the_list_cut_is_fetched_whole() {
    let text = answer(None, &json!(["x".repeat(4000)]), &json!({}), true);
    let cloud = Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Long(text)]))]);
    let report = report(&cloud, 1, 1, &[]);
    assert_eq!(report["subjects"][0]["data"]["verdict"], "failed");
    assert!(report.to_string().len() < 3000, "what the host said is cut");
    assert_eq!(cloud.count("GetCommandInvocation"), 1);
}

#[test]
fn ctrl_c_cancels_the_probe_and_shows_what_is_known() {
    let cloud =
        Cloud::new([(1, FakeHost::ready().probes(vec![Probe::Working])), (2, FakeHost::ready())]);
    let tool = tool(&inventory(2)).aws(&cloud.endpoint());
    let child = tool.spawn();
    while cloud.count("ListCommandInvocations") == 0 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("host-1  pending: its agent is online"), "{stdout}");
    assert_eq!(cloud.count("CancelCommand"), 1);
}
