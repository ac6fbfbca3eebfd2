//! Secrets by reference: resolved on the host, used there, and found nowhere afterwards.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, ended, nowhere_below};
use std::fs;
use std::process::Command;

/// Uses every secret, shows it where a careless play would, and fails with it in its message.
const TASKS: &str = "- name: Write {{ password }}\n  ansible.builtin.copy:\n    dest: WORK/written\n    mode: '0600'\n    content: \"{{ password }}|{{ nested.list[0].port + 1 }}|{{ nested.key }}\"\n\
    - name: Show\n  ansible.builtin.debug:\n    msg: \"{{ password }} {{ nested }}\"\n\
    - name: Say\n  ansible.builtin.set_stats:\n    data: {said: \"{{ nested.key }}\"}\n\
    - name: Fail\n  ansible.builtin.fail:\n    msg: \"with {{ password }} and {{ nested.key }}\"\n";

#[test]
fn references_are_resolved_on_the_host_and_their_values_are_nowhere_else() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&TASKS.replace("WORK", &work.path().display().to_string()));
    repository.write(
        "vars.yml",
        "nested:\n  key: ssm:/demo/key # multiple lines\n  list: [{port: secretsmanager:db#port}]\n",
    );
    let double = Double::start(&[]);
    let outcome = repository
        .tool(&double, &["-e", "password=secretsmanager:db#password", "-e", "@vars.yml"])
        .args(["-e", "whole=secretsmanager:db"])
        .args(["--log-dir", "logs", "--diff", "--verbose", "--format", "json"])
        .actions()
        .run();
    ended(&outcome, 1, &["with *** and ***", "Write ***"]);
    // What a secret says as well is no secret where Ansible says it.
    let data = &repository.report()["subjects"][0]["data"];
    assert_eq!((&data["failed"], &data["failed_tasks"][0]["line"]), (&1.into(), &12.into()));
    assert_eq!(data["custom_stats"].as_object().unwrap().len(), 1);
    let written = fs::read_to_string(work.path().join("written")).unwrap();
    assert_eq!(
        written,
        "hunter2 'quoted' {{ x }}|5433|-----BEGIN-----\nhunter2-in-lines\n-----END-----\n"
    );
    let shown = format!("{}{}{}", outcome.stdout, outcome.stderr, outcome.summary);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(double.bodies().iter().all(|body| !body.contains("hunter2")));
    nowhere_below(&[repository.path(), &double.home(FIRST)], "hunter2");
    // One secret is asked for once, however often it is referred to.
    assert_eq!((double.count("GetSecretValue"), double.count("GetParameter")), (1, 1));
}

#[test]
fn a_role_that_cannot_be_assumed_is_named_with_the_reason() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[Fault::NoRole]);
    let outcome = repository.tool(&double, &["-e", "password=secretsmanager:db"]).run();
    let said =
        "the host cannot assume its role hosts: AssumeRoleUnauthorizedAccess: EC2 cannot assume it";
    ended(&outcome, 5, &[said]);
    assert!(!outcome.stderr.contains("KeyError"), "{}", outcome.stderr);
}

#[test]
fn vault_files_open_with_a_password_by_reference() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new(&format!(
        "- name: Write\n  ansible.builtin.copy:\n    dest: {}/written\n    mode: '0600'\n    content: \"{{{{ sealed }}}}\"\n",
        work.path().display()
    ));
    repository.write("ansible/playbooks/group_vars/sip.yml", "sealed: from the vault\n");
    repository.write("password", "hunter2vault\n");
    let vault = Command::new("ansible-vault")
        .args(["encrypt", "--vault-id", "dev@password", "ansible/playbooks/group_vars/sip.yml"])
        .current_dir(repository.path())
        .env("PATH", crate::double::search_path())
        .output()
        .unwrap();
    assert!(vault.status.success(), "{vault:?}");
    fs::remove_file(repository.path().join("password")).unwrap();
    let double = Double::start(&[]);
    for flags in [["--vault-id", "dev@ssm:/demo/vault"], ["--vault-password", "ssm:/demo/vault"]] {
        ended(&repository.tool(&double, &flags).run(), 0, &["1 of 1 hosts good"]);
        assert_eq!(fs::read_to_string(work.path().join("written")).unwrap(), "from the vault");
        nowhere_below(&[repository.path(), &double.home(FIRST)], "hunter2");
    }
    double.clear();
    let said = [
        "ansible/playbooks/group_vars/sip.yml:1: encrypted by Ansible Vault",
        "`--vault-password`",
    ];
    ended(&repository.tool(&double, &[]).run(), 2, &said);
    assert!(double.operations().is_empty());
}

#[test]
fn a_secret_that_cannot_be_read_is_named_with_aws_code_and_nothing_runs() {
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug:\n    msg: x\n");
    let double = Double::start(&[]);
    for (reference, code, said) in [
        ("ssm:/nowhere", 2, "ssm:/nowhere: no such secret (ParameterNotFound)"),
        (
            "secretsmanager:nowhere",
            2,
            "secretsmanager:nowhere: no such secret (ResourceNotFoundException)",
        ),
        (
            "secretsmanager:db#nokey",
            2,
            "sip-1: secretsmanager:db#nokey: the secret has no key `nokey`",
        ),
    ] {
        let outcome = repository.tool(&double, &["-e", &format!("a={reference}")]).run();
        ended(&outcome, code, &[said]);
    }
    double.fault(Fault::DenySecrets);
    let outcome = repository.tool(&double, &["--vault-password", "secretsmanager:db"]).run();
    ended(
        &outcome,
        5,
        &["the instance role may not read secretsmanager:db: AccessDeniedException"],
    );
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("hunter2"));
}

#[test]
fn what_is_no_reference_is_refused_before_anything_is_sent() {
    let repository = Repository::new("[]\n");
    let double = Double::start(&[]);
    for (args, said) in [
        (["-e", "a=secretsmanager:"], "a secret's name or ARN"),
        (["--vault-password", "hunter2"], "bad `--vault-password`: not a reference to a secret"),
        (["--vault-id", "ssm:/x"], "expected `LABEL@REF`"),
    ] {
        let outcome = repository.tool(&double, &args).run();
        ended(&outcome, 2, &[said]);
        assert!(!outcome.stderr.contains("hunter2"));
    }
    assert!(double.operations().is_empty());
}
