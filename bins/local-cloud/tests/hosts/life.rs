//! The life of an instance: its states with their reasons, what it keeps and what it loses, and its end in the lists.

use serde_json::Value;

use crate::cloud::Cloud;

pub(crate) fn scenarios(cloud: &Cloud) {
    let user_data = "#!/bin/sh\necho run >> /var/lib/runs\n";
    let id = cloud.launch("life", "bookworm", user_data, &["--disable-api-termination"]);
    cloud.check("a launch answers before the host is there, and refuses what cannot be", || {
        a_pending_one_is_not_stopped(cloud);
        assert_eq!(text(&cloud.instance(&id), "/MetadataOptions/HttpTokens"), "required");
    });
    cloud.check("its status checks end well, once it has booted", || {
        cloud.until_state(&id, "running");
        cloud.until("both checks pass", || checks(cloud, &id) == "ok ok");
        cloud.exec(&id, "cloud-init status --wait >/dev/null; touch /root/kept");
    });
    cloud.check("a stop is said to be the user's, and the disk outlives it", || {
        cloud.ok(&stop(&id));
        cloud.until_state(&id, "stopped");
        let reason = text(&cloud.instance(&id), "/StateReason/Code");
        assert_eq!(reason, "Client.UserInitiatedShutdown");
        assert_eq!(checks(cloud, &id), "", "statuses are of running instances only");
        let all = ["ec2", "describe-instance-status", "--instance-ids", &id];
        let shown = cloud.ok(&[&all[..], &["--include-all-instances"]].concat());
        assert_eq!(text(&shown, "/InstanceStatuses/0/InstanceState/Name"), "stopped");
        cloud.refused("IncorrectInstanceState", &change("reboot-instances", &id));
        cloud.ok(&change("start-instances", &id));
        cloud.until_state(&id, "running");
        cloud.until("it is up again", || checks(cloud, &id) == "ok ok");
        let run =
            cloud.exec(&id, "cloud-init status --wait >/dev/null; ls /root; cat /var/lib/runs");
        assert_eq!(run.stdout, "kept\nrun\n", "user data runs at the first boot only: {run}");
    });
    cloud.check("a protected instance stays, until it ends by itself", || {
        let said = cloud.refused("OperationNotPermitted", &change("terminate-instances", &id));
        assert!(said.contains("'disableApiTermination'"), "{said}");
        let behaviour = "Value=terminate";
        let flag = "--instance-initiated-shutdown-behavior";
        cloud.ok(&["ec2", "modify-instance-attribute", "--instance-id", &id, flag, behaviour]);
        cloud.exec(&id, "systemctl poweroff");
        cloud.until_state(&id, "terminated");
        let reason = text(&cloud.instance(&id), "/StateReason/Code");
        assert_eq!(reason, "Client.InstanceInitiatedShutdown");
        cloud.refused("IncorrectInstanceState", &change("start-instances", &id));
    });
    cloud.check("unknown and malformed ids have their own errors", || {
        cloud.refused("InvalidInstanceID.NotFound", &stop("i-00000000000000000"));
        cloud.refused("InvalidInstanceID.Malformed", &stop("i-nothing"));
    });
}

/// Instances are pending for a second; on a machine that boots many, one may be running before it is asked.
fn a_pending_one_is_not_stopped(cloud: &Cloud) {
    for _ in 0..5 {
        let id = cloud.launch("life-pending", "bookworm", "", &[]);
        let stopped = cloud.aws(&stop(&id));
        cloud.ok(&change("terminate-instances", &id));
        match stopped {
            Ok(answer) => {
                let before = text(&answer, "/StoppingInstances/0/PreviousState/Name");
                assert_eq!(before, "running", "{answer}");
            }
            Err(error) => {
                assert_eq!(error.code, "IncorrectInstanceState");
                assert!(error.message.contains("never reached the 'running' state"), "{error:?}");
                return;
            }
        }
    }
    panic!("five instances were running before they could be asked");
}

fn change<'a>(operation: &'a str, id: &'a str) -> [&'a str; 4] {
    ["ec2", operation, "--instance-ids", id]
}

fn stop(id: &str) -> [&str; 4] {
    change("stop-instances", id)
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// System and instance status, in one line; empty while it does not run.
fn checks(cloud: &Cloud, id: &str) -> String {
    let answer = cloud.ok(&["ec2", "describe-instance-status", "--instance-ids", id]);
    let status = |name: &str| text(&answer, &format!("/InstanceStatuses/0/{name}/Status"));
    format!("{} {}", status("SystemStatus"), status("InstanceStatus")).trim().to_owned()
}
