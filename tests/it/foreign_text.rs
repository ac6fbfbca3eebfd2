//! What comes from outside (flags, files, answers of AWS and of services) reaches people, but is no command to the
//! runner and nothing that a terminal acts on. Every tool's real binary, inside and outside of Actions.

use crate::{TOOLS, tool};
use deploy_testkit::{Outcome, Tool};
use regex::Regex;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;

/// Commands in both of the runner's forms after each kind of line end, and what hides text from people.
const HOSTILE: &str = "x\n::add-mask::HOSTILE\r::stop-commands::HOSTILE\r\n \u{a0}::error::HOSTILE\n\
    \u{85}::add-mask::HOSTILE\u{2028}::warning::HOSTILE\u{2029}a\u{b}b\u{c}::debug::HOSTILE ##[add-mask]HOSTILE \
    \u{1b}[2J\u{202e}gnp\u{2066}\u{200b}\u{200f}\u{61c}\u{feff} ![i](https://x.example/i) [l](https://x.example) \
    <img src=x> @all | `a` \\";

/// As the runner reads: <https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs>.
fn check(what: &str, outcome: &Outcome) {
    let own = Regex::new(concat!(
        r"^::(?:(?:error|warning|notice) (?:file=[^:,]*,(?:line=\d+,)?)?title=[^:,]*::",
        r"|add-mask::xoxb-1$|group::|endgroup::$|stop-commands::[0-9a-f]{32}$|[0-9a-f]{32}::$)"
    ))
    .unwrap();
    for (name, text) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        for line in text.split(['\r', '\n']) {
            let forged = line.trim_start().starts_with("::") && !own.is_match(line);
            assert!(!forged && !line.contains("##["), "{what}: {name}: {line:?}");
            // JSON writes what lies beyond in two halves, which YAML does not put together: it stays as it is.
            let beyond = |c: &char| name == "stdout" && *c > '\u{ffff}';
            let is_hidden = |c: &char| deploy_cli::actions::text::is_hidden(*c) && !beyond(c);
            let hidden = line.chars().find(is_hidden);
            assert_eq!(hidden, None, "{what}: {name}: {line:?}");
        }
        assert!(!text.contains("panicked"), "{what}: {text}");
    }
    let summary = &outcome.summary;
    let hidden = summary.chars().find(|c| *c != '\n' && deploy_cli::actions::text::is_hidden(*c));
    assert_eq!(hidden, None, "{what}: {summary:?}");
    let code = Regex::new("`[^`]*`").unwrap();
    let markup = Regex::new(r"!\[|[^\\]\]\(|<img|@all").unwrap();
    for line in summary.lines().filter(|line| !line.starts_with("    ")) {
        let text = code.replace_all(line, "");
        assert!(!markup.is_match(&text), "{what}: {line}");
    }
}

/// Runs it inside and outside of Actions, for people and for programs; it must end in the way that is expected.
fn each(what: &str, expected: &[i32], call: impl Fn(&str) -> Tool) {
    for format in ["text", "json"] {
        for actions in [false, true] {
            let call = if actions { call(format).actions() } else { call(format) };
            let outcome = call.run();
            let what = format!("{what} ({format}, in Actions: {actions})");
            assert!(expected.contains(&outcome.code), "{what}: {outcome:?}");
            check(&what, &outcome);
            let said = format!("{}{}{}", outcome.stdout, outcome.stderr, outcome.summary);
            assert!(said.contains("HOSTILE"), "{what}: nothing was quoted: {said}");
        }
    }
}

