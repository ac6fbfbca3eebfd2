//! Runs that come to their own end, good or bad.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, SECOND, ended, nowhere_below};
use std::fs;
use std::path::Path;

/// A task that counts in `FOLDER/count` and templates a list of peers.
fn counting(folder: &Path) -> String {
    format!(
        "- name: Count\n  ansible.builtin.shell: echo x >> {folder}/count-{{{{ inventory_hostname }}}}\n\
         - name: Write the peers\n  ansible.builtin.copy:\n    dest: {folder}/peers-{{{{ inventory_hostname }}}}\n    mode: '0600'\n    \
         content: \"{{{{ greeting }}}} {{{{ groups['sip'] | map('extract', hostvars, 'private_ip') | join(',') }}}} {{{{ word | default('-') }}}}\"\n",
        folder = folder.display()
    )
}

fn runs_counted(folder: &Path, host: &str) -> usize {
    fs::read_to_string(folder.join(format!("count-{host}"))).map_or(0, |text| text.lines().count())
}

/// The words of every line, with times replaced.
fn timeless(text: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        for at in 1..words.len() {
            if matches!(words[at], "s" | "ms") && words[at - 1].parse::<f64>().is_ok() {
                (words[at - 1], words[at]) = ("TIME", "s");
            }
        }
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_playbook_runs_and_the_second_run_sends_no_bundle_and_changes_less() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&counting(work.path()));
    let double = Double::start(&[]);
    let first = repository
        .tool(&double, &["-e", "word=a:b;c&(d)|'e'", "--log-dir", "logs"])
        .actions()
        .run();
    ended(
        &first,
        0,
        &["1 of 1 hosts good, 2 changed", "roles/demo/tasks/main.yml:1: demo : Count"],
    );
    assert_eq!(first.outputs["changed"], "2");
    assert_eq!(first.outputs["failed"], "0");
    let peers = fs::read_to_string(work.path().join("peers-sip-1")).unwrap();
    assert_eq!(peers, "hello 10.20.1.0,10.20.1.1 a:b;c&(d)|'e'");
    let report = repository.report();
    assert_eq!(
        (report["outcome"].as_str(), report["project"].as_str()),
        (Some("success"), Some("demo"))
    );
    let data = &report["subjects"][0]["data"];
    assert_eq!(
        (data["ok"].as_u64(), data["changed"].as_u64(), data["failed"].as_u64()),
        (Some(2), Some(2), Some(0))
    );
    let log = fs::read_to_string(repository.path().join("logs/sip-1.log")).unwrap();
    assert!(log.contains("PLAY RECAP"), "{log}");
    // Asked first, then the bundle with the run.
    assert_eq!(double.runs(), 2);

    double.clear();
    let second = repository.tool(&double, &["-e", "word=a:b;c&(d)|'e'"]).run();
    ended(&second, 0, &["1 of 1 hosts good, 1 changed"]);
    assert_eq!(double.runs(), 1, "{:?}", double.operations());
    assert!(double.sent_sizes()[0] < 6000, "{:?}", double.sent_sizes());
    assert_eq!(double.count("DescribeInstanceInformation"), 1);
    // The answer is short enough to come home with the poll.
    assert_eq!(double.count("GetCommandInvocation"), 0);
    assert_eq!(runs_counted(work.path(), "sip-1"), 2);
}

