//! Systems Manager on real hosts: who registers, where output goes, and the ends that a command can come to.

use serde_json::{Value, json};

use crate::cloud::Cloud;

pub(crate) fn scenarios(cloud: &Cloud) {
    cloud.fault(&[
        "add",
        "agent-drop",
        "--host",
        "ssm-cut",
        "--seconds",
        "1",
        "--delay",
        "20s",
        "--count",
        "1",
    ]);
    cloud.fault(&["add", "agent-never", "--host", "ssm-never"]);
    let tag = "ResourceType=instance,Tags=[{Key=Name,Value=NAME},{Key=ssm,Value=yes}]";
    let launch = |name: &str, more: &[&str]| {
        let tags = tag.replace("NAME", name);
        let mut args = vec!["--tag-specifications", tags.as_str()];
        args.extend(more);
        cloud.launch(name, "bookworm", "", &args)
    };
    let weak = role_without_rights(cloud);
    let host = launch("ssm-host", &[]);
    let cut = launch("ssm-cut", &[]);
    let never = launch("ssm-never", &[]);
    let profile = format!("Name={weak}");
    let denied = launch("ssm-denied", &["--iam-instance-profile", &profile]);
    for id in [&host, &cut] {
        cloud.check("a host registers", || cloud.online(id));
    }

    let lost = cloud.check("an agent is cut off in the middle of a command", || {
        let running = send(cloud, &[&cut], &["echo begun; sleep 3; echo done"], &json!({}));
        cloud.until("its connection is lost", || cloud.ping(&cut) == "ConnectionLost");
        assert_eq!(details(cloud, &running, &cut), "InProgress");
        let waiting = send(cloud, &[&cut], &["echo later"], &json!({}));
        cloud.until("it is delayed", || details(cloud, &waiting, &cut) == "Delayed");
        (running, waiting)
    });
    cloud.check("output goes to S3 and, live, to CloudWatch Logs", || output(cloud, &host));
    cloud.check("a document of several steps runs them", || steps(cloud, &host));
    cloud.check("every end has its cause", || ends(cloud, &host));
    cloud.check("a caller's policies are looked at", || rights(cloud, &host, &cut));
    cloud.check("what ran when the agent was cut off is reported later", || {
        let (running, waiting) = &lost;
        assert_eq!(ended(cloud, running, &cut)["StandardOutputContent"], "begun\ndone\n");
        assert_eq!(ended(cloud, waiting, &cut)["StandardOutputContent"], "later\n");
    });
    cloud.check("exit status 194 reboots the host, and the command goes on", || {
        reboots(cloud, &host)
    });
    cloud.check("an agent that dies takes with it what it ran", || dies(cloud, &cut));
    cloud.check("a role without rights registers when it gets them", || {
        assert_eq!(cloud.ping(&denied), "");
        let managed = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
        let attach = ["iam", "attach-role-policy", "--role-name", &weak, "--policy-arn", managed];
        cloud.ok(&attach);
        cloud.online(&denied);
        assert_eq!(cloud.ping(&never), "", "this one never comes");
    });
    cloud.check("a command without an agent times out or cannot be delivered", || {
        for id in [&host, &cut] {
            let run = cloud.exec(id, "systemctl stop amazon-ssm-agent");
            assert_eq!(run.code, 0, "{run}");
        }
        let short = json!({"TimeoutSeconds": 30, "Parameters": {"executionTimeout": ["5"]}});
        let expires = send(cloud, &[&host], &["true"], &short);
        let gone = send(cloud, &[&cut], &["true"], &json!({}));
        cloud.terminate(&[&cut]);
        assert_eq!(ended(cloud, &gone, &cut)["StatusDetails"], "Undeliverable");
        assert_eq!(ended(cloud, &expires, &host)["StatusDetails"], "DeliveryTimedOut");
    });
    cloud.terminate(&[&host, &never, &denied]);
}

