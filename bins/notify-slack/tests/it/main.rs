//! The real binary against a double of Slack. Every call is searched for the secrets.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

use deploy_testkit::{Outcome, Tool};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const TOKEN: &str = "xoxb-CANARY-TOKEN";
const HOOK: &str = "/services/T0/B0/CANARY-HOOK";

fn report(folder: &Path, step: &str, start: &str, outcome: &str, title: &str, subjects: &Value) {
    let report = json!({
        "schema": "calldata-foundation/report", "version": 1, "tool": "some-tool", "tool_version": "0.1.0",
        "project": "calldata-foundation", "environment": "dev",
        "started_at": format!("2026-01-01T00:{start}:00Z"), "ended_at": format!("2026-01-01T00:{start}:30Z"),
        "elapsed_ms": 30_000, "outcome": outcome, "title": title, "subjects": subjects,
    });
    std::fs::write(folder.join(format!("{step}.json")), report.to_string()).unwrap();
}

/// A deployment whose second step failed.
fn failed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let subjects = json!([
        { "kind": "host", "name": "dev-platform-1", "outcome": "failed", "detail": "disk <full> & <!channel>" },
        { "kind": "host", "name": "dev-platform-2", "outcome": "success", "detail": "done" }
    ]);
    report(folder.path(), "wait", "05", "verdict", "1 of 2 hosts failed", &subjects);
    report(
        folder.path(),
        "plan",
        "01",
        "success",
        "3 to create, 0 to change, 0 to destroy",
        &json!([]),
    );
    folder
}

fn call(folder: &TempDir) -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_notify-slack"))
        .args(["--report", folder.path().to_str().unwrap()])
}

fn with_bot(folder: &TempDir, server: &MockServer) -> Tool {
    call(folder)
        .env("NOTIFY_SLACK_TOKEN", TOKEN)
        .args(["--channel", "C1", "--api-url", &format!("{}/api", server.uri())])
        .actions()
}

/// Runs it, and fails when a secret shows anywhere but in the line that masks it.
fn run(tool: Tool) -> Outcome {
    let outcome = tool.run();
    let stderr: Vec<&str> =
        outcome.stderr.lines().filter(|line| !line.starts_with("::add-mask::")).collect();
    let all =
        format!("{}{}{}{:?}", outcome.stdout, stderr.join("\n"), outcome.summary, outcome.outputs);
    assert!(!all.contains("CANARY"), "{all}");
    outcome
}

async fn slack(route: &str, answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(route)).respond_with(answer).mount(&server).await;
    server
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

async fn bodies(server: &MockServer) -> Vec<Value> {
    server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .map(|request| request.body_json().unwrap())
        .collect()
}

