//! What would travel, and what is refused because it could not work on the hosts.

use crate::double::Double;
use crate::{Repository, ended};
use serde_json::Value;
use std::path::Path;

const FINE: &str = "- name: Fine\n  ansible.builtin.debug:\n    msg: x\n";

/// What `--print-bundle` lists, by path, with why.
fn printed(repository: &Repository, args: &[&str]) -> Vec<(String, String)> {
    let double = Double::start(&[]);
    let args = [&["--print-bundle", "--format", "json"], args].concat();
    let outcome = repository.tool(&double, &args).run();
    ended(&outcome, 0, &[]);
    assert!(double.operations().is_empty(), "{:?}", double.operations());
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(document["sha256"].as_str().unwrap().len(), 64);
    assert!(document["bytes"].as_u64().unwrap() > 0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let files = document["files"].as_array().unwrap();
    files.iter().map(|file| (text(&file["path"]), text(&file["why"]))).collect()
}

#[test]
fn a_protected_file_arrives_protected_and_what_no_run_needs_is_not_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let work = tempfile::tempdir().unwrap();
    let to = work.path().join("key");
    let repository = Repository::new(&format!(
        "- name: Copy\n  ansible.builtin.copy:\n    src: key\n    dest: {}\n    mode: preserve\n",
        to.display()
    ));
    repository.write("ansible/roles/demo/files/key", "k");
    let key = repository.path().join("ansible/roles/demo/files/key");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    repository.write("ansible/roles/other/files/large", "");
    let large = repository.path().join("ansible/roles/other/files/large");
    std::fs::File::options().write(true).open(large).unwrap().set_len(1 << 30).unwrap();
    let pipe = repository.path().join("ansible/roles/other/pipe");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let double = Double::start(&[]);
    ended(&repository.tool(&double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!(std::fs::metadata(to).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn the_bundle_is_listed_with_reasons_and_nothing_is_asked() {
    let repository = Repository::new(FINE);
    repository.write("ansible/roles/unused/tasks/main.yml", FINE);
    repository.write("ansible/playbooks/other.yml", "- hosts: all\n  roles: [unused]\n");
    let files = printed(&repository, &[]);
    let listed: Vec<String> = files.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    let own = |line: &&String| !line.starts_with(".ssm-run-playbook/");
    insta::assert_snapshot!(listed.iter().filter(own).cloned().collect::<Vec<_>>().join("\n"), @r"
    ansible.cfg: Ansible's settings
    inventories/dev/group_vars/all.yml: variables of dev
    inventories/dev/inventory.json: the inventory with all hosts
    playbooks/site.yml: the playbook
    roles/demo/tasks/main.yml: role at ansible/playbooks/site.yml:4
    ");
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &["--print-bundle"]).run();
    ended(&outcome, 0, &["inside the command that runs it", "unpacked,", "role at "]);
}

#[test]
fn the_repositorys_own_playbooks_travel_with_all_they_need() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible");
    let repository = Repository::new(FINE);
    let hosts = ["sip-1", "database", "message_bus", "asterisk", "nginx"];
    let ids: Vec<String> = (0..hosts.len()).map(|n| format!("i-0000000000000000{n}")).collect();
    let all: Vec<_> = hosts.iter().zip(&ids).map(|(&name, id)| (name, Some(id.as_str()))).collect();
    repository.inventory(&all);
    let own = own.to_str().unwrap();
    // Of the play on all hosts only the common role, and the roles of the other plays, which Ansible reads as well.
    let args = ["--ansible-dir", own, "--limit", "all"];
    std::fs::remove_dir_all(repository.path().join("ansible")).unwrap();
    let double = Double::start(&[]);
    let outcome = deploy_testkit::Tool::new(env!("CARGO_BIN_EXE_ssm-run-playbook"))
        .aws(&double.url())
        .cwd(repository.path())
        .args([
            "--inventory",
            "inventory.json",
            "--print-bundle",
            "--format",
            "json",
            "deploy-all.yml",
        ])
        .args(args)
        .run();
    ended(&outcome, 0, &[]);
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let travels =
        |path: &str| document["files"].as_array().unwrap().iter().any(|file| file["path"] == path);
    for path in [
        "ansible.cfg",
        "inventories/dev/group_vars/all.yml",
        "playbooks/deploy-all.yml",
        "playbooks/site.yml",
        "playbooks/verify.yml",
        "roles/common/tasks/secret.yml",
        "roles/foundation-asterisk/templates/pjsip.conf.j2",
        "roles/foundation-nginx/files/foundation-health.py",
    ] {
        assert!(travels(path), "{path} does not travel");
    }
    assert!(!travels("README.md"));
}

#[test]
fn all_that_cannot_work_is_named_at_once_and_annotated() {
    let tasks = "- name: Once\n  ansible.builtin.debug:\n    msg: x\n  run_once: true\n\
        - name: Elsewhere\n  ansible.builtin.template:\n    src: gone.j2\n    dest: /x\n  delegate_to: sip-2\n\
        - name: Reboot\n  ansible.builtin.reboot:\n- name: Far\n  community.general.ufw:\n    rule: allow\n";
    let repository = Repository::new(tasks);
    repository.write(".git/HEAD", "");
    repository.write(
        "ansible/inventories/dev/group_vars/all/vault.yml",
        "$ANSIBLE_VAULT;1.1;AES256\n33\n",
    );
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &["--limit", "all"]).actions().run();
    let file = "ansible/roles/demo/tasks/main.yml";
    ended(
        &outcome,
        2,
        &[
            "cannot run on the hosts: 6",
            &format!("{file}:4: `run_once` would run on each of 2 hosts"),
            &format!("{file}:6: there is no `gone.j2`"),
            &format!("{file}:9: `delegate_to: sip-2`"),
            &format!("{file}:11: `reboot`"),
            &format!("{file}:13: `community.general.ufw` needs the collection"),
            "ansible/inventories/dev/group_vars/all/vault.yml:1: encrypted",
            "hint: nothing was sent",
            &format!("::error file={file},line=11,"),
        ],
    );
    assert!(double.operations().is_empty(), "{:?}", double.operations());
}

#[test]
fn every_file_that_does_not_parse_is_named() {
    let repository = Repository::new("- name: x\n  ansible.builtin.debug: {msg: x\n");
    repository.write("ansible/inventories/dev/group_vars/all.yml", "a: [\n");
    // What stays at home may be as it likes.
    repository.write("ansible/roles/unused/tasks/main.yml", "- [\n");
    // So may what only travels, and variables of groups that are not there.
    repository.write("ansible/playbooks/notes.yml", "- [\n");
    repository.write("ansible/inventories/dev/group_vars/gone.yml", "- [\n");
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    let said =
        ["files that do not parse: 2", "group_vars/all.yml:", "roles/demo/tasks/main.yml:2:"];
    ended(&outcome, 2, &said);
}

/// What Ansible finds must not be refused, and must travel: one run proves both.
#[test]
fn every_way_to_name_a_file_that_ansible_knows_is_followed() {
    let work = tempfile::tempdir().unwrap();
    let to = |name: &str| work.path().join(name).display().to_string();
    let copy = |src: &str, name: &str| {
        format!(
            "- name: Copy {name}\n  ansible.builtin.copy:\n    src: {src}\n    dest: {}\n    mode: '0600'\n",
            to(name)
        )
    };
    let mut tasks = copy("plain", "1") + &copy("deep/er", "2") + &copy("../../shared/outside", "3");
    tasks += &copy("\"{{ role_path }}/files/plain\"", "4");
    tasks += &copy("beside", "5");
    tasks += "- ansible.builtin.include_tasks: sub/first.yml\n- import_tasks: file=third.yml\n\
        - include_vars: more.yml\n- include_vars: {file: extra/even.yml}\n\
        - ansible.builtin.script: hello.sh argument\n  changed_when: false\n\
        - block:\n    - import_role: {name: other, tasks_from: entry.yml}\n  rescue: []\n\
        - name: Loop\n  ansible.builtin.include_role:\n    name: \"{{ item }}\"\n  loop: [looped]\n\
        - action: ansible.builtin.debug msg=x\n- ansible.builtin.debug: var=more\n  with_items: [1]\n";
    let repository = Repository::new(&tasks);
    repository.write(
        "ansible/playbooks/site.yml",
        "- import_playbook: inner/first.yml\n- name: Demo\n  hosts: [sip]\n  gather_facts: false\n  \
         vars_files: [vars/file.yml, ../shared/vars.yml]\n  pre_tasks:\n    - copy: src=near dest=/dev/null\n      \
         when: false\n  roles:\n    - {role: demo, tags: [x]}\n",
    );
    repository.write(
        "ansible/playbooks/inner/first.yml",
        "- hosts: sip\n  gather_facts: false\n  tasks:\n    - ansible.builtin.import_tasks: tasks.yml\n",
    );
    repository.write("ansible/playbooks/inner/tasks.yml", FINE);
    repository.write("ansible/playbooks/files/near", "");
    repository.write("ansible/playbooks/beside", "");
    repository.write("ansible/playbooks/vars/file.yml", "a: 1\n");
    repository.write("ansible/shared/vars.yml", "b: 1\n");
    repository.write("ansible/shared/outside", "");
    for (name, text) in [
        ("demo/files/plain", ""),
        ("demo/files/deep/er", ""),
        ("demo/files/hello.sh", "#!/bin/sh\necho $1\n"),
        ("demo/tasks/sub/first.yml", "- include_tasks: second.yml\n- include_tasks: third.yml\n"),
        ("demo/tasks/sub/second.yml", FINE),
        ("demo/tasks/third.yml", FINE),
        ("demo/vars/more.yml", "more: 1\n"),
        ("demo/vars/extra/even.yml", "even: 1\n"),
        ("demo/meta/main.yml", "dependencies:\n  - other\n"),
        ("other/tasks/main.yml", FINE),
        ("other/tasks/entry.yml", "- ansible.builtin.import_tasks: inner.yml\n"),
        ("other/tasks/inner.yml", FINE),
        ("looped/tasks/main.yml", FINE),
    ] {
        repository.write(&format!("ansible/roles/{name}"), text);
    }
    let double = Double::start(&[]);
    ended(&repository.tool(&double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert!((1..=5).all(|n| work.path().join(n.to_string()).exists()));
}

#[test]
fn a_collection_that_hosts_are_said_to_have_and_do_not_is_named_with_the_fix() {
    let repository = Repository::new("- name: Far\n  nowhere.at_all.module:\n");
    repository.write("ansible/requirements.yml", "collections: [nowhere.at_all]\n");
    repository.write(".git/HEAD", "");
    let double = Double::start(&[]);
    let said =
        ["ansible/roles/demo/tasks/main.yml:1", "the collection nowhere.at_all is not on the host"];
    ended(&repository.tool(&double, &[]).run(), 2, &said);
}

#[test]
fn a_playbook_of_other_hosts_is_empty_before_anything_is_sent() {
    let repository = Repository::new(FINE);
    repository
        .write("ansible/playbooks/site.yml", "- hosts: db\n  roles: [demo]\n- hosts: other\n");
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).run();
    ended(
        &outcome,
        3,
        &["no play of `playbooks/site.yml` matches any of 1", "hosts: db", "hosts: other"],
    );
    assert!(double.operations().is_empty());
}

#[test]
fn a_serial_play_runs_with_a_word_about_batches_and_a_task_to_start_at() {
    let repository = Repository::new(
        "- name: First\n  ansible.builtin.debug:\n    msg: x\n- name: Second\n  ansible.builtin.debug:\n    msg: y\n",
    );
    repository.write(
        "ansible/playbooks/site.yml",
        "- hosts: sip\n  gather_facts: false\n  serial: 1\n  roles: [demo]\n",
    );
    let double = Double::start(&[]);
    let args = ["--start-at-task", "Second", "--ansible-verbosity", "2"];
    let outcome = repository.tool(&double, &args).run();
    ended(
        &outcome,
        0,
        &["site.yml:3: `serial` means nothing here", "task path:", "1 of 1 hosts good"],
    );
    assert_eq!(repository.report()["subjects"][0]["data"]["ok"], 1);
}
