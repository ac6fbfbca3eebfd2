//! Auto Scaling groups: their instances are hosts, come and go with the capacity, and are replaced.

use serde_json::Value;

use crate::cloud::Cloud;

const NAME: &str = "asg";

/// An operation of Auto Scaling for the group.
fn call(cloud: &Cloud, operation: &str, more: &[&str]) -> Value {
    cloud.ok(&arguments(operation, more))
}

fn arguments<'a>(operation: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["autoscaling", operation, "--auto-scaling-group-name", NAME];
    all.extend(more);
    all
}

/// Id, lifecycle state and launch-template version of each instance of the group.
fn members(cloud: &Cloud) -> Vec<(String, String, String)> {
    let groups =
        ["autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", NAME];
    let answer = cloud.ok(&groups);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let instances = answer.pointer("/AutoScalingGroups/0/Instances").and_then(Value::as_array);
    instances
        .into_iter()
        .flatten()
        .map(|i| {
            (
                text(&i["InstanceId"]),
                text(&i["LifecycleState"]),
                text(&i["LaunchTemplate"]["Version"]),
            )
        })
        .collect()
}

/// Waits until the group has just so many instances, all in service; gives their ids.
fn settled(cloud: &Cloud, count: usize) -> Vec<String> {
    cloud.until(&format!("{count} instances are in service"), || {
        let members = members(cloud);
        members.len() == count && members.iter().all(|(_, state, _)| state == "InService")
    });
    members(cloud).into_iter().map(|(id, ..)| id).collect()
}

fn is_managed(cloud: &Cloud, id: &str) -> bool {
    let filter = format!("Key=InstanceIds,Values={id}");
    let asked = cloud.aws(&["ssm", "describe-instance-information", "--filters", &filter]);
    asked.is_ok_and(|answer| answer["InstanceInformationList"][0]["PingStatus"] == "Online")
}

fn causes(cloud: &Cloud) -> String {
    let answer = call(cloud, "describe-scaling-activities", &[]);
    let activities = answer["Activities"].as_array().cloned().unwrap_or_default();
    activities.iter().filter_map(|a| a["Cause"].as_str()).collect::<Vec<_>>().join("\n")
}

pub(crate) fn scenarios(cloud: &Cloud) {
    let template = make_template(cloud);
    cloud.check("a launch template is what instances are launched with", || from_template(cloud));
    let first = cloud.check("a group of two is in service, tagged and managed", || {
        create(cloud, &template);
        let ids = settled(cloud, 2);
        let host = cloud.instance(&ids[0]);
        let tags = host["Tags"].to_string();
        for tag in ["aws:autoscaling:groupName", "aws:ec2launchtemplate:id", "propagated"] {
            assert!(tags.contains(tag), "{tag}: {tags}");
        }
        assert!(!tags.contains("kept"), "{tags}");
        // Not this very one: the group replaces a host that a busy machine boots too slowly.
        let managed =
            || members(cloud).into_iter().map(|(id, ..)| id).find(|id| is_managed(cloud, id));
        cloud.until("one of them is managed", || managed().is_some());
        let one = managed().expect("it was a moment ago");
        let run = cloud.exec(&one, "cloud-init status --wait >/dev/null; cat /var/lib/proof");
        assert_eq!(run.stdout, "from-template\n", "{run}");
        settled(cloud, 2)
    });
    cloud.check("want of capacity is said by its activity, and the group tries again", || {
        wants_capacity(cloud);
    });
    cloud.check("an instance that ends outside is replaced", || {
        cloud.ok(&["ec2", "terminate-instances", "--instance-ids", &first[0]]);
        cloud.until("it is replaced", || members(cloud).iter().all(|(id, ..)| *id != first[0]));
        settled(cloud, 3);
        let causes = causes(cloud);
        assert!(causes.contains("increasing the capacity from 2 to 3"), "{causes}");
        assert!(causes.contains("EC2 health check indicating it has been terminated"), "{causes}");
    });
    cloud.check("a refresh replaces all by the new version", || refresh(cloud));
    cloud.check("it shrinks to one, but for what is protected", || {
        let ids = settled(cloud, 3);
        let protect = ["--instance-ids", &ids[0], "--protected-from-scale-in"];
        call(cloud, "set-instance-protection", &protect);
        call(cloud, "set-desired-capacity", &["--desired-capacity", "1"]);
        assert_eq!(settled(cloud, 1), [ids[0].clone()]);
    });
    cloud.check("single instances leave and come back", || single(cloud));
    cloud.check("what stands in the way of a deletion is said", || {
        let delete = arguments("delete-auto-scaling-group", &[]);
        cloud.refused("ResourceInUse", &delete);
        cloud.ok(&[&delete[..], &["--force-delete"]].concat());
        cloud.until("the group is gone", || {
            let groups = cloud.ok(&["autoscaling", "describe-auto-scaling-groups"]);
            !groups.to_string().contains("\"AutoScalingGroupName\":\"asg\"")
        });
    });
    cloud.check("what would be pretended is refused by name", || refusals(cloud, &template));
}

