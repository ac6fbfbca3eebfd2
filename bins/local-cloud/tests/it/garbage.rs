//! Requests made of garbage: each gets an answer that AWS could give, and nothing panics. The generator has a seed, so a
//! failure comes back. `scripts/bench/local-cloud-fuzz` makes it long: `LOCAL_CLOUD_INPUTS` is the number of inputs,
//! `LOCAL_CLOUD_SEED` makes others.
//!
//! No coverage guides it: that needs a nightly compiler. Instead inputs are made of what the decoders look for: names of
//! operations and of their parameters, whole requests with one value exchanged, and then a damaged byte.

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use local_cloud::ec2::check;
use local_cloud::ec2::machine::Seen;
use local_cloud::faults::Spec;
use local_cloud::model;
use local_cloud::operation::{self, Form};
use local_cloud::policy::{self, Question};
use local_cloud::xml::Element;
use serde_json::{Value, json};

use crate::endpoint;
use crate::proxy::{authorization, endpoint, serve};

/// Decoders take this many inputs, the endpoint a tenth of it.
const INPUTS: u64 = 10_000;

#[expect(clippy::disallowed_methods, reason = "a test is made longer from outside")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn inputs() -> u64 {
    number("LOCAL_CLOUD_INPUTS").unwrap_or(INPUTS)
}

/// What is being decoded; shown when that panics.
struct Input<'a>(u64, &'a [u8]);

impl Drop for Input<'_> {
    #[expect(clippy::print_stderr, reason = "a failed test says why")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = String::from_utf8_lossy(self.1);
            let seed = number("LOCAL_CLOUD_SEED").unwrap_or_default();
            eprintln!("LOCAL_CLOUD_SEED={seed}, input {}: {text:?}", self.0);
        }
    }
}

/// Splitmix64: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    /// The dice of one test.
    fn of(test: u64) -> Self {
        Self(number("LOCAL_CLOUD_SEED").unwrap_or_default().wrapping_mul(1000).wrapping_add(test))
    }

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
        self.damage(&mut text);
        text
    }

    fn damage(&mut self, text: &mut Vec<u8>) {
        if self.below(4) == 0 && !text.is_empty() {
            let at = self.below(text.len());
            text[at] = u8::try_from(self.roll() & 0xff).expect("a byte");
        }
        if self.below(8) == 0 {
            text.truncate(self.below(text.len() + 1));
        }
    }

    /// A form of one operation: its own and other parameters, as lists, structures, and nearly so.
    fn parameters(&mut self, operations: &[&str]) -> Vec<u8> {
        let operation = operations[self.below(operations.len())];
        let required = model::ec2(operation).map(|operation| operation.required.as_slice());
        let mut text = format!("Action={operation}&Version=2016-11-15");
        for name in required.into_iter().flatten() {
            if self.below(8) > 0 {
                text += &format!("&{name}{}={}", self.of_texts(SUFFIXES), self.of_texts(VALUES));
            }
        }
        for _ in 0..self.below(8) {
            let (name, suffix) = (self.of_texts(NAMES), self.of_texts(SUFFIXES));
            text += &format!("&{name}{suffix}={}", self.of_texts(VALUES));
        }
        let mut text = text.into_bytes();
        self.damage(&mut text);
        text
    }

    fn of_texts<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// Exchanges one value, wherever in the document.
    fn exchange(&mut self, value: &mut Value) {
        let inner: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(fields) => fields.values_mut().collect(),
            _ => Vec::new(),
        };
        if !inner.is_empty() && self.below(5) > 0 {
            let at = self.below(inner.len());
            for one in inner.into_iter().skip(at).take(1) {
                self.exchange(one);
            }
            return;
        }
        let long = "x".repeat(self.below(3000));
        let other = [
            Value::Null,
            json!(true),
            json!(-1),
            json!(u64::MAX),
            json!(1e300),
            json!(""),
            json!("\u{0}\u{fffd}\u{1f4a3}"),
            json!("i-0123456789abcdef0"),
            json!("{{ssm:a}} {{x}} {{"),
            json!("*"),
            json!("99999999999999999999%"),
            json!(long),
            json!([]),
            json!([[], {}, null, 1, "a"]),
            json!({}),
            json!({"Key": "tag:a", "Values": ["b"], "": 1}),
        ];
        let at = self.below(other.len());
        *value = other[at].clone();
    }

    /// A document with up to three values exchanged, perhaps damaged.
    fn document(&mut self, of: &[Value]) -> Vec<u8> {
        let mut value = of[self.below(of.len())].clone();
        for _ in 0..self.below(4) {
            self.exchange(&mut value);
        }
        let mut text = value.to_string().into_bytes();
        if self.below(4) == 0 {
            self.damage(&mut text);
        }
        text
    }
}

