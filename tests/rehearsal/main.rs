//! The rehearsal as a test: the README's first command on this machine, then everything that must hold around it.
//!
//! One test, because one deployment takes minutes and each stage builds on the one before. It says each stage as it
//! begins (`--nocapture`), and whatever happens it takes the rehearsal cloud down at the end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it does and ends where something is wrong"
)]

mod machine;
mod sip_rule;
mod users;

use deploy_report::{Report, SubjectOutcome};
use machine::{Machine, Run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_whole_deployment_rehearses_on_this_machine() {
    let machine = Machine::new();
    machine.stage("nothing runs before");
    let before = machine.traces();
    assert_eq!(before, Vec::<String>::new(), "a rehearsal is running: `local-cloud down` first");
    bad_input_is_refused_before_anything_starts(&machine);
    machine.without_cloud_the_tools_say_so();

    interrupted_apply_can_be_run_again(&machine);
    let first = first_deploy(&machine);
    second_deploy_changes_nothing(&machine, &first);
    sip_rule::without_its_rule_nobody_answers(&machine, &first);
    secrets_are_nowhere(&machine, &first);
    users::nobody_else_is_the_health_probe(&machine, &first);
    users::ranges_of_a_living_network_stay(&machine);
    users::one_user_is_one_change(&machine, &first);
    users::logs_are_rotated(&machine, &first);
    a_failing_task_is_named_with_file_and_line(&machine, &first);
    bad_input_gets_one_clear_error(&machine, &first);
    ctrl_c_cancels_what_runs_on_the_host(&machine, &first);
    memory_stays_small(&machine);
    destroy_takes_everything_down(&machine);
    without_the_cloud_the_tools_say_so(&machine, &first);
    down_cleans_up_after_a_crash(&machine);
}

fn bad_input_is_refused_before_anything_starts(machine: &Machine) {
    machine.stage("an unknown environment is refused");
    let run = machine.script("scripts/deploy-environment.sh", &["nowhere", "--local"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.starts_with("error: unknown environment `nowhere`"), "{run}");
    assert_eq!(run.stderr.matches("error: ").count(), 1, "{run}");
}

/// Ctrl-C in the middle of `apply`, where it is most dangerous: the state is kept, and the next deploy goes on.
fn interrupted_apply_can_be_run_again(machine: &Machine) {
    machine.stage("Ctrl-C during apply ends with 130");
    let folder = machine.scratch("interrupted");
    let child = machine.start_deploy(&folder);
    machine.until("apply has made something", Duration::from_secs(1500), || {
        fs::read_to_string(folder.join("logs/apply.log"))
            .is_ok_and(|log| log.contains("Creation complete"))
    });
    let run = machine.interrupt(child);
    assert_eq!(run.code, 130, "{run}");
    assert!(run.stdout.contains("stopped"), "the summary says so: {run}");
    println!("{}", steps_of(&folder));
}

fn first_deploy(machine: &Machine) -> Deployment {
    machine.stage("a deploy goes on where that one stopped");
    let deployment = deploy(machine, "first");
    assert_eq!(deployment.run.code, 0, "{}", deployment.run);
    for step in ["inventory", "wait", "configure", "smoke-http", "smoke-sip", "clean"] {
        let report = deployment.report(step);
        assert_eq!(report.outcome, "success", "{step}: {}", report.title);
    }
    let summary = fs::read_to_string(deployment.file("summary.md")).unwrap();
    assert!(
        summary.contains("deployed and verified") && summary.contains("dev-platform-1"),
        "{summary}"
    );

    machine.stage("the call had audio");
    let sip = deployment.report("smoke-sip");
    let media =
        sip.subjects.iter().find(|subject| subject.name == "media").expect("the media was checked");
    let (sent, received) = (
        media.data["packets_sent"].as_u64().unwrap(),
        media.data["packets_received"].as_u64().unwrap(),
    );
    assert!(sent >= 200 && received * 10 >= sent * 9, "{media:?}");
    assert!(
        sip.subjects.iter().all(|subject| subject.outcome == SubjectOutcome::Success),
        "{sip:#?}"
    );
    assert!(deployment.run.stdout.contains("packets"), "the summary shows the call's figures");
    deployment
}

fn second_deploy_changes_nothing(machine: &Machine, first: &Deployment) {
    machine.stage("a second deploy changes nothing");
    // With the playbook that also verifies what it configured.
    let second = deploy_with(machine, "second", &[("DEPLOY_PLAYBOOK", "playbooks/deploy-all.yml")]);
    assert_eq!(second.run.code, 0, "{}", second.run);
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(second.file("plan.json")).unwrap()).unwrap();
    let changes: Vec<&Value> = plan["resource_changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|change| change["change"]["actions"] != serde_json::json!(["no-op"]))
        .filter(|change| change["mode"] == "managed")
        .collect();
    assert!(changes.is_empty(), "{changes:#?}");
    let recap = &second.report("configure").subjects[0];
    assert_eq!(recap.data["changed"], 0, "{recap:?}");
    assert_eq!(
        fs::read(first.file("inventory.json")).unwrap(),
        fs::read(second.file("inventory.json")).unwrap()
    );
}

/// The passwords themselves, read the way an operator would, are in no file of the run and in no output of it.
fn secrets_are_nowhere(machine: &Machine, deployment: &Deployment) {
    machine.stage("no secret in outputs, plan, reports, logs or state");
    let inventory = deployment.inventory();
    let mut secrets = Vec::new();
    let vars = &inventory["all"]["vars"];
    let mut arns = vec![&vars["database_secret_arn"], &vars["message_bus_secret_arn"]];
    arns.extend(vars["sip_user_secret_arns"].as_object().expect("users by name").values());
    for arn in arns {
        let arn = arn.as_str().expect("the inventory names the secrets");
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
        let values: Value = serde_json::from_str(&text).expect("a secret is a JSON object");
        let object = values.as_object().expect("a secret is a JSON object");
        secrets.extend(
            object
                .iter()
                .filter(|(key, _)| *key != "username")
                .map(|(_, v)| v.as_str().unwrap().to_owned()),
        );
    }
    assert!(
        secrets.len() >= 4 && secrets.iter().all(|secret| secret.len() >= 12),
        "{} secrets",
        secrets.len()
    );
    let state = machine.terraform_state();
    for secret in &secrets {
        assert!(!deployment.run.stdout.contains(secret) && !deployment.run.stderr.contains(secret));
        assert!(!state.contains(secret), "a secret is in Terraform's state");
    }
    let instance = deployment.instance();
    let places = "/var/log /var/lib/ssm-run-playbook /var/lib/cloud /var/lib/amazon /tmp";
    for secret in &secrets {
        let found = machine.on_host(
            &instance,
            &format!("grep -rlF -e '{secret}' {places} 2>/dev/null; journalctl --no-pager | grep -cF -e '{secret}'; true"),
        );
        assert_eq!(found.trim(), "0", "a secret is on the host in {found}");
    }
    machine::for_each_file(&deployment.folder, &mut |path| {
        // The plan is a zip archive: its members are compressed, so look into each.
        let bytes =
            if path.ends_with("tfplan") { machine::unzip(path) } else { fs::read(path).unwrap() };
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            secrets.iter().all(|secret| !text.contains(secret)),
            "a secret is in {}",
            path.display()
        );
    });
}

fn a_failing_task_is_named_with_file_and_line(machine: &Machine, deployment: &Deployment) {
    machine.stage("a failing task is named with its file and line");
    let ansible = machine.scratch("failing");
    fs::create_dir_all(ansible.join("playbooks")).unwrap();
    let playbook = "---\n- name: Break on purpose\n  hosts: all\n  gather_facts: false\n  tasks:\n    - name: Refuse to go on\n      ansible.builtin.fail:\n        msg: deliberately broken\n";
    fs::write(ansible.join("playbooks/broken.yml"), playbook).unwrap();
    let run = machine.playbook(deployment, &ansible, "playbooks/broken.yml");
    assert_eq!(run.code, 1, "{run}");
    for expected in
        ["Refuse to go on", "playbooks/broken.yml:6", "deliberately broken", "dev-platform-1"]
    {
        assert!(
            run.stdout.contains(expected) || run.stderr.contains(expected),
            "{expected} is missing: {run}"
        );
    }
}

fn bad_input_gets_one_clear_error(machine: &Machine, deployment: &Deployment) {
    let good = deployment.inventory();
    let inventory = deployment.file("inventory.json");
    let variant = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value["all"]["hosts"]["dev-platform-1"]);
        let path = machine.scratch("inventories").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };

    machine.stage("a host without an instance id");
    let no_id = variant("no-id.json", &|host| {
        host.as_object_mut().unwrap().remove("instance_id");
    });
    let run = machine.tool("wait-for-cloud-init", &["--inventory", &no_id]);
    assert!(run.code == 2 && run.stderr.contains("dev-platform-1"), "{run}");

    machine.stage("an instance id that EC2 does not know");
    let unknown =
        variant("unknown.json", &|host| host["instance_id"] = "i-0ffffffffffffffff".into());
    let run = machine.tool("wait-for-cloud-init", &["--inventory", &unknown, "--timeout", "1m"]);
    assert!(run.code == 2 && run.stderr.contains("i-0ffffffffffffffff"), "{run}");

    machine.stage("a truncated and an empty outputs file");
    let outputs = fs::read_to_string(deployment.file("outputs.json")).unwrap();
    for text in [&outputs[..outputs.len() / 2], ""] {
        let run = machine.tool_with_stdin("tf-to-inventory", &["-"], text);
        assert_eq!(run.code, 2, "{run}");
        assert!(run.stderr.starts_with("error: "), "{run}");
    }

    machine.stage("a playbook that is missing, and one that does not parse");
    let ansible = machine.scratch("unparsable");
    fs::create_dir_all(&ansible).unwrap();
    fs::write(
        ansible.join("bad.yml"),
        "---\n- hosts: all\n  tasks:\n    - name: x\n     debug: {}\n",
    )
    .unwrap();
    let run = machine.playbook(deployment, &ansible, "missing.yml");
    assert!(run.code == 2 && run.stderr.contains("missing.yml"), "{run}");
    let run = machine.playbook(deployment, &ansible, "bad.yml");
    assert!(run.code == 2 && run.stderr.contains("bad.yml") && run.stderr.contains('5'), "{run}");

    machine.stage("a wrong SIP password is a verdict, not a timeout");
    let started = Instant::now();
    let run = machine.tool_with_env(
        "smoke-test-sip",
        &[
            "--inventory",
            inventory.to_str().unwrap(),
            "--limit",
            "sip",
            "--user",
            "1001",
            "--password-env",
            "WRONG",
        ],
        &[("WRONG", "not-the-password")],
    );
    assert!(run.code == 1 && format!("{run}").contains("credentials rejected"), "{run}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    machine.stage("a plan that no longer fits the state");
    // The first deployment's plan was applied already, so the state has moved on since.
    let run = machine.script(
        "scripts/steps/apply.sh",
        &["--env", "dev", "--out", deployment.folder.to_str().unwrap()],
    );
    assert!(run.code == 2 && run.stderr.contains("plan") && run.stderr.contains("hint: "), "{run}");
}

