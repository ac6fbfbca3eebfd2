//! The real binary against a strict double of EC2.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod double;

use deploy_testkit::{Outcome, Tool};
use double::{ACCOUNT, Double, Thing};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// An ID that says in its digits which one it is.
fn id(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:017x}")
}

fn thing(kind: &'static str, id: String, body: &str) -> Thing {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let tags = vec![tag("project", "demo"), tag("environment", "dev"), tag("Name", "a name")];
    Thing { kind, id, tags, body: body.to_owned(), blocked_by: Vec::new() }
}

fn instance(number: usize) -> Thing {
    let body = "<instanceState><code>16</code><name>running</name></instanceState><launchTime>2020-01-01T00:00:00.000Z</launchTime>";
    thing("instance", id("i", number), body)
}

fn volume(number: usize, attached_to: Option<String>) -> Thing {
    let attached = attached_to
        .map(|instance| {
            format!(
                "<attachmentSet><item><instanceId>{instance}</instanceId></item></attachmentSet>"
            )
        })
        .unwrap_or_default();
    let body = format!(
        "<status>available</status><createTime>2020-01-01T00:00:00.000Z</createTime>{attached}"
    );
    thing("volume", id("vol", number), &body)
}

fn group(number: usize) -> Thing {
    thing("security-group", id("sg", number), "<groupName>web</groupName>")
}

struct Bench {
    folder: TempDir,
    double: Double,
}

impl Bench {
    async fn new(things: Vec<Thing>, owned: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder, double: Double::start(things).await };
        bench.own(owned);
        bench
    }

    fn own(&self, owned: &[String]) {
        let instances: Vec<Value> =
            owned.iter().map(|id| json!({ "attributes": { "id": id } })).collect();
        let state = json!({ "version": 4, "serial": 1, "resources": [{ "instances": instances }] });
        std::fs::write(self.state(), state.to_string()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("dev.tfstate")
    }

    fn tool(&self) -> Tool {
        Tool::new(env!("CARGO_BIN_EXE_cleanup-orphans")).aws(&self.double.uri()).args([
            "--project",
            "demo",
            "--environment",
            "dev",
            "--state",
            self.state().to_str().unwrap(),
        ])
    }

    fn deleting(&self) -> Tool {
        self.tool().args([
            "--delete",
            "--max",
            "50",
            "--account-id",
            ACCOUNT,
            "--poll-interval",
            "10ms",
        ])
    }
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", outcome.stderr))
}

