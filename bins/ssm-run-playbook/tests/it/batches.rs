//! Hosts in waves.

use crate::double::{Double, Fault};
use crate::stops::{own, signal, sleeps, until};
use crate::{FIRST, Repository, SECOND, ended};
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::time::Duration;

const THIRD: &str = "i-0000000000000000c";
const FAILS_ON: &str =
    "- name: Decide\n  ansible.builtin.assert:\n    that: inventory_hostname != 'sip-1'\n";

fn repository(tasks: &str) -> Repository {
    let repository = Repository::new(tasks);
    repository.inventory(&[
        ("sip-1", Some(FIRST)),
        ("sip-2", Some(SECOND)),
        ("sip-3", Some(THIRD)),
    ]);
    repository
}

#[test]
fn a_bad_batch_leaves_the_other_hosts_alone_and_names_them() {
    let repository = repository(FAILS_ON);
    let double = Double::start(&[]);
    let args = [
        "--limit",
        "all",
        "--batch",
        "1,100%",
        "--between-batches",
        "touch between",
        "--junit",
        "out/junit.xml",
    ];
    let outcome = repository.tool(&double, &args).actions().run();
    ended(
        &outcome,
        1,
        &[
            "playbooks/site.yml: 1 of 3 hosts not good, 2 not touched",
            "not touched: batch 1 had 1 of 1 hosts not good: sip-2, sip-3",
            "sip-1: failed",
        ],
    );
    assert!(outcome.summary.contains("```mermaid\ngantt") && outcome.summary.contains("sip-3"));
    let junit = fs::read_to_string(repository.path().join("out/junit.xml")).unwrap();
    assert!(junit.contains(r#"tests="3" failures="1" errors="0" skipped="2""#), "{junit}");
    assert!(!repository.path().join("between").exists());
    assert_eq!(outcome.outputs["untouched"], "2");
    assert_eq!(outcome.outputs["failed"], "1");
    let subject = &repository.report()["subjects"][2];
    assert_eq!(subject["elapsed_ms"], 0);
    assert_eq!(
        (subject["name"].as_str(), subject["outcome"].as_str()),
        (Some("sip-3"), Some("skipped"))
    );
    assert!(double.bodies_of("SendCommand").iter().all(|body| !body.contains(SECOND)));
}

#[test]
fn a_batch_may_have_as_many_errors_as_allowed_and_the_command_between_decides() {
    let repository = repository(FAILS_ON);
    let double = Double::start(&[]);
    let between =
        "echo \"$HOSTS_DONE then $HOSTS_NEXT\" | tee -a order; [ \"$HOSTS_NEXT\" != sip-3 ]";
    let args =
        ["--limit", "all", "--batch", "1", "--max-errors", "100%", "--between-batches", between];
    let outcome = repository.tool(&double, &args).run();
    ended(
        &outcome,
        1,
        &[
            "1 of 3 hosts not good, 1 not touched; stopped before batch 3: `echo",
            "sip-1,sip-2 then sip-3",
        ],
    );
    let order = fs::read_to_string(repository.path().join("order")).unwrap();
    assert_eq!(order, "sip-1 then sip-2\nsip-1,sip-2 then sip-3\n");
    assert!(double.base(SECOND).join("runs").exists() && !double.base(THIRD).exists());
}

#[test]
fn the_end_of_a_run_ends_all_that_the_command_between_batches_started() {
    let repository = repository("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[]);
    let between = "sh -c 'echo $$ > child; exec sleep 300' & wait";
    let args = ["--limit", "all", "--batch", "1", "--timeout", "8s", "--between-batches", between];
    let outcome = repository.tool(&double, &args).run();
    assert_ne!(outcome.code, 0);
    let child = fs::read_to_string(repository.path().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // Ended, and perhaps not yet collected by the process that adopted it.
    let lives = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    let start = std::time::Instant::now();
    while lives() && start.elapsed().as_secs() < 5 {
        std::thread::yield_now();
    }
    assert!(!lives(), "the sleep goes on");
}

#[test]
fn a_host_that_no_play_matches_is_neither_asked_nor_counted() {
    let repository = repository("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let play = |hosts: &str| format!("- hosts: {hosts}\n  gather_facts: false\n  roles: [demo]\n");
    let site = play("sip:!sip-2:!sip-3") + "- import_playbook: more.yml\n";
    repository.write("ansible/playbooks/site.yml", site);
    repository.write("ansible/playbooks/more.yml", play("sip-3"));
    // Its agent is away, and every call that names it would fail.
    let double = Double::start(&[Fault::Gone]);
    let outcome = repository.tool(&double, &["--limit", "all", "--batch", "50%"]).actions().run();
    let said = ["no play matches sip-2: not asked", "batch 1 of 2: sip-1\n", "2 of 2 hosts good"];
    ended(&outcome, 0, &said);
    assert!(!outcome.stdout.contains("sip-2"), "{}", outcome.stdout);
    assert_eq!((outcome.outputs["untouched"].as_str(), double.base(SECOND).exists()), ("0", false));
    let subject = &repository.report()["subjects"][2];
    assert_eq!(
        (&subject["name"], &subject["outcome"], &subject["detail"]),
        (&"sip-2".into(), &"skipped".into(), &"no play matches it; it was not asked".into())
    );
    let args = ["--limit", "all", "--print-bundle", "--format", "json"];
    let outcome = repository.tool(&double, &args).run();
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let expected = json!([["sip-1", "sip-3"], ["sip-2"]]);
    assert_eq!(json!([document["hosts"], document["unmatched"]]), expected);
}

#[test]
fn errors_allowed_without_batches_spare_nobody_and_that_is_said() {
    let repository = repository(FAILS_ON);
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &["--max-errors", "0"]).run();
    ended(
        &outcome,
        1,
        &["1 of 1 hosts not good", "`--max-errors` spares no host without `--batch`"],
    );
    assert!(double.bodies_of("SendCommand")[0].contains(r#""MaxErrors":"100%""#));
}

/// One that changes `sip-1` and then holds `sip-2` for ever.
fn sleeping_on_second(seconds: &str) -> Repository {
    repository(&format!(
        "- name: Begin\n  ansible.builtin.command: 'true'\n- name: Sleep\n  ansible.builtin.command: sleep {seconds}\n  \
         when: inventory_hostname == 'sip-2'\n"
    ))
}

#[test]
fn a_signal_leaves_the_later_batches_alone_loses_no_log_and_no_object_stays_in_the_bucket() {
    let seconds = own(3000, 3);
    let repository = sleeping_on_second(&seconds);
    let double = Double::start(&[]);
    let url = double.url().replace("127.0.0.1", "localhost");
    let args = ["--limit", "all", "--batch", "1", "--bucket", "bundles", "--log-dir", "logs"];
    let tool = repository.tool(&double, &args).env("AWS_ENDPOINT_URL_S3", url);
    let mut child = tool.spawn();
    until("the task", Duration::from_secs(30), || sleeps(&seconds));
    assert_eq!(double.objects().len(), 1);
    // As when the terminal is lost.
    signal(&child, "-HUP");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("not touched: the run was stopped: sip-3"), "{text}");
    let log = fs::read_to_string(repository.path().join("logs/sip-1.log")).unwrap();
    assert!(log.contains("TASK [demo : Begin]"), "{log}");
    assert_eq!(double.objects(), Vec::<String>::new());
}

#[test]
fn what_is_known_is_not_lost_when_aws_denies_the_rest() {
    let seconds = own(3000, 4);
    let repository = sleeping_on_second(&seconds);
    let double = Double::start(&[]);
    let child = repository.tool(&double, &["--limit", "all", "--batch", "1"]).spawn();
    until("the task", Duration::from_secs(30), || sleeps(&seconds));
    double.fault(Fault::Deny);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    for said in [
        "playbooks/site.yml: 1 of 3 hosts not good, 1 not touched; ssm:ListCommandInvocations was denied",
        "not touched: the run was broken off: sip-3",
        "sip-2: it may run on, up to `--timeout`; `--lock-wait` waits for it",
        "each host keeps the log in ",
        "cannot cancel command",
    ] {
        assert!(text.contains(said), "{text}");
    }
    let report = repository.report();
    let subjects = &report["subjects"];
    assert_eq!(
        (&subjects[0]["outcome"], &subjects[0]["data"]["changed"]),
        (&"success".into(), &1.into())
    );
    assert_eq!(subjects[1]["outcome"], "unknown");
}

#[test]
fn sizes_that_mean_nothing_are_refused() {
    let repository = repository(FAILS_ON);
    let double = Double::start(&[]);
    for (args, said) in [
        (["--batch", "0"], "a batch has at least one host"),
        (["--batch", "1,x"], "neither a number nor a percentage"),
        (["--max-errors", "101%"], "neither a number nor a percentage"),
        (["--between-batches", "true"], "--batch"),
    ] {
        ended(&repository.tool(&double, &args).run(), 2, &[said]);
    }
    assert!(double.operations().is_empty());
}
