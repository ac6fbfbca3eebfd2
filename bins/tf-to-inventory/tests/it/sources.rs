//! Folders, S3, scaling groups, several sources at once. AWS is a double at the level of HTTP.

use crate::{fixture, tool};
use deploy_testkit::{Outcome, Tool};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use wiremock::matchers::{body_string_contains, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn hosts(outcome: &Outcome) -> Vec<String> {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    value["all"]["hosts"].as_object().unwrap().keys().cloned().collect()
}

/// Runs it without blocking the double, which lives on the same runtime.
async fn run(tool: Tool) -> Outcome {
    tokio::task::spawn_blocking(|| tool.run()).await.unwrap()
}

fn folder(backend: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".terraform")).unwrap();
    let pointer = json!({"version": 3, "terraform_version": "1.11.4", "backend": backend});
    fs::write(folder.path().join(".terraform/terraform.tfstate"), pointer.to_string()).unwrap();
    folder
}

fn xml(status: u16, code: &str, more: &str) -> ResponseTemplate {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said {code}</Message>{more}</Error>"
    );
    ResponseTemplate::new(status).set_body_string(body)
}

fn state() -> Vec<u8> {
    fs::read(fixture("state.json")).unwrap()
}

#[test]
fn a_folder_with_a_local_state_is_read_without_terraform() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("terraform.tfstate"), state()).unwrap();
    let outcome = tool().env("PATH", "/nonexistent").args([folder.path()]).run();
    assert_eq!(hosts(&outcome), ["db-primary", "sbc-blue.1-node-0", "sbc-blue.1-node-1"]);
}

