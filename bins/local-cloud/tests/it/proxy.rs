//! A request's way through the endpoint, with a small server in the emulator's place.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Uri};

pub(crate) use crate::endpoint::serve;

/// The endpoint before `upstream`.
pub(crate) async fn endpoint(upstream: &str) -> String {
    crate::endpoint::endpoint(upstream).await.url
}

/// Says back what came.
async fn echo() -> String {
    serve(Router::new().fallback(
        |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let tag = headers.get("x-tag").and_then(|value| value.to_str().ok()).unwrap_or("-");
            format!("{method} {uri} {tag} {}", String::from_utf8_lossy(&body))
        },
    ))
    .await
}

pub(crate) fn authorization(service: &str, region: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=k/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

pub(crate) async fn ec2(endpoint: &str, region: &str, form: &str) -> (u16, String) {
    let answer = reqwest::Client::new()
        .post(endpoint)
        .header("authorization", authorization("ec2", region))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned())
        .send()
        .await
        .expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn an_ordinary_call_passes_unchanged() {
    let endpoint = endpoint(&echo().await).await;
    let answer = reqwest::Client::new()
        .put(format!("{endpoint}/bucket/a%20b?tagging=&x=1"))
        .header("authorization", authorization("s3", "us-east-1"))
        .header("x-tag", "kept")
        .body("content")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.text().await.expect("text"), "PUT /bucket/a%20b?tagging=&x=1 kept content");
}

#[tokio::test]
async fn an_ordinary_ec2_call_passes_unchanged() {
    let endpoint = endpoint(&echo().await).await;
    let (status, text) =
        ec2(&endpoint, "us-east-1", "Action=DescribeVpcs&Version=2016-11-15").await;
    assert_eq!((status, text.as_str()), (200, "POST / - Action=DescribeVpcs&Version=2016-11-15"));
}

#[tokio::test]
async fn what_cannot_be_true_is_refused_by_name() {
    let endpoint = endpoint(&echo().await).await;
    for (region, form, named) in [
        ("us-east-1", "Action=CreateVpcPeeringConnection&VpcId=v", "CreateVpcPeeringConnection"),
        ("eu-west-1", "Action=RunInstances&MinCount=1&MaxCount=1", "RunInstances in eu-west-1"),
    ] {
        let (status, text) = ec2(&endpoint, region, form).await;
        assert_eq!(status, 501, "{text}");
        assert!(text.contains("<Code>NotImplemented</Code>") && text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn a_managed_service_is_refused_in_its_own_protocol() {
    let endpoint = endpoint(&echo().await).await;
    let call = |service: &'static str, target: Option<&'static str>, body: &'static str| {
        let mut request = reqwest::Client::new()
            .post(&endpoint)
            .header("authorization", authorization(service, "us-east-1"))
            .body(body);
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        async { request.send().await.expect("an answer").text().await.expect("text") }
    };
    let text = call("rds", None, "Action=CreateDBInstance").await;
    assert!(text.contains("<Code>NotImplemented</Code>") && text.contains("rds CreateDBInstance"));
    let text = call("ecs", Some("AmazonEC2ContainerServiceV20141113.RunTask"), "{}").await;
    assert!(text.contains(r#""__type":"NotImplemented""#) && text.contains("ecs RunTask"));
    let text = call("rds", None, "Action=DescribeDBInstances").await;
    assert_eq!(text, "POST / - Action=DescribeDBInstances");
}

#[tokio::test]
async fn an_unknown_image_is_not_found() {
    let endpoint = endpoint(&echo().await).await;
    let form = "Action=RunInstances&ImageId=ami-00000000000000000&MinCount=1&MaxCount=1";
    let (status, text) = ec2(&endpoint, "us-east-1", form).await;
    assert_eq!(status, 400);
    assert!(text.contains("<Code>InvalidAMIID.NotFound</Code>"), "{text}");
}

#[tokio::test]
async fn an_oversized_call_is_refused_before_it_is_passed() {
    let endpoint = endpoint(&echo().await).await;
    let (status, text) = ec2(&endpoint, "us-east-1", &"x".repeat(5 << 20)).await;
    assert_eq!(status, 400);
    assert!(text.contains("RequestTooLarge"), "{text}");
}

/// What is passed on unread, as objects are, has its limits too: by the length that it announces, and as it comes.
#[tokio::test]
async fn an_endless_stream_ends_at_its_limit() {
    let sink = Router::new().fallback(|body: axum::body::Body| async move {
        let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        whole.len().to_string()
    });
    let endpoint = endpoint(&serve(sink).await).await;
    let announced = async |service: &str, length: u64| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = endpoint.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let head = format!(
            "PUT /bucket/key HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: {length}\r\n\r\n",
            authorization(service, "us-east-1")
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0; 2000];
        let read = stream.read(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let answer = announced("s3", (1 << 30) + 1).await;
    assert!(answer.contains(" 400 ") && answer.contains("<Code>EntityTooLarge</Code>"), "{answer}");
    let answer = announced("lambda", (64 << 20) + 1).await;
    assert!(answer.contains(" 413 ") && answer.contains("64 MiB at most"), "{answer}");

    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let sends = async |pieces: usize| {
        let pieces = std::iter::repeat_n(piece.clone(), pieces).map(Ok::<_, std::io::Error>);
        let request = reqwest::Client::new()
            .post(format!("{endpoint}/2015-03-31/functions"))
            .header("authorization", authorization("lambda", "us-east-1"))
            .body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)));
        request.send().await.expect("an answer")
    };
    let answer = sends(3).await;
    assert_eq!(answer.text().await.expect("text"), (3 << 20).to_string());
    assert_eq!(sends(65).await.status().as_u16(), 413);
}

#[tokio::test]
async fn an_emulator_that_is_gone_is_unavailable_in_the_callers_protocol() {
    // A port that was free a moment ago.
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("address"))
    };
    let endpoint = endpoint(&gone).await;
    let answer = reqwest::Client::new()
        .post(&endpoint)
        .header("authorization", authorization("secretsmanager", "us-east-1"))
        .header("x-amz-target", "secretsmanager.GetSecretValue")
        .body(r#"{"SecretId":"a"}"#)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.text().await.expect("text").contains("ServiceUnavailableException"));
    let (status, text) = ec2(&endpoint, "us-east-1", "Action=DescribeVpcs").await;
    assert_eq!(status, 500, "{text}");
}

#[tokio::test]
async fn the_emulators_own_api_is_closed() {
    let endpoint = endpoint(&echo().await).await;
    for path in ["/moto-api/reset", "/moto-api/", "//moto-api/seed", "/%6doto%2Dapi/reset"] {
        let answer = reqwest::Client::new().post(format!("{endpoint}{path}")).send().await;
        assert_eq!(answer.expect("an answer").status().as_u16(), 403, "{path}");
    }
}

/// `..` is part of a key in S3; a URL would lose it.
#[tokio::test]
async fn a_path_passes_as_it_came() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let endpoint = endpoint(&echo().await).await;
    for path in ["/bucket/../../etc/passwd", "/bucket/a/./b//c", "/bucket/%2e%2e/%2F?x=%20+'"] {
        let address = endpoint.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains(&format!("GET {path} -")), "{path}: {answer}");
    }
}