/// Answers each request with an error in hostile words, in the form that its protocol has.
fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {
        let last = head.lines().last().unwrap_or_default().to_lowercase();
        if let Some(value) = last.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let head = head.to_lowercase();
    let xml: String = HOSTILE
        .chars()
        .filter(|c| !c.is_ascii_control() || matches!(c, '\r' | '\n'))
        .map(|c| match c {
            '<' => "&lt;".to_owned(),
            '\r' => "&#13;".to_owned(),
            c => c.to_string(),
        })
        .collect();
    let (status, kind, body) = if head.contains("x-amz-target") {
        let body = json!({ "__type": "ValidationException", "message": HOSTILE });
        ("400 Bad Request", "application/x-amz-json-1.1", body.to_string())
    } else if head.starts_with("post /chat.") {
        let body = json!({ "ok": false, "error": HOSTILE });
        ("200 OK", "application/json", body.to_string())
    } else if head.contains("authorization: aws4") {
        let error = format!("<Code>InvalidParameterValue</Code><Message>{xml}</Message>");
        let body = format!("<Response><Errors><Error>{error}</Error></Errors>{error}</Response>");
        ("400 Bad Request", "text/xml", body)
    } else {
        ("500 ##[add-mask]HOSTILE", "text/plain", HOSTILE.to_owned())
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
}

/// A SIP service that answers in hostile words.
fn phone() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let request = String::from_utf8_lossy(&packet[..length]);
            let same = request.lines().filter(|line| {
                ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                    .iter()
                    .any(|name| line.starts_with(name))
            });
            let headers: String = same.map(|line| format!("{line}\r\n")).collect();
            let words = "##[add-mask]HOSTILE \u{1b}[2J\u{202e}gnp";
            let answer = format!(
                "SIP/2.0 503 {words}\r\n{headers}Warning: 399 x \"::add-mask::HOSTILE {words}\"\r\n\
                 Server: {words}\r\nContent-Length: 0\r\n\r\n"
            );
            let _ = socket.send_to(answer.as_bytes(), peer);
        }
    });
    format!("sip:{address}")
}

