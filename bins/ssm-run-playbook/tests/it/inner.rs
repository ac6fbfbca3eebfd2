//! What a task finds of the run around it, and what of a playbook's own runs beside it. `scripts/test-ansible-versions.sh`
//! runs this with each ansible-core.

use crate::double::Double;
use crate::{FIRST, Repository, ended, nowhere_below};
use std::fs;
use std::process::Command;

#[test]
fn an_inner_ansible_does_its_own_work_and_is_not_counted() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().display();
    let repository = Repository::new(&format!(
        "- name: Another Ansible\n  ansible.builtin.command: ansible-playbook -i localhost, -c local -e folder={folder} -e ansible_python_interpreter={{{{ ansible_playbook_python }}}} {{{{ role_path }}}}/files/inner.yml\n\
         - name: Environment\n  ansible.builtin.shell: env > {folder}/env\n\
         - name: Environment of a Python\n  ansible.builtin.command: env\n  environment: {{X: y}}\n  register: own\n  failed_when: \"'ANSIBLE_' in own.stdout or 'SSM_RUN_PLAYBOOK' in own.stdout\"\n"
    ));
    let inner = "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.copy: {dest: '{{ folder }}/made', content: inner, mode: '0600'}\n    \
                 - ansible.builtin.fail: {msg: x}\n      ignore_errors: true\n";
    repository.write("ansible/roles/demo/files/inner.yml", inner);
    let outcome = repository.tool(&Double::start(&[]), &["--log-dir", "logs"]).run();
    // Three tasks of ours; the two inner ones are nobody's.
    ended(&outcome, 0, &["1 of 1 hosts good, 3 changed"]);
    assert_eq!(fs::read_to_string(work.path().join("made")).unwrap(), "inner");
    let events = fs::read_to_string(repository.path().join("logs/sip-1.events.jsonl")).unwrap();
    assert_eq!(events.matches("\"e\":\"result\"").count(), 3, "{events}");
    assert_eq!(events.matches("\"e\":\"stats\"").count(), 1, "{events}");
    let found = fs::read_to_string(work.path().join("env")).unwrap();
    let ours = |line: &&str| line.contains("ANSIBLE_") || line.contains("SSM_RUN_PLAYBOOK");
    assert_eq!(found.lines().find(ours), None, "{found}");
    // As a login of root has them; the double says nothing of these.
    for name in ["USER=root", "LOGNAME=root", "SHELL=/", "HOME=/", "LANG=", "PATH=/"] {
        assert!(found.lines().any(|line| line.starts_with(name)), "{name}: {found}");
    }
    assert!(!found.contains("LC_ALL="), "{found}");
}

#[test]
fn an_inner_callback_of_the_playbook_runs_beside_ours() {
    let work = tempfile::tempdir().unwrap();
    let repository = Repository::new("- name: Fine\n  ansible.builtin.debug: {msg: x}\n");
    let plugin = |name: &str| {
        format!(
            "from ansible.plugins.callback import CallbackBase\nDOCUMENTATION = '''\nname: {name}\ntype: notification\nshort_description: x\ndescription: x\n'''\n\
             class CallbackModule(CallbackBase):\n    CALLBACK_VERSION = 2.0\n    CALLBACK_TYPE = 'notification'\n    CALLBACK_NAME = '{name}'\n    CALLBACK_NEEDS_ENABLED = True\n\
             \x20   def v2_playbook_on_stats(self, stats):\n        open('{}/{name}', 'w').close()\n",
            work.path().display()
        )
    };
    repository.write("ansible/playbooks/callback_plugins/beside.py", plugin("beside"));
    repository.write("ansible/extra/callbacks/elsewhere.py", plugin("elsewhere"));
    repository.write("ansible/playbooks/callback_plugins/unasked.py", plugin("unasked"));
    let settings = "[defaults]\nroles_path = roles\ncallback_plugins = extra/callbacks\ncallbacks_enabled = beside, elsewhere\n";
    repository.write("ansible/ansible.cfg", settings);
    let outcome = repository.tool(&Double::start(&[]), &[]).run();
    ended(&outcome, 0, &["1 of 1 hosts good"]);
    let ran = |name: &str| work.path().join(name).exists();
    assert_eq!((ran("beside"), ran("elsewhere"), ran("unasked")), (true, true, false));
}