#[test]
fn terraform_is_asked_about_every_other_backend() {
    let folder = folder(&json!({"type": "http", "config": {}}));
    let bin = tempfile::tempdir().unwrap();
    let program = bin.path().join("terraform");
    let script = |body: &str| {
        fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let run = |args: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", bin.path().display());
        tool().env("PATH", path).args([folder.path()]).args(args).run()
    };
    let missing = tool().env("PATH", "/nonexistent").args([folder.path()]).run();
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("its backend is `http`, and there is no terraform or tofu to ask"),
        "{}",
        missing.stderr
    );

    script(&format!(
        r#"[ "$*" = "-chdir={} state pull" ] && [ "$TF_WORKSPACE" = blue ] && exec cat {}"#,
        folder.path().display(),
        fixture("state.json").display()
    ));
    assert_eq!(hosts(&run(&["--workspace", "blue"])).len(), 3);
    script("echo '│ Error: Backend initialization required' >&2; echo canary >&2; exit 1");
    let failed = run(&[]);
    assert_eq!(failed.code, 2);
    assert!(
        failed.stderr.contains("`terraform state pull` failed: Backend initialization required"),
        "{}",
        failed.stderr
    );
    assert!(!failed.stderr.contains("canary"), "{}", failed.stderr);
    script("exit 0");
    assert!(run(&[]).stderr.contains("`terraform state pull` knows no state"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_in_s3_is_one_signed_request() {
    let aws = MockServer::start().await;
    let found = ResponseTemplate::new(200).set_body_bytes(state());
    Mock::given(method("GET"))
        .and(path("/bucket/env%3A/dev/a%20b/terraform.tfstate"))
        .respond_with(found)
        .mount(&aws)
        .await;
    let s3 =
        || tool().aws(&aws.uri()).args(["s3://bucket/a b/terraform.tfstate", "--workspace", "dev"]);
    assert_eq!(hosts(&run(s3()).await).len(), 3);
    let requests = aws.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1);
    let signature = requests[0].headers["authorization"].to_str().unwrap();
    assert!(signature.contains("/us-east-1/s3/aws4_request"), "{signature}");

    // A folder whose backend is that bucket, with a workspace selected: no Terraform needed.
    let backend = json!({"type": "s3", "config": {"bucket": "bucket", "key": "a b/terraform.tfstate", "region": "us-east-1"}});
    let folder = folder(&backend);
    fs::write(folder.path().join(".terraform/environment"), "dev").unwrap();
    let path = folder.path().to_owned();
    let outcome = run(tool().aws(&aws.uri()).env("PATH", "/nonexistent").args([path])).await;
    assert_eq!(hosts(&outcome).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_refuses_is_told_with_what_to_do() {
    for (answer, code, expected) in [
        (xml(403, "AccessDenied", ""), 5, "hint: the role needs `s3:GetObject`"),
        (xml(404, "NoSuchKey", ""), 2, "hint: was it applied? check the key and `--workspace`"),
        (xml(404, "NoSuchBucket", ""), 2, "s3:GetObject was refused: said NoSuchBucket"),
        (xml(403, "ExpiredToken", ""), 5, "the credentials are too old"),
        (ResponseTemplate::new(200).set_body_string("<html>login</html>"), 2, "is an HTML page"),
    ] {
        let aws = MockServer::start().await;
        Mock::given(method("GET")).respond_with(answer).mount(&aws).await;
        let outcome = run(tool().aws(&aws.uri()).args(["s3://bucket/key"])).await;
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    let nobody = run(tool()
        .args(["s3://bucket/key", "--region", "us-east-1"])
        .env("AWS_EC2_METADATA_DISABLED", "true"))
    .await;
    assert_eq!(nobody.code, 5);
    assert!(nobody.stderr.contains("no AWS credentials were found"), "{}", nobody.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_passes_and_a_bucket_elsewhere_is_asked_there() {
    let aws = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(xml(503, "SlowDown", ""))
        .up_to_n_times(2)
        .mount(&aws)
        .await;
    let moved = xml(301, "PermanentRedirect", "").insert_header("x-amz-bucket-region", "eu-west-1");
    Mock::given(method("GET")).respond_with(moved).up_to_n_times(1).mount(&aws).await;
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(state()))
        .mount(&aws)
        .await;
    let outcome = run(tool().aws(&aws.uri()).args(["s3://bucket/key"])).await;
    assert_eq!(hosts(&outcome).len(), 3);
    let requests = aws.received_requests().await.unwrap();
    let regions: Vec<bool> = requests
        .iter()
        .map(|request| {
            request.headers["authorization"].to_str().unwrap().contains("/eu-west-1/s3/")
        })
        .collect();
    assert_eq!(regions, [false, false, false, true]);
}

fn scaled() -> String {
    let mut document: Value =
        serde_json::from_slice(&fs::read(fixture("outputs.json")).unwrap()).unwrap();
    document["inventory"]["value"]["scaling_groups"] =
        json!({"web": {"name": "dev-web", "groups": ["web"], "vars": {"port": 80}}});
    document.to_string()
}

fn groups_page(members: &[(&str, &str, &str)], token: &str) -> ResponseTemplate {
    let members: String = members
        .iter()
        .map(|(id, lifecycle, health)| {
            format!("<member><InstanceId>{id}</InstanceId><LifecycleState>{lifecycle}</LifecycleState><HealthStatus>{health}</HealthStatus></member>")
        })
        .collect();
    ResponseTemplate::new(200).set_body_string(format!(
        "<R><DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>dev-web</AutoScalingGroupName>\
         <Instances>{members}</Instances></member></AutoScalingGroups>{token}</DescribeAutoScalingGroupsResult></R>"
    ))
}

fn instances_page(ids: &[&str], token: &str) -> ResponseTemplate {
    let items: String = ids
        .iter()
        .map(|id| {
            format!("<item><instanceId>{id}</instanceId><privateIpAddress>10.0.9.9</privateIpAddress><instanceState><name>running</name></instanceState></item>")
        })
        .collect();
    ResponseTemplate::new(200).set_body_string(format!(
        "<R><reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>{token}</R>"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_groups_are_looked_up_page_by_page() {
    const IDS: [&str; 3] = ["i-00000000000000001", "i-00000000000000002", "i-00000000000000003"];
    let aws = MockServer::start().await;
    let on = |text: &str| Mock::given(method("POST")).and(body_string_contains(text));
    on("Action=DescribeAutoScalingGroups")
        .and(body_string_contains("NextToken=p2"))
        .respond_with(groups_page(
            &[(IDS[1], "InService", "Healthy"), (IDS[2], "Terminating", "Healthy")],
            "",
        ))
        .mount(&aws)
        .await;
    on("Action=DescribeAutoScalingGroups")
        .respond_with(groups_page(&[(IDS[0], "InService", "Healthy")], "<NextToken>p2</NextToken>"))
        .mount(&aws)
        .await;
    // An empty page in between, as EC2 may give.
    on("Action=DescribeInstances")
        .and(body_string_contains("NextToken=q3"))
        .respond_with(instances_page(&[IDS[1]], ""))
        .mount(&aws)
        .await;
    on("Action=DescribeInstances")
        .and(body_string_contains("NextToken=q2"))
        .respond_with(instances_page(&[], "<nextToken>q3</nextToken>"))
        .mount(&aws)
        .await;
    on("Action=DescribeInstances")
        .respond_with(instances_page(&[IDS[0]], "<nextToken>q2</nextToken>"))
        .mount(&aws)
        .await;
    let outcome = run(tool().aws(&aws.uri()).args(["-"]).stdin(scaled())).await;
    assert_eq!(
        hosts(&outcome),
        ["alone-1", "sip-1", "sip-2", "web-i-00000000000000001", "web-i-00000000000000002"]
    );
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(value["all"]["hosts"]["web-i-00000000000000001"]["port"], 80);
    assert_eq!(value["all"]["children"]["web"]["hosts"].as_object().unwrap().len(), 2);
    let explained = run(tool().aws(&aws.uri()).args(["-", "--explain"]).stdin(scaled())).await;
    assert!(
        explained.stdout.contains("left out: not in service: Terminating"),
        "{}",
        explained.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaling_group_that_cannot_be_looked_up_is_no_empty_one() {
    let aws = MockServer::start().await;
    let none = "<R><DescribeAutoScalingGroupsResult><AutoScalingGroups/></DescribeAutoScalingGroupsResult></R>";
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_string(none))
        .mount(&aws)
        .await;
    let outcome = run(tool().aws(&aws.uri()).args(["-"]).stdin(scaled())).await;
    assert_eq!(outcome.code, 2);
    insta::assert_snapshot!(outcome.stderr, @r"
    error: cannot look up the scaling groups in stdin: AWS has no `dev-web` (`web`)
    hint: check region and account, and apply again if they were deleted; without AWS, `--scaling-groups skip` leaves them out
    ");
    let denied = MockServer::start().await;
    Mock::given(method("POST")).respond_with(xml(403, "AccessDenied", "")).mount(&denied).await;
    let outcome = run(tool().aws(&denied.uri()).args(["-"]).stdin(scaled())).await;
    assert_eq!(outcome.code, 5);
    assert!(
        outcome.stderr.contains("needs `autoscaling:DescribeAutoScalingGroups`"),
        "{}",
        outcome.stderr
    );
    let skipped = run(tool().args(["-", "--scaling-groups", "skip"]).stdin(scaled())).await;
    assert_eq!(hosts(&skipped).len(), 3);
}

fn environment(folder: &Path, name: &str, host: &str, id: &str) -> std::path::PathBuf {
    let path = folder.join(format!("{name}.json"));
    let value = json!({"version": 1, "project": "p", "environment": name, "region": "us-east-1",
        "hosts": {host: {"instance_id": id, "private_ip": "10.0.0.1", "groups": ["sip"]}},
        "vars": {"domain": format!("{name}.example.org")}, "group_children": {"voip": ["sip"]}});
    let document = json!({"inventory": {"sensitive": false, "type": "dynamic", "value": value},
        "endpoint": {"sensitive": false, "type": "string", "value": format!("{{{{ {name} }}}}")},
        "token": {"sensitive": true, "type": "string", "value": "canary-token"}});
    fs::write(&path, document.to_string()).unwrap();
    path
}

#[test]
fn several_environments_become_one_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let dev = environment(folder.path(), "dev", "dev-1", "i-00000000000000001");
    let prod = environment(folder.path(), "prod", "prod-1", "i-00000000000000002");
    let outcome = tool().args([&dev, &prod]).run();
    assert_eq!(hosts(&outcome), ["dev-1", "prod-1"]);
    let all = &serde_json::from_str::<Value>(&outcome.stdout).unwrap()["all"];
    assert_eq!(all["children"]["env_dev"]["vars"]["domain"], "dev.example.org");
    assert_eq!(all["children"]["voip"], json!({"hosts": {}, "children": {"sip": {}}}));
    // By the environment, as an executable inventory takes them.
    let both = format!("{}\n{}", dev.display(), prod.display());
    let listed = tool().env("TF_TO_INVENTORY_SOURCE", both).args(["--list"]).run();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["env_prod"]["hosts"], json!(["prod-1"]));
    assert_eq!(listed["voip"]["children"], json!(["sip"]));

    let twin = environment(folder.path(), "stage", "dev-1", "i-00000000000000003");
    let outcome = tool().args([&dev, &twin]).run();
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.stderr.contains("host `dev-1` is `i-00000000000000001` in"),
        "{}",
        outcome.stderr
    );
    let report = folder.path().join("report.json");
    let outcome = tool()
        .args([&dev, &twin])
        .args(["--on-conflict", "last", "--report", report.to_str().unwrap()])
        .run();
    assert!(outcome.stdout.contains("i-00000000000000003"), "{}", outcome.stdout);
    assert!(fs::read_to_string(&report).unwrap().contains("the last is kept"));
}

#[test]
fn outputs_become_variables_and_secrets_only_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let dev = environment(folder.path(), "dev", "dev-1", "i-00000000000000001");
    let run = |args: &[&str]| tool().args([&dev]).args(args).run();
    let outcome = run(&["--var-from-output", "sip.endpoint"]);
    let all = &serde_json::from_str::<Value>(&outcome.stdout).unwrap()["all"];
    assert_eq!(
        all["children"]["sip"]["vars"]["endpoint"],
        json!({"__ansible_unsafe": "{{ dev }}"})
    );
    let refused = |args: &[&str], expected: &str| {
        let outcome = run(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{args:?}");
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
    };
    refused(&["--var-from-output", "token"], "marks the output `token` as sensitive");
    refused(&["--var-from-output", "nothing"], "no source has an output `nothing`");
    refused(&["--var-from-output", "endpoint,endpoint"], "`endpoint` is a variable");
    refused(
        &["--include-sensitive", "token"],
        "only `inventory` and outputs of `--var-from-output` are read",
    );

    let allowed = ["--var-from-output", "token", "--include-sensitive", "token"];
    let outcome = run(&allowed);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(outcome.stdout.contains("canary-token"));
    // In Actions the runner is told before anything else is written.
    let outcome = tool().args([&dev]).args(allowed).actions().run();
    assert!(outcome.stderr.starts_with("::add-mask::canary-token\n"), "{}", outcome.stderr);
    assert!(!outcome.summary.contains("canary"), "{}", outcome.summary);
}

#[test]
fn a_workspace_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("terraform.tfstate"), state()).unwrap();
    fs::create_dir_all(at("terraform.tfstate.d/blue")).unwrap();
    let program = at("terraform");
    fs::write(&program, "#!/bin/sh\ntouch \"$0.asked\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = tool()
        .args([folder.path()])
        .args(["--workspace", "qa", "--terraform"])
        .args([&program])
        .run();
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.stderr.contains("has no workspace `qa`, only `blue`, `default`"),
        "{}",
        outcome.stderr
    );
    assert!(!at("terraform.asked").exists() && !at("terraform.tfstate.d/qa").exists());
}

#[test]
fn a_profile_that_is_not_there_is_named() {
    let outcome = tool()
        .args(["s3://bucket/key", "--region", "us-east-1"])
        .env("AWS_PROFILE", "nope")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .run();
    assert_eq!(outcome.code, 5);
    assert!(
        outcome.stderr.contains("the profile `nope`, which does not exist"),
        "{}",
        outcome.stderr
    );
}

/// Terragrunt refuses `-chdir`: it is run in the folder.
#[test]
fn terragrunt_is_asked_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let bin = tempfile::tempdir().unwrap();
    let program = bin.path().join("terragrunt");
    let script = format!(
        r#"#!/bin/sh
case "$*" in *-chdir*) echo 'ERROR  -chdir is not supported' >&2; exit 1;; esac
[ "$*" = "state pull" ] && [ -e terragrunt.hcl ] && [ "$TG_TF_FORWARD_STDOUT" = true ] || exit 1
exec cat {}
"#,
        fixture("state.json").display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("terragrunt.hcl"), "").unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    let found = tool().env("PATH", &path).args([folder.path()]).run();
    assert_eq!(hosts(&found).len(), 3);
    // By a path, which is meant from here, not from that folder.
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", program.strip_prefix("/").unwrap().display());
    let found = tool().args([folder.path()]).args(["--terraform", &relative]).run();
    assert_eq!(hosts(&found).len(), 3);
    let missing = tool().env("PATH", "/nonexistent").args([folder.path()]).run();
    assert!(missing.stderr.contains("there is no terragrunt to ask"), "{}", missing.stderr);
}