fn subject<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found =
        report["subjects"].as_array().unwrap().iter().find(|subject| subject["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_state_owns_costs_two_calls_and_is_no_orphan() {
    let bench = Bench::new(vec![instance(1), volume(2, None)], &[id("i", 1), id("vol", 2)]).await;
    let outcome = bench.tool().args(["--check"]).run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, "cleanup-orphans: no orphans, 2 owned\n"),
        "{}",
        outcome.stderr
    );
    assert_eq!(bench.double.calls(), ["DescribeTags", "DescribeTags"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_listed_and_only_check_makes_them_a_verdict() {
    let bench = Bench::new(vec![instance(1), instance(2), group(3)], &[id("i", 1)]).await;
    let outcome = bench.tool().actions().run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(
        (outcome.outputs["orphans"].as_str(), outcome.outputs["deleted"].as_str()),
        ("2", "0")
    );
    assert!(outcome.stdout.contains("2 orphans, 1 owned"), "{}", outcome.stdout);
    let expected = "security-group \"a name\", in no state, age not known; deleted only with `--older-than 0s`";
    assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
    assert!(outcome.summary.contains(&id("i", 2)), "{}", outcome.summary);
    assert_eq!(bench.tool().args(["--check"]).run().code, 1);
    assert!(bench.double.changes().is_empty(), "{:?}", bench.double.changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_to_judge_is_kept_with_its_reason() {
    let mut terminated = instance(1);
    terminated.body = terminated.body.replace("running", "terminated");
    let mut leaving = instance(2);
    leaving.body = leaving.body.replace("running", "shutting-down");
    let mut young = volume(4, None);
    young.body = young.body.replace("2020-", "2999-");
    let mut scaled = instance(5);
    scaled.tags.push(("aws:autoscaling:groupName".into(), "web".into()));
    let default = thing("security-group", id("sg", 6), "<groupName>default</groupName>");
    let nat =
        thing("network-interface", id("eni", 7), "<interfaceType>nat_gateway</interfaceType>");
    let vpc = thing("vpc", id("vpc", 8), "<isDefault>true</isDefault>");
    let mut foreign = instance(9);
    foreign.tags[1].1 = "prod".into();
    let things = vec![
        terminated,
        leaving,
        volume(3, Some(id("i", 0))),
        young,
        scaled,
        default,
        nat,
        vpc,
        foreign,
    ];
    let bench = Bench::new(things, &[id("i", 0)]).await;
    let outcome = bench.tool().args(["--check", "--format", "json"]).run();
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let report = report(&outcome);
    let reasons = [
        (id("vol", 3), "volume, kept: part of i-00000000000000000, which a state owns"),
        (id("vol", 4), "volume, kept: younger than --older-than (0 ms)"),
        (id("i", 5), "instance, kept: managed by AWS (aws:autoscaling:groupName = web)"),
        (id("sg", 6), "security-group, kept: the default security group of its VPC"),
        (id("eni", 7), "network-interface, kept: belongs to AWS (nat_gateway)"),
        (id("vpc", 8), "vpc, kept: the default VPC"),
    ];
    for (name, reason) in &reasons {
        assert_eq!(subject(&report, name)["detail"], *reason);
    }
    assert_eq!(report["subjects"].as_array().unwrap().len(), reasons.len(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_empty_pages_hide_nothing() {
    let things: Vec<Thing> = (0..23).map(|number| volume(number, None)).collect();
    let bench = Bench::new(things, &[]).await;
    bench.double.change(|state| state.page = 5);
    let outcome = bench.tool().args(["--format", "json"]).run();
    assert_eq!(report(&outcome)["title"], "23 orphans, 0 owned", "{}", outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_says_nothing_ends_it_before_the_first_call() {
    let bench = Bench::new(vec![instance(1)], &[]).await;
    for text in [
        "",
        "{\"version\":4,",
        "{\"version\":3,\"modules\":[]}",
        "{\"encrypted_data\":\"x\"}",
        "{\"format_version\":\"1.0\"}",
    ] {
        std::fs::write(bench.state(), text).unwrap();
        let outcome = bench.tool().run();
        assert_eq!(outcome.code, 2, "{text}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("dev.tfstate` is no usable state"), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
    std::fs::remove_file(bench.state()).unwrap();
    assert_eq!(bench.tool().run().code, 2);
    // One good state does not make up for a bad one.
    bench.own(&[]);
    let bad = bench.folder.path().join("bad.tfstate");
    std::fs::write(&bad, "").unwrap();
    assert_eq!(bench.tool().args(["--state", bad.to_str().unwrap()]).run().code, 2);
    assert!(bench.double.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_flags_end_it_before_the_first_call() {
    let bench = Bench::new(vec![instance(1)], &[]).await;
    let state = bench.state();
    let state = state.to_str().unwrap();
    let check = |args: &[&str], expected: &str| {
        let outcome = Tool::new(env!("CARGO_BIN_EXE_cleanup-orphans"))
            .aws(&bench.double.uri())
            .args(args)
            .run();
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    };
    check(&["--project", "demo", "--environment", "dev"], "--state");
    check(&["--environment", "dev", "--state", state], "`--project` is missing");
    check(&["--project", "demo", "--state", state], "`--environment` is missing");
    check(&["--project", "*", "--environment", "dev", "--state", state], "`--project` is `*`");
    let scope = ["--project", "demo", "--environment", "dev", "--state", state];
    let with = |more: &[&'static str]| [&scope[..], more].concat();
    check(&with(&["--types", "instances"]), "instances");
    check(&with(&["--delete", "--max", "1"]), "--account-id");
    check(&with(&["--delete", "--account-id", ACCOUNT]), "--max");
    check(&with(&["--account-id", "12"]), "12 digits");
    assert!(bench.double.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_cannot_be_listed_is_unknown_and_nothing_is_deleted() {
    for (status, code, exit) in
        [(403, "UnauthorizedOperation", 5), (400, "InvalidParameterValue", 2)]
    {
        let bench = Bench::new(vec![instance(1), volume(2, None)], &[]).await;
        bench.double.change(|state| state.broken.extend([("DescribeVolumes", (status, code))]));
        let outcome = bench.deleting().args(["--format", "json"]).run();
        assert_eq!(outcome.code, exit, "{}", outcome.stderr);
        let report = report(&outcome);
        assert_eq!(
            report["title"],
            "1 orphan, 0 deleted, 0 owned, not known: volume; nothing was deleted"
        );
        assert_eq!(subject(&report, "volume")["outcome"], "unknown");
        assert!(bench.double.changes().is_empty(), "{:?}", bench.double.changes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tags_there_is_no_answer() {
    let bench = Bench::new(vec![instance(1)], &[]).await;
    bench
        .double
        .change(|state| state.broken.extend([("DescribeTags", (403, "UnauthorizedOperation"))]));
    let outcome = bench.tool().run();
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("ec2:DescribeTags was denied"), "{}", outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_goes_in_the_order_that_aws_allows() {
    let mut nic = thing("network-interface", id("eni", 3), "");
    nic.body = format!(
        "<interfaceType>interface</interfaceType><attachment><instanceId>{}</instanceId></attachment>",
        id("i", 1)
    );
    let mut address = thing("elastic-ip", id("eipalloc", 4), "");
    address.body = format!("<instanceId>{}</instanceId>", id("i", 1));
    let (mut first, second) = (group(5), group(6));
    first.blocked_by = vec![id("sg", 6)];
    let snapshot =
        thing("snapshot", id("snap", 7), "<startTime>2020-01-01T00:00:00.000Z</startTime>");
    let subnet = thing("subnet", id("subnet", 8), "");
    let things = vec![
        instance(1),
        volume(2, Some(id("i", 1))),
        nic,
        address,
        first,
        second,
        snapshot,
        subnet,
        instance(9),
    ];
    let bench = Bench::new(things, &[id("i", 9)]).await;
    bench.double.change(|state| state.lingering = 2);
    let outcome = bench.deleting().args(["--older-than", "0s", "--format", "json"]).run();
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(
        bench.double.changes(),
        [
            format!("TerminateInstances {}", id("i", 1)),
            format!("ReleaseAddress {}", id("eipalloc", 4)),
            format!("DeleteNetworkInterface {}", id("eni", 3)),
            format!("DeleteVolume {}", id("vol", 2)),
            format!("DeleteSnapshot {}", id("snap", 7)),
            format!("DeleteSecurityGroup {}", id("sg", 5)),
            format!("DeleteSecurityGroup {}", id("sg", 6)),
            format!("DeleteSecurityGroup {}", id("sg", 5)),
        ]
    );
    // The instance stays listed as terminated; the subnet is no type that is deleted; the other instance is owned.
    assert_eq!(bench.double.ids(), [id("i", 1), id("i", 9), id("subnet", 8)]);
    let report = report(&outcome);
    assert_eq!(report["title"], "8 orphans, 7 deleted, 1 owned");
    assert!(
        subject(&report, &id("subnet", 8))["detail"]
            .as_str()
            .unwrap()
            .ends_with("not deleted by this version")
    );
    assert!(!bench.double.changes().iter().any(|call| call.contains(&id("i", 9))));

    // A second run has nothing left to do.
    let again = bench.deleting().args(["--older-than", "0s", "--format", "json"]).run();
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(bench.double.changes().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_max_deletes_nothing() {
    let bench = Bench::new(vec![instance(1), instance(2)], &[]).await;
    let outcome = bench.tool().args(["--delete", "--max", "1", "--account-id", ACCOUNT]).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("2 resources would be deleted, more than `--max 1`"),
        "{}",
        outcome.stderr
    );
    assert!(bench.double.changes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_ends_it_before_anything_is_listed() {
    let bench = Bench::new(vec![instance(1)], &[]).await;
    let outcome =
        bench.tool().args(["--delete", "--max", "9", "--account-id", "999999999999"]).run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("belong to account 123456789012, not to 999999999999"),
        "{}",
        outcome.stderr
    );
    assert_eq!(bench.double.calls(), ["GetCallerIdentity"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_age_that_nobody_knows_keeps_a_resource() {
    let bench = Bench::new(vec![group(1)], &[]).await;
    let outcome = bench.deleting().args(["--format", "json"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(bench.double.changes().is_empty());
    let detail = report(&outcome)["subjects"][0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("deleted only with `--older-than 0s`"), "{detail}");
    // The tag that an apply may set tells it.
    bench.double.change(|state| {
        let thing = state.things.get_mut(&id("sg", 1)).unwrap();
        thing.tags.push(("created_at".into(), "2020-01-01T00:00:00Z".into()));
    });
    assert_eq!(bench.deleting().run().code, 0);
    assert_eq!(bench.double.changes(), [format!("DeleteSecurityGroup {}", id("sg", 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_tags_meanwhile_survives() {
    let bench = Bench::new(vec![instance(1), volume(2, None)], &[]).await;
    bench.double.change(|state| state.untag_after = Some(("TerminateInstances", id("vol", 2))));
    let outcome = bench.deleting().args(["--format", "json"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(bench.double.changes(), [format!("TerminateInstances {}", id("i", 1))]);
    assert!(
        subject(&report(&outcome), &id("vol", 2))["detail"]
            .as_str()
            .unwrap()
            .contains("lost its tags")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_else_uses_stays_and_the_user_is_named() {
    let mut used = group(1);
    used.blocked_by = vec![id("eni", 2)];
    // Not tagged, so not ours: it only shows up as what keeps the group alive.
    let mut user = thing("network-interface", id("eni", 2), "");
    user.tags.clear();
    user.body = format!(
        "<groupSet><item><groupId>{}</groupId></item></groupSet><attachment><instanceId>{}</instanceId></attachment>",
        id("sg", 1),
        id("i", 7)
    );
    let held = volume(3, Some(id("i", 7)));
    let bench = Bench::new(vec![used, user, held], &[]).await;
    let outcome = bench.deleting().args(["--older-than", "0s", "--format", "json"]).run();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let report = report(&outcome);
    let detail = |name: String| subject(&report, &name)["detail"].as_str().unwrap().to_owned();
    assert!(
        detail(id("sg", 1)).contains(&format!("used by {} of {}", id("eni", 2), id("i", 7))),
        "{report}"
    );
    assert!(
        detail(id("vol", 3))
            .contains(&format!("in use by {}, which is not being deleted", id("i", 7))),
        "{report}"
    );
    assert_eq!(bench.double.changes(), [format!("DeleteSecurityGroup {}", id("sg", 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_takes_too_long_ends_with_status_4() {
    let bench = Bench::new(vec![instance(1), volume(2, Some(id("i", 1)))], &[]).await;
    bench.double.change(|state| state.lingering = usize::MAX);
    let outcome = bench.deleting().args(["--timeout", "100ms", "--format", "json"]).run();
    assert_eq!(outcome.code, 4, "{}{}", outcome.stdout, outcome.stderr);
    let report = report(&outcome);
    let detail = |name: String| subject(&report, &name)["detail"].as_str().unwrap().to_owned();
    assert!(detail(id("i", 1)).ends_with("being deleted, still there at the end"), "{report}");
    let waits = format!("not tried: {} is still being deleted", id("i", 1));
    assert!(detail(id("vol", 2)).ends_with(&waits), "{report}");
    assert_eq!(bench.double.changes(), [format!("TerminateInstances {}", id("i", 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_and_says_how_far_it_came() {
    let bench = Bench::new(vec![instance(1)], &[]).await;
    bench.double.change(|state| state.lingering = usize::MAX);
    let path = bench.folder.path().join("report.json");
    let child = bench.deleting().args(["--report", path.to_str().unwrap()]);
    let mut child = child.spawn();
    while bench.double.changes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(report["outcome"], "interrupted");
    assert!(report["title"].as_str().unwrap().starts_with("stopped; 1 orphan"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_counts_whatever_it_is_called_beside_its_tags() {
    let bench = Bench::new(vec![thing("elastic-ip", id("eipalloc", 1), "")], &[]).await;
    bench.double.change(|state| state.odd_names = true);
    let outcome = bench.deleting().args(["--older-than", "0s", "--types", "elastic-ip"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(bench.double.changes(), [format!("ReleaseAddress {}", id("eipalloc", 1))]);
}

#[test]
fn it_documents_itself() {
    let program = env!("CARGO_BIN_EXE_cleanup-orphans");
    deploy_testkit::manual_can_be_read(program);
    deploy_testkit::readme_shows_help(program, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