fn role_without_rights(cloud: &Cloud) -> String {
    let name = cloud.make_profile("ssm-weak");
    let managed = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore";
    cloud.ok(&["iam", "detach-role-policy", "--role-name", &name, "--policy-arn", managed]);
    name
}

fn send(cloud: &Cloud, ids: &[&str], commands: &[&str], more: &Value) -> String {
    let mut request = json!({
        "DocumentName": "AWS-RunShellScript", "InstanceIds": ids,
        "Parameters": {"commands": commands},
    });
    for (key, value) in more.as_object().expect("an object") {
        match (key.as_str(), value.as_object()) {
            ("Parameters", Some(parameters)) => {
                for (name, value) in parameters {
                    request[key][name] = value.clone();
                }
            }
            _ => request[key] = value.clone(),
        }
    }
    command(cloud, &request)
}

fn command(cloud: &Cloud, request: &Value) -> String {
    let answer = cloud.ok(&["ssm", "send-command", "--cli-input-json", &request.to_string()]);
    answer["Command"]["CommandId"].as_str().expect("a command has an id").to_owned()
}

/// The one invocation of a command on a host; `Null` where it cannot be read yet.
fn invocation(cloud: &Cloud, command: &str, host: &str) -> Value {
    let args = [
        "ssm",
        "list-command-invocations",
        "--details",
        "--command-id",
        command,
        "--instance-id",
        host,
    ];
    cloud.ok(&args)["CommandInvocations"][0].clone()
}

fn details(cloud: &Cloud, command: &str, host: &str) -> String {
    invocation(cloud, command, host)["StatusDetails"].as_str().unwrap_or_default().to_owned()
}

/// The invocation of a command of one step, when it has ended.
fn ended(cloud: &Cloud, command: &str, host: &str) -> Value {
    let open = ["", "Pending", "Delayed", "InProgress", "Cancelling"];
    cloud.until("the command ended", || !open.contains(&details(cloud, command, host).as_str()));
    let args = ["ssm", "get-command-invocation", "--command-id", command, "--instance-id", host];
    cloud.ok(&args)
}

