//! Faults as a person meets them: added by the command, seen by the AWS CLI in AWS's words, listed, over; and what
//! `status`, `events` and the page say of a real host.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::Browser;
use crate::cloud::Cloud;

/// A name that a page must not take for markup.
const NAME: &str = "fault-<b>bold</b>";

/// Without repeating: each refusal is to be seen.
const ONCE: &[(&str, &str)] = &[("AWS_MAX_ATTEMPTS", "1")];

pub(crate) fn scenarios(cloud: &Cloud) {
    let id = cloud.launch(NAME, "bookworm", "", &[]);
    // Other scenarios run meanwhile, so every fault is for this host.
    let code = |args: &[&str]| cloud.aws_with(ONCE, args).expect_err("refused").code;
    let describe = ["ec2", "describe-instances", "--instance-ids", &id];
    cloud.check("throttling has the service's own code, for the host in scope only", || {
        cloud.fault(&["add", "throttle", "--service", "ec2", "--host", &id, "--count", "1"]);
        cloud.ok(&["ec2", "describe-vpcs"]);
        assert_eq!(code(&describe), "RequestLimitExceeded");
        cloud.ok(&describe);
    });
    cloud.check("the caller's own retries get over throttling", || {
        cloud.fault(&["add", "throttle", "--service", "ec2", "--host", &id, "--count", "2"]);
        cloud.aws_with(&[("AWS_MAX_ATTEMPTS", "4")], &describe).expect("after two retries");
    });
    cloud.check("one action is denied, in AWS's words", || {
        cloud.fault(&["add", "access-denied", "--operation", "ec2:CreateTags", "--host", &id]);
        let tag = ["ec2", "create-tags", "--resources", &id, "--tags", "Key=a,Value=b"];
        let error = cloud.aws_with(ONCE, &tag).expect_err("denied");
        assert_eq!(error.code, "UnauthorizedOperation");
        assert!(
            error.message.contains("is not authorized to perform: ec2:CreateTags"),
            "{error:?}"
        );
        cloud.ok(&describe);
    });
    cloud.check("a lost reply is of a request that was worked on", || {
        cloud.fault(&[
            "add",
            "lost-reply",
            "--operation",
            "ec2:DeleteTags",
            "--host",
            &id,
            "--count",
            "1",
        ]);
        let untag = ["ec2", "delete-tags", "--resources", &id, "--tags", "Key=Name"];
        let error = cloud.aws_with(ONCE, &untag).expect_err("no reply");
        assert!(error.message.contains("Connection was closed"), "{error:?}");
        assert!(cloud.instance(&id)["Tags"].as_array().is_none_or(Vec::is_empty));
        let name = format!("Key=Name,Value={NAME}");
        cloud.aws(&["ec2", "describe-tags"]).expect("the fault is over");
        let denied = listed(cloud, "access-denied", &id);
        cloud.fault(&["remove", &denied.to_string()]);
        cloud.ok(&["ec2", "create-tags", "--resources", &id, "--tags", &name]);
    });
    cloud.check("a read is stale after a change, then is not", || {
        cloud.fault(&[
            "add",
            "stale-describe",
            "--service",
            "ec2",
            "--host",
            &id,
            "--count",
            "1",
            "--delay",
            "60s",
        ]);
        let tags = |cloud: &Cloud| {
            let shown = cloud.instance(&id)["Tags"].to_string();
            shown.contains("stale-describe")
        };
        assert!(!tags(cloud));
        cloud.ok(&[
            "ec2",
            "create-tags",
            "--resources",
            &id,
            "--tags",
            "Key=stale-describe,Value=x",
        ]);
        assert!(!tags(cloud), "as before the change");
        assert!(tags(cloud), "once only");
    });
    cloud.check("status says how the host fares, at once", || {
        cloud.online(&id);
        cloud.until("cloud-init done in status", || host(cloud, &id)["cloud_init"] == "done");
        let host = host(cloud, &id);
        assert_eq!((&host["agent"], &host["suite"]), (&"Online".into(), &"bookworm".into()));
        let memory = host["memory_bytes"].as_u64().expect("memory");
        assert!((5 << 20..500 << 20).contains(&memory), "{memory}");
        cloud.until("a use of processors", || self::host(cloud, &id)["cpu_percent"].is_f64());
        let begun = Instant::now();
        cloud.local(&["status"]);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
    cloud.check("events tell of the host and of the strikes", || {
        let run = cloud.local(&["events", "--since", "10m"]);
        assert!(run.stdout.contains(&format!("{id} is running")), "{run}");
        assert!(run.stdout.contains(&format!("{id}: fault ")), "{run}");
    });
    cloud.check("the page shows hosts, faults and events as text", || page(cloud, &id));
    cloud.check("it is terminated", || cloud.terminate(&[&id]));
}

/// The host in the report of `status`.
fn host(cloud: &Cloud, id: &str) -> Value {
    let run = cloud.local(&["status", "--format", "json"]);
    let report: Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    let hosts = report["subjects"].as_array().cloned().unwrap_or_default();
    let found = hosts.into_iter().map(|subject| subject["data"].clone());
    found.into_iter().find(|data| data["instance_id"] == id).unwrap_or_default()
}

/// The number of this host's fault of a kind.
fn listed(cloud: &Cloud, kind: &str, id: &str) -> u64 {
    let run = cloud.local(&["fault", "list", "--format", "json"]);
    let report: Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    let faults = report["subjects"].as_array().cloned().unwrap_or_default();
    let found = faults
        .iter()
        .map(|subject| &subject["data"])
        .find(|fault| fault["spec"]["kind"] == kind && fault["spec"]["host"] == id);
    found.and_then(|fault| fault["id"].as_u64()).unwrap_or_else(|| panic!("no {kind}: {run}"))
}

/// The page in a browser. With `LOCAL_CLOUD_SCREENSHOT` a picture of it is written to that file.
fn page(cloud: &Cloud, id: &str) {
    let nobody = "tag:role=<i>nobody</i>";
    cloud.fault(&["add", "packet-loss", "--host", nobody, "--percent", "7"]);
    let status = cloud.local(&["status"]);
    let address = status.stdout.split_whitespace().find(|word| word.contains("#token="));
    let mut browser = Browser::open(address.unwrap_or_else(|| panic!("no address: {status}")));
    let running = format!("{id} is running");
    let texts = [id, NAME, "Online", "packet-loss", nobody, &running];
    let html = browser.until_shown(&texts, Duration::from_secs(30));
    assert!(!html.contains("<b>bold</b>") && !html.contains("<i>nobody</i>"), "{html}");
    assert!(!html.contains("token="), "the token has left the address");
    // What happens is seen without a reload.
    let fault = listed(cloud, "packet-loss", nobody);
    cloud.fault(&["remove", &fault.to_string()]);
    browser.until_shown(&[&format!("fault {fault} removed")], Duration::from_secs(30));
    if let Some(file) = crate::cloud::variable("LOCAL_CLOUD_SCREENSHOT") {
        std::fs::write(file, browser.picture()).expect("a picture");
    }
}