#[test]
fn a_failing_task_is_named_with_file_line_module_and_message() {
    let tasks = "- name: Goes well\n  ansible.builtin.debug:\n    msg: fine\n\n\
        - name: Breaks\n  ansible.builtin.command: sh -c 'echo it broke >&2; exit 194'\n  changed_when: true\n";
    let repository = Repository::new(tasks);
    repository.write(".git/HEAD", "");
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).actions().run();
    let place = "ansible/roles/demo/tasks/main.yml:5";
    ended(&outcome, 1, &[place, "demo : Breaks", "ansible.builtin.command", "it broke"]);
    let annotation = "::error file=ansible/roles/demo/tasks/main.yml,line=5,title=demo %3A Breaks failed on sip-1::";
    assert!(outcome.stderr.contains(annotation), "{}", outcome.stderr);
    assert!(outcome.summary.contains(place), "{}", outcome.summary);
    assert_eq!(
        (outcome.outputs["failed"].as_str(), outcome.outputs["outcome"].as_str()),
        ("1", "verdict")
    );
    let text = timeless(&outcome.stdout);
    let (before, _) = text.split_once("\nslowest tasks").unwrap_or((&text, ""));
    insta::assert_snapshot!(before, @r"
    playbooks/site.yml: 1 of 1 hosts not good
    host ok changed failed skipped unreachable time
    sip-1 1 0 1 0 0 TIME s
    sip-1: failed
    ansible/roles/demo/tasks/main.yml:5: demo : Breaks (ansible.builtin.command)
    | non-zero return code (rc 194): it broke
    ");
    let task = &repository.report()["subjects"][0]["data"]["failed_tasks"][0];
    assert_eq!(task["line"], 5);
    assert_eq!(task["file"], "ansible/roles/demo/tasks/main.yml");
}

#[test]
fn no_log_is_respected_and_extra_vars_leave_no_trace() {
    let tasks = "- name: Hidden\n  ansible.builtin.command: sh -c 'echo {{ canary }}; exit 1'\n  no_log: true\n  changed_when: true\n";
    let repository = Repository::new(tasks);
    let double = Double::start(&[]);
    let outcome = repository
        .tool(&double, &["-e", "canary=hunter2hunter2", "--log-dir", "logs", "--verbose"])
        .run();
    ended(&outcome, 1, &["hidden because of no_log"]);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("hunter2"));
    nowhere_below(&[repository.path(), &double.base(FIRST)], "hunter2");
}

#[test]
fn what_ansible_itself_refuses_is_bad_input_with_its_place() {
    let repository = Repository::new(
        "- name: Both\n  ansible.builtin.debug:\n    msg: x\n  ansible.builtin.command: id\n",
    );
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).actions().run();
    ended(&outcome, 2, &["conflicting action statements"]);
    assert!(
        outcome.stderr.contains("file=ansible/roles/demo/tasks/main.yml,line=1"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_end_in_the_middle_of_a_result_is_no_start_that_failed() {
    let work = tempfile::tempdir().unwrap();
    let change = format!(
        "- name: Change\n  ansible.builtin.shell: echo x > {}/made\n  notify: \"{{{{ 'Nosuch' }}}} handler\"\n",
        work.path().display()
    );
    let repository = Repository::new(&change);
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    let said = "sip-1: ansible-playbook ended with status 1 at demo : Change; what this task did is not known";
    ended(
        &outcome,
        1,
        &[said, "sip-1    -        -       -        -            -", "Nosuch handler"],
    );
    assert!(work.path().join("made").exists());
}

#[test]
fn failures_that_the_playbook_goes_on_after_are_shown() {
    let repository = Repository::new(
        "- name: Passed over\n  ansible.builtin.command: \"false\"\n  ignore_errors: true\n\
         - block:\n    - name: Caught\n      ansible.builtin.fail: {msg: x}\n\
         \x20 rescue:\n    - ansible.builtin.debug: {msg: y}\n\
         - block:\n    - ansible.builtin.import_role: {name: other}\n\
         \x20 rescue:\n    - ansible.builtin.debug: {msg: y}\n",
    );
    repository.write(
        "ansible/roles/other/tasks/main.yml",
        "- name: Caught outside\n  ansible.builtin.fail: {msg: x}\n",
    );
    let outcome = repository.tool(&Double::start(&[]), &["--limit", "all"]).run();
    let said = "sip-1, sip-2: 1 ignored, 2 rescued\n  ansible/roles/demo/tasks/main.yml:1: demo : Passed over (ignored)\n  | non-zero return code (rc 1)\n  \
                ansible/roles/demo/tasks/main.yml:5: demo : Caught (rescued)\n  | x\n  \
                ansible/roles/other/tasks/main.yml:1: other : Caught outside (rescued)\n  | x\n";
    ended(&outcome, 0, &[said]);
}

#[test]
fn two_hosts_are_judged_each_by_itself_with_one_command() {
    let work = tempfile::tempdir().unwrap();
    let tasks = counting(work.path())
        + "- name: Fails on the second\n  ansible.builtin.fail:\n    msg: not here\n  when: inventory_hostname == 'sip-2'\n";
    let repository = Repository::new(&tasks);
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &["--limit", "all"]).run();
    ended(&outcome, 1, &["1 of 2 hosts not good", "sip-2: failed", "not here"]);
    // The bundle goes to both at once, or to each when they ask for it at different times.
    assert!((2..=3).contains(&double.runs()), "{:?}", double.operations());
    assert_eq!((runs_counted(work.path(), "sip-1"), runs_counted(work.path(), "sip-2")), (1, 1));
    assert!(double.base(SECOND).join("bundles").exists());
    let outcomes: Vec<String> = repository.report()["subjects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| subject["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["success", "failed"]);
}

#[test]
fn a_large_bundle_travels_in_parts_and_a_long_log_comes_back_in_slices() {
    // Random letters: about 3/4 of them remain after compression.
    let noise = |length: usize| -> String {
        let mut seed = 1_u64;
        std::iter::repeat_with(|| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((seed >> 33) % 26).unwrap())
        })
        .take(length)
        .collect()
    };
    let tasks =
        "- name: Say much\n  ansible.builtin.debug:\n    msg: \"{{ lookup('file', 'noise') }}\"\n";
    let repository = Repository::new(tasks);
    repository.write("ansible/roles/demo/files/noise", noise(130_000));
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &["--log-dir", "logs"]).run();
    ended(&outcome, 0, &["1 of 1 hosts good"]);
    let sizes = double.sent_sizes();
    assert!(sizes.iter().filter(|size| **size > 40_000).count() >= 2, "{sizes:?}");
    let log = fs::read_to_string(repository.path().join("logs/sip-1.log")).unwrap();
    assert!(log.contains(&noise(130_000)), "{} bytes of log", log.len());
}

