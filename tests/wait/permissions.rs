//! The policy of the tool's README is the least: a caller with it succeeds, and without any one of its actions fails with
//! the name of what is missing.

use crate::cloud::{Cloud, Ended};
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
    // What was read is believed for five seconds.
    let missed =
        |action: &str, host: &str, args: &[&str], before: i32, missed: &dyn Fn(&Ended) -> bool| {
            cloud.until(&format!("{action} is missed"), || {
                let ended = run("denied", &without(&policy, action), host, args);
                let now = missed(&ended);
                assert!(now || ended.code == before, "{ended}");
                now
            });
        };
    for action in [
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus",
        "ssm:DescribeInstanceInformation",
        "ssm:SendCommand",
        "ssm:ListCommandInvocations",
    ] {
        missed(action, ready, &["--timeout", "1m"], 0, &|ended| {
            ended.code == 5 && ended.stderr.contains(&format!("needs `{action}`"))
        });
    }
    // A console that may not be read and a probe that may not be cancelled are no errors, but said.
    missed("ec2:GetConsoleOutput", silent, &["--timeout", "6s"], 4, &|ended| {
        let (_, cause) = ended.verdict(silent);
        ended.code == 4
            && cause.contains("its console was not read: ec2:GetConsoleOutput was denied")
    });
    // Without its result a boot is not over, and the probe waits for it on the host.
    cloud.exec(ready, "mv /run/cloud-init/result.json /run/result.json");
    missed("ssm:CancelCommand", ready, &["--timeout", "6s"], 4, &|ended| {
        ended.code == 4
            && ended.stderr.contains("could not be cancelled")
            && ended.stderr.contains("ssm:CancelCommand")
    });
    cloud.exec(ready, "mv /run/result.json /run/cloud-init/result.json");
    // The list of invocations cuts what is longer than 2,500 characters.
    let errors = "import json; name = '/run/cloud-init/result.json'; result = json.load(open(name)); \
         result['v1']['errors'] = ['error %d of a long list of errors that a host has, one by one' % n for n in range(60)]; \
         json.dump(result, open(name, 'w'))";
    cloud.exec(ready, &format!("python3 -c \"{errors}\""));
    missed("ssm:GetCommandInvocation", ready, &["--timeout", "1m"], 1, &|ended| {
        ended.code == 5 && ended.stderr.contains("needs `ssm:GetCommandInvocation`")
    });
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
