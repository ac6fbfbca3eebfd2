//! The control API: who may use it, what it says to mistakes, and that it is not an AWS path.

use axum::Router;
use futures_util::StreamExt as _;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::endpoint::{Endpoint, endpoint, serve};

async fn cloud() -> Endpoint {
    endpoint(&serve(Router::new().fallback(|| async { "from the emulator" })).await).await
}

fn request(cloud: &Endpoint, method: Method, path: &str) -> RequestBuilder {
    Client::new()
        .request(method, format!("{}/_local-cloud/{path}", cloud.url))
        .bearer_auth(cloud.token.reveal())
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn nobody_is_let_in_without_the_token() {
    let cloud = cloud().await;
    for (method, path) in [
        (Method::GET, "status"),
        (Method::GET, "faults"),
        (Method::POST, "faults"),
        (Method::DELETE, "faults"),
        (Method::DELETE, "faults/1"),
        (Method::GET, "events"),
        (Method::GET, "no-such-path"),
    ] {
        let url = format!("{}/_local-cloud/{path}", cloud.url);
        let bare = Client::new().request(method.clone(), &url);
        assert_eq!(answer(bare.try_clone().expect("no body")).await.0, 401, "{method} {path}");
        let wrong = bare.bearer_auth("0".repeat(64));
        assert_eq!(answer(wrong).await.0, 401, "{method} {path}");
    }
    assert_eq!(answer(request(&cloud, Method::GET, "status")).await.0, 200);
}

#[tokio::test]
async fn the_page_is_given_to_this_machine_only_and_knows_nothing_by_itself() {
    let cloud = cloud().await;
    let get = || Client::new().get(format!("{}/_local-cloud/", cloud.url));
    let page = get().send().await.expect("an answer");
    assert_eq!(page.status().as_u16(), 200);
    assert_eq!(page.headers()["cache-control"], "no-store");
    assert!(!page.text().await.expect("text").contains(cloud.token.reveal()));
    let foreign = get().header("host", "evil.example").send().await.expect("an answer");
    assert_eq!(foreign.status().as_u16(), 403);
}

#[tokio::test]
async fn a_page_of_another_site_is_turned_away_even_with_the_token() {
    let cloud = cloud().await;
    let get = || request(&cloud, Method::GET, "status");
    assert_eq!(answer(get().header("origin", "http://evil.example")).await.0, 403);
    assert_eq!(answer(get().header("origin", "null")).await.0, 403);
    assert_eq!(answer(get().header("host", "evil.example")).await.0, 403);
    assert_eq!(answer(get().header("origin", &cloud.url)).await.0, 200);
}

#[tokio::test]
async fn faults_are_added_listed_and_removed() {
    let cloud = cloud().await;
    let spec = json!({"kind": "throttle", "operation": "ssm:SendCommand", "count": 2, "for": "5m"});
    let (status, body) = answer(request(&cloud, Method::POST, "faults").json(&spec)).await;
    assert_eq!((status, body), (201, json!({"id": 1, "nobody": []})));
    let of_host = json!({"kind": "kernel-panic", "host": "mistyped"});
    let (status, body) = answer(request(&cloud, Method::POST, "faults").json(&of_host)).await;
    assert_eq!((status, body), (201, json!({"id": 2, "nobody": ["mistyped"]})));
    let (status, body) = answer(request(&cloud, Method::GET, "faults")).await;
    assert_eq!(status, 200);
    assert_eq!(
        body[0]["spec"],
        json!({"kind": "throttle", "service": "ssm", "operation": "SendCommand", "count": 2, "for": "5m"})
    );
    assert_eq!((&body[0]["standing"], &body[0]["struck"]), (&json!("active"), &json!(0)));
    let (status, _) = answer(request(&cloud, Method::DELETE, "faults/1")).await;
    assert_eq!(status, 200);
    let (status, body) = answer(request(&cloud, Method::DELETE, "faults/1")).await;
    assert_eq!(status, 404);
    assert_eq!(body, json!({"field": "id", "message": "there is no fault 1"}));
    let (_, body) = answer(request(&cloud, Method::DELETE, "faults")).await;
    assert_eq!(body, json!({"removed": 1}));
}

#[tokio::test]
async fn a_bad_specification_names_its_field() {
    let cloud = cloud().await;
    for (body, field) in [
        ("", "body"),
        ("[1]", "body"),
        (r#"{"kind":"meteor"}"#, "kind"),
        (r#"{"kind":"latency","count":"two"}"#, "count"),
        (r#"{"kind":"latency","count":0}"#, "count"),
        (r#"{"kind":"latency","for":"-5s"}"#, "for"),
        (r#"{"kind":"latency","hots":"a"}"#, "hots"),
        (r#"{"kind":"kernel-panic","service":"ec2"}"#, "service"),
    ] {
        let (status, answer) = answer(request(&cloud, Method::POST, "faults").body(body)).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{body}: {answer}");
    }
    let large = format!(r#"{{"kind":"latency","host":"{}"}}"#, "x".repeat(70_000));
    let (status, _) = answer(request(&cloud, Method::POST, "faults").body(large)).await;
    assert_eq!(status, 413);
    assert_eq!(answer(request(&cloud, Method::DELETE, "faults/one")).await.0, 400);
    assert_eq!(answer(request(&cloud, Method::PUT, "faults")).await.0, 405);
    assert_eq!(answer(request(&cloud, Method::GET, "no-such-path")).await.0, 404);
    for query in ["after=x", "since=yesterday", "follow=1"] {
        let (status, answer) =
            answer(request(&cloud, Method::GET, &format!("events?{query}"))).await;
        let field = query.split('=').next().expect("a name");
        assert_eq!((status, &answer["field"]), (400, &json!(field)));
    }
    assert!(cloud.faults.list().is_empty());
}

#[tokio::test]
async fn what_happens_is_seen_while_it_happens() {
    let cloud = cloud().await;
    let answer =
        request(&cloud, Method::GET, "events?follow=true").send().await.expect("an answer");
    let mut stream = answer.bytes_stream();
    let mark = "tag:mark=seen-by-this-test-only";
    let spec = json!({"kind": "kernel-panic", "host": mark});
    request(&cloud, Method::POST, "faults").json(&spec).send().await.expect("added");
    let mut text = String::new();
    while !text.contains(mark) {
        let piece = stream.next().await.expect("it goes on").expect("a piece");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    let line = text.lines().find(|line| line.contains(mark)).expect("the event");
    let event: Value = serde_json::from_str(line).expect("a line of JSON");
    assert_eq!(event["text"], format!("fault 1 added: kernel-panic --host {mark}"));
    let last = event["id"].as_u64().expect("a number");
    let answer = request(&cloud, Method::GET, &format!("events?after={}", last - 1)).send().await;
    let text = answer.expect("an answer").text().await.expect("text");
    assert_eq!(text.lines().next(), Some(line));
}
