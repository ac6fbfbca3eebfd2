//! Bad input: one clear error, the right exit status, and nothing sent.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, SECOND, ended};

const FINE: &str = "- name: Fine\n  ansible.builtin.debug:\n    msg: x\n";

/// Nothing was asked of AWS.
#[track_caller]
fn refused(repository: &Repository, args: &[&str], code: i32, said: &[&str]) {
    let double = Double::start(&[]);
    ended(&repository.tool(&double, args).run(), code, said);
    assert!(double.operations().is_empty(), "{:?}", double.operations());
}

#[test]
fn a_playbook_that_does_not_parse_is_named_with_file_and_line() {
    let repository = Repository::new(FINE);
    repository.write("ansible/playbooks/site.yml", "- hosts: sip\n  roles:\n    - demo\n   - x\n");
    repository.write(".git/HEAD", "");
    let double = Double::start(&[]);
    let outcome = repository.tool(&double, &[]).actions().run();
    ended(&outcome, 2, &["error: ansible/playbooks/site.yml:4:", "   - x"]);
    assert!(
        outcome.stderr.contains("::error file=ansible/playbooks/site.yml,line=4,"),
        "{}",
        outcome.stderr
    );
    assert!(double.operations().is_empty());
}

#[test]
fn a_role_file_that_does_not_parse_is_found_before_anything_is_sent() {
    let repository = Repository::new("- name: x\n  ansible.builtin.debug: {msg: x\n");
    refused(&repository, &[], 2, &["ansible/roles/demo/tasks/main.yml:2:"]);
}

#[test]
fn a_playbook_without_plays_is_refused() {
    let repository = Repository::new(FINE);
    repository.write("ansible/playbooks/site.yml", "- name: x\n  tasks: []\n");
    refused(&repository, &[], 2, &["site.yml:1:3: a play needs `hosts`"]);
    repository.write("ansible/playbooks/site.yml", FINE);
    refused(&repository, &[], 2, &["site.yml:1:3: a play needs `hosts`", "a file of tasks?"]);
    repository.write("ansible/playbooks/site.yml", "a: 1\n");
    refused(&repository, &[], 2, &["site.yml:1:1: a playbook is a list", "a file of variables?"]);
    std::fs::remove_file(repository.path().join("ansible/playbooks/site.yml")).unwrap();
    repository.write("ansible/playbooks/site.yml/x", "");
    refused(&repository, &[], 2, &["a playbook is a file, not the folder `playbooks/site.yml`"]);
}

#[test]
fn flags_of_ansible_work_or_are_answered_with_what_to_use() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[]);
    let tool = || {
        deploy_testkit::Tool::new(env!("CARGO_BIN_EXE_ssm-run-playbook"))
            .aws(&double.url())
            .cwd(repository.path())
            .args(["-i", "inventory.json", "-l", "sip-1", "site.yml"])
    };
    ended(&tool().args(["-C", "-D", "--print-bundle"]).run(), 0, &[]);
    for (flags, said) in [
        (&["-u", "root"][..], "tip: Ansible runs as root on the host itself"),
        (&["--forks=5"], "`--batch` makes waves"),
        (&["-vvv"], "Ansible's `-vv` is `--ansible-verbosity 2`"),
        (&["--ask-vault-pass"], "`--vault-password secretsmanager:NAME`"),
        (&["--chek"], "tip: a similar argument exists: '--check'"),
    ] {
        ended(&tool().args(flags).run(), 2, &[said]);
    }
    assert!(double.operations().is_empty(), "{:?}", double.operations());
}

