//! The playbooks of the test, and runs in which nothing goes wrong.

use crate::cloud::{self, Cloud};
use crate::start;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Idempotent; it needs the other hosts' variables.
const SITE: &str = "- hosts: all
  gather_facts: false
  roles:
    - demo
";
const ROLE: &str = "- name: Make a folder
  ansible.builtin.file:
    path: /etc/demo
    state: directory
    mode: '0755'
- name: Write the peers
  ansible.builtin.template:
    src: peers.j2
    dest: /etc/demo/peers
    mode: '0644'
- name: Add a line
  ansible.builtin.lineinfile:
    path: /etc/demo/lines
    line: one
    create: true
    mode: '0644'
";
const PEERS: &str = "{% for host in groups['all'] | sort %}{{ host }} {{ hostvars[host].instance_id }}\n{% endfor %}";

/// Its log is longer, however well packed, than the 2,500 characters that polling brings.
const LONG: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Say much
      ansible.builtin.debug:
        msg: \"{{ lookup('password', '/dev/null', length=5000) }}\"
";

/// Counts itself, and waits for a file.
const SLOW: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Count
      ansible.builtin.shell: echo x >> /root/count
    - name: Wait
      ansible.builtin.shell: until [ -e /run/go ]; do sleep 0.1; done
    - name: Go on
      ansible.builtin.command: 'true'
";

/// Fills the disk.
const FILL: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Take all room
      ansible.builtin.shell: cat /dev/zero > /root/rest
";

/// What the kernel does when memory is short: to Ansible itself, or to what the agent started.
const KILLED: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Take all memory
      ansible.builtin.command: pkill -KILL -o -f {{ victim }}
";

/// Fails where it is told to.
const FAIL: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Look
      ansible.builtin.fail:
        msg: this one is bad
      when: inventory_hostname == bad
";

/// Uses a secret, without hiding that it does, and what two vault passwords open.
const SECRET: &str = "- hosts: all
  gather_facts: false
  roles: [open]
  tasks:
    - name: Use it
      ansible.builtin.copy:
        content: '{{ database.password }} {{ token }}'
        dest: /dev/shm/used
        mode: '0600'
    - name: Say it
      ansible.builtin.debug:
        msg: 'the password is {{ database.password }}'
";

const OPEN: &str = "- name: Open
  ansible.builtin.copy:
    content: '{{ sealed }} {{ other }}'
    dest: /dev/shm/opened
    mode: '0600'
  no_log: true
";
/// `sealed: canary-of-the-sealed`, with the password canary-of-the-vault.
const SEALED: &str = "$ANSIBLE_VAULT;1.1;AES256
30353130633861646163323639653132376130363463333863343266383137323161363833383761
3765616531306539613534393066326135646337663932310a363766643666356633333131613063
37313137356438386461393662396136383530666537666138666538303536356561633130643038
6137633561653730370a646264663664366232386636346630303038313539663231646562343263
63323030613736336536616435626439323462313663333666636439386334346635
";
/// `other: canary-of-the-other-sealed`, with the password canary-of-the-other-vault, under the name `dev`.
const OTHER: &str = "$ANSIBLE_VAULT;1.2;AES256;dev
61666234616361316334303435323666346639396535633832643965343634316539613935343431
6536643165656439386137306266353032376361336232610a623834313537613165613735336631
37383433393931326435323561313562656161623739393964333337396537626131663132653965
3164613634393232650a366537633763373132383166303430356133316666666139376330616338
62366137353833646635646432656430663161633834346164373062333434306265646334333934
3139376230306532626532316661343762646561303039376137
";

/// Reboots its host, and goes on.
const REBOOT: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Before
      ansible.builtin.shell: cut -d ' ' -f 22 /proc/1/stat >> /root/boots
    - name: Reboot
      ansible.builtin.reboot:
    - name: After
      ansible.builtin.command: touch /root/rebooted
";

