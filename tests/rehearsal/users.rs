//! What a person changes in a living environment: one SIP user more, one less, one password; a package more; and what must
//! not be changed at all.

use std::fs;

use serde_json::{Value, json};

use crate::machine::{Machine, Run};
use crate::{Deployment, deploy_with};

const VERIFIED: (&str, &str) = ("DEPLOY_PLAYBOOK", "playbooks/deploy-all.yml");

pub(crate) fn one_user_is_one_change(machine: &Machine, first: &Deployment) {
    let instance = first.instance();
    let old = password(machine, first, "1002");
    let untouched = password(machine, first, "1001");
    let psql = "runuser -u postgres -- psql -d asterisk -tAc";
    machine.on_host(&instance, &format!("{psql} 'CREATE TABLE kept AS SELECT 4711 AS row'"));

    machine.stage(
        "one more SIP user is a change of one user, and one more package of none of the hosts",
    );
    let grown = deploy_with(
        machine,
        "grown",
        &[
            ("TF_VAR_sip_users", r#"["1001","1002","1003"]"#),
            ("TF_VAR_extra_packages", r#"["htop"]"#),
            VERIFIED,
        ],
    );
    assert_eq!(grown.run.code, 0, "{}", grown.run);
    let user = |name: &str, what: &str| {
        format!("module.foundation_asterisk.module.sip_user[\"{name}\"].{what}")
    };
    let whole = |name: &str| {
        [
            "aws_secretsmanager_secret.this",
            "aws_secretsmanager_secret_version.this",
            "terraform_data.shape",
        ]
        .map(|what| user(name, what))
    };
    let created: Vec<_> = whole("1003").into_iter().map(|name| (name, json!(["create"]))).collect();
    assert_eq!(changes(&grown), created);
    let new = password(machine, &grown, "1003");
    assert_eq!(register(machine, &grown, "1003", &new).code, 0);
    assert_eq!(register(machine, &grown, "1002", &old).code, 0);
    let found = machine.on_host(&instance, "dpkg-query -W -f '${db:Status-Status}' htop");
    assert_eq!(found, "installed", "Ansible installs what the list has more");
    assert_eq!(
        machine.on_host(&instance, &format!("{psql} 'SELECT row FROM kept'")).trim(),
        "4711"
    );

    machine.stage("one user less and one password renewed are changes of those two");
    let renewed = deploy_with(
        machine,
        "renewed",
        &[("TF_VAR_secret_generations", r#"{"1002":2}"#), VERIFIED],
    );
    assert_eq!(renewed.run.code, 0, "{}", renewed.run);
    let mut expected: Vec<_> =
        whole("1003").into_iter().map(|name| (name, json!(["delete"]))).collect();
    expected.insert(
        0,
        (user("1002", "aws_secretsmanager_secret_version.this"), json!(["delete", "create"])),
    );
    assert_eq!(changes(&renewed), expected);
    refused(&register(machine, &renewed, "1003", &new));
    refused(&register(machine, &renewed, "1002", &old));
    let drawn = password(machine, &renewed, "1002");
    assert_ne!(drawn, old);
    assert_eq!(register(machine, &renewed, "1002", &drawn).code, 0);
    assert_eq!(password(machine, &renewed, "1001"), untouched);
    assert_eq!(register(machine, &renewed, "1001", &untouched).code, 0);

    machine.stage("a host with a user too many or an old password is not verified");
    let ansible = machine.root().join("ansible");
    for (user, spoilt) in [
        ("too many", "s/^\\[1001\\](foundation-user)/[1009](foundation-user)\\n&/"),
        ("1001", "s/^password => .*/password => old/"),
    ] {
        let file = "/etc/asterisk/foundation-users.conf";
        let reload = "asterisk -rx 'module reload res_pjsip.so' >/dev/null";
        machine.on_host(
            &instance,
            &format!("cp -p {file} /root/kept && sed -i '{spoilt}' {file} && {reload}"),
        );
        let run = machine.playbook(&renewed, &ansible, "playbooks/verify.yml");
        assert_eq!(run.code, 1, "{run}");
        assert!(format!("{run}").contains(user), "{run}");
        machine.on_host(&instance, &format!("mv /root/kept {file} && {reload}"));
    }
    assert_eq!(machine.playbook(&renewed, &ansible, "playbooks/verify.yml").code, 0);
}

pub(crate) fn ranges_of_a_living_network_stay(machine: &Machine) {
    machine.stage("another vpc_cidr of a living environment is refused in the plan");
    let out = machine.scratch("moved");
    let mirror = machine.provider_mirror();
    let mut env = vec![
        ("TF_VAR_vpc_cidr", "10.30.0.0/16"),
        ("TF_VAR_public_subnet_cidrs", r#"["10.30.1.0/24"]"#),
    ];
    env.extend(mirror.iter().map(|folder| ("TERRAFORM_PROVIDER_MIRROR", folder.as_str())));
    let args = ["--env", "dev", "--out", out.to_str().unwrap()];
    let run = machine.script_with_env("scripts/steps/plan.sh", &args, &env);
    assert_eq!(run.code, 1, "{run}");
    let words =
        run.stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(
        words.contains(
            "vpc_cidr of a living network cannot change from 10.20.0.0/16 to 10.30.0.0/16"
        ),
        "{run}"
    );
    assert!(!out.join("tfplan").exists(), "there is nothing to apply");
}

/// Only what sends from the probe's own port is the probe: not a WebSocket through a proxy, and no other program.
pub(crate) fn nobody_else_is_the_health_probe(machine: &Machine, deployment: &Deployment) {
    machine.stage("SIP from loopback is not the health probe, and nginx passes on no WebSocket");
    let instance = deployment.instance();
    let upgrade = "curl -s -o /dev/null -w '%{http_code}' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' -H 'Sec-WebSocket-Protocol: sip'";
    let answer = machine.on_host(&instance, &format!("{upgrade} http://127.0.0.1/api/asterisk/ws"));
    assert_eq!(answer, "404");
    for transport in ["udp", "websocket"] {
        let answer = machine.on_host(&instance, &format!("python3 -c '{ASK}' {transport}"));
        assert!(answer.starts_with("SIP/2.0 401 "), "{transport}: {answer}");
    }
}

/// OPTIONS to Asterisk from the host itself, over UDP or over its WebSocket; prints the first line of the answer.
const ASK: &str = r#"
import os, socket, sys
over = sys.argv[1]
via = {"udp": "UDP", "websocket": "WS"}[over]
text = "\r\n".join(["OPTIONS sip:127.0.0.1 SIP/2.0", "Via: SIP/2.0/%s 127.0.0.1:9;branch=z9hG4bKask%s;rport" % (via, os.getpid()),
    "Max-Forwards: 1", "From: <sip:health@127.0.0.1>;tag=ask", "To: <sip:127.0.0.1>", "Call-ID: ask%s" % os.getpid(),
    "CSeq: 1 OPTIONS", "Content-Length: 0", "", ""]).encode()
if over == "udp":
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.settimeout(5)
    link.sendto(text, ("127.0.0.1", 5060))
    answer = link.recv(4096)
else:
    link = socket.create_connection(("127.0.0.1", 5039), 5)
    link.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sip\r\n\r\n")
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += link.recv(4096)
    assert seen.startswith(b"HTTP/1.1 101"), seen
    link.sendall(bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text)
    answer = link.recv(4096)
    answer = answer[answer.index(b"SIP/2.0"):]
print(answer.split(b"\r\n")[0].decode())
"#;

/// Every log that grows is one that a rotation covers, each by one rule.
pub(crate) fn logs_are_rotated(machine: &Machine, deployment: &Deployment) {
    machine.stage("every log that grows is rotated");
    let instance = deployment.instance();
    let said = machine.on_host(&instance, "logrotate --debug /etc/logrotate.conf 2>&1");
    assert!(!said.contains("error:") && !said.contains("duplicate"), "{said}");
    let files = machine.on_host(
        &instance,
        "find /var/log/asterisk /var/log/nginx /var/log/postgresql /var/log/rabbitmq -type f -size +0",
    );
    for name in ["/var/log/asterisk/messages.log", "/var/log/asterisk/cdr-csv/Master.csv"] {
        assert!(files.contains(name), "{name} is not there: {files}");
    }
    for file in files.lines() {
        assert!(
            said.contains(&format!("considering log {file}\n")),
            "nothing rotates {file}: {said}"
        );
    }
    machine.on_host(&instance, "logrotate --force /etc/logrotate.d/foundation-asterisk");
    let after = machine.on_host(
        &instance,
        "ls /var/log/asterisk /var/log/asterisk/cdr-csv; systemctl is-enabled logrotate.timer",
    );
    assert!(
        after.contains("messages.log-")
            && after.contains("Master.csv-")
            && after.contains("enabled"),
        "{after}"
    );
}

/// Address and actions of every managed resource that the plan changes.
fn changes(deployment: &Deployment) -> Vec<(String, Value)> {
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(deployment.file("plan.json")).unwrap()).unwrap();
    let mut found: Vec<(String, Value)> = plan["resource_changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|change| {
            change["mode"] == "managed" && change["change"]["actions"] != json!(["no-op"])
        })
        .map(|change| {
            (change["address"].as_str().unwrap().to_owned(), change["change"]["actions"].clone())
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// The password as an operator would read it.
fn password(machine: &Machine, deployment: &Deployment, user: &str) -> String {
    let arns = &deployment.inventory()["all"]["vars"]["sip_user_secret_arns"];
    let arn = arns[user].as_str().unwrap_or_else(|| panic!("the inventory names {user}: {arns}"));
    let text = machine.aws(&[
        "secretsmanager",
        "get-secret-value",
        "--secret-id",
        arn,
        "--query",
        "SecretString",
        "--output",
        "text",
    ]);
    let secret: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(secret["username"], user);
    secret["password"].as_str().unwrap().to_owned()
}

fn register(machine: &Machine, deployment: &Deployment, user: &str, password: &str) -> Run {
    let inventory = deployment.file("inventory.json");
    let arguments = [
        "--inventory",
        inventory.to_str().unwrap(),
        "--limit",
        "sip",
        "--user",
        user,
        "--password-env",
        "PHONE",
    ];
    machine.tool_with_env("smoke-test-sip", &arguments, &[("PHONE", password)])
}

fn refused(run: &Run) {
    assert_eq!(run.code, 1, "{run}");
    let words = format!("{run}");
    assert!(
        ["401", "403", "404"].iter().any(|status| words.contains(status))
            || words.contains("credentials rejected"),
        "{run}"
    );
}