#[test]
fn an_inner_value_of_the_vault_is_shown_nowhere() {
    let repository = Repository::new(
        "- name: Show\n  ansible.builtin.debug: {msg: 'a {{ sealed }} b {{ inline }}'}\n\
         - name: Loud\n  ansible.builtin.command: echo {{ sealed }}\n\
         - name: Breaks\n  ansible.builtin.fail: {msg: 'a {{ sealed }} b {{ inline }} c {{ typed }} d 443'}\n",
    );
    let vault = |arguments: &[&str]| {
        let output = Command::new("ansible-vault")
            .args(arguments)
            .args(["--vault-password-file", "password"])
            .current_dir(repository.path())
            .env("PATH", crate::double::search_path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    repository.write("password", "hunter2vault\n");
    repository.write("ansible/playbooks/group_vars/sip.yml", "sealed: canary-sealed\nport: 443\n");
    vault(&["encrypt", "ansible/playbooks/group_vars/sip.yml"]);
    let inline = vault(&["encrypt_string", "--name", "inline", "canary-inline"]);
    repository.write("ansible/roles/demo/defaults/main.yml", inline);
    // Read before Ansible loads any callback.
    repository.write("typed.yml", "typed: canary-typed\n");
    vault(&["encrypt", "typed.yml"]);
    fs::remove_file(repository.path().join("password")).unwrap();
    let double = Double::start(&[]);
    let args = ["--vault-password", "ssm:/demo/vault", "-e", "@typed.yml", "--log-dir", "logs"];
    let outcome = repository.tool(&double, &args).args(["--ansible-verbosity", "1"]).run();
    ended(&outcome, 1, &["a *** b *** c *** d 443"]);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("canary"));
    nowhere_below(&[repository.path(), &double.home(FIRST)], "canary");
}

#[test]
fn failures_that_a_condition_made_say_which() {
    let repository = Repository::new(
        "- name: Asserts\n  ansible.builtin.assert: {that: ['1 == 1', '1 == 2']}\n  ignore_errors: true\n\
         - name: Asserts in words\n  ansible.builtin.assert: {that: '1 == 3', fail_msg: three is wrong}\n  ignore_errors: true\n\
         - name: Judged\n  ansible.builtin.command: echo all good\n  register: judged\n  failed_when: ['\"good\" in judged.stdout', judged.rc == 0]\n  ignore_errors: true\n\
         - name: Awaited\n  ansible.builtin.command: echo all good\n  register: awaited\n  until: '\"bad\" in awaited.stdout'\n  retries: 1\n  delay: 0\n  ignore_errors: true\n\
         - name: Each\n  ansible.builtin.command: echo {{ item }}\n  register: each\n  failed_when: each.stdout == 'b'\n  loop: [a, b]\n",
    );
    let outcome = repository.tool(&Double::start(&[]), &[]).run();
    let said = ["  | item b: failed_when: each.stdout == 'b'\n  | rc 0\n  | stdout: b\n"];
    ended(&outcome, 1, &said);
    // In the text, too, why a failure was that the playbook went on after.
    ended(&outcome, 1, &["demo : Asserts (ignored)\n  | Assertion failed\n"]);
    let report = repository.report();
    let ignored = report["subjects"][0]["data"]["ignored_tasks"].as_array().unwrap().clone();
    let messages: Vec<&str> = ignored.iter().map(|t| t["message"].as_str().unwrap()).collect();
    let expected = [
        "Assertion failed\nassert: 1 == 2",
        "three is wrong\nassert: 1 == 3",
        "failed_when: \"good\" in judged.stdout and judged.rc == 0\nrc 0\nstdout: all good",
        "until: \"bad\" in awaited.stdout (not within 1 attempts)\nrc 0\nstdout: all good",
    ];
    assert_eq!(messages, expected);
}
