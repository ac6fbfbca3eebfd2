//! Who is let in: only callers whose requests are signed with credentials of this cloud.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use jiff::{SignedDuration, Timestamp};
use local_cloud::authentication::signed_only;
use local_cloud::credentials::{AccessKey, Credentials};
use local_cloud::proxy;

use crate::endpoint::{endpoint, serve};

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const DESCRIBE: &str = "Action=DescribeVpcs&Version=2016-11-15";

struct Place {
    url: String,
    owner: AccessKey,
    credentials: Credentials,
    /// How many requests came through.
    passed: Arc<AtomicUsize>,
}

/// The endpoint behind signatures; what stands in the emulator's place hands out a key and says back what else comes.
async fn place() -> Place {
    let passed = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&passed);
    let upstream = serve(Router::new().fallback(move |headers: HeaderMap, body: axum::body::Body| {
        let seen = Arc::clone(&seen);
        async move {
            let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            // The cloud's own question, who calls.
            if !body.starts_with(b"Action=GetCallerIdentity") {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            if body.starts_with(b"Action=CreateAccessKey") {
                return "<R><CreateAccessKeyResult><AccessKey><AccessKeyId>AKIDMADE</AccessKeyId>\
                        <SecretAccessKey>made</SecretAccessKey></AccessKey></CreateAccessKeyResult></R>"
                    .into_response();
            }
            let kind = headers.get("content-type").cloned();
            let mut answer = body.into_response();
            if let Some(kind) = kind {
                answer.headers_mut().insert("content-type", kind);
            }
            answer
        }
    }))
    .await;
    let proxy = endpoint(&upstream).await.proxy;
    let owner = AccessKey::random();
    let credentials = Credentials::of_owner(&owner);
    let url = serve(signed_only(proxy::router(proxy), credentials.clone())).await;
    Place { url, owner, credentials, passed }
}

/// A request to be signed.
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    service: &'a str,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static [u8],
}

impl Call<'_> {
    fn of_ec2() -> Self {
        Self {
            method: "POST",
            path: "/",
            service: "ec2",
            headers: vec![("content-type", FORM)],
            body: DESCRIBE.as_bytes(),
        }
    }

    /// Signs as the AWS SDK for Rust does; sends `body` in place of its own when given.
    async fn send(
        &self,
        place: &Place,
        key: (&str, &str),
        token: Option<&str>,
        body: Option<&'static [u8]>,
    ) -> (u16, String) {
        let (id, secret) = key;
        let identity = aws_credential_types::Credentials::new(
            id,
            secret,
            token.map(str::to_owned),
            None,
            "test",
        )
        .into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.percent_encoding_mode = aws_sigv4::http_request::PercentEncodingMode::Single;
            settings.uri_path_normalization_mode =
                aws_sigv4::http_request::UriPathNormalizationMode::Disabled;
        }
        assert_eq!(settings.signature_location, SignatureLocation::Headers);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(self.service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .expect("complete")
            .into();
        let url = format!("{}{}", place.url, self.path);
        let mut headers = self.headers.clone();
        let host = place.url.trim_start_matches("http://").to_owned();
        let host: &'static str = Box::leak(host.into_boxed_str());
        headers.push(("host", host));
        let signable = SignableRequest::new(
            self.method,
            url.as_str(),
            headers.iter().copied(),
            SignableBody::Bytes(self.body),
        )
        .expect("signable");
        let (instructions, _) = sign(signable, &params).expect("signed").into_parts();
        let method = self.method.parse().expect("a method");
        let mut request = reqwest::Client::new().request(method, url);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        let answer = request.body(body.unwrap_or(self.body)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }
}

fn owner(place: &Place) -> (&str, &str) {
    (&place.owner.id, &place.owner.secret)
}

