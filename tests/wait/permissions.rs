//! The policy of the tool's README is the least: a caller with it succeeds, and without any one of its actions fails with
//! the name of what is missing.

use crate::cloud::Cloud;
use serde_json::{Value, json};

const USER: &str = "deployer";

pub(crate) fn the_least_policy_is_enough_and_each_part_needed(
    cloud: &Cloud,
    ready: &str,
    silent: &str,
) {
    let policy = policy_of_the_readme();
    cloud.call("iam", "create_user", json!({"UserName": USER}));
    let made = cloud.call("iam", "create_access_key", json!({"UserName": USER}));
    let key = |name: &str| made["AccessKey"][name].as_str().unwrap().to_owned();
    let (id, secret) = (key("AccessKeyId"), key("SecretAccessKey"));
    let run = |name: &str, policy: &Value, host: &str, args: &[&str]| {
        let document = policy.to_string();
        let put = json!({"UserName": USER, "PolicyName": "wait", "PolicyDocument": document});
        cloud.call("iam", "put_user_policy", put);
        cloud.wait_as((&id, &secret), name, &[host.to_owned()], "us-east-1", args).ended()
    };
    let ended = run("least", &policy, ready, &["--timeout", "3m"]);
    assert_eq!(ended.code, 0, "{ended}");
    for missing in
        ["ssm:DescribeInstanceInformation", "ssm:SendCommand", "ssm:ListCommandInvocations"]
    {
        // What was read is believed for five seconds.
        cloud.until(&format!("{missing} is missed"), || {
            let ended = run("denied", &without(&policy, missing), ready, &["--timeout", "1m"]);
            assert!(ended.code == 0 || ended.code == 5, "{ended}");
            ended.code == 5 && ended.stderr.contains(&format!("needs `{missing}`"))
        });
    }
    for missing in ["ec2:DescribeInstances", "ec2:DescribeInstanceStatus"] {
        cloud.fault(&["add", "access-denied", "--operation", missing]);
        let ended = run("denied", &policy, ready, &["--timeout", "1m"]);
        assert!(ended.code == 5 && ended.stderr.contains(&format!("needs `{missing}`")), "{ended}");
        cloud.fault(&["remove", "--all"]);
    }
    cloud.fault(&["add", "access-denied", "--operation", "ec2:GetConsoleOutput"]);
    let ended = run("console", &policy, silent, &["--timeout", "6s"]);
    assert_eq!(ended.code, 4, "a console that may not be read is no error: {ended}");
    let (_, cause) = ended.verdict(silent);
    assert!(cause.contains("its console was not read: ec2:GetConsoleOutput was denied"), "{ended}");
    cloud.fault(&["remove", "--all"]);
    cloud.say("the least policy is enough, and without any part of it the missing one is named");
}

fn policy_of_the_readme() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bins/wait-for-cloud-init/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    serde_json::from_str(block).unwrap()
}

/// The policy without an action.
fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Action"] != action);
    for statement in statements {
        if let Some(actions) = statement["Action"].as_array_mut() {
            actions.retain(|found| found != action);
        }
    }
    policy
}