fn ctrl_c_cancels_what_runs_on_the_host(machine: &Machine, deployment: &Deployment) {
    machine.stage("Ctrl-C cancels what runs on the host");
    let ansible = machine.scratch("slow");
    fs::create_dir_all(&ansible).unwrap();
    let playbook = "---\n- name: Take long\n  hosts: all\n  gather_facts: false\n  tasks:\n    - name: Sleep\n      ansible.builtin.command: sleep 987\n      changed_when: false\n";
    fs::write(ansible.join("slow.yml"), playbook).unwrap();
    let instance = deployment.instance();
    let child = machine.start_playbook(deployment, &ansible, "slow.yml");
    machine.until("the task runs on the host", Duration::from_secs(60), || {
        machine.on_host(&instance, "pgrep -f '^sleep 987' || true").contains(char::is_numeric)
    });
    let interrupted = Instant::now();
    let run = machine.interrupt(child);
    assert_eq!(run.code, 130, "{run}");
    assert!(interrupted.elapsed() < Duration::from_secs(10), "{:?}", interrupted.elapsed());
    machine.until("the task is gone from the host", Duration::from_secs(15), || {
        !machine.on_host(&instance, "pgrep -f '^sleep 987' || true").contains(char::is_numeric)
    });

    machine.stage("a run after Ctrl-C goes on");
    fs::write(ansible.join("slow.yml"), playbook.replace("sleep 987", "sleep 0")).unwrap();
    let run = machine.playbook(deployment, &ansible, "slow.yml");
    assert_eq!(run.code, 0, "{run}");
}

