//! Faults of requests through the real endpoint, with a small server in the emulator's place that counts its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use local_cloud::faults::{Kind, Spec, Standing};
use local_cloud::proxy::{self, Proxy};
use reqwest::{Client, RequestBuilder, Response};

use crate::endpoint::{Endpoint, endpoint, serve};
use crate::proxy::authorization;

/// The endpoint, and how many calls came through it.
async fn cloud() -> (Endpoint, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    // Who calls is the endpoint's own question.
    let upstream = Router::new().fallback(move |body: String| {
        let own = body.contains("GetCallerIdentity");
        let number = if own { 0 } else { counted.fetch_add(1, Ordering::SeqCst) + 1 };
        async move { format!("answer {number}") }
    });
    (endpoint(&serve(upstream).await).await, calls)
}

fn ec2(cloud: &Endpoint, form: &str) -> RequestBuilder {
    query(cloud, "ec2", form)
}

fn query(cloud: &Endpoint, service: &str, form: &str) -> RequestBuilder {
    Client::new()
        .post(&cloud.url)
        .header("authorization", authorization(service, "us-east-1"))
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(form.to_owned())
}

fn json(cloud: &Endpoint, service: &str, target: &str, body: &str) -> RequestBuilder {
    Client::new()
        .post(&cloud.url)
        .header("authorization", authorization(service, "us-east-1"))
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", target)
        .body(body.to_owned())
}