#[tokio::test]
async fn a_request_without_a_secret_reaches_nothing() {
    let place = place().await;
    let made_up = |service: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDANY/20260101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={}",
            "0".repeat(64)
        )
    };
    let client = reqwest::Client::new();
    for (service, target, unknown, missing) in [
        ("ec2", None, (401, "AuthFailure"), (403, "MissingAuthenticationToken")),
        ("iam", None, (403, "InvalidClientTokenId"), (403, "MissingAuthenticationToken")),
        (
            "ssm",
            Some("AmazonSSM.SendCommand"),
            (400, "UnrecognizedClientException"),
            (400, "MissingAuthenticationTokenException"),
        ),
        ("s3", None, (403, "InvalidAccessKeyId"), (403, "AccessDenied")),
    ] {
        for (authorization, expected) in [(Some(made_up(service)), unknown), (None, missing)] {
            let mut request = client.post(&place.url).header("x-amz-date", "20260101T000000Z");
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            if let Some(target) = target {
                request = request.header("x-amz-target", target);
            } else if service != "s3" {
                request = request.header("content-type", FORM);
            }
            let answer = request.body("Action=RunInstances").send().await.expect("an answer");
            let (status, text) = (answer.status().as_u16(), answer.text().await.expect("text"));
            assert_eq!(status, expected.0, "{service}: {text}");
            assert!(text.contains(expected.1), "{service}: {text}");
        }
    }
    // As a page of another site could: everything in the address, the scope made up.
    let query =
        "Action=RunInstances&X-Amz-Credential=k%2F20260101%2Fus-east-1%2Fec2%2Faws4_request";
    for more in ["", "&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0&X-Amz-Expires=60"] {
        let url = format!("{}/?{query}{more}", place.url);
        let answer = client.get(url).send().await.expect("an answer");
        assert!(answer.status().is_client_error(), "{more}: {}", answer.status());
    }
    let web_identity = client
        .post(&place.url)
        .header("content-type", FORM)
        .body("Action=AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::123456789012:role/r&WebIdentityToken=x")
        .send()
        .await
        .expect("an answer");
    assert_eq!(web_identity.status().as_u16(), 403);
    assert_eq!(place.passed.load(Ordering::SeqCst), 0, "something came through");
}

#[tokio::test]
async fn only_the_right_secret_and_the_signed_body_come_through() {
    let place = place().await;
    let call = Call::of_ec2();
    let (status, text) = call.send(&place, owner(&place), None, None).await;
    assert_eq!((status, text.as_str()), (200, DESCRIBE));
    let (id, secret) = owner(&place);
    for (key, token, body) in [
        ((id, "another"), None, None),
        (("LOCALCLOUDOTHER", secret), None, None),
        ((id, secret), Some("a token it does not have"), None),
        ((id, secret), None, Some(&b"Action=TerminateInstances&InstanceId.1=i-1"[..])),
    ] {
        let (status, text) = call.send(&place, key, token, body).await;
        assert_eq!(status, 401, "{key:?}: {text}");
    }
    assert_eq!(place.passed.load(Ordering::SeqCst), 1, "something else came through");
}

#[tokio::test]
async fn objects_of_s3_come_through_as_they_were_signed() {
    let place = place().await;
    let put = Call {
        method: "PUT",
        path: "/bucket/a%20key%2Bwith/dots?tagging=&x=a%2Fb",
        service: "s3",
        headers: vec![("content-type", "text/plain")],
        body: b"content",
    };
    let (status, text) = put.send(&place, owner(&place), None, None).await;
    assert_eq!((status, text.as_str()), (200, "content"));
    let (status, text) = put.send(&place, owner(&place), None, Some(b"another")).await;
    assert!(status == 400 && text.contains("XAmzContentSHA256Mismatch"), "{status} {text}");
    let (status, text) = put.send(&place, (&place.owner.id, "wrong"), None, None).await;
    assert!(status == 403 && text.contains("SignatureDoesNotMatch"), "{status} {text}");
    let get = Call { method: "GET", headers: Vec::new(), body: b"", ..put };
    assert_eq!(get.send(&place, owner(&place), None, None).await.0, 200);
    assert_eq!(place.passed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn credentials_that_are_handed_out_count_until_their_end() {
    let place = place().await;
    let call = Call::of_ec2();
    let iam = |body: &'static [u8]| Call { service: "iam", body, ..Call::of_ec2() };
    let made = ("AKIDMADE", "made");
    assert_eq!(call.send(&place, made, None, None).await.0, 401);
    let create = iam(b"Action=CreateAccessKey&UserName=ann");
    assert_eq!(create.send(&place, owner(&place), None, None).await.0, 200);
    assert_eq!(call.send(&place, made, None, None).await.0, 200);
    let off = iam(b"Action=UpdateAccessKey&AccessKeyId=AKIDMADE&Status=Inactive");
    assert_eq!(off.send(&place, owner(&place), None, None).await.0, 200);
    assert_eq!(call.send(&place, made, None, None).await.0, 401);

    let in_time = Timestamp::now() + SignedDuration::from_mins(5);
    place.credentials.learn("ASIA", "s", Some(("token", in_time)));
    assert_eq!(call.send(&place, ("ASIA", "s"), Some("token"), None).await.0, 200);
    assert_eq!(call.send(&place, ("ASIA", "s"), None, None).await.0, 401);
    let over = Timestamp::now() - SignedDuration::from_mins(1);
    place.credentials.learn("ASIA", "s", Some(("token", over)));
    let (status, text) = call.send(&place, ("ASIA", "s"), Some("token"), None).await;
    assert!(status == 400 && text.contains("RequestExpired"), "{status} {text}");
}