/// Writes the Ansible folder.
pub(crate) fn write(folder: &Path) {
    let put = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("playbooks/site.yml", SITE);
    put("roles/demo/tasks/main.yml", ROLE);
    put("roles/demo/templates/peers.j2", PEERS);
    put("playbooks/long.yml", LONG);
    put("playbooks/slow.yml", SLOW);
    put("playbooks/killed.yml", KILLED);
    put("playbooks/fill.yml", FILL);
    put("playbooks/fail.yml", FAIL);
    put("playbooks/secret.yml", SECRET);
    put("roles/open/tasks/main.yml", OPEN);
    put("roles/open/vars/main/sealed.yml", SEALED);
    put("roles/open/vars/main/other.yml", OTHER);
    put("playbooks/reboot.yml", REBOOT);
    let mut steps = "- hosts: all\n  gather_facts: false\n  tasks:\n".to_owned();
    for number in 1..=40 {
        write!(steps, "    - name: Step {number}\n      ansible.builtin.command: sleep 1\n")
            .unwrap();
    }
    put("playbooks/steps.yml", &steps);
}

/// One of them has a clock that is four minutes ahead.
pub(crate) fn a_play_runs_and_a_second_run_changes_nothing(cloud: &Cloud, hosts: &[&str]) {
    let ended = start(cloud, "site", hosts, "site.yml", &[]).ended();
    assert_eq!(ended.code, 0, "{ended}");
    let mut peers: Vec<String> =
        hosts.iter().map(|host| format!("{host} {}\n", cloud.id(host))).collect();
    peers.sort();
    for host in hosts {
        assert!(ended.summary.contains(host), "{}", ended.summary);
        assert_eq!(ended.host(host)["data"]["changed"], 3, "{ended}");
        assert_eq!(cloud.exec(host, "cat /etc/demo/peers"), peers.concat());
    }
    let ended = start(cloud, "site-again", hosts, "site.yml", &[]).ended();
    assert_eq!(ended.code, 0, "{ended}");
    for host in hosts {
        let data = &ended.host(host)["data"];
        assert_eq!((&data["ok"], &data["changed"]), (&3.into(), &0.into()), "{ended}");
        // Nothing private stays.
        let left = cloud.exec(
            host,
            "ls -d /var/lib/ssm-run-playbook/runs/*/private /var/lib/ssm-run-playbook/runs/*/work",
        );
        assert_eq!(left, "", "{host}");
    }
    cloud.say("a play runs, and changes nothing the second time");
}

/// A bad host in the first wave spares those of the next one, which nobody has asked for anything before.
pub(crate) fn a_bad_wave_stops_the_rest(cloud: &Cloud, bad: &str, good: &str, spared: &str) {
    let vars = format!("bad={bad}");
    let args = ["--batch", "2", "-e", &vars];
    let ended = start(cloud, "waves", &[bad, good, spared], "fail.yml", &args).ended();
    assert_eq!(ended.code, 1, "{ended}");
    assert_eq!(ended.host(bad)["outcome"], "failed", "{ended}");
    assert_eq!(ended.host(good)["outcome"], "success", "{ended}");
    assert_eq!(ended.host(spared)["outcome"], "skipped", "{ended}");
    assert!(ended.stdout.contains("1 not touched"), "{ended}");
    assert_eq!(cloud.exec(spared, "ls -d /var/lib/ssm-run-playbook"), "", "{spared}");
    let args = ["--batch", "1", "--max-errors", "1", "-e", &vars];
    let ended = start(cloud, "waves-go-on", &[bad, good], "fail.yml", &args).ended();
    assert_eq!(ended.code, 1, "{ended}");
    assert_eq!(ended.host(good)["data"]["skipped"], 1, "it came to its recap: {ended}");
    cloud.say("a bad wave stops the rest unless it may be bad");
}