fn get(cloud: &Endpoint, service: &str, path: &str) -> RequestBuilder {
    Client::new()
        .get(format!("{}{path}", cloud.url))
        .header("authorization", authorization(service, "us-east-1"))
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

async fn text(request: RequestBuilder) -> (u16, String) {
    let answer = send(request).await;
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn every_protocol_says_it_in_its_own_shape() {
    let (cloud, calls) = cloud().await;
    cloud.faults.add(Spec::of(Kind::Throttle)).expect("good");
    let check = async |request: RequestBuilder, status: u16, parts: &[&str]| {
        let answer = send(request).await;
        let kind = answer.headers().get("x-amzn-errortype").cloned();
        let found = answer.status().as_u16();
        let text = format!("{kind:?} {}", answer.text().await.expect("text"));
        assert_eq!(found, status, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
    };
    check(
        ec2(&cloud, "Action=DescribeVpcs"),
        503,
        &["<Response><Errors><Error><Code>RequestLimitExceeded</Code>", "<RequestID>"],
    )
    .await;
    check(
        query(&cloud, "iam", "Action=ListRoles"),
        400,
        &["<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>"],
    )
    .await;
    check(
        json(&cloud, "ssm", "AmazonSSM.SendCommand", "{}"),
        400,
        &[r#""__type":"ThrottlingException""#, r#""message":"Rate exceeded""#],
    )
    .await;
    check(
        get(&cloud, "s3", "/bucket/key"),
        503,
        &["<Error><Code>SlowDown</Code>", "<Resource>/bucket/key</Resource>"],
    )
    .await;
    check(
        get(&cloud, "lambda", "/2015-03-31/functions"),
        429,
        &["TooManyRequestsException", r#"{"message":"Rate exceeded"}"#],
    )
    .await;
    check(get(&cloud, "route53", "/2013-04-01/hostedzone"), 400, &["<Code>Throttling</Code>"])
        .await;
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing of it was worked on");
}

#[tokio::test]
async fn only_the_action_in_scope_is_denied() {
    let (cloud, _) = cloud().await;
    let spec = Spec { operation: Some("ec2:CreateVpc".into()), ..Spec::of(Kind::AccessDenied) };
    cloud.faults.add(spec).expect("good");
    let (status, body) = text(ec2(&cloud, "Action=CreateVpc&CidrBlock=10.0.0.0/16")).await;
    assert_eq!(status, 403);
    assert!(body.contains("<Code>UnauthorizedOperation</Code>"), "{body}");
    assert!(
        body.contains("You are not authorized to perform this operation. User: arn:aws:")
            && body.contains("is not authorized to perform: ec2:CreateVpc on resource: "),
        "{body}"
    );
    assert_eq!(text(ec2(&cloud, "Action=DescribeVpcs")).await, (200, "answer 1".into()));
    // In policies ListObjectsV2 is called ListBucket; both names are in scope.
    for operation in ["s3:ListBucket", "s3:ListObjectsV2"] {
        let spec = Spec {
            operation: Some(operation.into()),
            count: Some(1),
            ..Spec::of(Kind::AccessDenied)
        };
        cloud.faults.add(spec).expect("good");
        let (status, body) = text(get(&cloud, "s3", "/bucket?list-type=2")).await;
        assert_eq!(status, 403, "{body}");
        assert!(
            body.contains("<Code>AccessDenied</Code>") && body.contains("s3:ListBucket"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_connection_is_really_closed() {
    let (cloud, calls) = cloud().await;
    let once = |spec: Spec| cloud.faults.add(Spec { count: Some(1), ..spec }).expect("good");
    let request = || ec2(&cloud, "Action=DescribeVpcs");

    once(Spec::of(Kind::DropConnection));
    let error = request().send().await.expect_err("no answer");
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "closed before anything was done");

    once(Spec::of(Kind::LostReply));
    let error = request().send().await.expect_err("no answer");
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "done, and the answer is lost");

    once(Spec { code: Some("midway".into()), ..Spec::of(Kind::DropConnection) });
    let answer = send(request()).await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.content_length(), Some("answer 2".len() as u64));
    let error = answer.bytes().await.expect_err("half an answer");
    assert!(error.is_body() || error.is_decode(), "{error:?}");

    assert_eq!(text(request()).await, (200, "answer 3".into()), "and then all is well");
}

#[tokio::test]
async fn an_answer_waits_as_long_as_asked() {
    let (cloud, _) = cloud().await;
    let delay = Duration::from_millis(300);
    let spec = Spec { delay: Some(delay), count: Some(1), ..Spec::of(Kind::Latency) };
    cloud.faults.add(spec).expect("good");
    let begun = Instant::now();
    assert_eq!(text(ec2(&cloud, "Action=DescribeVpcs")).await.0, 200);
    assert!(begun.elapsed() >= delay);
    assert_eq!(cloud.faults.list()[0].standing, Standing::Spent);
}

#[tokio::test]
async fn launches_fail_for_want_of_capacity_and_nothing_else_does() {
    let (cloud, calls) = cloud().await;
    cloud.faults.add(Spec::of(Kind::NoCapacity)).expect("good");
    let (status, body) =
        text(ec2(&cloud, "Action=RunInstances&InstanceType=t3.xlarge&MinCount=1&MaxCount=1")).await;
    assert_eq!(status, 500);
    assert!(body.contains("<Code>InsufficientInstanceCapacity</Code>"), "{body}");
    assert!(body.contains("sufficient t3.xlarge capacity"), "{body}");
    assert_eq!(text(ec2(&cloud, "Action=DescribeVpcs")).await.0, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stale_read_answers_as_before_the_change() {
    let (cloud, _) = cloud().await;
    let spec = Spec { count: Some(1), ..Spec::of(Kind::StaleDescribe) };
    cloud.faults.add(spec).expect("good");
    let read = || query(&cloud, "sns", "Action=ListTopics");
    assert_eq!(text(read()).await.1, "answer 1");
    assert_eq!(text(read()).await.1, "answer 2", "nothing has changed, so nothing is stale");
    assert_eq!(text(query(&cloud, "sns", "Action=CreateTopic&Name=news")).await.1, "answer 3");
    assert_eq!(text(read()).await.1, "answer 2", "as before the change");
    assert_eq!(text(read()).await.1, "answer 4", "once only");
    let listed = &cloud.faults.list()[0];
    assert_eq!((listed.matched, listed.struck), (1, 1));
}

#[tokio::test]
async fn expired_credentials_are_refused_in_the_services_words() {
    let (cloud, _) = cloud().await;
    cloud.faults.add(Spec::of(Kind::ExpiredCredentials)).expect("good");
    for (request, code) in [
        (ec2(&cloud, "Action=DescribeVpcs"), "RequestExpired"),
        (query(&cloud, "sts", "Action=GetCallerIdentity"), "ExpiredToken<"),
        (json(&cloud, "ssm", "AmazonSSM.GetParameter", "{}"), "ExpiredTokenException"),
        (get(&cloud, "s3", "/bucket/key"), "ExpiredToken<"),
    ] {
        let (status, body) = text(request).await;
        assert!((400..=403).contains(&status) && body.contains(code), "{status} {body}");
    }
}

#[tokio::test]
async fn a_signature_of_another_time_is_refused_without_any_fault() {
    let (cloud, calls) = cloud().await;
    for (request, code) in [
        (ec2(&cloud, "Action=DescribeVpcs"), "RequestExpired"),
        (query(&cloud, "sts", "Action=GetCallerIdentity"), "SignatureDoesNotMatch"),
        (json(&cloud, "ssm", "AmazonSSM.GetParameter", "{}"), "InvalidSignatureException"),
        (get(&cloud, "s3", "/bucket/key"), "RequestTimeTooSkewed"),
    ] {
        let (_, body) = text(request.header("x-amz-date", "20200101T000000Z")).await;
        assert!(body.contains(code), "{body}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    assert_eq!(text(ec2(&cloud, "Action=DescribeVpcs").header("x-amz-date", now)).await.0, 200);
}

#[tokio::test]
async fn hosts_do_not_reach_the_control_api() {
    let (cloud, _) = cloud().await;
    // At the edge of a VPC only the API is served, without the control API before it.
    let api = proxy::router(Proxy::clone(&cloud.proxy));
    let edge = serve(api).await;
    let answer = Client::new()
        .get(format!("{edge}/_local-cloud/status"))
        .bearer_auth(cloud.token.reveal())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 404);
    assert!(!answer.text().await.expect("text").contains("hosts"));
}