/// Names of parameters, and what may stand after them.
const NAMES: &[&str] = &[
    "InstanceId",
    "InstanceIds.member",
    "Filter",
    "Filters.member",
    "Filter.1.Name",
    "Filter.1.Value",
    "TagSpecification.1.Tag",
    "Tags.member.1.Key",
    "IpPermissions.1.IpRanges.1.CidrIp",
    "IpPermissions.1.FromPort",
    "NetworkInterface.1.AssociatePublicIpAddress",
    "LaunchTemplateData.NetworkInterface.1.Groups",
    "MetadataOptions.HttpTokens",
    "AutoScalingGroupName",
    "AutoScalingGroupNames.member",
    "LaunchTemplate.LaunchTemplateName",
    "MinSize",
    "MaxSize",
    "DesiredCapacity",
    "HealthStatus",
    "Preferences.MinHealthyPercentage",
    "VPCZoneIdentifier",
    "MaxResults",
    "MaxRecords",
    "NextToken",
    "DryRun",
    "MinCount",
    "MaxCount",
    "UserData",
    "",
    ".",
    "%C3%A4",
];
const SUFFIXES: &[&str] = &[
    "",
    "",
    ".1",
    ".2",
    ".1.Name",
    ".1.Value.1",
    ".member.1",
    ".1.1.1.1",
    ".0",
    ".01",
    ".-1",
    ".4294967296",
    ".",
    "..",
    ".x",
];
const VALUES: &[&str] = &[
    "",
    "1",
    "0",
    "-1",
    "4294967296",
    "99999999999999999999",
    "1e9",
    "true",
    "maybe",
    "running",
    "i-0123456789abcdef0",
    "sg-x",
    "10.0.0.0%2F8",
    "10.0.0.0%2F99",
    "tag%3Aa",
    "a%26b%3Dc",
    "%FF%FE",
    "%F0%9F%92%A3",
    "AAAA",
    "a,b,,c",
];

const EC2: &[&str] = &[
    "RunInstances",
    "DescribeInstances",
    "DescribeInstanceStatus",
    "TerminateInstances",
    "CreateTags",
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "ModifySecurityGroupRules",
    "CreateLaunchTemplateVersion",
    "DescribeLaunchTemplateVersions",
    "ModifyInstanceAttribute",
    "CreateNatGateway",
    "CreateVpcEndpoint",
    "ReplaceNetworkAclEntry",
    "GetConsoleOutput",
];

