//! Runs that are ended from outside: signals, deadlines, locks.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, SECOND, ended};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SLEEPS: &str = "- name: Begin\n  ansible.builtin.file:\n    path: MARK\n    state: touch\n    mode: '0600'\n\
    - name: Sleep\n  ansible.builtin.command: sleep SECONDS\n  changed_when: false\n\
    - name: After\n  ansible.builtin.file:\n    path: MARK-after\n    state: touch\n    mode: '0600'\n";

fn sleeping(mark: &Path, seconds: &str) -> Repository {
    Repository::new(
        &SLEEPS.replace("MARK", &mark.display().to_string()).replace("SECONDS", seconds),
    )
}

#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what} took more than {limit:?}");
        // The processor is for what is waited for.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A time to sleep that no other run of these tests on this machine has.
pub(crate) fn own(seconds: u32, test: u32) -> String {
    format!("{seconds}.{test}{:07}", std::process::id())
}

/// Whether a process sleeps for exactly this long: the playbook's own `sleep`.
pub(crate) fn sleeps(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
}

pub(crate) fn signal(child: &std::process::Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// `how` is how the second task runs.
fn stopped_by(name: &str, code: i32, seconds: &str, how: &str) {
    let work = tempfile::tempdir().unwrap();
    let mark = work.path().join("mark");
    let repository = sleeping(&mark, seconds);
    let file = "ansible/roles/demo/tasks/main.yml";
    let tasks = fs::read_to_string(repository.path().join(file)).unwrap();
    let place = "- name: Sleep\n";
    repository.write(file, tasks.replace(place, &format!("{place}{how}")));
    let double = Double::start(&[]);
    let tool = repository.tool(&double, &[]);
    let mut child = tool.spawn();
    until("the second task", Duration::from_secs(30), || sleeps(seconds));
    let start = Instant::now();
    signal(&child, name);
    let status = child.wait().unwrap();
    let took = start.elapsed();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(code), "{text}");
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert!(text.contains("cancelled; 1 result, at task: demo : Sleep"), "{text}");
    assert_eq!(double.count("CancelCommand"), 1, "{text}");
    let data = &repository.report()["subjects"][0]["data"];
    assert_eq!((&data["changed"], &data["failed"]), (&1.into(), &0.into()), "{text}");
    // Not this run's.
    let others = double.home(FIRST).join("tmp/ansible_of_somebody_else_payload_1");
    fs::create_dir(&others).unwrap();
    // Ansible may end its task, then everything of the run is gone and the lock is free.
    let next = sleeping(&work.path().join("next"), "0");
    let outcome = next.tool(&double, &[]).run();
    ended(&outcome, 0, &["1 of 1 hosts good"]);
    assert!(!sleeps(seconds) && !work.path().join("mark-after").exists());
    let left = fs::read_dir(double.home(FIRST).join("tmp")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().path()).collect::<Vec<_>>(), [others]);
}

/// Ctrl-C while a task runs that soon ends, and SIGTERM while one does that never would; beside each other, since both wait.
#[test]
fn a_signal_cancels_says_what_ran_and_the_next_run_continues() {
    // The module of the second is a process that nobody knows the folders of.
    let apart = "  async: 5000\n  poll: 1\n";
    std::thread::scope(|scope| {
        scope.spawn(|| stopped_by("-INT", 130, &own(6, 1), ""));
        stopped_by("-TERM", 143, &own(3000, 1), apart);
    });
}

#[test]
fn a_run_that_waits_for_a_secret_in_vain_frees_the_host_when_it_is_cancelled() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[Fault::SilentSecrets]);
    let args = ["-e", "a=secretsmanager:db"];
    let mut child = repository.tool(&double, &args).spawn();
    until("the question for the secret", Duration::from_secs(30), || {
        double.count("GetSecretValue") > 0
    });
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let outcome = repository.tool(&double, &["--lock-wait", "5s"]).run();
    ended(&outcome, 0, &["1 of 1 hosts good"]);
    let outcome = repository.tool(&double, &args).args(["--timeout", "1s"]).run();
    ended(&outcome, 4, &["ended at the deadline after 0 results, at resolving secrets"]);
}

#[test]
fn the_deadline_ends_ansible_on_the_host_and_says_what_ran() {
    let work = tempfile::tempdir().unwrap();
    let mark = work.path().join("mark");
    let seconds = own(9, 2);
    let repository = sleeping(&mark, &seconds);
    // Its agent is missed in the meantime, until the host tells what it does.
    let double = Double::start(&[Fault::LostSinceAsked]);
    let outcome = repository.tool(&double, &["--timeout", "8s"]).run();
    ended(&outcome, 4, &["ended at the deadline after", "at demo : Sleep"]);
    let (missed, back) = outcome.stderr.split_once("sip-1: its agent is back").unwrap();
    assert!(missed.contains("nothing heard for 2.0 s of sip-1 (agent status"), "{missed}{back}");
    assert!(mark.exists() && !work.path().join("mark-after").exists());
    assert!(!sleeps(&seconds));
    assert_eq!(repository.report()["outcome"], "timeout");
    let data = &repository.report()["subjects"][0]["data"];
    assert_eq!(
        (&data["changed"], &data["changed_tasks"][0]["task"]),
        (&1.into(), &"demo : Begin".into())
    );
}