/// What a reference stands for reaches the play, and nothing else on the host or at home.
pub(crate) fn secrets_are_seen_by_the_play_alone(cloud: &Cloud, host: &str) {
    const PASSWORD: &str = "canary-of-the-database";
    const TOKEN: &str = "canary-of-the-token";
    let secrets = [
        ("demo/database", json!({"password": PASSWORD}).to_string()),
        ("demo/vault", "canary-of-the-vault".to_owned()),
    ];
    for (name, text) in secrets {
        let secret = json!({"Name": name, "SecretString": text});
        cloud.call("secretsmanager", "create_secret", secret);
    }
    for (name, text) in [("/demo/token", TOKEN), ("/demo/vault", "canary-of-the-other-vault")] {
        let parameter = json!({"Name": name, "Value": text, "Type": "SecureString"});
        cloud.call("ssm", "put_parameter", parameter);
    }
    let vaults =
        ["--vault-password", "secretsmanager:demo/vault", "--vault-id", "dev@ssm:/demo/vault"];
    let vars = r#"{"database": {"password": "secretsmanager:demo/database#password"}}"#;
    let args =
        ["-e", vars, "-e", "token=ssm:/demo/token", "--diff", "--verbose", "--log-dir", "logs"];
    let args = [&vaults[..], &args[..]].concat();
    // AmazonSSMManagedInstanceCore lets a role read every parameter, and no secret.
    let parameter = "arn:aws:ssm:*:*:parameter/demo/vault";
    role_policy(
        cloud,
        &json!({"Effect": "Deny", "Action": "ssm:GetParameter", "Resource": parameter}),
    );
    for reference in ["secretsmanager:demo/vault", "ssm:/demo/vault"] {
        let args = ["--vault-password", reference, "--vault-id", "dev@ssm:/demo/vault"];
        let denied = start(cloud, "secret-denied", &[host], "secret.yml", &args).ended();
        assert_eq!(denied.code, 5, "{denied}");
        let expected = format!("the instance role may not read {reference}: AccessDenied");
        assert!(denied.host(host)["detail"].as_str().unwrap().starts_with(&expected), "{denied}");
    }
    let allow =
        json!({"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"});
    role_policy(cloud, &allow);
    let ended = start(cloud, "secrets", &[host], "secret.yml", &args).ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(cloud.exec(host, "cat /dev/shm/used"), format!("{PASSWORD} {TOKEN}"));
    let opened = cloud.exec(host, "cat /dev/shm/opened");
    assert_eq!(opened, "canary-of-the-sealed canary-of-the-other-sealed");
    assert!(ended.stderr.contains("the password is ***"), "{ended}");
    for at_home in [&ended.stdout, &ended.stderr, &ended.summary, &ended.report.to_string()] {
        assert!(!at_home.contains("canary-of"), "{at_home}");
    }
    let logs = Command::new("grep").args(["-r", "canary-of"]).arg(cloud.folder("secrets")).output();
    assert_eq!(String::from_utf8_lossy(&logs.unwrap().stdout), "", "logs");
    let left = cloud.exec(
        host,
        "grep -rl [c]anary-of /var /tmp /root /etc /home /run /opt; pgrep -fa [c]anary-of",
    );
    assert_eq!(left, "", "left on {host}");
    let missing = [&vaults[..], &["-e", "token=ssm:/demo/nothing", "-e", vars]].concat();
    let ended = start(cloud, "no-secret", &[host], "secret.yml", &missing).ended();
    assert_eq!(ended.code, 2, "{ended}");
    let expected = "ssm:/demo/nothing: no such secret (ParameterNotFound)";
    assert!(ended.stdout.contains(expected), "{ended}");
    cloud.say("a secret is seen by the play alone");
}

/// Gives the hosts' role this statement in place of the one before.
fn role_policy(cloud: &Cloud, statement: &Value) {
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    let put = json!({"RoleName": cloud::ROLE, "PolicyName": "more", "PolicyDocument": policy});
    cloud.call("iam", "put_role_policy", put);
}

/// The task that asks for a reboot goes on after it, and each task is seen while it runs.
pub(crate) fn a_reboot_is_survived_and_followed(cloud: &Cloud, host: &str) {
    role_policy(cloud, &json!({"Effect": "Allow", "Action": "logs:*", "Resource": "*"}));
    let args = ["--allow-reboot", "--log-group", "/demo/playbooks"];
    let ended = start(cloud, "reboot", &[host], "reboot.yml", &args).ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(ended.host(host)["data"]["reboots"], 1, "{ended}");
    assert_eq!(
        cloud.exec(host, "sort -u /root/boots | wc -l; ls /root/rebooted").trim(),
        "2\n/root/rebooted"
    );
    // Nobody is asked where the log group can be read.
    assert!(ended.stderr.contains("the host reboots"), "{ended}");
    let streams =
        cloud.call("logs", "describe_log_streams", json!({"logGroupName": "/demo/playbooks"}));
    assert!(!streams["logStreams"].as_array().unwrap().is_empty(), "{streams}");
    cloud.say("a reboot is survived and followed");
}