#[test]
fn a_lost_reply_does_not_run_the_playbook_twice() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&counting(work.path()));
    // The first command only asked for the bundle, which comes with the second.
    let double = Double::start(&[Fault::LoseReply]);
    ended(&repository.tool(&double, &[]).run(), 0, &[]);
    assert_eq!(runs_counted(work.path(), "sip-1"), 1);
    assert_eq!((double.runs(), double.count("ListCommands")), (2, 1));
}

#[test]
fn lists_are_read_to_their_last_page_though_some_are_empty() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[Fault::Pages]);
    let outcome = repository.tool(&double, &["--limit", "all"]).run();
    ended(&outcome, 0, &["2 of 2 hosts good"]);
}

#[test]
fn a_lost_reply_is_searched_on_every_page_before_it_is_sent_again() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&counting(work.path()));
    let double = Double::start(&[Fault::LoseReply, Fault::Pages]);
    ended(&repository.tool(&double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!((runs_counted(work.path(), "sip-1"), double.runs()), (1, 2));
}

#[test]
fn a_command_that_arrived_twice_has_the_result_of_the_run_that_began() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&counting(work.path()));
    // The reply is lost, and the list does not hold the command yet: it is sent once more.
    let double = Double::start(&[Fault::LoseReply, Fault::LateList]);
    ended(&repository.tool(&double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!((runs_counted(work.path(), "sip-1"), double.runs()), (1, 3));
    assert_eq!(repository.report()["subjects"][0]["outcome"], "success");
}

#[test]
fn a_page_that_leads_to_itself_is_an_error() {
    let repository = Repository::new("[]\n");
    let double = Double::start(&[Fault::SamePage]);
    let outcome = repository.tool(&double, &[]).run();
    ended(&outcome, 6, &["ssm:DescribeInstanceInformation", "the token of a page came twice"]);
    assert_eq!((double.count("DescribeInstanceInformation"), double.runs()), (2, 0));
}

#[test]
fn a_host_that_is_gone_when_the_command_is_sent_does_not_stop_the_others() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[Fault::GoneSinceAsked]);
    let outcome = repository.tool(&double, &["--limit", "all"]).run();
    ended(
        &outcome,
        6,
        &["sip-2: it cannot take the command: not registered", "1 of 2 hosts not good"],
    );
    assert_eq!(repository.report()["subjects"][0]["outcome"], "success");
}