fn memory_stays_small(machine: &Machine) {
    machine.stage("the whole rehearsal needs at most 2 GiB");
    let mib = machine.resident_mib();
    println!("           resident: {mib} MiB");
    assert!((100..=2048).contains(&mib), "{mib} MiB");
}

fn destroy_takes_everything_down(machine: &Machine) {
    machine.stage("--destroy takes it down");
    let run = machine.script("scripts/deploy-environment.sh", &["dev", "--local", "--destroy"]);
    assert_eq!(run.code, 0, "{run}");
    machine.docker_again();
    assert_eq!(machine.traces(), Vec::<String>::new());
}

fn without_the_cloud_the_tools_say_so(machine: &Machine, deployment: &Deployment) {
    machine.stage("without the rehearsal cloud every step says so");
    let inventory = deployment.file("inventory.json");
    let dead = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4570"),
        ("AWS_ACCESS_KEY_ID", "rehearsal"),
        ("AWS_SECRET_ACCESS_KEY", "rehearsal"),
        ("AWS_REGION", "us-east-1"),
    ];
    let run = machine.tool_with_env(
        "wait-for-cloud-init",
        &["--inventory", inventory.to_str().unwrap()],
        &dead,
    );
    assert!(run.code == 6 && run.stderr.contains("local-cloud status"), "{run}");
    let out = machine.scratch("dead");
    let run = machine.script_with_env(
        "scripts/steps/plan.sh",
        &["--env", "dev", "--out", out.to_str().unwrap()],
        &dead,
    );
    assert!(run.code == 6 && run.stderr.contains("http://127.0.0.1:4570"), "{run}");
}

