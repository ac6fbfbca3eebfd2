//! A forgotten port fails the rehearsal as it would fail the deployment: the SIP rules are taken out of the Terraform
//! module, and put back.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Deployment;
use crate::machine::Machine;

/// What is planned and applied; the rest of the environment is not looked at, which saves a minute each time.
const RULES: &str = "-target=module.foundation_asterisk.aws_vpc_security_group_ingress_rule.this";

pub(crate) fn without_its_rule_nobody_answers(machine: &Machine, deployment: &Deployment) {
    machine.stage("without its rules in the Terraform module SIP gets no answer");
    let copy = machine.scratch("without-sip");
    fs::create_dir_all(&copy).unwrap();
    let mut command = Command::new("cp");
    // Its scripts share some of the repository's own.
    command
        .arg("-a")
        .args(["terraform", "scripts"].map(|folder| machine.root().join(folder)))
        .arg(&copy);
    assert!(command.status().unwrap().success());
    let module = copy.join("terraform/modules/foundation-asterisk/main.tf");
    let text = fs::read_to_string(&module).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("    sip-")).collect();
    assert_eq!(text.lines().count() - without.len(), 2, "the module opens SIP over UDP and TCP");
    fs::write(&module, without.join("\n") + "\n").unwrap();

    apply(machine, &copy.join("terraform/scripts"), "closed");
    let inventory = deployment.file("inventory.json");
    let started = Instant::now();
    let arguments =
        ["--inventory", inventory.to_str().unwrap(), "--limit", "sip", "--timeout", "3s"];
    let run = machine.tool("smoke-test-sip", &arguments);
    assert_eq!(run.code, 4, "{run}");
    assert!(run.stdout.contains("no answer (timeout)"), "{run}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // Only SIP was forgotten.
    let http =
        ["--inventory", inventory.to_str().unwrap(), "--limit", "nginx", "--path", "/health"];
    let run = machine.tool("smoke-test-http", &http);
    assert_eq!(run.code, 0, "{run}");

    machine.stage("with the rules again a phone registers and calls, without a deployment");
    apply(machine, &machine.root().join("terraform/scripts"), "open");
    let out = deployment.folder.to_str().unwrap();
    let run = machine.script("scripts/steps/smoke.sh", &["--env", "dev", "--out", out]);
    assert_eq!(run.code, 0, "{run}");
}

/// Plans and applies the rules of the Terraform tree that these scripts belong to.
fn apply(machine: &Machine, scripts: &std::path::Path, name: &str) {
    let out = machine.scratch(name);
    let out = out.to_str().unwrap();
    let mirror = machine.provider_mirror();
    let env: Vec<(&str, &str)> =
        mirror.iter().map(|folder| ("TERRAFORM_PROVIDER_MIRROR", folder.as_str())).collect();
    let plan = scripts.join("plan.sh");
    let run =
        machine.script_with_env(plan.to_str().unwrap(), &["dev", "--out", out, "--", RULES], &env);
    assert_eq!(run.code, 0, "{run}");
    let apply = scripts.join("apply.sh");
    let run = machine.script_with_env(apply.to_str().unwrap(), &[out], &env);
    assert_eq!(run.code, 0, "{run}");
}