#[test]
fn a_throttled_command_is_sent_again() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[Fault::ThrottleOnce]);
    ended(&repository.tool(&double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!((double.runs(), double.count("ListCommands")), (3, 0));
}

#[test]
fn a_recap_that_is_missing_or_cut_is_never_green() {
    let is_not_green = |fault: Fault, said: &str| {
        let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
        ended(&repository.tool(&Double::start(&[fault]), &[]).run(), 6, &[said]);
    };
    let missing = "no recap came back (Systems Manager says Success)";
    std::thread::scope(|scope| {
        scope.spawn(|| is_not_green(Fault::SwallowOutput, missing));
        is_not_green(Fault::CutRecap, "the recap came back cut or damaged");
    });
}

#[test]
fn files_that_tasks_make_stay_and_are_not_made_with_the_tools_own_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let work = tempfile::tempdir().unwrap();
    let tasks = format!(
        "- name: Make\n  ansible.builtin.shell: echo x > {0}/made\n\
         - name: Make a folder\n  ansible.builtin.tempfile:\n    path: {0}\n    prefix: ansible_\n    state: directory\n",
        work.path().display()
    );
    let repository = Repository::new(&tasks);
    let double = Double::start(&[]);
    ended(&repository.tool(&double, &[]).run(), 0, &[]);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 2);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&work.path().join("made")), 0o644);
    assert_eq!(mode(&double.base(FIRST)), 0o700);
}

#[test]
fn a_playbook_that_matches_no_host_is_empty() {
    let repository = Repository::new("[]\n");
    repository.write(
        "ansible/playbooks/site.yml",
        "- hosts: \"{{ who | default('nobody') }}\"\n  tasks: []\n",
    );
    let double = Double::start(&[]);
    let said = "::error title=ssm-run-playbook::playbooks/site.yml: no task ran on any of 1 hosts";
    ended(&repository.tool(&double, &[]).actions().run(), 3, &[said]);
}

#[test]
fn tags_and_check_mode_reach_ansible() {
    let work = tempfile::tempdir().unwrap();
    let tasks = format!(
        "- name: Tagged\n  ansible.builtin.copy:\n    dest: {0}/tagged\n    content: x\n    mode: '0600'\n  tags: [wanted]\n\
         - name: Other\n  ansible.builtin.copy:\n    dest: {0}/other\n    content: x\n    mode: '0600'\n",
        work.path().display()
    );
    let repository = Repository::new(&tasks);
    let double = Double::start(&[]);
    let outcome =
        repository.tool(&double, &["--tags", "wanted", "--check", "--diff"]).actions().run();
    let log =
        outcome.stderr.split_once("::group::sip-1: Ansible's log\n::stop-commands::").unwrap().1;
    let (token, log) = log.split_once('\n').unwrap();
    let (log, _) = log.split_once(&format!("\n::{token}::\n::endgroup::\n")).unwrap();
    assert!(log.contains("PLAY RECAP"), "{log}");
    ended(&outcome, 0, &["--check: 1 of 1 hosts good, 1 would change", "+++ after"]);
    let diff = &repository.report()["subjects"][0]["data"]["diffs"][0];
    assert_eq!((&diff["task"], &diff["line"]), (&"demo : Tagged".into(), &1.into()), "{diff}");
    assert!(diff["diff"].as_str().unwrap().contains("+x"), "{diff}");
    assert!(!work.path().join("tagged").exists());
    let site = "- hosts: sip\n  gather_subset: ['!all', '!min']\n  roles: [demo]\n";
    repository.write("ansible/playbooks/site.yml", site);
    for (flag, name) in [("--start-at-task", "nosuch"), ("--tags", "nosuch")] {
        let said = format!("`{flag} {name}` leaves no task on any of 1 hosts");
        ended(&repository.tool(&double, &[flag, name]).run(), 3, &[&said]);
    }
    ended(
        &repository.tool(&double, &["--skip-tags", "wanted"]).run(),
        0,
        &["1 of 1 hosts good, 1 changed"],
    );
    assert!(work.path().join("other").exists() && !work.path().join("tagged").exists());
}

