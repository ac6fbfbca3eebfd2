//! The real binary against a double of a SIP service on real sockets, and its bad input.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking")]

mod double;

use deploy_testkit::{Outcome, Tool};
use double::{Audio, Behaviour, Double, field};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::time::Instant;

const PASSWORD: &str = "open sesame";

fn tool(args: &[&str]) -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_smoke-test-sip")).args(args)
}

fn target(double: &Double, transport: &str) -> String {
    format!("sip:{};transport={transport}", double.address)
}

/// All steps against a double; what it prints is the report.
fn all_steps(double: &Double, transport: &str, extra: &[&str]) -> (Outcome, Value) {
    let target = target(double, transport);
    let outcome = tool(&[
        "--target",
        &target,
        "--user",
        "1001",
        "--password-env",
        "PW",
        "--call",
        "600",
        "--media",
        "400ms",
    ])
    .args(["--format", "json"])
    .args(extra)
    .env("PW", PASSWORD)
    .run();
    let report = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    (outcome, report)
}

fn steps(report: &Value) -> String {
    let subjects = report["subjects"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    subjects
        .map(|subject| format!("{}={}", text(&subject["name"]), text(&subject["outcome"])))
        .collect::<Vec<_>>()
        .join(" ")
}

fn detail(report: &Value, step: &str) -> String {
    let subjects = report["subjects"].as_array().unwrap();
    let found = subjects.iter().find(|subject| subject["name"] == step).unwrap();
    found["detail"].as_str().unwrap().to_owned()
}

const ALL_GOOD: &str =
    "options=success register=success call=success media=success bye=success unregister=success";

#[test]
fn a_healthy_service_passes_every_step_over_udp() {
    let double = Double::udp(Behaviour::default());
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(steps(&report), ALL_GOOD);
    let media = &report["subjects"][3]["data"];
    assert_eq!(
        (&media["packets_sent"], &media["packets_received"]),
        (&Value::from(20), &Value::from(20))
    );
    assert_eq!(media["tone_packets"], 20);
    assert_eq!(
        double.requests().join(" "),
        "OPTIONS REGISTER REGISTER+auth INVITE ACK INVITE+auth ACK+auth BYE REGISTER REGISTER+auth"
    );
}

#[test]
fn a_healthy_service_passes_every_step_over_tcp() {
    let double = Double::tcp(Behaviour::default());
    let (outcome, report) = all_steps(&double, "tcp", &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(steps(&report), ALL_GOOD);
    assert!(double.raw()[1].contains("\r\nVia: SIP/2.0/TCP 127.0.0.1:"));
}

#[test]
fn the_strongest_digest_is_used_and_qop_may_be_missing() {
    let check = |challenges: &[&'static str], algorithm: &str| {
        let double =
            Double::udp(Behaviour { challenges: challenges.to_vec(), ..Behaviour::default() });
        let (outcome, report) = all_steps(&double, "udp", &[]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_eq!(report["subjects"][1]["data"]["algorithm"], algorithm);
    };
    check(
        &["algorithm=MD5", "algorithm=SHA-256, qop=\"auth,auth-int\"", "algorithm=NEW"],
        "SHA-256",
    );
    check(&["algorithm=MD5"], "MD5");
}

#[test]
fn a_stale_nonce_is_no_wrong_password() {
    let double = Double::udp(Behaviour { stale_once: true, ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!((outcome.code, steps(&report).as_str()), (0, ALL_GOOD), "{outcome:?}");
}

#[test]
fn a_lost_first_packet_costs_half_a_second() {
    let double = Double::udp(Behaviour { drop_first: true, ..Behaviour::default() });
    let started = Instant::now();
    let outcome = tool(&["--target", &target(&double, "udp"), "--timeout", "5s"]).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
    assert!(outcome.stdout.starts_with("smoke-test-sip: 127.0.0.1:"), "{}", outcome.stdout);
}

#[test]
fn a_wrong_password_is_a_verdict_after_one_login() {
    let double = Double::udp(Behaviour { password: "another", ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &["--wait", "30s"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(
        steps(&report),
        "options=success register=failed call=skipped media=skipped bye=skipped unregister=skipped"
    );
    assert!(
        detail(&report, "register")
            .starts_with("credentials rejected: REGISTER as `1001` in realm `double`")
    );
    assert_eq!(double.requests().join(" "), "OPTIONS REGISTER REGISTER+auth");
}

#[test]
fn a_silent_service_is_a_timeout_and_says_how_often_it_was_asked() {
    let double = Double::udp(Behaviour { silent: true, ..Behaviour::default() });
    let outcome =
        tool(&["--target", &target(&double, "udp"), "--timeout", "1s", "--format", "json"]).run();
    assert_eq!(outcome.code, 4, "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["outcome"], "timeout");
    assert!(detail(&report, "options").contains("no answer (timeout) to OPTIONS"), "{report}");
    assert_eq!(double.requests().join(" "), "OPTIONS OPTIONS");
}

#[test]
fn a_closed_port_is_a_verdict_and_waiting_for_it_keeps_the_deadline() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = tool(&["--target", &format!("sip:{free}")]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("refused UDP: nothing listens there"), "{}", outcome.stdout);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = Instant::now();
    let outcome = tool(&["--target", &format!("sip:{free};transport=tcp"), "--wait", "2s"]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!((1000..3000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[test]
fn waiting_ends_when_the_service_becomes_healthy() {
    let double = Double::udp(Behaviour { first_options: vec![503], ..Behaviour::default() });
    let outcome = tool(&["--target", &target(&double, "udp")]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let double = Double::udp(Behaviour { first_options: vec![503], ..Behaviour::default() });
    let outcome = tool(&["--target", &target(&double, "udp"), "--wait", "30s"]).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn a_missing_extension_fails_the_call_and_the_binding_is_taken_back() {
    let double = Double::udp(Behaviour { invite_status: 404, ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(
        steps(&report),
        "options=success register=success call=failed media=skipped bye=skipped unregister=success"
    );
    assert!(
        detail(&report, "call").contains("404")
            && detail(&report, "call").contains("does the extension exist")
    );
    // Both final answers to INVITE, the challenge and the refusal, are acknowledged.
    assert_eq!(double.requests().iter().filter(|request| request.starts_with("ACK")).count(), 2);
}

#[test]
fn a_call_that_only_rings_is_cancelled() {
    let double = Double::udp(Behaviour { rings: true, ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &["--timeout", "600ms"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(detail(&report, "call").contains("with 180 only"), "{report}");
    let requests = double.requests().join(" ");
    assert!(requests.ends_with("INVITE+auth CANCEL ACK REGISTER REGISTER+auth"), "{requests}");
}

#[test]
fn audio_that_does_not_come_back_as_sent_is_a_verdict() {
    let check = |audio: Audio, expected: &str| {
        let double = Double::udp(Behaviour { audio, ..Behaviour::default() });
        let (outcome, report) = all_steps(&double, "udp", &[]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert_eq!(steps(&report), ALL_GOOD.replace("media=success", "media=failed"));
        assert!(detail(&report, "media").contains(expected), "{report}");
        assert_eq!(report["subjects"][3]["data"]["packets_sent"], 20);
    };
    check(Audio::Nothing, "no audio came back from 127.0.0.1:");
    check(Audio::Silence, "only 0 of 20 packets that came back hold the ");
}

#[test]
fn a_call_that_the_other_side_ends_is_a_verdict() {
    let double = Double::udp(Behaviour { asks: Some("BYE"), ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(
        steps(&report),
        "options=success register=success call=success media=failed bye=skipped unregister=success"
    );
    assert!(detail(&report, "media").starts_with("the other side ended the call"), "{report}");
}

#[test]
fn what_the_other_side_asks_inside_the_call_is_answered() {
    let check = |method: &'static str, status: &str| {
        let double = Double::udp(Behaviour { asks: Some(method), ..Behaviour::default() });
        let (outcome, _) = all_steps(&double, "udp", &[]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let answers = double.raw().into_iter().filter(|text| text.starts_with("SIP/2.0 "));
        let answers: Vec<String> =
            answers.filter(|text| field(text, "CSeq") == Some(&format!("1 {method}"))).collect();
        assert!(answers.len() == 1 && answers[0].starts_with(status), "{answers:?}");
    };
    check("OPTIONS", "SIP/2.0 200 ");
    check("NOTIFY", "SIP/2.0 200 ");
    check("INVITE", "SIP/2.0 488 ");
    check("REFER", "SIP/2.0 405 ");
}

#[test]
fn a_contact_that_leads_nowhere_is_named_and_the_call_is_ended_nevertheless() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let double = Double::udp(Behaviour { contact: Some(closed), ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(
        steps(&report),
        ALL_GOOD.replace("call=success", "call=warned").replace("bye=success", "bye=failed")
    );
    assert!(
        detail(&report, "bye").contains("does the service announce its public address"),
        "{report}"
    );
    assert_eq!(double.requests().iter().filter(|request| *request == "BYE").count(), 1);
}

#[test]
fn a_repeated_ok_is_acknowledged_again() {
    let double = Double::udp(Behaviour { repeats_ok: true, ..Behaviour::default() });
    let (outcome, _) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(double.requests().iter().filter(|request| *request == "ACK+auth").count(), 2);
}

#[test]
fn a_binding_that_stays_is_a_verdict() {
    let double = Double::udp(Behaviour { keeps_binding: true, ..Behaviour::default() });
    let (outcome, report) = all_steps(&double, "udp", &[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(detail(&report, "unregister").contains("our contact is still listed"), "{report}");
}

#[test]
fn what_is_no_sip_is_called_so() {
    for garbage in
        [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b"SIP/2.0 200 OK\r\n\r\n", b"\0\xff"]
    {
        let double = Double::udp(Behaviour { garbage: Some(garbage), ..Behaviour::default() });
        let outcome = tool(&["--target", &target(&double, "udp"), "--timeout", "300ms"]).run();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stdout.contains("something that is no SIP"), "{}", outcome.stdout);
    }
    let double = Double::tcp(Behaviour {
        garbage: Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ..Behaviour::default()
    });
    let outcome = tool(&["--target", &target(&double, "tcp"), "--timeout", "3s"]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("something that is no SIP"), "{}", outcome.stdout);
}

#[test]
fn neither_password_nor_credentials_are_ever_printed() {
    let double = Double::udp(Behaviour::default());
    let call = tool(&[
        "--target",
        &target(&double, "udp"),
        "--user",
        "1001",
        "--password-file",
        "password",
        "--verbose",
    ]);
    fs::write(call.home().join("password"), format!("{PASSWORD}\n")).unwrap();
    let report = call.home().join("report.json");
    let outcome = call.args(["--report".as_ref(), report.as_os_str()]).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let sent = double.raw();
    let login = sent.iter().find_map(|request| field(request, "Authorization")).unwrap();
    let response = login.split("response=\"").nth(1).unwrap().split('"').next().unwrap();
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.contains(PASSWORD) && !text.contains(response), "{text}");
    }
    assert!(
        outcome.stderr.contains("Authorization: Digest ***")
            && outcome.stderr.contains("SIP/2.0 200")
    );
}

#[test]
fn in_actions_the_password_is_masked_first_and_the_figures_are_outputs() {
    let double = Double::udp(Behaviour::default());
    let args = ["--user", "1001", "--password-env", "PW", "--call", "600", "--media", "400ms"];
    let outcome =
        tool(&["--target", &target(&double, "udp")]).args(args).env("PW", PASSWORD).actions().run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().next(), Some("::add-mask::open sesame"));
    assert_eq!(outcome.outputs["outcome"], "success");
    assert_eq!(outcome.outputs["packets-sent"], "20");
    assert_eq!(outcome.outputs["packets-received"], "20");
    assert_eq!(outcome.outputs["loss-percent"], "0.0");
    assert!(outcome.outputs.contains_key("jitter-ms"));
    assert!(outcome.summary.contains("| ✅ | check `media` | success |"), "{}", outcome.summary);
}

#[test]
fn an_inventory_names_the_services_and_junit_has_every_step() {
    let first = Double::udp(Behaviour::default());
    let second = Double::udp(Behaviour { silent: true, ..Behaviour::default() });
    let call = tool(&[
        "--inventory",
        "inventory.json",
        "--limit",
        "sip",
        "--timeout",
        "300ms",
        "--junit",
        "out/sip.xml",
    ]);
    let inventory = serde_json::json!({"all": {
        "vars": {"deploy_project": "demo", "deploy_environment": "dev", "sip_domain": "sip.example"},
        "hosts": {
            "sip-1": {"public_ip": "127.0.0.1", "sip_port": first.address.port()},
            "sip-2": {"public_ip": "127.0.0.1", "sip_port": second.address.port().to_string()},
            "db-1": {},
        },
        "children": {"sip": {"hosts": {"sip-1": {}, "sip-2": {}}}, "database": {"hosts": {"db-1": {}}}},
    }});
    fs::write(call.home().join("inventory.json"), inventory.to_string()).unwrap();
    let (junit, report) = (call.home().join("out/sip.xml"), call.home().join("report.json"));
    let mut child = call.args(["--report", "report.json"]).spawn_here();
    let code = child.child.wait().unwrap().code();
    assert_eq!(code, Some(4));
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!((&report["project"], &report["environment"]), (&"demo".into(), &"dev".into()));
    assert!(
        report["title"]
            .as_str()
            .unwrap()
            .starts_with("1 of 2 targets failed: sip-2 options: no answer"),
        "{report}"
    );
    assert_eq!(report["subjects"][0]["name"], "sip-1 options");
    assert!(fs::read_to_string(junit).unwrap().contains("tests=\"12\" failures=\"1\""));
    assert!(
        first.raw()[0].starts_with("OPTIONS sip:sip.example SIP/2.0\r\n"),
        "{}",
        first.raw()[0]
    );
}

#[test]
fn a_signal_ends_the_call_and_the_binding() {
    for (signal, code) in
        [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)]
    {
        let double = Double::udp(Behaviour::default());
        let args = ["--user", "1001", "--password-env", "PW", "--call", "600", "--media", "60s"];
        let call = tool(&["--target", &target(&double, "udp")]).args(args).env("PW", PASSWORD);
        let mut running = call.spawn_here();
        let mut lines =
            BufReader::new(running.child.stderr.take().unwrap()).lines().map_while(Result::ok);
        lines.find(|line| line.contains("Hz to 127.0.0.1:")).expect("it says that it sends audio");
        let started = Instant::now();
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(running.child.wait().unwrap().code(), Some(code));
        assert!(started.elapsed().as_secs() < 2);
        let requests = double.requests().join(" ");
        assert!(requests.ends_with("ACK+auth BYE REGISTER REGISTER+auth"), "{requests}");
    }
}

#[test]
fn a_signal_while_it_rings_cancels_the_call() {
    let double = Double::udp(Behaviour { rings: true, ..Behaviour::default() });
    let args = ["--user", "1001", "--password-env", "PW", "--call", "600", "--verbose"];
    let call = tool(&["--target", &target(&double, "udp")]).args(args).env("PW", PASSWORD);
    let mut running = call.spawn_here();
    let mut lines =
        BufReader::new(running.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("SIP/2.0 180")).expect("it shows the ringing");
    let drain = std::thread::spawn(move || lines.count());
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(130));
    drain.join().unwrap();
    let requests = double.requests().join(" ");
    assert!(requests.ends_with("INVITE+auth CANCEL ACK REGISTER REGISTER+auth"), "{requests}");
}

#[test]
fn bad_input_is_one_clear_error_before_any_packet() {
    let check = |args: &[&str], code: i32, expected: &str| {
        let outcome = tool(args).run();
        assert_eq!(outcome.code, code, "{args:?} {outcome:?}");
        assert!(outcome.stderr.contains(expected), "{args:?} {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error:").count(), 1, "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    };
    let target = ["--target", "sip:127.0.0.1:9"];
    let with = |extra: &[&'static str]| [&target, extra].concat();
    check(&[], 2, "required");
    check(&["--target", "sip:127.0.0.1:0"], 2, "bad port `0`");
    check(&["--target", "sip:127.0.0.1:65536"], 2, "bad port `65536`");
    check(&["--target", "127.0.0.1"], 2, "expected `sip:`");
    check(
        &["--target", "sips:127.0.0.1"],
        2,
        "TLS (`sips:`) is not supported; supported are `udp` and `tcp`",
    );
    check(&["--target", "sip:h;transport=wss"], 2, "transport `wss` is not supported");
    check(&with(&["--transport", "tls"]), 2, "transport `tls` is not supported");
    check(&with(&["--inventory", "x"]), 2, "cannot be used with");
    check(&with(&["--limit", "sip"]), 2, "cannot be used with '--limit <PATTERN>'");
    check(&with(&["--media", "1s"]), 2, "--call");
    check(&with(&["--user", ""]), 2, "expected a user name");
    check(
        &with(&["--user", "1001"]),
        2,
        "error: user `1001` has no password\nhint: name a variable",
    );
    check(
        &with(&["--user", "1001", "--password-env", "NOT_SET"]),
        2,
        "`NOT_SET` is not set or empty",
    );
    check(&with(&["--user", "1001", "--password-file", "missing"]), 2, "cannot read `missing`");
    check(
        &with(&["--user", "1001", "--password-file", "/dev/null"]),
        2,
        "the password file `/dev/null` is empty",
    );
    check(&with(&["--call", "sip:host"]), 2, "it names nobody to call");
    check(&with(&["--wait", "soon"]), 2, "expected a duration");
    check(&["--inventory", "missing.json"], 2, "cannot read the inventory `missing.json`");
}

#[test]
fn an_inventory_that_cannot_be_used_says_which_host_is_wrong() {
    let check = |host: Value, args: &[&str], code: i32, expected: &str| {
        let call = tool(&["--inventory", "inventory.json"]).args(args);
        let inventory =
            serde_json::json!({"all": {"hosts": {"sip-1": host}, "children": {"empty": {}}}});
        fs::write(call.home().join("inventory.json"), inventory.to_string()).unwrap();
        let outcome = call.run();
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    };
    check(
        serde_json::json!({}),
        &[],
        2,
        "host `sip-1` has no public address in the inventory\nhint: leave the host out",
    );
    check(serde_json::json!({"public_ip": "nowhere"}), &[], 2, "`public_ip` = `nowhere`");
    check(serde_json::json!({"public_ip": "127.0.0.1", "sip_port": 0}), &[], 2, "`sip_port` = `0`");
    check(
        serde_json::json!({"public_ip": "127.0.0.1", "sip_domain": "a b"}),
        &[],
        2,
        "`sip_domain` = `a b`",
    );
    check(serde_json::json!({}), &["--limit", "nothing"], 2, "bad `--limit`");
    check(
        serde_json::json!({}),
        &["--limit", "all:!sip-1"],
        3,
        "no host in `inventory.json` matches `all:!sip-1`",
    );
}

#[test]
fn a_name_that_does_not_resolve_is_unavailable_not_usage() {
    let outcome = tool(&["--target", "sip:no-such-host.invalid"]).run();
    assert_eq!(outcome.code, 6, "{outcome:?}");
    assert!(outcome.stdout.contains("cannot resolve `no-such-host.invalid`"), "{}", outcome.stdout);
}

/// A running tool; its home folder lives as long.
struct Running {
    child: std::process::Child,
    _tool: Tool,
}

trait SpawnHere {
    fn spawn_here(self) -> Running;
}

impl SpawnHere for Tool {
    fn spawn_here(self) -> Running {
        Running { child: self.spawn(), _tool: self }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_documents_itself() {
    let program = env!("CARGO_BIN_EXE_smoke-test-sip");
    deploy_testkit::manual_can_be_read(program);
    deploy_testkit::readme_shows_help(program, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