fn output(cloud: &Cloud, host: &str) {
    let bucket = format!("ssm-{}", cloud.project);
    cloud.ok(&["s3api", "create-bucket", "--bucket", &bucket]);
    let more = json!({
        "OutputS3BucketName": bucket, "OutputS3KeyPrefix": "run/1",
        "CloudWatchOutputConfig": {"CloudWatchOutputEnabled": true},
    });
    let id = send(
        cloud,
        &[host],
        &["echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo last"],
        &more,
    );
    let group = "/aws/ssm/AWS-RunShellScript";
    let stream = format!("{id}/{host}/aws-runShellScript/stdout");
    let logged = || {
        let args = [
            "logs",
            "get-log-events",
            "--start-from-head",
            "--log-group-name",
            group,
            "--log-stream-name",
            &stream,
        ];
        let events = cloud.aws(&args).ok().map(|answer| answer["events"].clone());
        let events = events.and_then(|events| events.as_array().cloned()).unwrap_or_default();
        events.iter().filter_map(|event| event["message"].as_str()).collect::<String>()
    };
    cloud.until("the first line is in the log while it runs", || logged() == "first\n");
    assert_eq!(details(cloud, &id, host), "InProgress");
    assert_eq!(cloud.exec(host, "touch /tmp/go").code, 0);
    let done = ended(cloud, &id, host);
    // The agent cuts the last line's end when it reads that line after the command's end, and not when
    // it came by just before.
    let whole = logged();
    assert_eq!(whole.strip_suffix('\n').unwrap_or(&whole), "first\nlast");
    let key = format!("run/1/{id}/{host}/awsrunShellScript/0.awsrunShellScript");
    let url = format!("https://s3.us-east-1.amazonaws.com/{bucket}/{key}/stdout");
    assert_eq!(done["StandardOutputUrl"], url);
    let listed = cloud.ok(&["s3api", "list-objects-v2", "--bucket", &bucket]);
    let keys: Vec<&str> = listed["Contents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| object["Key"].as_str())
        .collect();
    assert_eq!(keys, [format!("{key}/stdout")], "no object of an empty stream");
}

fn steps(cloud: &Cloud, host: &str) {
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"word": {"type": "String", "allowedPattern": "^[a-z]+$"}},
        "mainSteps": [
            {"action": "aws:runShellScript", "name": "first", "inputs": {"runCommand": ["echo {{ word }}"]}},
            {"action": "aws:runPowerShellScript", "name": "windows", "inputs": {"runCommand": ["dir"]},
             "precondition": {"StringEquals": ["platformType", "Windows"]}},
            {"action": "aws:runShellScript", "name": "failing",
             "inputs": {"runCommand": ["exit 9"], "onFailure": "exit"}},
            {"action": "aws:runShellScript", "name": "left-out", "inputs": {"runCommand": ["echo never"]}},
        ],
    });
    let content = content.to_string();
    cloud.ok(&[
        "ssm",
        "create-document",
        "--name",
        "ssm-steps",
        "--document-type",
        "Command",
        "--content",
        &content,
    ]);
    let request = |word: &str| json!({"DocumentName": "ssm-steps", "InstanceIds": [host], "Parameters": {"word": [word]}});
    let bad = request("BAD").to_string();
    cloud.refused("InvalidParameters", &["ssm", "send-command", "--cli-input-json", &bad]);
    let id = command(cloud, &request("hello"));
    cloud.until("it failed", || details(cloud, &id, host) == "Failed");
    let plugins = invocation(cloud, &id, host)["CommandPlugins"].clone();
    let told: Vec<_> = plugins
        .as_array()
        .into_iter()
        .flatten()
        .map(|plugin| {
            (plugin["Name"].as_str(), plugin["Status"].as_str(), plugin["ResponseCode"].as_i64())
        })
        .collect();
    let expected = [
        (Some("first"), Some("Success"), Some(0)),
        (Some("windows"), Some("Success"), Some(0)),
        (Some("failing"), Some("Failed"), Some(9)),
        (Some("left-out"), Some("Success"), Some(0)),
    ];
    assert_eq!(told, expected);
    assert_eq!(plugins[0]["Output"], "hello\n");
    let get = ["ssm", "get-command-invocation", "--command-id", &id, "--instance-id", host];
    cloud.refused("InvalidPluginName", &get);
}

/// The first process of a host starts once per boot.
fn booted(cloud: &Cloud, host: &str) -> String {
    cloud.exec(host, "cut -d' ' -f22 /proc/1/stat").stdout
}

fn reboots(cloud: &Cloud, host: &str) {
    let before = booted(cloud, host);
    let script =
        "[ -e /var/lib/once ] || { touch /var/lib/once; echo before; exit 194; }; echo after";
    let id = send(cloud, &[host], &[script], &json!({}));
    let invocation = ended(cloud, &id, host);
    assert_eq!(invocation["StatusDetails"], "Success", "{invocation}");
    assert!(invocation["StandardOutputContent"].to_string().contains("after"), "{invocation}");
    let after = booted(cloud, host);
    assert!(!after.is_empty() && after != before, "{before:?}, {after:?}");
}

fn dies(cloud: &Cloud, host: &str) {
    cloud.online(host);
    cloud.fault(&[
        "add",
        "agent-drop",
        "--host",
        host,
        "--code",
        "dies",
        "--seconds",
        "1",
        "--delay",
        "5s",
        "--count",
        "1",
    ]);
    let id = send(cloud, &[host], &["echo $$ >/run/mine; exec sleep 300"], &json!({}));
    let runs = "kill -0 \"$(cat /run/mine)\" 2>/dev/null";
    cloud.until("it runs", || cloud.exec(host, runs).code == 0);
    cloud.until("it is killed", || {
        cloud.log().contains(&format!("{host}: its agent is killed with all that it ran"))
    });
    assert_ne!(cloud.exec(host, runs).code, 0, "what it ran is gone as well");
    let invocation = ended(cloud, &id, host);
    assert_eq!(invocation["StatusDetails"], "Failed", "{invocation}");
    cloud.online(host);
}