fn down_cleans_up_after_a_crash(machine: &Machine) {
    machine.stage("down cleans up after a crash of the daemon");
    let run = machine.tool("local-cloud", &["up"]);
    assert_eq!(run.code, 0, "{run}");
    let exports = run.stdout.clone();
    let good = |line: &str| line.starts_with("export ") || line.starts_with("unset AWS_");
    assert!(exports.lines().all(good), "{exports}");
    machine.run_a_host(&exports);
    machine.kill_daemon();
    let started = Instant::now();
    let run = machine.tool("local-cloud", &["down"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(started.elapsed() < Duration::from_secs(20), "down took {:?}", started.elapsed());
    assert_eq!(machine.traces(), Vec::<String>::new());
}

/// One run of deploy-environment.sh and its folder.
struct Deployment {
    run: Run,
    folder: std::path::PathBuf,
}

fn deploy(machine: &Machine, name: &str) -> Deployment {
    deploy_with(machine, name, &[])
}

fn deploy_with(machine: &Machine, name: &str, env: &[(&str, &str)]) -> Deployment {
    let folder = machine.scratch(name);
    let args = ["dev", "--local", "--out", folder.to_str().unwrap()];
    let run = machine.script_with_env("scripts/deploy-environment.sh", &args, env);
    println!("{}", steps_of(&folder));
    Deployment { run, folder }
}

/// The time of each step in one line.
fn steps_of(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("steps.jsonl")).unwrap_or_default();
    let steps = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let parts: Vec<String> = steps
        .map(|step| format!("{} {} ms", step["step"].as_str().unwrap_or("?"), step["elapsed_ms"]))
        .collect();
    format!("           {}", parts.join(", "))
}

impl Deployment {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(name)
    }

    fn report(&self, step: &str) -> Report {
        let path = self.file(&format!("reports/{step}.json"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn inventory(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.file("inventory.json")).unwrap()).unwrap()
    }

    fn instance(&self) -> String {
        self.inventory()["all"]["hosts"]["dev-platform-1"]["instance_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