#[test]
fn a_dry_run_prints_the_payload_and_says_that_nothing_was_sent() {
    let folder = failed();
    let outcome = run(call(&folder).args(["--dry-run"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("nothing was sent (dry run)"), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stdout, @r#"
    {
      "text": "❌ calldata-foundation dev: deployment failed (4 min 30 s): ❌ wait: 1 of 2 hosts failed (30.0 s)",
      "blocks": [
        {
          "type": "header",
          "text": {
            "type": "plain_text",
            "text": "❌ calldata-foundation dev: deployment failed (4 min 30 s)",
            "emoji": false
          }
        },
        {
          "type": "section",
          "text": {
            "type": "plain_text",
            "text": "✅ plan: 3 to create, 0 to change, 0 to destroy (30.0 s)\n❌ wait: 1 of 2 hosts failed (30.0 s)\n     • host dev-platform-1: disk &lt;full&gt; &amp; &lt;!channel&gt;",
            "emoji": false
          }
        }
      ],
      "unfurl_links": false,
      "unfurl_media": false
    }
    "#);
}

#[test]
fn without_a_secret_it_says_so_and_succeeds() {
    let folder = failed();
    let outcome =
        run(call(&folder).env("NOTIFY_SLACK_TOKEN", "").env("NOTIFY_SLACK_CHANNEL", "").actions());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("::notice title=notify-slack::nothing was sent"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.outputs["delivered"], "false");
    assert!(serde_json::from_str::<Value>(&outcome.stdout).is_ok());
}

#[tokio::test]
async fn a_bot_posts_once_with_the_link_to_the_run() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/chat.postMessage"))
        .and(header("authorization", format!("Bearer {TOKEN}")))
        .respond_with(ok(json!({ "ok": true, "ts": "17.1", "channel": "C1" })))
        .expect(1)
        .mount(&server)
        .await;
    let folder = failed();
    let tool = with_bot(&folder, &server)
        .env("GITHUB_SERVER_URL", "https://github.com")
        .env("GITHUB_REPOSITORY", "o/r")
        .env("GITHUB_RUN_ID", "7")
        .env("GITHUB_ACTOR", "<@U1>");
    let outcome = run(tool);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.outputs["delivered"], "true");
    assert_eq!(
        (outcome.outputs["ts"].as_str(), outcome.outputs["channel-id"].as_str()),
        ("17.1", "C1")
    );
    let body = bodies(&server).await.remove(0);
    assert_eq!(body["channel"], "C1");
    assert_eq!(
        body["blocks"][2]["elements"],
        json!([
            { "type": "mrkdwn", "text": "<https://github.com/o/r/actions/runs/7|Workflow run>" },
            { "type": "plain_text", "text": "by &lt;@U1&gt;", "emoji": false }
        ])
    );
    assert!(outcome.stderr.starts_with(&format!("::add-mask::{TOKEN}\n")), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_message_that_is_known_is_updated() {
    let server =
        slack("/api/chat.update", ok(json!({ "ok": true, "ts": "17.1", "channel": "C1" }))).await;
    let folder = failed();
    let outcome = run(with_bot(&folder, &server).args(["--ts", "17.1"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(bodies(&server).await[0]["ts"], "17.1");
}

#[tokio::test]
async fn a_message_that_is_gone_is_posted_anew_and_said_so() {
    let server =
        slack("/api/chat.update", ok(json!({ "ok": false, "error": "message_not_found" }))).await;
    Mock::given(path("/api/chat.postMessage"))
        .respond_with(ok(json!({ "ok": true, "ts": "18.1", "channel": "C1" })))
        .expect(1)
        .mount(&server)
        .await;
    let folder = failed();
    let outcome = run(with_bot(&folder, &server).args(["--ts", "17.1"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.outputs["ts"], "18.1");
    assert!(outcome.stderr.contains("a new one was posted"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_polite_refusal_is_a_warning_by_default_and_a_failure_on_request() {
    let server =
        slack("/api/chat.postMessage", ok(json!({ "ok": false, "error": "invalid_auth" }))).await;
    let folder = failed();
    let outcome = run(with_bot(&folder, &server));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let warning = "::warning title=notify-slack::the message was not delivered to Slack: Slack refused it: `invalid_auth`; put a valid bot token";
    assert!(outcome.stderr.contains(warning), "{}", outcome.stderr);
    assert_eq!(outcome.outputs["delivered"], "false");
    assert!(outcome.summary.contains("    ❌ wait: 1 of 2 hosts failed"), "{}", outcome.summary);

    let outcome = run(with_bot(&folder, &server).args(["--on-error", "fail"]));
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: the message was not delivered to Slack\n  caused by: Slack refused it: `invalid_auth`\nhint: put a valid bot token"), "{}", outcome.stderr);
    assert_eq!(outcome.outputs["delivered"], "false");
    assert!(outcome.summary.contains("    ❌ wait: 1 of 2 hosts failed"), "{}", outcome.summary);
}

#[tokio::test]
async fn every_way_to_say_no_has_its_exit_status() {
    let folder = failed();
    for (answer, code) in [
        (ok(json!({ "ok": false, "error": "channel_not_found" })), 2),
        (ok(json!({ "ok": false, "error": "not_in_channel" })), 5),
        (ok(json!({ "ok": false, "error": "invalid_blocks" })), 70),
        (ok(json!({ "ok": false, "error": "fatal_error" })), 6),
        (ResponseTemplate::new(200).set_body_string("<html>a proxy</html>"), 2),
        (ResponseTemplate::new(302).insert_header("location", "https://example.org/"), 2),
        (ResponseTemplate::new(503), 6),
        (ResponseTemplate::new(429).insert_header("retry-after", "3600"), 6),
    ] {
        let server = slack("/api/chat.postMessage", answer).await;
        let outcome = run(with_bot(&folder, &server).args(["--on-error", "fail"]));
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        // Never a second attempt where the first may have worked, nor where it cannot help.
        assert_eq!(bodies(&server).await.len(), 1, "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn a_busy_slack_is_asked_again_when_it_says() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "0");
    Mock::given(path("/api/chat.postMessage"))
        .respond_with(busy)
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(path("/api/chat.postMessage"))
        .respond_with(ok(json!({ "ok": true, "ts": "1.1", "channel": "C1" })))
        .expect(1)
        .mount(&server)
        .await;
    let folder = failed();
    let outcome = run(with_bot(&folder, &server));
    assert_eq!(
        (outcome.code, outcome.outputs["delivered"].as_str()),
        (0, "true"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn a_slack_that_never_answers_ends_in_time_and_gets_one_message() {
    let never = ok(json!({ "ok": true })).set_delay(Duration::from_secs(60));
    let server = slack("/api/chat.postMessage", never).await;
    let folder = failed();
    let outcome =
        run(with_bot(&folder, &server).args(["--timeout", "300ms", "--on-error", "fail"]));
    assert_eq!(
        (outcome.code, outcome.outputs["delivered"].as_str()),
        (4, "unknown"),
        "{}",
        outcome.stderr
    );
    assert_eq!(bodies(&server).await.len(), 1);
}

#[tokio::test]
async fn a_signal_ends_it_with_130() {
    let never = ok(json!({ "ok": true })).set_delay(Duration::from_secs(60));
    let server = slack("/api/chat.postMessage", never).await;
    let folder = failed();
    let tool = with_bot(&folder, &server);
    let mut child = tool.spawn();
    while server.received_requests().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn no_connection_is_unavailable_and_shows_no_address_that_is_a_secret() {
    let folder = failed();
    // Port 1 on loopback: nothing listens there.
    let hook = format!("http://127.0.0.1:1{HOOK}");
    let outcome = run(call(&folder).env("NOTIFY_SLACK_WEBHOOK", hook).args([
        "--on-error",
        "fail",
        "--timeout",
        "500ms",
    ]));
    assert_eq!(outcome.code, 6, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot connect to `127.0.0.1`"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_webhook_counts_as_delivered_only_when_it_says_ok() {
    let folder = failed();
    for (answer, code) in [
        (ResponseTemplate::new(200).set_body_string("ok"), 0),
        (ResponseTemplate::new(403).set_body_string("action_prohibited"), 5),
        (ResponseTemplate::new(404).set_body_string("no_service"), 5),
        (ResponseTemplate::new(410).set_body_string("channel_is_archived"), 2),
        (ResponseTemplate::new(200).set_body_string("hello from a proxy"), 2),
        (ResponseTemplate::new(500).set_body_string(""), 6),
    ] {
        let server = slack(HOOK, answer).await;
        let hook = format!("{}{HOOK}", server.uri());
        let outcome = run(call(&folder)
            .env("NOTIFY_SLACK_WEBHOOK", hook)
            .args(["--on-error", "fail"])
            .actions());
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        let body = bodies(&server).await.remove(0);
        assert!(body["channel"].is_null() && body["text"].is_string(), "{body}");
    }
}

#[test]
fn secrets_go_to_slack_only() {
    let folder = failed();
    for hook in [
        format!("http://hooks.slack.com{HOOK}"),
        format!("https://example.org{HOOK}"),
        "CANARY".to_owned(),
    ] {
        let outcome = run(call(&folder).env("NOTIFY_SLACK_WEBHOOK", hook));
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error: NOTIFY_SLACK_WEBHOOK "), "{}", outcome.stderr);
    }
    let tool = call(&folder).env("NOTIFY_SLACK_TOKEN", TOKEN).args([
        "--channel",
        "C1",
        "--api-url",
        "https://example.org/api",
    ]);
    assert_eq!(run(tool).code, 2);
}

#[test]
fn bad_input_is_one_clear_error() {
    let folder = failed();
    let check = |tool: Tool, expected: &str| {
        let outcome = run(tool);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    };
    let tool = || Tool::new(env!("CARGO_BIN_EXE_notify-slack"));
    check(tool(), "nothing to tell");
    check(tool().args(["--report", "nowhere.json"]), "cannot read the report `nowhere.json`");
    check(tool().args(["--needs", "{"]), "`--needs` is not the JSON");
    check(call(&folder).args(["--timeout", "21s"]), "at most 20 s");
    check(call(&folder).env("NOTIFY_SLACK_TOKEN", TOKEN), "no `--channel`");
    let hook = "https://hooks.slack.com/services/CANARY";
    check(
        call(&folder).env("NOTIFY_SLACK_WEBHOOK", hook).args(["--ts", "1.1"]),
        "needs a bot token",
    );
}

#[test]
fn a_step_that_left_no_readable_report_is_told_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), "plan", "01", "success", "3 to create", &json!([]));
    for text in ["", "{\"schema\":\"calldata-fou", "{\"schema\":\"other\"}"] {
        std::fs::write(folder.path().join("apply.json"), text).unwrap();
        let outcome = run(call(&folder).args(["--dry-run"]));
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("the report of step `apply` cannot be read"),
            "{}",
            outcome.stderr
        );
        let payload: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(payload["text"].as_str().unwrap().contains("deployment failed"), "{payload}");
        assert!(payload.to_string().contains("❌ apply: left no readable report"), "{payload}");
    }
}

#[test]
fn jobs_that_left_no_report_count() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), "plan", "01", "success", "3 to create", &json!([]));
    let check = |needs: Value, words: &str, job: Option<&str>| {
        let outcome =
            run(call(&folder).env("NOTIFY_SLACK_NEEDS", needs.to_string()).args(["--dry-run"]));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let payload: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(payload["text"].as_str().unwrap().contains(words), "{payload}");
        let lines = payload["blocks"][1]["text"]["text"].as_str().unwrap();
        assert_eq!(lines.lines().nth(1), job, "{payload}");
    };
    let job = |result: &str| json!({ "result": result, "outputs": {} });
    check(json!({ "plan": job("success"), "apply": job("success") }), "dev: deployed", None);
    check(json!({ "plan": job("success"), "apply": job("skipped") }), "dev: deployed", None);
    check(
        json!({ "plan": job("success"), "apply": job("failure") }),
        "deployment failed",
        Some("❌ job apply: failure"),
    );
    check(
        json!({ "plan": job("success"), "apply": job("cancelled") }),
        "deployment stopped",
        Some("🛑 job apply: cancelled"),
    );
}

#[test]
fn its_own_report_follows_the_contract() {
    let folder = failed();
    let outcome = run(call(&folder).args([
        "--dry-run",
        "--format",
        "json",
        "--write-report",
        "own/report.json",
    ]));
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["schema"], "calldata-foundation/report");
    assert_eq!(
        (&report["project"], &report["environment"]),
        (&json!("calldata-foundation"), &json!("dev"))
    );
    assert_eq!(report["subjects"][0]["outcome"], "skipped");
    assert!(report["subjects"][0]["data"]["payload"]["blocks"].is_array());
}

#[test]
fn it_documents_itself() {
    let program = env!("CARGO_BIN_EXE_notify-slack");
    deploy_testkit::manual_can_be_read(program);
    deploy_testkit::readme_shows_help(program, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