const SCALING: &[&str] = &[
    "CreateAutoScalingGroup",
    "UpdateAutoScalingGroup",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
    "DescribeTags",
    "CreateOrUpdateTags",
    "SetDesiredCapacity",
    "SetInstanceHealth",
    "StartInstanceRefresh",
    "TerminateInstanceInAutoScalingGroup",
    "EnterStandby",
    "DescribeWarmPool",
    "PutScalingPolicy",
];

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
fn forms_and_parameter_lists_are_taken_as_they_come() {
    let mut dice = Dice::of(1);
    for number in 0..inputs() {
        let text = if number % 2 == 0 { dice.text(FORM, 12) } else { dice.parameters(EC2) };
        let _shown = Input(number, &text);
        let form = Form::parse(&text);
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
    const INSTANCES: &str = "<DescribeInstancesResponse><reservationSet><item><ownerId>1</ownerId><instancesSet><item>\
        <instanceId>i-1</instanceId><privateIpAddress>10.0.0.4</privateIpAddress><networkInterfaceSet><item>\
        <macAddress>02:00:00:01:02:03</macAddress></item></networkInterfaceSet><tagSet><item><key>Name</key>\
        <value>a&amp;b</value></item></tagSet><metadataOptions><httpPutResponseHopLimit>2</httpPutResponseHopLimit>\
        </metadataOptions></item></instancesSet></item></reservationSet></DescribeInstancesResponse>";
    let mut dice = Dice::of(2);
    let mut read = 0_u64;
    for number in 0..inputs() {
        let text = if number % 2 == 0 {
            dice.text(XML, 12)
        } else {
            let mut text = INSTANCES.as_bytes().to_vec();
            let at = dice.below(text.len());
            let piece = dice.one(XML);
            let end = at + dice.below(text.len() - at + 1).min(9);
            drop(text.splice(at..end, piece.iter().copied()));
            dice.damage(&mut text);
            text
        };
        let _shown = Input(number, &text);
        let text = String::from_utf8_lossy(&text);
        if let Ok(element) = Element::parse(&text) {
            read += 1;
            let _ = Seen::all(&element);
            let written = element.write();
            let again =
                Element::parse(&written).unwrap_or_else(|_| panic!("{text:?} → {written:?}"));
            assert_eq!(again.write(), written, "{text:?}");
        }
    }
    assert!(read > inputs() / 100, "only {read} were XML at all");
}

#[test]
fn json_is_taken_as_it_comes() {
    let specs = [
        json!({"kind": "throttle", "operation": "ssm:SendCommand", "count": 2, "for": "5m", "probability": 0.5}),
        json!({"kind": "packet-loss", "host": "tag:a=b", "percent": 3, "seed": 5}),
        json!({"kind": "agent-drop", "delay": "30s", "seconds": -2, "code": "dies", "after": 1}),
    ];
    let policies = [
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["ssm:*", "s3:Get?bject"], "Resource": "*",
            "Condition": {"StringLike": {"ssm:resourceTag/a": ["b*"]}, "ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::1:role/x"}}}]}),
        json!({"Statement": {"Effect": "Deny", "NotAction": "ssm:Describe*", "NotResource": ["arn:aws:ssm:*:*:parameter/*"]}}),
    ];
    let mut dice = Dice::of(4);
    let mut read = 0_u64;
    for number in 0..inputs() {
        let text = if number % 2 == 0 { dice.document(&specs) } else { dice.text(JSON, 12) };
        let shown = Input(number, &text);
        read += u64::from(Spec::from_json(&text).is_ok_and(|spec| spec.checked().is_ok()));
        drop(shown);
        let text = dice.document(&policies);
        let _shown = Input(number, &text);
        let policy: Option<Value> = serde_json::from_slice(&text).ok();
        let context = |key: &str| key.starts_with("ssm").then(|| "bcd".to_owned());
        let question = Question {
            action: "ssm:SendCommand",
            resource: "arn:aws:ssm:us-east-1::document/x",
            context: &context,
        };
        let _ = policy::decide(&policy, &question);
    }
    assert!(read > inputs() / 100, "only {read} were faults at all");
}

