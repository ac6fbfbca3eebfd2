//! Playbooks that reboot their host. The double runs a script again that ends with 194, as the agent does after it.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, ended};
use std::fs;

const TASKS: &str = "- name: Count\n  ansible.builtin.shell: echo x >> WORK/count\n\
    - name: Look\n  ansible.builtin.command: wc -l WORK/count\n  register: count\n  changed_when: false\n\
    - name: Reboot\n  ansible.builtin.reboot:\n  when: count.stdout.split()[0] | int < BOOTS\n  register: reboot\n\
    - name: After\n  ansible.builtin.copy:\n    dest: WORK/after\n    mode: '0600'\n    content: \"{{ reboot.rebooted | default('-') }}\"\n";

fn repository(work: &tempfile::TempDir, boots: &str) -> Repository {
    let folder = work.path().display().to_string();
    Repository::new(&TASKS.replace("WORK", &folder).replace("BOOTS", boots))
}

#[test]
fn a_play_reboots_its_host_and_goes_on_as_the_same_run() {
    let work = tempfile::tempdir().unwrap();
    let double = Double::start(&[]);
    // The condition holds again after the reboot: the task has had its own and goes on.
    let repository = repository(&work, "3");
    let outcome = repository.tool(&double, &["--allow-reboot", "-e", "a=1"]).run();
    ended(&outcome, 0, &["1 of 1 hosts good", "rebooted once"]);
    assert_eq!(fs::read_to_string(work.path().join("count")).unwrap(), "x\nx\n");
    assert_eq!(fs::read_to_string(work.path().join("after")).unwrap(), "True");
    let data = &repository.report()["subjects"][0]["data"];
    // Both parts are counted: twice Count, once the task that rebooted, once After.
    assert_eq!((data["reboots"].as_u64(), data["changed"].as_u64()), (Some(1), Some(4)), "{data}");
    let runs = double.base(FIRST).join("runs");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    assert!(!run.join("request.json").exists() && !run.join("resume").exists());
}

#[test]
fn a_reboot_that_was_not_allowed_or_would_lose_handlers_fails_its_task() {
    let work = tempfile::tempdir().unwrap();
    let double = Double::start(&[]);
    let plain = repository(&work, "9");
    ended(&plain.tool(&double, &[]).run(), 2, &["`reboot` is refused unless `--allow-reboot`"]);
    assert!(double.operations().is_empty());
    assert!(!work.path().join("after").exists());

    let notified = Repository::new(
        "- name: Notify\n  ansible.builtin.command: 'true'\n  changed_when: true\n  notify: Restart\n- name: Reboot\n  ansible.builtin.reboot:\n",
    );
    notified.write(
        "ansible/roles/demo/handlers/main.yml",
        "- name: Restart\n  ansible.builtin.debug:\n    msg: x\n",
    );
    let outcome = notified.tool(&double, &["--allow-reboot"]).run();
    ended(&outcome, 1, &["handlers notified by demo : Notify would be lost", "flush_handlers"]);
}

#[test]
fn a_host_is_rebooted_three_times_at_most() {
    let double = Double::start(&[]);
    let mut tasks = String::new();
    for number in 1..=4 {
        tasks.push_str(&format!("- name: Reboot {number}\n  ansible.builtin.reboot:\n"));
    }
    let repository = Repository::new(&tasks);
    let outcome = repository.tool(&double, &["--allow-reboot"]).run();
    ended(&outcome, 1, &["has rebooted the host 3 times", "rebooted 3 times", "Reboot 4"]);
}

/// Ends everything of the run at once, and lets the host look like one that has booted since.
const GOES_DOWN: &str = r#"- name: Before
  ansible.builtin.command: "true"
  changed_when: false
- name: Pulls the plug
  ansible.builtin.shell:
    executable: /bin/sh
    cmd: |
      setsid python3 - << 'END'
      import glob, os, signal
      base = "BASE"
      for path in glob.glob(base + "/runs/*/boot"):
          open(path, "w").write("an earlier boot")
      for name in os.listdir("/proc"):
          try:
              said = open("/proc/%s/cmdline" % name, "rb").read() if name.isdigit() else b""
              if (base + "/runs/").encode() in said and int(name) != os.getpid():
                  os.kill(int(name), signal.SIGKILL)
          except OSError:
              pass
      END
- name: Never
  ansible.builtin.debug: {msg: x}
"#;

#[test]
fn a_host_that_a_task_rebooted_is_told_of_when_it_is_back() {
    let double = Double::start(&[Fault::Reboots]);
    let base = double.base(FIRST).display().to_string();
    let repository = Repository::new(&GOES_DOWN.replace("BASE", &base));
    let started = std::time::Instant::now();
    let outcome = repository.tool(&double, &["--timeout", "10m"]).run();
    let said = "sip-1: the host was rebooted in the middle of the run, at demo : Pulls the plug;";
    ended(&outcome, 6, &[said, "`--allow-reboot`"]);
    // The deadline is ten minutes; a loaded machine may take one.
    assert!(started.elapsed().as_secs() < 90, "{:?}", started.elapsed());
    // The service would let the command run on until its time is over.
    assert_eq!(double.count("CancelCommand"), 1);
}