/// GitHub Actions gives an empty text for an input that nobody gave.
#[test]
fn an_empty_variable_is_not_set_but_for_the_limit() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[]);
    let mut tool = repository.tool(&double, &["--print-bundle"]);
    for flag in ["BATCH", "TIMEOUT", "ENVIRONMENT", "TAGS", "CHECK", "REGION", "BETWEEN_BATCHES"] {
        tool = tool.env(format!("SSM_RUN_PLAYBOOK_{flag}"), "");
    }
    ended(&tool.run(), 0, &[]);
    let tool = deploy_testkit::Tool::new(env!("CARGO_BIN_EXE_ssm-run-playbook"));
    let tool = tool.cwd(repository.path()).args(["-i", "inventory.json", "site.yml"]);
    ended(&tool.env("SSM_RUN_PLAYBOOK_LIMIT", "").run(), 2, &["`--limit` is empty"]);
}

#[test]
fn what_asks_a_person_or_the_runner_is_not_left_out_silently() {
    let repository = Repository::new(FINE);
    let site = "- hosts: sip\n  roles: [demo]\n  vars_prompt:\n    - name: x\n";
    repository.write("ansible/playbooks/site.yml", site);
    refused(&repository, &[], 2, &["site.yml:3: `vars_prompt` asks nobody"]);
    let site =
        "- hosts: localhost\n  tasks: []\n- hosts: sip\n  gather_facts: false\n  roles: [demo]\n";
    repository.write("ansible/playbooks/site.yml", site);
    let words = ["warning: ansible/playbooks/site.yml:1: a play of `localhost` runs nowhere"];
    refused(&repository, &["--print-bundle"], 0, &words);
}

#[test]
fn a_check_installs_nothing() {
    let repository = Repository::new(FINE);
    let flags = ["--check", "--install-ansible"];
    refused(&repository, &flags, 2, &["`--check` promises", "leave `--install-ansible` out"]);
}

#[test]
fn what_cannot_be_written_is_known_before_and_what_is_read_is_not_written_over() {
    let repository = Repository::new(FINE);
    refused(&repository, &["--junit", "ansible"], 2, &["`--junit ansible` is a folder"]);
    repository.write("junit.xml", "of an earlier run");
    refused(&repository, &["--junit", "junit.xml", "--batch", "0"], 2, &["at least one host"]);
    refused(&repository, &["--junit", "junit.xml", "-e", "=x"], 2, &["--extra-vars"]);
    assert!(!repository.path().join("junit.xml").exists());
    refused(&repository, &["--log-dir", "inventory.json"], 2, &["`--log-dir inventory.json`"]);
    let words = ["`--junit ./inventory.json` is what this run reads"];
    let before = std::fs::read(repository.path().join("inventory.json")).unwrap();
    refused(&repository, &["--junit", "./inventory.json", "--print-bundle"], 2, &words);
    assert_eq!(std::fs::read(repository.path().join("inventory.json")).unwrap(), before);
}

#[test]
fn variables_of_another_environment_are_refused() {
    let repository = Repository::new(FINE);
    let words = ["the inventory is of `dev`, and `--environment` says `prod`"];
    refused(&repository, &["--environment", "prod"], 2, &words);
}

#[test]
fn files_that_are_not_there_are_named() {
    let repository = Repository::new(FINE);
    refused(&repository, &["--ansible-dir", "nowhere"], 2, &["no Ansible folder `nowhere`"]);
    refused(&repository, &["-e", "@nowhere.yml"], 2, &["cannot read `nowhere.yml`"]);
    std::fs::remove_file(repository.path().join("ansible/playbooks/site.yml")).unwrap();
    repository.write("ansible/playbooks/sites.yaml", "- hosts: sip\n");
    repository.write("ansible/playbooks/a-notes.yml", "a: 1\n");
    repository.write("ansible/all.yml", "- hosts: sip\n");
    let known = "its `playbooks/`; there is `playbooks/sites.yaml`, `all.yml`\n";
    refused(&repository, &[], 2, &["no playbook `playbooks/site.yml`", "looked for it", known]);
    std::fs::remove_file(repository.path().join("inventory.json")).unwrap();
    refused(&repository, &[], 2, &["cannot read the inventory `inventory.json`"]);
}