#[test]
fn an_agent_that_takes_no_command_is_a_timeout_and_the_command_is_cancelled() {
    let repository = Repository::new("[]\n");
    let double = Double::start(&[Fault::Silent, Fault::LostSinceAsked]);
    let start = Instant::now();
    let outcome = repository.tool(&double, &["--timeout", "1s"]).run();
    let lost = "agent status ConnectionLost, last heard of at 2026-01-01T00:00:00Z";
    let early = format!("warning: nothing heard for 250 ms of sip-1 ({lost}); nothing is lost if");
    let last = format!("no answer after 1.0 s; its agent has not taken the command; {lost}");
    ended(&outcome, 4, &[&early, &last]);
    assert_eq!(outcome.stderr.matches("nothing heard").count(), 1, "{}", outcome.stderr);
    // Such an agent is not waited for.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(double.count("CancelCommand") >= 1, "{:?}", double.operations());
}

#[test]
fn a_host_that_another_run_holds_is_named_with_that_run() {
    let double = Double::start(&[]);
    let holder = |id: &str| {
        fs::create_dir_all(double.base(id)).unwrap();
        let path = double.base(id).join("lock");
        fs::write(&path, "run r1 since 2026-01-01T00:00:00Z").unwrap();
        let holder = fs::File::options().append(true).open(&path).unwrap();
        holder.lock().unwrap();
        holder
    };
    let _holders = [FIRST, SECOND].map(holder);
    let named = |args: &[&str], code: i32, said: &str| {
        let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
        let outcome = repository.tool(&double, args).run();
        ended(&outcome, code, &[said, "another run (run r1 since 2026-01-01T00:00:00Z)"]);
        assert_eq!(repository.report()["subjects"][0]["data"]["ok"], Value::Null);
    };
    std::thread::scope(|scope| {
        let until_deadline = "waited until the deadline for the lock of another run";
        let args = ["--limit", "sip-2", "--timeout", "2s"];
        scope.spawn(move || named(&args, 4, until_deadline));
        for wait in ["1s", "0s"] {
            named(&["--lock-wait", wait], 6, "locked by another run");
        }
        // Nothing failed that is known to have failed.
        let args = ["--limit", "all", "--batch", "1", "--lock-wait", "0s"];
        named(&args, 6, "batch 1 had 1 of 1 hosts not good");
    });
}

#[test]
fn runs_that_wait_for_the_same_host_take_nothing_from_each_other() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[]);
    fs::create_dir_all(double.base(FIRST).join("incoming")).unwrap();
    // Gone when one looks at it, as what another run has sent by then.
    std::os::unix::fs::symlink("gone", double.base(FIRST).join("incoming/other")).unwrap();
    let holder = fs::File::create(double.base(FIRST).join("lock")).unwrap();
    holder.lock().unwrap();
    let args = ["--lock-wait", "60s"];
    let waiting = [0, 1].map(|_| repository.tool(&double, &args).spawn());
    let runs = double.base(FIRST).join("runs");
    until("two runs that wait", Duration::from_secs(30), || {
        let runs = fs::read_dir(&runs).into_iter().flatten();
        runs.filter(|run| run.as_ref().unwrap().path().join("events.jsonl").exists()).count() == 2
    });
    drop(holder);
    for run in waiting {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn nothing_of_a_run_outlives_a_supervisor_that_fails() {
    let seconds = own(3000, 3);
    let repository = Repository::new(&format!(
        "- name: Harm\n  ansible.builtin.command: ln -s gone/gone {{{{ playbook_dir }}}}/../../stop\n\
         - name: Sleep\n  ansible.builtin.command: sleep {seconds}\n"
    ));
    let double = Double::start(&[]);
    let mut child = repository.tool(&double, &[]).spawn();
    until("the second task", Duration::from_secs(30), || sleeps(&seconds));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let runs = double.base(FIRST).join("runs");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    until("its failure", Duration::from_secs(5), || {
        fs::read_to_string(run.join("recap")).is_ok_and(|text| text.contains("FileNotFoundError"))
    });
    assert!(!sleeps(&seconds));
}

#[test]
fn the_deadline_holds_while_aws_does_not_answer() {
    let silent = Double::start(&[Fault::Hang]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holds = |url: String, deadline: u64| {
        let repository = Repository::new("[]\n");
        let start = Instant::now();
        let outcome = repository
            .tool(&silent, &["--timeout", &format!("{deadline}s")])
            .env("AWS_ENDPOINT_URL", url)
            .run();
        let said = format!("the time was over after {deadline}.0 s and AWS did not answer");
        ended(&outcome, 4, &[&said, "0 of 1 hosts good, 1 not touched"]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(deadline + 2), "{took:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| holds(silent.url(), 1));
        holds(format!("http://{closed}"), 2);
    });
}
