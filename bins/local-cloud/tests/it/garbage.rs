//! Requests made of garbage: each gets an answer that AWS could give, and nothing panics. The generator has a seed, so a
//! failure comes back.

use axum::Router;
use axum::http::StatusCode;
use local_cloud::ec2::check;
use local_cloud::operation::{self, Form};
use local_cloud::xml::Element;

use crate::proxy::{authorization, endpoint, serve};

/// Pure decoders take this many inputs, the endpoint a tenth of it.
const INPUTS: u64 = 10_000;

/// Splitmix64: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end).expect("small")).expect("small")
    }

    fn one<'a>(&mut self, of: &[&'a [u8]]) -> &'a [u8] {
        of[self.below(of.len())]
    }

    /// Up to `most` pieces, sometimes with a damaged byte or cut.
    fn text(&mut self, pieces: &[&[u8]], most: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..=self.below(most) {
            text.extend(self.one(pieces));
        }
        if self.below(4) == 0 && !text.is_empty() {
            let at = self.below(text.len());
            text[at] = u8::try_from(self.roll() & 0xff).expect("a byte");
        }
        if self.below(8) == 0 {
            text.truncate(self.below(text.len() + 1));
        }
        text
    }
}

const FORM: &[&[u8]] = &[
    b"Action=",
    b"Action=DescribeInstances",
    b"Action=RunInstances",
    b"Action=TerminateInstances",
    b"Action=DescribeNatGateways",
    b"Action=DeleteSecurityGroup",
    b"Action=DescribeVolumes",
    b"Action=CreateVpcPeeringConnection",
    b"Version=2016-11-15",
    b"&",
    b"&",
    b"&",
    b"=",
    b"InstanceId.1=i-0123456789abcdef0",
    b"InstanceId.99999999999999999999=x",
    b"InstanceId.=",
    b"InstanceId.-1=",
    b"NatGatewayId.1=nat-0123456789abcdef0",
    b"GroupId=sg-0123456789abcdef0",
    b"MaxCount=1&MinCount=-1",
    b"MaxResults=5",
    b"MaxResults=99999999999999999999",
    b"MaxResults=\xd9\xa5",
    b"NextToken=AAAA",
    b"NextToken=AAAAAAAAAAAAAAAAAAAA",
    b"DryRun=true",
    b"DryRun=maybe",
    b"Filter.1.Name=instance-state-name&Filter.1.Value.1=running",
    b"Filter.1.Name=state&Filter.1.Value.1=x",
    b"Filter..Name=&Filter.Name",
    b"Filter.1.Name=tag:%00%ff",
    b"%",
    b"%zz",
    b"%ff%fe",
    b"\xff\xfe\x00",
    b"+",
    b"\xf0\x9f\x92\xa3",
    b"<a>&amp;",
    b"\r\n\r\n",
];

const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"0.1",
    b"\"\\ud800\"",
    b"\"\xff\"",
    b"\"CommandId\"",
    b"\"InstanceIds\"",
    b"\"DocumentName\"",
    b"\"Parameters\"",
    b"\"MaxResults\"",
    b"\"NextToken\"",
    b"\"SecretId\"",
    b"\"Name\"",
    b"{\"InstanceIds\":[\"i-0123456789abcdef0\"]}",
    b"{\"MaxResults\":5}",
    b"{\"SecretId\":\"a\"}",
    b"{\"Name\":\"a\",\"Name\":5}",
    b"{}",
    b" ",
    b"\n",
    b"\x00",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
];

const XML: &[&[u8]] = &[
    b"<a>",
    b"</a>",
    b"<b x='1'>",
    b"</b>",
    b"<c/>",
    b"<",
    b">",
    b"text",
    b"&amp;",
    b"&",
    b"&#x;",
    b"&#0;",
    b"&nope;",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"<?xml version='1.0'?>",
    b"<!DOCTYPE a [<!ENTITY e 'x'>]>",
    b"\xff",
    b"<item>",
    b"</item>",
    b" ",
    b"<a",
    b"\x00",
];

#[test]
fn decoders_take_anything() {
    let mut dice = Dice(1);
    for _ in 0..INPUTS {
        let form = Form::parse(&dice.text(FORM, 12));
        for name in ["InstanceId", "Filter", ""] {
            let _ = form.list(name);
        }
        let _ = form.filters();
        if let Ok((_, operation)) = check::operation(&form) {
            let _ = check::fields(operation, &form);
            let _ = operation.page.map(|page| check::page_size(&page, &form));
        }
        let again = Form::parse(form.encode().as_bytes());
        assert_eq!(again, form, "what is written is read back");

        let text = dice.text(FORM, 3);
        let text = String::from_utf8_lossy(&text);
        let _ = operation::scope(Some(&text), Some(&text));
        let _ = operation::from_target(&text);
    }
}

#[test]
fn xml_that_is_read_is_written_the_same() {
    let mut dice = Dice(2);
    let mut read = 0;
    for _ in 0..INPUTS {
        let text = dice.text(XML, 12);
        let text = String::from_utf8_lossy(&text);
        if let Ok(element) = Element::parse(&text) {
            read += 1;
            let written = element.write();
            let again =
                Element::parse(&written).unwrap_or_else(|_| panic!("{text:?} → {written:?}"));
            assert_eq!(again.write(), written, "{text:?}");
        }
    }
    assert!(read > 100, "only {read} were XML at all");
}

/// An emulator that refuses all it gets, so that nothing is made whatever passes.
async fn refusing() -> String {
    let error = "<Response><Errors><Error><Code>Double</Code></Error></Errors></Response>";
    serve(Router::new().fallback(move || async move { (StatusCode::BAD_REQUEST, error) })).await
}

#[tokio::test]
async fn the_endpoint_answers_garbage_as_aws_would() {
    const TARGETS: &[&str] = &[
        "AmazonSSM.SendCommand",
        "AmazonSSM.ListCommands",
        "AmazonSSM.GetCommandInvocation",
        "AmazonSSM.GetParametersByPath",
        "AmazonSSM.DescribeInstanceInformation",
        "secretsmanager.GetSecretValue",
        "secretsmanager.ListSecrets",
        "Logs_20140328.DescribeLogGroups",
        "TrentService.Nope",
        ".",
    ];
    const SERVICES: &[&str] =
        &["ec2", "iam", "ssm", "secretsmanager", "logs", "kms", "rds", "autoscaling"];
    let endpoint = endpoint(&refusing().await).await;
    let client = reqwest::Client::new();
    let mut dice = Dice(3);
    for number in 0..INPUTS / 10 {
        let service = SERVICES[dice.below(SERVICES.len())];
        let mut request =
            client.post(&endpoint).header("authorization", authorization(service, "us-east-1"));
        let body = if dice.below(2) == 0 {
            dice.text(FORM, 12)
        } else {
            request = request.header("x-amz-target", TARGETS[dice.below(TARGETS.len())]);
            dice.text(JSON, 12)
        };
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = request.body(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let kind = answer
            .headers()
            .get("content-type")
            .map(|kind| kind.to_str().unwrap_or("?").to_owned());
        let text = answer.text().await.expect("text");
        // 501 is our own refusal by name.
        assert!(status < 500 || status == 501, "{number} {service} {shown:?}: {status} {text}");
        assert!(
            status < 300 || text.contains("Code>") || text.contains("__type"),
            "{number} {service} {shown:?}: {status} {kind:?} {text}"
        );
        assert!(text.len() < 4096, "{number} {service}: an answer as large as its request");
    }
}