#[test]
fn modules_share_one_python_and_none_harms_the_next() {
    let work = tempfile::tempdir().unwrap();
    let parent = |file: &str| {
        format!(
            "ansible.builtin.shell: tr '\\0' ' ' < /proc/$PPID/cmdline > {}/{file}; echo $SET >> {0}/{file}; umask >> {0}/{file}; pwd >> {0}/{file}",
            work.path().display()
        )
    };
    let repository = Repository::new(&format!(
        "- name: Served\n  {}\n\
         - name: Much\n  ansible.builtin.command: head -c 400000 /dev/zero\n  register: much\n\
         - name: Killed\n  ansible.builtin.shell: kill -KILL $PPID\n  ignore_errors: true\n\
         - name: Own environment\n  {}\n  environment:\n    SET: by-the-task\n\
         - name: Served again\n  {}\n  failed_when: much.stdout | length != 400000\n",
        parent("first"),
        parent("second"),
        parent("third"),
    ));
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    ended(&outcome, 0, &["1 of 1 hosts good"]);
    // Its module was really killed.
    assert_eq!(repository.report()["subjects"][0]["data"]["ignored"], 1);
    let read = |file: &str| fs::read_to_string(work.path().join(file)).unwrap();
    for file in ["first", "third"] {
        assert!(read(file).contains("module_server.py"), "{}", read(file));
        assert!(read(file).contains(" \n0022\n"), "{}", read(file));
    }
    assert!(read("second").contains("by-the-task") && !read("second").contains("module_server"));
    let folder = |file: &str| read(file).lines().last().unwrap_or_default().to_owned();
    assert_eq!(folder("first"), folder("second"));
}

/// Leaves to the end of its Python what a module may leave to it.
const ENDS: &str = r#"#!/usr/bin/python3
import atexit
import sys
import threading
from ansible.module_utils.basic import AnsibleModule

left_open = open("FOLDER/left-open", "a")


def put(name):
    with open("FOLDER/" + name, "w") as file:
        file.write("done")


def later():
    threading.main_thread().join()
    put("thread")


module = AnsibleModule(argument_spec={"give_up": {"type": "bool"}})
if module.params["give_up"]:
    sys.exit("gave up")
left_open.write("done")
atexit.register(put, "atexit")
threading.Thread(target=later).start()
module.exit_json(changed=False)
"#;

#[test]
fn a_module_ends_as_in_a_python_of_its_own() {
    let work = tempfile::tempdir().unwrap();
    let tasks = "- name: Ends\n  ends:\n- name: Gives up\n  ends:\n    give_up: true\n";
    let repository = Repository::new(tasks);
    let folder = work.path().to_str().unwrap();
    repository.write("ansible/roles/demo/library/ends.py", ENDS.replace("FOLDER", folder));
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    ended(&outcome, 1, &["demo : Gives up", "gave up"]);
    assert_eq!(repository.report()["subjects"][0]["data"]["ok"], 1);
    for name in ["left-open", "thread", "atexit"] {
        assert_eq!(fs::read_to_string(work.path().join(name)).unwrap(), "done", "{name}");
    }
}

#[test]
fn long_values_of_set_stats_come_home_in_slices_and_what_is_too_long_is_named() {
    let tasks = "- name: Say\n  ansible.builtin.set_stats:\n    data:\n      whole: \"{{ range(2000) | map('hash', 'md5') | join }}\"\n      \
        endless: \"{{ 'x' * 1048577 }}\"\n      short: one\n";
    let repository = Repository::new(tasks);
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    let left_out = "sip-1: endless is left out: 1048592 characters";
    ended(&outcome, 0, &["sip-1: short = one", " … and 62000 characters more", left_out]);
    let data = &repository.report()["subjects"][0]["data"];
    assert_eq!(data["custom_stats"]["whole"].as_str().map(str::len), Some(64_000));
    assert_eq!(data["custom_stats"]["short"], "one");
    assert_eq!(data["custom_stats_left_out"], serde_json::json!({"endless": 1_048_592}));
}