/// Grows the group by one, against want of capacity that strikes this group's launches and nobody else's.
fn wants_capacity(cloud: &Cloud) {
    let said = cloud.fault(&["add", "no-capacity", "--host", "tag:aws:autoscaling:groupName=asg"]);
    let fault = said.split(' ').nth(1).unwrap_or_else(|| panic!("{said}"));
    call(cloud, "set-desired-capacity", &["--desired-capacity", "3"]);
    let failed = || {
        let answer = call(cloud, "describe-scaling-activities", &[]);
        let activities = answer["Activities"].as_array().cloned().unwrap_or_default();
        activities.into_iter().find(|activity| activity["StatusCode"] == "Failed")
    };
    cloud.until("a launch fails", || failed().is_some());
    let message = failed().expect("it was there")["StatusMessage"].to_string();
    assert!(message.contains("InsufficientInstanceCapacity - We currently do not"), "{message}");
    assert!(message.contains("t3.micro"), "{message}");
    assert_eq!(members(cloud).len(), 2);
    cloud.fault(&["remove", fault]);
    settled(cloud, 3);
}

fn make_template(cloud: &Cloud) -> String {
    let image = cloud.image("bookworm");
    // `printf '#!/bin/sh\necho from-template > /var/lib/proof\n' | base64`
    let user_data = "IyEvYmluL3NoCmVjaG8gZnJvbS10ZW1wbGF0ZSA+IC92YXIvbGliL3Byb29mCg==";
    let data = serde_json::json!({
        "ImageId": image,
        "InstanceType": "t3.micro",
        "UserData": user_data,
        "IamInstanceProfile": {"Name": cloud.profile},
        "SecurityGroupIds": [cloud.group],
    });
    let answer = cloud.ok(&[
        "ec2",
        "create-launch-template",
        "--launch-template-name",
        NAME,
        "--launch-template-data",
        &data.to_string(),
        "--tag-specifications",
        "ResourceType=launch-template,Tags=[{Key=kept,Value=apart}]",
    ]);
    answer["LaunchTemplate"]["LaunchTemplateId"].as_str().expect("an id").to_owned()
}

fn from_template(cloud: &Cloud) {
    let new = ["--launch-template-name", NAME, "--source-version", "1"];
    let data = ["--launch-template-data", "{\"InstanceType\":\"t3.small\"}"];
    cloud.ok(&[&["ec2", "create-launch-template-version"], &new[..], &data].concat());
    let versions =
        cloud.ok(&["ec2", "describe-launch-template-versions", "--launch-template-name", NAME]);
    let data = &versions["LaunchTemplateVersions"][0]["LaunchTemplateData"];
    assert_eq!(data["InstanceType"], "t3.small", "{versions}");
    assert_eq!(data["IamInstanceProfile"]["Name"], cloud.profile.as_str(), "{versions}");
    assert!(data.get("TagSpecifications").is_none(), "{versions}");
    let spec = format!("LaunchTemplateName={NAME},Version=$Latest");
    let run = ["ec2", "run-instances", "--subnet-id", &cloud.subnet, "--launch-template", &spec];
    let answer = cloud.ok(&[&run[..], &["--instance-type", "t3.nano"]].concat());
    let id = answer["Instances"][0]["InstanceId"].as_str().expect("an id");
    assert_eq!(answer["Instances"][0]["InstanceType"], "t3.nano", "{answer}");
    cloud.terminate(&[id]);
}

fn create(cloud: &Cloud, template: &str) {
    let spec = format!("LaunchTemplateId={template},Version=1");
    let more = [
        "--launch-template",
        &spec,
        "--min-size",
        "0",
        "--max-size",
        "4",
        "--desired-capacity",
        "2",
        "--vpc-zone-identifier",
        &cloud.subnet,
        "--tags",
        "Key=propagated,Value=yes,PropagateAtLaunch=true",
        "Key=Name,Value=asg,PropagateAtLaunch=true",
        "Key=kept,Value=here,PropagateAtLaunch=false",
    ];
    call(cloud, "create-auto-scaling-group", &more);
    cloud.refused("AlreadyExists", &arguments("create-auto-scaling-group", &more));
}