#[tokio::test]
async fn requests_with_one_value_exchanged_are_answered() {
    let hosts = json!(["i-0123456789abcdef0"]);
    let requests = [
        (
            "SendCommand",
            json!({"DocumentName": "AWS-RunShellScript", "InstanceIds": hosts, "TimeoutSeconds": 60,
            "Parameters": {"commands": ["echo {{ssm:a}}"], "workingDirectory": ["/"], "executionTimeout": ["10"]},
            "MaxConcurrency": "50%", "MaxErrors": "1", "Comment": "c", "OutputS3BucketName": "bucket",
            "CloudWatchOutputConfig": {"CloudWatchOutputEnabled": true, "CloudWatchLogGroupName": "a/b"}}),
        ),
        (
            "SendCommand",
            json!({"DocumentName": "AWS-RunRemoteScript", "Targets": [{"Key": "tag:a", "Values": ["b", "c"]}],
            "Parameters": {"sourceType": ["S3"], "sourceInfo": ["{\"path\":\"https://s3.amazonaws.com/b/k\"}"], "commandLine": ["k"]}}),
        ),
        (
            "ListCommands",
            json!({"MaxResults": 5, "NextToken": "AAAA", "Filters": [{"key": "Status", "value": "Success"},
            {"key": "InvokedAfter", "value": "2026-01-01T00:00:00Z"}]}),
        ),
        (
            "ListCommandInvocations",
            json!({"CommandId": "0f1e2d3c-0000-4000-8000-000000000000", "Details": true,
            "InstanceId": "i-0123456789abcdef0", "MaxResults": 50}),
        ),
        (
            "GetCommandInvocation",
            json!({"CommandId": "0f1e2d3c-0000-4000-8000-000000000000",
            "InstanceId": "i-0123456789abcdef0", "PluginName": "aws:runShellScript"}),
        ),
        (
            "CancelCommand",
            json!({"CommandId": "0f1e2d3c-0000-4000-8000-000000000000", "InstanceIds": hosts}),
        ),
        (
            "DescribeInstanceInformation",
            json!({"Filters": [{"Key": "PingStatus", "Values": ["Online"]}],
            "InstanceInformationFilterList": [{"key": "InstanceIds", "valueSet": hosts}], "MaxResults": 10}),
        ),
        (
            "PutParameter",
            json!({"Name": "/a/b", "Value": "v", "Type": "SecureString", "Tier": "Advanced", "AllowedPattern": "^v+$"}),
        ),
        ("GetParametersByPath", json!({"Path": "/a", "Recursive": true, "WithDecryption": true})),
        ("DeleteParameters", json!({"Names": ["a", "b"]})),
        ("StartSession", json!({"Target": "i-0123456789abcdef0"})),
    ];
    let emulator = refusing().await;
    let mut cloud = endpoint::endpoint(&emulator).await;
    let mut dice = Dice::of(5);
    let headers = HeaderMap::new();
    for number in 0..inputs() {
        if number % 10_000 == 0 {
            // What was sent is remembered, and every list goes through it.
            cloud = endpoint::endpoint(&emulator).await;
        }
        let (operation, request) = &requests[dice.below(requests.len())];
        let text = dice.document(std::slice::from_ref(request));
        let _shown = Input(number, &text);
        if let Some(reply) = cloud.proxy.ssm.handle(operation, &headers, &text).await {
            let told = reply.status == 200 || reply.body["__type"].is_string();
            assert!(told, "{operation}: {} {}", reply.status, reply.body);
        }
    }
}

#[tokio::test]
async fn scaling_requests_of_any_parameters_are_answered() {
    let cloud = endpoint::endpoint(&refusing().await).await;
    let mut dice = Dice::of(6);
    for number in 0..inputs() {
        let text = dice.parameters(SCALING);
        let _shown = Input(number, &text);
        let form = Form::parse(&text);
        if let Some(answer) = cloud.proxy.autoscaling.handle("us-east-1", &form).await {
            let status = answer.status().as_u16();
            assert!(status < 500 || status == 501, "{status}");
        }
    }
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
    let mut dice = Dice::of(3);
    for number in 0..inputs() / 10 {
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
        // 501 is our own refusal by name; and a question of our own that the emulator refuses has no better answer.
        assert!(
            status < 500 || status == 501 || text.contains(" Double: "),
            "{number} {service} {shown:?}: {status} {text}"
        );
        assert!(
            status < 300 || text.contains("Code>") || text.contains("__type"),
            "{number} {service} {shown:?}: {status} {kind:?} {text}"
        );
        assert!(text.len() < 4096, "{number} {service}: an answer as large as its request");
    }
}