fn inventory(folder: &Path, name: &str, id: &str) -> String {
    let host = json!({ "instance_id": id, "deploy_region": "us-east-1", "ansible_host": "127.0.0.1",
        "public_ip": "127.0.0.1", "note": HOSTILE });
    let inventory =
        json!({ "all": { "hosts": {}, "children": { "sip": { "hosts": { name: host } } } } });
    let path = folder.join("inventory.json");
    fs::write(&path, inventory.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_flag_that_clap_refuses_is_quoted_harmlessly() {
    for name in TOOLS {
        let program = tool(name);
        let quoted = |args: &[&str]| {
            each(&format!("{name} {args:?}"), &[2], |_| Tool::new(&program).args(args));
        };
        quoted(&[&format!("--no-such-flag-{HOSTILE}")]);
        quoted(&["--completions", HOSTILE]);
        if name != "local-cloud" {
            quoted(&["--format", HOSTILE]);
            each(&format!("{name}, from its environment"), &[2], |_| {
                let variable = format!("{}_FORMAT", name.replace('-', "_").to_uppercase());
                Tool::new(&program).env(variable, HOSTILE)
            });
        }
    }
}

#[test]
fn a_path_and_a_report_that_cannot_be_used_are_quoted_harmlessly() {
    let service = service();
    let missing = format!("/nowhere/{HOSTILE}");
    let calls: [(&str, Vec<&str>); 7] = [
        ("tf-to-inventory", vec![&missing]),
        ("wait-for-cloud-init", vec!["--inventory", &missing]),
        ("ssm-run-playbook", vec!["--inventory", &missing, "site.yml"]),
        ("smoke-test-sip", vec!["--inventory", &missing]),
        ("smoke-test-http", vec!["--inventory", &missing]),
        ("cleanup-orphans", vec!["--project", "p", "--environment", "dev", "--state", &missing]),
        ("notify-slack", vec!["--dry-run", "--report", &missing]),
    ];
    for (name, args) in calls {
        each(name, &[0, 2, 3], |format| {
            Tool::new(tool(name)).aws(&service).args(&args).args(["--format", format])
        });
    }
}

#[test]
fn a_pattern_a_host_and_an_id_are_quoted_harmlessly() {
    let folder = tempfile::tempdir().unwrap();
    let service = service();
    fs::write(folder.path().join("site.yml"), "- hosts: all\n  tasks: []\n").unwrap();
    let inventories = [
        ("an odd pattern", inventory(folder.path(), "sip-1", "i-0123456789abcdef0"), HOSTILE),
        ("a name", inventory(folder.path(), HOSTILE, "i-0123456789abcdef0"), "all"),
        ("an id", inventory(folder.path(), "sip-1", HOSTILE), "all"),
    ];
    for (what, _, limit) in &inventories {
        let (host, id) = match *what {
            "a name" => (HOSTILE, "i-0123456789abcdef0"),
            "an id" => ("sip-1", HOSTILE),
            _ => ("sip-1", "i-0123456789abcdef0"),
        };
        let inventory = inventory(folder.path(), host, id);
        for (name, more) in [
            ("wait-for-cloud-init", &["--timeout", "2s"][..]),
            ("ssm-run-playbook", &["--ansible-dir", ".", "--timeout", "2s", "site.yml"][..]),
            ("smoke-test-sip", &["--timeout", "1s"][..]),
            ("smoke-test-http", &["--timeout", "1s"][..]),
        ] {
            if *what == "an id" && name.starts_with("smoke") {
                continue; // They do not look at it.
            }
            each(&format!("{name}: {what}"), &[1, 2, 3, 4, 6], |format| {
                Tool::new(tool(name))
                    .aws(&service)
                    .cwd(folder.path())
                    .args(["--inventory", &inventory, "--limit", limit])
                    .args(more)
                    .args(["--format", format])
            });
        }
    }
}

#[test]
fn what_a_service_answers_is_quoted_harmlessly() {
    let folder = tempfile::tempdir().unwrap();
    let (service, phone) = (service(), phone());
    fs::write(folder.path().join("site.yml"), "- hosts: all\n  tasks: []\n").unwrap();
    let state = json!({ "version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l", "outputs": {}, "resources": [] });
    let state_file = folder.path().join("state.json");
    fs::write(&state_file, state.to_string()).unwrap();
    let state_file = state_file.to_str().unwrap();
    let inventory = inventory(folder.path(), "sip-1", "i-0123456789abcdef0");
    let calls: [(&str, Vec<&str>); 7] = [
        ("tf-to-inventory", vec!["s3://bucket/key"]),
        ("wait-for-cloud-init", vec!["--inventory", &inventory, "--timeout", "5s"]),
        ("ssm-run-playbook", vec!["--inventory", &inventory, "--ansible-dir", ".", "site.yml"]),
        ("smoke-test-sip", vec!["--target", &phone, "--verbose"]),
        ("smoke-test-http", vec![&service, "--expect-text", "ok"]),
        ("cleanup-orphans", vec!["--project", "p", "--environment", "dev", "--state", state_file]),
        (
            "notify-slack",
            vec!["--status", "failed", "--channel", "C0123456789", "--api-url", &service],
        ),
    ];
    for (name, args) in calls {
        each(name, &[0, 1, 2, 4, 5, 6], |format| {
            Tool::new(tool(name))
                .aws(&service)
                .env("NOTIFY_SLACK_TOKEN", "xoxb-1")
                .cwd(folder.path())
                .args(&args)
                .args(["--format", format])
        });
    }
}

/// Data is handed on as it is: whoever parses it gets the same text.
#[test]
fn an_inventory_and_a_report_stay_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let host = json!({ "instance_id": "i-0123456789abcdef0", "private_ip": "10.0.0.1", "public_ip": null,
        "groups": ["sip"], "vars": { "motd": HOSTILE, "tag": "\u{e0041}" } });
    let output = json!({ "version": 1, "project": "p", "environment": "dev", "region": "us-east-1",
        "hosts": { "sip-1": host }, "scaling_groups": {}, "vars": {}, "group_vars": {} });
    let outputs =
        json!({ "inventory": { "sensitive": false, "type": "dynamic", "value": output } });
    let path = folder.path().join("outputs.json");
    fs::write(&path, outputs.to_string()).unwrap();
    for form in ["json", "yaml"] {
        each(form, &[0], |_| {
            Tool::new(tool("tf-to-inventory")).args([&path]).args(["--output-format", form])
        });
        let shown =
            Tool::new(tool("tf-to-inventory")).args([&path]).args(["--output-format", form]).run();
        let read: serde_json::Value = serde_saphyr::from_str(&shown.stdout).unwrap();
        let host = &read["sip"]["hosts"]["sip-1"];
        let host =
            if host.is_null() { &read["all"]["children"]["sip"]["hosts"]["sip-1"] } else { host };
        let host = if host["motd"].is_string() { host } else { &read["all"]["hosts"]["sip-1"] };
        assert_eq!(
            (&host["motd"], &host["tag"]),
            (&json!(HOSTILE), &json!("\u{e0041}")),
            "{}",
            shown.stdout
        );
    }
}
