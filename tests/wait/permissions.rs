//! The policy of the tool's README is the least: a caller with it succeeds, and without any one of its actions fails with
//! the name of what is missing.

use crate::TOOL;
use crate::cloud::policy::{Caller, of_the_readme, without};
use crate::cloud::{Cloud, Ended, Tool};
use serde_json::Value;

pub(crate) fn the_least_policy_is_enough_and_each_part_needed(
    cloud: &Cloud,
    ready: &str,
    silent: &str,
) {
    let policy = of_the_readme(TOOL.program);
    let run = |name: &str, policy: &Value, host: &str, args: &[&str]| {
        let caller = Caller::new(cloud, name, policy);
        let tool = Tool { key: Some(caller.key()), ..TOOL };
        cloud.start(&tool, name, &[host.to_owned()], args).ended()
    };
    let ended = run("least", &policy, ready, &["--timeout", "3m"]);
    assert_eq!(ended.code, 0, "{ended}");
    let missed = |action: &str, host: &str, args: &[&str], missed: &dyn Fn(&Ended) -> bool| {
        let ended = run(&action.replace(':', "-"), &without(&policy, action), host, args);
        assert!(missed(&ended), "without {action}: {ended}");
    };
    for action in [
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus",
        "ssm:DescribeInstanceInformation",
        "ssm:SendCommand",
        "ssm:ListCommandInvocations",
    ] {
        missed(action, ready, &["--timeout", "1m"], &|ended| {
            ended.code == 5 && ended.stderr.contains(&format!("needs `{action}`"))
        });
    }
    // A console that may not be read and a probe that may not be cancelled are no errors, but said.
    missed("ec2:GetConsoleOutput", silent, &["--timeout", "6s"], &|ended| {
        let (_, cause) = crate::verdict_of(ended, silent);
        ended.code == 4
            && cause.contains("its console was not read: ec2:GetConsoleOutput was denied")
    });
    // Without its result a boot is not over, and the probe waits for it on the host.
    cloud.exec(ready, "mv /run/cloud-init/result.json /run/result.json");
    missed("ssm:CancelCommand", ready, &["--timeout", "6s"], &|ended| {
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
    missed("ssm:GetCommandInvocation", ready, &["--timeout", "1m"], &|ended| {
        ended.code == 5 && ended.stderr.contains("needs `ssm:GetCommandInvocation`")
    });
    cloud.say("the least policy is enough, and without any part of it the missing one is named");
}
