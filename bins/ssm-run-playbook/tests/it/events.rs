//! What the callback writes is the same with every ansible-core from 2.14 on; `scripts/test-ansible-versions.sh` runs
//! this with each.

use crate::double::Double;
use crate::{Repository, ended};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;

const TASKS: &str = r#"- name: Fine
  ansible.builtin.command: "true"
  changed_when: false
- name: Changes
  command: "true"
  changed_when: true
  notify: Tell
- name: Hidden
  ansible.builtin.command: sh -c 'echo {{ canary }}; exit 1'
  changed_when: true
  ignore_errors: true
  no_log: true
- name: Left out
  ansible.builtin.command: "true"
  when: false
- name: Safety net
  block:
    - name: Falls
      ansible.builtin.fail:
        msg: caught
  rescue:
    - name: Catches
      ansible.builtin.debug:
        msg: caught
- name: Some
  ansible.builtin.include_tasks: more.yml
- name: Say
  ansible.builtin.set_stats:
    data: {version: "1.2"}
- name: Say nothing
  ansible.builtin.set_stats:
    data: {secret: "{{ canary }}"}
  no_log: true
- name: Items
  ansible.builtin.command: sh -c 'exit {{ item }}'
  changed_when: true
  ignore_errors: true
  loop: [0, 3]
- name: Vars that do not parse
  ansible.builtin.include_vars: "{{ role_path }}/files/broken.yml"
  ignore_errors: true
- name: Template
  ansible.builtin.template:
    src: "{{ 'peers' }}.j2"
    dest: "{{ playbook_dir }}/peers"
    mode: "0600"
  ignore_errors: true
- ansible.builtin.meta: flush_handlers
- name: Broken
  ansible.builtin.debug:
    msg: "{{ nobody_defined_this }}"
"#;

#[test]
fn events_are_the_same_with_every_version() {
    let repository = Repository::new(TASKS);
    repository.write("ansible/roles/demo/tasks/more.yml", "---\n- name: Included\n  copy:\n    dest: \"{{ playbook_dir }}/x\"\n    content: y\n    mode: '0600'\n");
    repository.write(
        "ansible/roles/demo/handlers/main.yml",
        "- name: Tell\n  ansible.builtin.debug:\n    msg: told\n",
    );
    // Before the run nobody knows that the one is read as YAML, nor that the other names what nobody defined.
    repository.write("ansible/roles/demo/files/broken.yml", "a: 1\nb: [\nc: 2\n");
    repository.write("ansible/roles/demo/templates/peers.j2", "{{ nobody_at_all }}\n");
    let double = Double::start(&[]);
    let outcome = repository
        .tool(&double, &["--diff", "--log-dir", "logs", "-e", "canary=hunter2hunter2"])
        .actions()
        .run();
    let place = "file=ansible/roles/demo/tasks/main.yml,line=49,title=demo %3A Broken";
    ended(&outcome, 1, &[" 12        4       1        1", "nobody_defined_this", place]);
    let events = fs::read_to_string(repository.path().join("logs/sip-1.events.jsonl")).unwrap();
    assert!(!events.contains("hunter2"), "{events}");
    let mut seen = String::new();
    let mut last = 0;
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["e"] == "stats" {
            for name in ["version", "secret"] {
                let _ = writeln!(seen, "{name} = {}", event["custom"]["_run"][name]);
            }
        }
        if event["e"] != "result" {
            continue;
        }
        let at = event["at"].as_u64().unwrap();
        assert!(at >= last, "{line}");
        last = at;
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let message = text("message");
        let known = [
            "hidden because of no_log",
            "caught",
            "item 3: non-zero return code (rc 3)",
            "broken.yml",
            "peers.j2",
            "nobody_defined_this",
        ];
        let message = known.iter().find(|known| message.contains(**known)).unwrap_or(&"");
        let diff = if text("diff").contains("+y") { "diff" } else { "" };
        let (file, line) = (text("file").replace("roles/demo/", ""), &event["line"]);
        let words = [text("status"), text("task"), text("module"), format!("{file}:{line}")];
        let words = [&words.join(" "), *message, diff].join(" ");
        let _ = writeln!(seen, "{}", words.trim());
    }
    assert!(!events.contains("/runs/"), "{events}");
    insta::assert_snapshot!(seen, @r#"
    ok demo : Fine ansible.builtin.command tasks/main.yml:1
    changed demo : Changes ansible.builtin.command tasks/main.yml:4
    ignored demo : Hidden ansible.builtin.command tasks/main.yml:8 hidden because of no_log
    skipped demo : Left out ansible.builtin.command tasks/main.yml:13
    rescued demo : Falls ansible.builtin.fail tasks/main.yml:18 caught
    ok demo : Catches ansible.builtin.debug tasks/main.yml:22
    ok demo : Some ansible.builtin.include_tasks tasks/main.yml:25
    changed demo : Included ansible.builtin.copy tasks/more.yml:2  diff
    ok demo : Say ansible.builtin.set_stats tasks/main.yml:27
    ok demo : Say nothing ansible.builtin.set_stats tasks/main.yml:30
    ignored demo : Items ansible.builtin.command tasks/main.yml:34 item 3: non-zero return code (rc 3)
    ignored demo : Vars that do not parse ansible.builtin.include_vars tasks/main.yml:39 broken.yml
    ignored demo : Template ansible.builtin.template tasks/main.yml:42 peers.j2
    ok demo : Tell ansible.builtin.debug handlers/main.yml:1
    failed demo : Broken ansible.builtin.debug tasks/main.yml:49 nobody_defined_this
    version = "1.2"
    secret = "hidden because of no_log"
    "#);
}
