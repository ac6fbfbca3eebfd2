//! What the emulator would do wrong, with a double that does it.

use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;

use crate::proxy::{authorization, ec2, endpoint, serve};

/// Answers each operation with what is given for it, and remembers what it was asked.
async fn double(
    answers: &'static [(&'static str, &'static str)],
) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let body = String::from_utf8_lossy(&body).into_owned();
        let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let operation = target.map_or_else(
            || {
                let action = body.split('&').find_map(|field| field.strip_prefix("Action="));
                action.unwrap_or_default().to_owned()
            },
            |target| target.rsplit('.').next().unwrap_or_default().to_owned(),
        );
        seen.lock().expect("asked").push(format!("{operation} {body}"));
        let known = answers.iter().find(|(name, _)| *name == operation);
        async move {
            match known {
                Some((_, answer)) => (StatusCode::OK, (*answer).to_owned()).into_response(),
                None => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
                    "<!doctype html><title>500 Internal Server Error</title>",
                )
                    .into_response(),
            }
        }
    });
    (serve(router).await, asked)
}

async fn json(endpoint: &str, service: &str, target: &str, body: &str) -> (u16, serde_json::Value) {
    let answer = reqwest::Client::new()
        .post(endpoint)
        .header("authorization", authorization(service, "us-east-1"))
        .header("x-amz-target", target)
        .body(body.to_owned())
        .send()
        .await
        .expect("an answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).expect("JSON"))
}

const NONE: &str = "<R></R>";

#[tokio::test]
async fn a_group_in_use_stays() {
    let (upstream, asked) = double(&[
        (
            "DescribeSecurityGroups",
            "<R><securityGroupInfo><item><groupId>sg-0123456789abcdef0</groupId><groupName>a</groupName></item>\
             <item><groupId>sg-11111111111111111</groupId><groupName>default</groupName></item></securityGroupInfo></R>",
        ),
        (
            "DescribeNetworkInterfaces",
            "<R><networkInterfaceSet><item><groupSet><item><groupId>sg-0123456789abcdef0</groupId></item></groupSet>\
             </item></networkInterfaceSet></R>",
        ),
        ("DeleteSecurityGroup", NONE),
    ])
    .await;
    let endpoint = endpoint(&upstream).await;
    for (id, code) in
        [("sg-0123456789abcdef0", "DependencyViolation"), ("sg-11111111111111111", "CannotDelete")]
    {
        let form = format!("Action=DeleteSecurityGroup&GroupId={id}");
        let (status, text) = ec2(&endpoint, "us-east-1", &form).await;
        assert_eq!(status, 400);
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
    }
    let asked = asked.lock().expect("asked");
    assert!(!asked.iter().any(|call| call.starts_with("Delete")), "{asked:?}");
}

#[tokio::test]
async fn a_dry_run_does_not_reach_the_emulator() {
    let (upstream, asked) = double(&[("CreateVpc", NONE)]).await;
    let endpoint = endpoint(&upstream).await;
    let form = "Action=CreateVpc&CidrBlock=10.0.0.0/16&DryRun=true";
    let (status, text) = ec2(&endpoint, "us-east-1", form).await;
    assert_eq!(status, 412, "{text}");
    assert!(text.contains("<Code>DryRunOperation</Code>"), "{text}");
    assert!(asked.lock().expect("asked").is_empty());
}

#[tokio::test]
async fn a_list_comes_in_pages_that_may_be_empty() {
    let (upstream, asked) = double(&[(
        "DescribeVolumes",
        "<R><volumeSet><item>1</item><item>2</item><item>3</item></volumeSet></R>",
    )])
    .await;
    let endpoint = endpoint(&upstream).await;
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let form = format!("Action=DescribeVolumes&MaxResults=5{token}");
        let (status, text) = ec2(&endpoint, "us-east-1", &form).await;
        assert_eq!(status, 200, "{text}");
        pages.push(text.matches("<item>").count());
        let Some((_, rest)) = text.split_once("<nextToken>") else { break };
        token = format!("&NextToken={}", rest.split('<').next().unwrap_or_default());
    }
    assert_eq!(pages, [2, 0, 1]);
    // The emulator is asked once, for the whole list.
    let asked = asked.lock().expect("asked");
    let asked: Vec<_> = asked.iter().filter(|call| !call.contains("GetCallerIdentity")).collect();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].contains("MaxResults"), "{asked:?}");
}

#[tokio::test]
async fn json_lists_are_paged_and_their_tokens_checked() {
    let (upstream, _) = double(&[(
        "ListSecrets",
        r#"{"SecretList":[{"Name":"a"},{"Name":"b"}],"NextToken":null}"#,
    )])
    .await;
    let endpoint = endpoint(&upstream).await;
    let call = |body: String| {
        let endpoint = endpoint.clone();
        async move { json(&endpoint, "secretsmanager", "secretsmanager.ListSecrets", &body).await }
    };
    let (_, whole) = call("{}".into()).await;
    assert_eq!(whole, serde_json::json!({"SecretList": [{"Name": "a"}, {"Name": "b"}]}));
    let (_, first) = call(r#"{"MaxResults":100}"#.into()).await;
    assert_eq!(first["SecretList"], serde_json::json!([{"Name": "a"}]));
    let token = first["NextToken"].as_str().expect("a token");
    let (_, second) = call(format!(r#"{{"MaxResults":100,"NextToken":"{token}"}}"#)).await;
    assert_eq!(second["SecretList"], serde_json::json!([]));
    assert!(second["NextToken"].is_string());
    let (status, bad) = call(r#"{"NextToken":"x"}"#.into()).await;
    assert_eq!((status, &bad["__type"]), (400, &"InvalidNextTokenException".into()));
}

#[tokio::test]
async fn a_failing_emulator_becomes_an_error_in_the_callers_protocol() {
    let (upstream, _) = double(&[]).await;
    let endpoint = endpoint(&upstream).await;
    let (status, text) = ec2(&endpoint, "us-east-1", "Action=DescribeVpcs").await;
    assert_eq!(status, 500);
    assert!(text.contains("<Response><Errors><Error><Code>InternalError</Code>"), "{text}");
    let (status, body) =
        json(&endpoint, "kms", "TrentService.DescribeKey", r#"{"KeyId":"a"}"#).await;
    assert_eq!((status, &body["__type"]), (500, &"InternalServerError".into()));
    assert!(body["message"].as_str().is_some_and(|text| text.contains("kms DescribeKey")));
}