fn refresh(cloud: &Cloud) {
    let spec = format!("LaunchTemplateName={NAME},Version=$Latest");
    call(cloud, "update-auto-scaling-group", &["--launch-template", &spec]);
    let preferences = ["--preferences", "MinHealthyPercentage=0,InstanceWarmup=0"];
    call(cloud, "start-instance-refresh", &preferences);
    cloud.refused("InstanceRefreshInProgress", &arguments("start-instance-refresh", &[]));
    let status = || {
        let answer = call(cloud, "describe-instance-refreshes", &[]);
        answer["InstanceRefreshes"][0].clone()
    };
    cloud.until("the refresh has ended", || {
        !["Pending", "InProgress"].iter().any(|going| status()["Status"] == *going)
    });
    let end = status();
    assert_eq!(end["Status"], "Successful", "{end}");
    assert_eq!(end["PercentageComplete"], 100, "{end}");
    // One that a busy machine boots too slowly is replaced meanwhile, and has no version before it is launched.
    cloud.until("all are of the new version", || {
        members(cloud).iter().all(|(_, _, version)| version == "2")
    });
    cloud.refused("ActiveInstanceRefreshNotFound", &arguments("cancel-instance-refresh", &[]));
    // Nothing differs, so this one has nothing to do; cancelled or done, it ends.
    call(cloud, "suspend-processes", &["--scaling-processes", "InstanceRefresh"]);
    call(cloud, "start-instance-refresh", &[]);
    call(cloud, "cancel-instance-refresh", &[]);
    call(cloud, "resume-processes", &["--scaling-processes", "InstanceRefresh"]);
    cloud.until("the second refresh is cancelled", || status()["Status"] == "Cancelled");
}

fn single(cloud: &Cloud) {
    let id = settled(cloud, 1).remove(0);
    let one = ["--instance-ids", id.as_str()];
    let decrement = ["--instance-ids", id.as_str(), "--should-decrement-desired-capacity"];
    call(cloud, "enter-standby", &decrement);
    cloud.until("it is on standby", || {
        members(cloud).iter().any(|(_, state, _)| state == "Standby")
    });
    call(cloud, "exit-standby", &one);
    settled(cloud, 1);
    call(cloud, "detach-instances", &decrement);
    cloud.until("it has left", || members(cloud).is_empty());
    assert_eq!(cloud.state(&id), "running");
    call(cloud, "attach-instances", &one);
    settled(cloud, 1);
    let tag = format!(
        "ResourceId={NAME},ResourceType=auto-scaling-group,Key=a,Value=b,PropagateAtLaunch=false"
    );
    cloud.ok(&["autoscaling", "create-or-update-tags", "--tags", &tag]);
    let tags = cloud.ok(&["autoscaling", "describe-tags", "--filters", "Name=key,Values=a"]);
    assert_eq!(tags["Tags"][0]["Value"], "b", "{tags}");
    cloud.ok(&["autoscaling", "delete-tags", "--tags", &tag]);
    let health = ["autoscaling", "set-instance-health", "--instance-id", &id];
    cloud.ok(&[&health[..], &["--health-status", "Unhealthy"]].concat());
    cloud.until("it is replaced", || members(cloud).iter().all(|(other, ..)| *other != id));
    let id = settled(cloud, 1).remove(0);
    let shown = cloud.ok(&["autoscaling", "describe-auto-scaling-instances"]);
    assert!(shown.to_string().contains("\"HEALTHY\""), "{shown}");
    let end = ["autoscaling", "terminate-instance-in-auto-scaling-group", "--instance-id", &id];
    cloud.ok(&[&end[..], &["--no-should-decrement-desired-capacity"]].concat());
    cloud.until("another one comes", || members(cloud).iter().all(|(other, ..)| *other != id));
    settled(cloud, 1);
}

fn refusals(cloud: &Cloud, template: &str) {
    for operation in
        ["describe-policies", "describe-scheduled-actions", "describe-notification-configurations"]
    {
        cloud.ok(&["autoscaling", operation]);
    }
    for operation in [
        "describe-lifecycle-hooks",
        "describe-load-balancer-target-groups",
        "describe-load-balancers",
        "describe-traffic-sources",
        "describe-warm-pool",
    ] {
        call(cloud, operation, &[]);
    }
    let hook = [
        "--lifecycle-hook-name",
        "h",
        "--lifecycle-transition",
        "autoscaling:EC2_INSTANCE_LAUNCHING",
    ];
    let message = cloud.refused("NotImplemented", &arguments("put-lifecycle-hook", &hook));
    assert!(message.contains("PutLifecycleHook"), "{message}");
    let spot = "{\"InstanceMarketOptions\":{\"MarketType\":\"spot\"}}";
    let new = ["--launch-template-id", template, "--source-version", "1"];
    let data = ["--launch-template-data", spot];
    cloud.ok(&[&["ec2", "create-launch-template-version"], &new[..], &data].concat());
    let spec = format!("LaunchTemplateId={template},Version=3");
    let run = ["ec2", "run-instances", "--launch-template", &spec];
    let message = cloud.refused("NotImplemented", &run);
    assert!(message.contains("InstanceMarketOptions"), "{message}");
    let gone =
        ["--launch-template", "LaunchTemplateName=nobody", "--min-size", "0", "--max-size", "1"];
    let place = ["--vpc-zone-identifier", cloud.subnet.as_str()];
    let create = arguments("create-auto-scaling-group", &[&gone[..], &place].concat());
    let message = cloud.refused("ValidationError", &create);
    assert!(message.starts_with("You must use a valid fully-formed launch template."), "{message}");
    cloud.ok(&["ec2", "delete-launch-template", "--launch-template-id", template]);
}
