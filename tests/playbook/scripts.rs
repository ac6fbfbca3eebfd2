//! The scripts with which people ask hosts something.

use crate::cloud::{Cloud, program};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// Status, stdout and stderr of a script; `typed` comes from a file, as nobody is at the keyboard.
fn ran(cloud: &Cloud, script: &str, args: &[&str], typed: &str) -> (i32, String, String) {
    let folder = cloud.folder("scripts");
    std::fs::write(folder.join("typed"), typed).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let target = program("debug").parent().unwrap().parent().unwrap().to_owned();
    let output = Command::new(scripts.join(script))
        .args(["--inventory", "inventory.json"])
        .args(args)
        .envs(cloud.environment())
        .env("CARGO_TARGET_DIR", target)
        .env_remove("GITHUB_ACTIONS")
        .current_dir(folder.as_path())
        .stdin(Stdio::from(File::open(folder.join("typed")).unwrap()))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn people_ask_hosts(cloud: &Cloud, host: &str) {
    let inventory = json!({"all": {"hosts": {host: {"instance_id": cloud.id(host)}},
        "vars": {"deploy_region": "us-east-1"}}});
    std::fs::write(cloud.folder("scripts").join("inventory.json"), inventory.to_string()).unwrap();

    let seen = ran(cloud, "ansible-run.sh", &[host, "--", "echo", "one;", "echo chdir=/x"], "");
    assert_eq!((seen.0, seen.1.as_str()), (0, "main | success\none\nchdir=/x\n"), "{seen:?}");
    let seen = ran(cloud, "ansible-run.sh", &[host, "--", "echo one; echo two >&2; exit 3"], "");
    assert!(seen.0 == 1 && seen.1.ends_with("(rc 3): two\none\ntwo\n"), "{seen:?}");
    let seen = ran(cloud, "ansible-run.sh", &[host, "--", "yes | head -c 900000"], "");
    assert!(
        seen.0 == 0 && seen.1.contains("[the first 499999 characters of stdout are cut;"),
        "{seen:?}"
    );
    let seen = ran(cloud, "ansible-run.sh", &[host, "--check", "--", "true"], "");
    assert!(seen.0 == 0 && seen.1.contains("does not run under --check"), "{seen:?}");
    let args = [host, "-m", "ansible.builtin.file", "-a", "path=/nowhere state=file"];
    let seen = ran(cloud, "ansible-run.sh", &args, "");
    assert!(seen.0 == 1 && seen.1.contains("(/nowhere) is absent"), "{seen:?}");
    let seen = ran(cloud, "ansible-run.sh", &["nobody", "--", "true"], "");
    assert!(seen.0 == 2 && seen.2.contains("`nobody`"), "{seen:?}");

    cloud.exec(host, "systemd-run --quiet --wait --unit=greeting echo hello from the journal");
    let seen = ran(cloud, "show-logs.sh", &["greeting", host], "");
    assert!(seen.0 == 0 && seen.1.contains("hello from the journal"), "{seen:?}");

    let seen = ran(cloud, "show-logs.sh", &["greetings", host], "");
    assert!(seen.0 == 1 && seen.1.contains("there is no unit greetings"), "{seen:?}");
    // A unit that is there and has not said anything.
    let seen = ran(cloud, "show-logs.sh", &["rescue.service", host], "");
    assert!(seen.0 == 0 && seen.1.contains("No entries"), "{seen:?}");
    // What was typed wrongly is said before an inventory is looked for.
    let seen = ran(cloud, "show-logs.sh", &["--inventory", "gone.json"], "");
    assert!(seen.0 == 2 && seen.2.contains("UNIT is missing"), "{seen:?}");

    let seen = ran(cloud, "ssh-to-host.sh", &[host], "cat /etc/demo/lines; exit 7\n");
    assert_eq!((seen.0, seen.1.as_str()), (7, "one\n"), "{seen:?}");
    assert!(seen.2.contains("local-cloud exec"), "{seen:?}");
    let seen = ran(cloud, "ssh-to-host.sh", &["nobody"], "");
    assert!(seen.0 == 2 && seen.2.contains("its hosts: main"), "{seen:?}");
    cloud.say("people ask hosts by scripts");
}
