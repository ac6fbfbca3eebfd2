//! The policy of the tool's README is the least: a caller with it succeeds, and without any one of its actions is told what
//! is missing.

use crate::cloud::policy::{Caller, of_the_readme, without};
use crate::cloud::{Cloud, Tool};
use crate::{TOOL, start_as};
use serde_json::Value;

pub(crate) fn the_least_policy_is_enough_and_each_part_needed(cloud: &Cloud, host: &str) {
    let policy = of_the_readme(TOOL.program);
    let start = |name: &str, policy: &Value, playbook: &str| {
        let caller = Caller::new(cloud, name, policy);
        let tool = Tool { key: Some(caller.key()), ..TOOL };
        start_as(cloud, &tool, name, &[host], playbook, &["--ansible-verbosity", "1"])
    };
    // The answer is longer than what polling brings, so that every call is made but two.
    let ended = start("least", &policy, "long.yml").ended();
    assert_eq!(ended.code, 0, "{ended}");
    let needs = |action: &str| format!("needs `{action}`");
    for action in [
        "ssm:DescribeInstanceInformation",
        "ssm:SendCommand",
        "ssm:ListCommandInvocations",
        "ssm:GetCommandInvocation",
        "ssm:ListCommands",
    ] {
        if action == "ssm:ListCommands" {
            let more = ["--operation", "ssm:SendCommand", "--host", host, "--count", "1"];
            cloud.fault(&[&["add", "lost-reply"], &more[..]].concat());
        }
        let name = action.replace(':', "-");
        let ended = start(&name, &without(&policy, action), "long.yml").ended();
        assert_eq!(ended.code, 5, "without {action}: {ended}");
        assert!(ended.stderr.contains(&needs(action)), "without {action}: {ended}");
    }
    cloud.fault(&["remove", "--all"]);
    let run = start("no-cancel", &without(&policy, "ssm:CancelCommand"), "steps.yml");
    cloud.until("Ansible sleeps", || !cloud.exec(host, "pgrep -x sleep").is_empty());
    run.signal("INT");
    let ended = run.ended();
    assert_eq!(ended.code, 130, "{ended}");
    assert!(ended.stderr.contains("cannot cancel command"), "{ended}");
    assert!(ended.stderr.contains("ssm:CancelCommand"), "{ended}");
    cloud.exec(host, "pkill -KILL -f [b]in/ansible-playbook");
    cloud.say("the least policy is enough, and without any part of it the missing one is named");
}
