//! What the list of operations says, compared with what the endpoint does.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use local_cloud::coverage::{Class, HEADER, MADE_TRUE, services};
use local_cloud::ec2::check;
use local_cloud::model;
use serde_json::Value;

use crate::proxy::{authorization, endpoint, serve};

/// An emulator that refuses everything, so that nothing is made, and knows of nothing when the cloud itself asks.
pub(crate) async fn refusing() -> String {
    const ERROR: &str = "<Response><Errors><Error><Code>Double</Code><Message>no</Message></Error></Errors></Response>";
    const JSON_ERROR: &str = r#"{"__type": "InvalidDocument", "message": "no"}"#;
    serve(Router::new().fallback(|headers: HeaderMap| async move {
        let who = headers.get("authorization").and_then(|value| value.to_str().ok());
        if headers.contains_key("x-amz-target") {
            return (StatusCode::BAD_REQUEST, JSON_ERROR);
        }
        if who.is_some_and(|who| who.contains("Credential=local-cloud/")) {
            return (StatusCode::OK, "<Answer/>");
        }
        (StatusCode::BAD_REQUEST, ERROR)
    }))
    .await
}

async fn mark_of(
    client: &reqwest::Client,
    endpoint: &str,
    service: &str,
    operation: &str,
) -> String {
    let request =
        client.post(endpoint).header("authorization", authorization(service, "us-east-1"));
    let request = match service {
        "ssm" => request.header("x-amz-target", format!("AmazonSSM.{operation}")).body("{}"),
        "ecs" => request
            .header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"))
            .body("{}"),
        "ec2" => request.body(ec2_form(operation)),
        _ => request.body(format!("Action={operation}")),
    };
    let answer = request.send().await.expect("an answer");
    let mark = answer.headers().get(HEADER).and_then(|value| value.to_str().ok());
    mark.unwrap_or("none").to_owned()
}

/// A form that is right, so that the answer comes from where the operation is treated.
fn ec2_form(operation: &str) -> String {
    let mut form = format!("Action={operation}");
    for required in model::ec2(operation).map_or(&[][..], |known| &known.required) {
        form.push_str(&format!("&{required}={}", check::example(required)));
    }
    form
}

#[tokio::test]
async fn every_listed_operation_is_what_the_list_says() {
    let (client, endpoint) = (reqwest::Client::new(), endpoint(&refusing().await).await);
    for service in services().filter(|service| service.name != "mq") {
        let listed = service.made_true.iter().map(|operation| operation.name);
        for operation in
            listed.chain(service.answered.iter().copied()).chain(service.refused.iter().copied())
        {
            let operation = operation.trim_end_matches('*');
            let mark = mark_of(&client, &endpoint, service.name, operation).await;
            assert_eq!(mark, service.class(operation).name(), "{} {operation}", service.name);
        }
    }
}

/// The other direction: what the sources name and treat in a way of its own is in the list.
#[tokio::test]
async fn every_operation_that_the_sources_name_is_listed() {
    let (client, endpoint) = (reqwest::Client::new(), endpoint(&refusing().await).await);
    for service in MADE_TRUE {
        let name = service.name;
        let names = names_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name));
        assert!(names.len() > 10, "{name}: {names:?}");
        for operation in names {
            let mark = mark_of(&client, &endpoint, name, &operation).await;
            assert_eq!(
                mark,
                service.class(&operation).name(),
                "{name} {operation} is not in the list of src/coverage.rs"
            );
        }
    }
}

/// String literals that look like operations: a verb and a noun in camel case.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut look: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(path) = look.pop() {
        if path.is_dir() {
            look.extend(std::fs::read_dir(&path).expect("sources").flatten().map(|e| e.path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        found.extend(text.split('"').filter(|word| is_operation(word)).map(str::to_owned));
    }
    found
}

fn is_operation(word: &str) -> bool {
    const VERBS: &[&str] = &[
        "Accept",
        "Allocate",
        "Assign",
        "Associate",
        "Attach",
        "Authorize",
        "Cancel",
        "Copy",
        "Create",
        "Delete",
        "Deregister",
        "Describe",
        "Detach",
        "Disable",
        "Disassociate",
        "Enable",
        "Get",
        "Import",
        "Label",
        "List",
        "Modify",
        "Monitor",
        "Put",
        "Reboot",
        "Register",
        "Release",
        "Remove",
        "Replace",
        "Request",
        "Reset",
        "Resume",
        "Revoke",
        "Run",
        "Send",
        "Set",
        "Start",
        "Stop",
        "Terminate",
        "Unassign",
        "Unlabel",
        "Unmonitor",
        "Update",
    ];
    let upper = |c: char| c.is_ascii_uppercase();
    word.chars().all(|c| c.is_ascii_alphanumeric())
        && VERBS
            .iter()
            .any(|verb| word.strip_prefix(verb).is_some_and(|noun| noun.starts_with(upper)))
}

/// The page shows the list and the known differences, word for word.
#[test]
fn the_page_says_what_is_true() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rehearsal-coverage.md");
    let page = std::fs::read_to_string(PAGE).expect("docs/rehearsal-coverage.md");
    let (begin, end) = ("<!-- generated: coverage -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(begin).expect("a place for the table");
    let (_, after) = rest.split_once(end).expect("its end");
    let wanted = format!("{before}{begin}{}{end}{after}", coverage_tables());
    if renew() {
        std::fs::write(PAGE, &wanted).expect("the page can be written");
    } else {
        assert!(
            page == wanted,
            "docs/rehearsal-coverage.md is not what src/coverage.rs and conformance/differences.json say; renew it: \
             LOCAL_CLOUD_BLESS=1 cargo test -p local-cloud --test it the_page"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's switch is no flag of the tool")]
fn renew() -> bool {
    std::env::var_os("LOCAL_CLOUD_BLESS").is_some()
}

fn coverage_tables() -> String {
    let mut out = "\n| service | operation | is | note |\n|---|---|---|---|\n".to_owned();
    // Writing to a String cannot fail.
    let mut row = |service: &str, operations: &str, class: Class, note: &str| {
        let _ = writeln!(out, "| {service} | {operations} | {} | {note} |", class.name());
    };
    let code = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    for service in services() {
        for operation in service.made_true {
            row(service.title, &code(&[operation.name]), Class::True, operation.note);
        }
        let passes = service.answered.is_empty();
        let answered = if passes { "all others".to_owned() } else { code(service.answered) };
        row(service.title, &answered, Class::Answered, "");
        let refused = if passes { code(service.refused) } else { "all others".to_owned() };
        row(service.title, &refused, Class::Refused, "");
    }
    row("all others", "all", Class::Answered, "");

    out.push_str("\nWhere an answer of these differs from botocore's model:\n\n");
    out.push_str("| service | operation | where | why |\n|---|---|---|---|\n");
    let known: Vec<Value> =
        serde_json::from_str(include_str!("../../conformance/differences.json")).expect("a list");
    for known in &known {
        let text = |field: &str| known[field].as_str().unwrap_or_default().replace('*', "…");
        let any = |field: &str| if known[field] == "*" { "all".to_owned() } else { text(field) };
        let who = if known["as_on_aws"] == true { "**as on AWS:** " } else { "" };
        let _ = writeln!(
            out,
            "| {} | {} | `{}` | {who}{} |",
            any("service"),
            any("operation"),
            text("path"),
            text("why")
        );
    }
    out.push('\n');
    out
}
