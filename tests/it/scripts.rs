//! The scripts, by themselves: how they find the provider, who may start, and which run is asked about.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use crate::root;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A command whose machine has no registry of providers, and nothing of this user's.
fn offline(program: &Path, home: &Path) -> Command {
    fs::create_dir_all(home.join("bin")).unwrap();
    let curl = home.join("bin/curl");
    if !curl.exists() {
        fs::write(&curl, "#!/bin/sh\nexit 6\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&curl, mode).unwrap();
    }
    let mut command = Command::new("sh");
    command.args(["-c", r#"PATH="$HOME/bin:$PATH"; exec "$0" "$@""#]).arg(program);
    command.env("HOME", home).stdin(Stdio::null());
    for variable in ["TERRAFORM_PROVIDER_MIRROR", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    for variable in ["XDG_DATA_HOME", "TF_STATE_BUCKET", "DEPLOY_RUN", "AWS_PROFILE"] {
        command.env_remove(variable);
    }
    command
}

fn bash(home: &Path, script: &str) -> Output {
    let mut command = offline(Path::new("bash"), home);
    command.args(["-c", &format!("set -euo pipefail; cd '{}'; {script}", root().display())]);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn both_folders_of_scripts_find_the_provider_in_the_same_place() {
    let home = tempfile::tempdir().unwrap();
    let lock =
        fs::read_to_string(root().join("terraform/environments/dev/.terraform.lock.hcl")).unwrap();
    let provider = lock.lines().find_map(|line| line.strip_prefix("provider \"")).unwrap();
    let registry = provider.split('/').next().unwrap();
    let plugins = home.path().join(".terraform.d/plugins");
    fs::create_dir_all(plugins.join(registry).join("hashicorp/aws")).unwrap();
    let by_hand = bash(
        home.path(),
        ". terraform/scripts/common.sh; printf '%s\\n' \"${plugin_arguments[@]}\"",
    );
    assert_eq!(text(&by_hand.stdout).trim(), format!("-plugin-dir={}", plugins.display()));
    fs::remove_dir_all(home.path().join(".local")).unwrap();
    let deployment = bash(
        home.path(),
        ". scripts/lib/common.sh; . scripts/lib/setup.sh; provider_mirror anew; echo \"$TERRAFORM_PROVIDER_MIRROR\"",
    );
    assert_eq!(text(&deployment.stdout).trim(), plugins.display().to_string());
    // What a deployment found is used by hand, too, and said by nobody again.
    let again = bash(
        home.path(),
        ". terraform/scripts/common.sh; printf '%s\\n' \"${plugin_arguments[@]}\"",
    );
    assert_eq!(text(&again.stdout).trim(), format!("-plugin-dir={}", plugins.display()));
    assert_eq!(text(&again.stderr), "");
}

#[test]
fn a_missing_provider_is_not_told_as_aws_that_cannot_be_reached() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let run = offline(&root().join("terraform/scripts/init.sh"), home.path())
        .arg("dev")
        .env("TERRAFORM_PROVIDER_MIRROR", &empty)
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_ACCESS_KEY_ID", format!("nobody-{}", std::process::id()))
        .env("AWS_SECRET_ACCESS_KEY", "none")
        .output()
        .unwrap();
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(6), "{said}");
    assert!(said.contains("Terraform's provider is missing"), "{said}");
    assert!(said.contains(&empty.display().to_string()), "{said}");
    assert!(!said.contains("AWS cannot be reached"), "{said}");
}

/// As Terraform 1.11 says it with the S3 backend and a lock table.
const LOCKED: &str = "│ Error: Error acquiring the state lock
│ 
│ Error message: operation error DynamoDB: PutItem, https response error StatusCode: 400, ConditionalCheckFailedException
│ Lock Info:
│   ID:        6f2c1d70-6a4f-3f0c-9c29-000000000000
│   Path:      bucket/dev/terraform.tfstate
│   Operation: OperationTypeApply
│   Who:       operator@runner-7
│   Version:   1.11.4
│   Created:   2026-12-01 01:02:03 +0000 UTC
│   Info:      
";

#[test]
fn a_state_that_is_locked_names_who_has_the_lock_and_how_to_free_it() {
    let home = tempfile::tempdir().unwrap();
    let run = bash(
        home.path(),
        &format!(
            "TERRAFORM_PROVIDER_MIRROR=/ . terraform/scripts/common.sh; environment_of dev; terraform_errors='{LOCKED}'; fail_terraform 'cannot apply the plan of dev'"
        ),
    );
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(6), "{said}");
    for expected in [
        "another run has the lock of its state: operator@runner-7, OperationTypeApply, since 2026-12-01 01:02:03",
        "environments/dev force-unlock 6f2c1d70-6a4f-3f0c-9c29-000000000000",
        "wait until that run has ended",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("AWS cannot be reached"), "{said}");
}

/// A checkout with the scripts and one environment, and nothing that could be deployed.
fn checkout() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(root().join("scripts"))
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(copied.success());
    fs::create_dir_all(folder.path().join("terraform/environments/dev")).unwrap();
    folder
}

/// A run that has said that it works on dev, and waits for a line on its stdin.
fn working(checkout: &Path) -> Child {
    let script = format!(
        "cd '{}'; . scripts/lib/common.sh; . scripts/lib/claim.sh; claim_run dev 'scripts/deploy-environment.sh dev'; claim_folder dev /runs/a; echo ready; read -r _",
        checkout.display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.env_remove("DEPLOY_RUN").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn a_second_deployment_is_refused_at_the_start_and_names_the_first() {
    let checkout = checkout();
    let home = tempfile::tempdir().unwrap();
    let mut first = working(checkout.path());
    let script = checkout.path().join("scripts/deploy-environment.sh");
    let second = offline(&script, home.path()).args(["dev", "--local"]).output().unwrap();
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(6), "{said}");
    let process = format!("process {}", first.id());
    for expected in ["error: another run works on dev: ", &process, "/runs/a", "since 2"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("installing") && !said.contains("building"), "{said}");
    // One that is gone stands in nobody's way, whether it ended or was killed.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut next = working(checkout.path());
    drop(next.stdin.take());
    next.wait().unwrap();
}

#[test]
fn scripts_for_incidents_take_the_newest_run_with_an_inventory_and_say_which() {
    let checkout = checkout();
    let home = tempfile::tempdir().unwrap();
    let runs = checkout.path().join(".deploy/dev");
    let inventory = r#"{"all": {"hosts": {"h1": {"instance_id": "i-0123456789abcdef0"}}}}"#;
    for (run, has) in
        [("20260101T000000Z", true), ("20260102T000000Z", true), ("20260103T000000Z", false)]
    {
        fs::create_dir_all(runs.join(run)).unwrap();
        let text = if run.contains("0102") { inventory } else { "{}" };
        if has {
            fs::write(runs.join(run).join("inventory.json"), text).unwrap();
        }
    }
    std::os::unix::fs::symlink("20260103T000000Z", runs.join("latest")).unwrap();
    let ask = || {
        let script = checkout.path().join("scripts/ssh-to-host.sh");
        text(&offline(&script, home.path()).arg("nobody").output().unwrap().stderr)
    };
    let said = ask();
    assert!(said.contains("its hosts: h1"), "{said}");
    assert!(said.contains("the newest run (20260103T000000Z) has no inventory"), "{said}");
    assert!(said.contains(".deploy/dev/20260102T000000Z"), "{said}");
    fs::write(runs.join("20260103T000000Z/inventory.json"), inventory).unwrap();
    let said = ask();
    assert!(said.contains("its hosts: h1") && !said.contains("the newest run"), "{said}");
    for run in ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"] {
        fs::remove_file(runs.join(run).join("inventory.json")).unwrap();
    }
    assert!(ask().contains("no run of dev in .deploy/dev has an inventory"), "{}", ask());
}