#[test]
fn extra_vars_that_are_not_yaml_are_refused_with_their_line() {
    let repository = Repository::new(FINE);
    repository.write("vars.yml", "a: 1\nb: [\n");
    refused(&repository, &["-e", "@vars.yml"], 2, &["vars.yml:2:"]);
    refused(&repository, &["-e", "no-equals"], 2, &["expected `K=V`"]);
}

#[test]
fn hosts_that_cannot_be_addressed_are_refused() {
    let repository = Repository::new(FINE);
    repository.inventory(&[("sip-1", None), ("sip-2", Some("i-short"))]);
    refused(
        &repository,
        &["--limit", "all"],
        2,
        &[
            "hosts of `inventory.json` cannot be addressed: sip-1 has no instance ID; sip-2: `i-short` is no",
        ],
    );
    repository.inventory(&[("sip-1", Some(FIRST)), ("sip-2", Some(FIRST))]);
    refused(&repository, &["--limit", "all"], 2, &["sip-1 and sip-2 are the same instance"]);
}

#[test]
fn hosts_of_two_regions_are_refused_with_their_names() {
    let repository = Repository::new(FINE);
    repository.write(
        "inventory.json",
        format!(
            r#"{{"all": {{"hosts": {{"sip-1": {{"instance_id": "{FIRST}", "ansible_aws_ssm_region": "us-east-1"}},
            "sip-2": {{"instance_id": "{SECOND}", "ansible_aws_ssm_region": "eu-west-1"}}}},
            "children": {{"sip": {{"hosts": {{"sip-1": {{}}, "sip-2": {{}}}}}}}}}}}}"#
        ),
    );
    let said = ["more than one region: eu-west-1: sip-2; us-east-1: sip-1", "with `--limit`"];
    refused(&repository, &["--limit", "all"], 2, &said);
}

#[test]
fn a_pattern_that_leaves_no_host_is_empty() {
    let repository = Repository::new(FINE);
    refused(
        &repository,
        &["--limit", "sip:!sip-1:!sip-2"],
        3,
        &["no host in `inventory.json` matches"],
    );
}

#[test]
fn an_inventory_that_is_cut_is_refused() {
    let repository = Repository::new(FINE);
    repository.write("inventory.json", r#"{"all": {"hosts""#);
    refused(&repository, &[], 2, &["`inventory.json` is not an inventory"]);
}

#[test]
fn a_link_out_of_the_folder_and_a_timeout_out_of_range_are_refused() {
    let repository = Repository::new(FINE);
    refused(&repository, &["--timeout", "0s"], 2, &["between 1 s and 172740 s"]);
    refused(&repository, &["--timeout", "72h"], 2, &["between 1 s and 172740 s"]);
    std::os::unix::fs::symlink("/etc", repository.path().join("ansible/etc")).unwrap();
    refused(&repository, &[], 2, &["symbolic link `ansible/etc` points to `/etc`"]);
}

#[test]
fn an_instance_without_agent_is_unavailable_and_no_right_is_denied() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[Fault::NoAgents]);
    let outcome = repository.tool(&double, &[]).run();
    ended(&outcome, 6, &["sip-1 (i-0000000000000000a): not registered with Systems Manager"]);
    assert_eq!(double.count("SendCommand"), 0);
    let double = Double::start(&[Fault::Gone]);
    let outcome = repository.tool(&double, &["--limit", "all"]).run();
    let said = [
        "cannot reach sip-2 (i-0000000000000000b): not registered with",
        "`tf-to-inventory`",
        "all:!sip-2",
    ];
    ended(&outcome, 6, &said);
    assert_eq!(double.count("SendCommand"), 0);
    let double = Double::start(&[Fault::Deny]);
    ended(&repository.tool(&double, &[]).run(), 5, &["ssm:DescribeInstanceInformation"]);
}

#[test]
fn a_host_without_ansible_is_named_with_the_fix() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[Fault::NoAnsible]);
    let outcome = repository.tool(&double, &[]).run();
    ended(&outcome, 1, &["ansible-playbook is not on PATH; pass `--install-ansible`"]);
}