fn ends(cloud: &Cloud, host: &str) {
    let slow = json!({"Parameters": {"executionTimeout": ["5"]}});
    let slow = send(cloud, &[host], &["sleep 60"], &slow);
    let cancelled = send(cloud, &[host], &["sleep 60"], &json!({}));
    let windows = |key: &str, value: &str| {
        let request = json!({
            "DocumentName": "AWS-FindWindowsUpdates", "Targets": [{"Key": key, "Values": [value]}],
        });
        command(cloud, &request)
    };
    let platform = windows("InstanceIds", host);
    let nobody = windows("tag:ssm", "nobody");
    let unknown = windows("InstanceIds", "i-0123456789abcdef0");
    assert_eq!(ended(cloud, &platform, host)["StatusDetails"], "InvalidPlatform");
    let unknown = ended(cloud, &unknown, "i-0123456789abcdef0");
    assert_eq!(unknown["StatusDetails"], "Undeliverable");
    cloud.until("it settled", || {
        let listed = cloud.ok(&["ssm", "list-commands", "--command-id", &nobody]);
        listed["Commands"][0]["StatusDetails"] == "NoInstancesInTag"
    });
    cloud.until("it runs", || details(cloud, &cancelled, host) == "InProgress");
    cloud.ok(&["ssm", "cancel-command", "--command-id", &cancelled]);
    assert_eq!(ended(cloud, &cancelled, host)["StatusDetails"], "Cancelled");
    let slow = ended(cloud, &slow, host);
    assert_eq!(
        (&slow["StatusDetails"], &slow["ResponseCode"]),
        (&json!("ExecutionTimedOut"), &json!(137))
    );
}

fn rights(cloud: &Cloud, host: &str, other: &str) {
    cloud.ok(&["iam", "create-user", "--user-name", "ssm-ann"]);
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "arn:aws:ssm:*:*:document/AWS-RunShellScript"},
        {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "arn:aws:ec2:*:*:instance/*",
         "Condition": {"StringEquals": {"ssm:resourceTag/Name": "ssm-host"}}},
    ]});
    let policy = policy.to_string();
    cloud.ok(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "ssm-ann",
        "--policy-name",
        "send",
        "--policy-document",
        &policy,
    ]);
    let keys =
        cloud.ok(&["iam", "create-access-key", "--user-name", "ssm-ann"])["AccessKey"].clone();
    let key = |name: &str| keys[name].as_str().expect("a key").to_owned();
    let (id, secret) = (key("AccessKeyId"), key("SecretAccessKey"));
    let env = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let request = |target: Value| {
        let mut request =
            json!({"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}});
        for (key, value) in target.as_object().expect("an object") {
            request[key] = value.clone();
        }
        request.to_string()
    };
    let by_id = request(json!({"InstanceIds": [other]}));
    let refused = cloud.aws_with(&env, &["ssm", "send-command", "--cli-input-json", &by_id]);
    assert_eq!(refused.map_err(|error| error.code), Err("AccessDeniedException".into()));
    let by_tag = request(json!({"Targets": [{"Key": "tag:ssm", "Values": ["yes"]}]}));
    let sent = cloud.aws_with(&env, &["ssm", "send-command", "--cli-input-json", &by_tag]);
    let sent = sent.expect("what it may send to is looked at later");
    let command = sent["Command"]["CommandId"].as_str().expect("a command has an id").to_owned();
    assert_eq!(ended(cloud, &command, other)["StatusDetails"], "AccessDenied");
    assert_eq!(ended(cloud, &command, host)["StatusDetails"], "Success");
}
