//! Malformed requests: whatever comes, the answer is an error of AWS in the protocol of the caller, and never the end of a
//! connection (a panic) nor a fault of the cloud's own.

use local_cloud::coverage::MADE_TRUE;
use local_cloud::xml::Element;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::coverage::refusing;
use crate::proxy::{authorization, endpoint};

/// Requests of each service.
const REQUESTS: usize = 1500;

const FORMS: [&str; 7] = [
    "Version=2016-11-15&ImageId=ami-0deb120000b00c0de&MinCount=1&MaxCount=1&SubnetId=subnet-1&UserData=e30%3D",
    "Version=2016-11-15&InstanceId.1=i-0123456789abcdef0&InstanceId.2=i-0123456789abcdef1&Force=true",
    "Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1=a&Filter.1.Value.2=b&MaxResults=5&NextToken=abc",
    "Version=2016-11-15&InstanceId=i-0123456789abcdef0&DisableApiTermination.Value=true",
    "Version=2016-11-15&ResourceId.1=i-0123456789abcdef0&Tag.1.Key=a&Tag.1.Value=b&DryRun=true",
    "Version=2016-11-15&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SecurityGroupId.1=sg-1&MinCount=1&MaxCount=1",
    "Version=2016-11-15&GroupId=sg-1&IpPermissions.1.FromPort=1&IpPermissions.1.ToPort=2&IpPermissions.1.IpProtocol=tcp",
];

const BODIES: [&str; 4] = [
    r#"{"DocumentName":"AWS-RunShellScript","InstanceIds":["i-0123456789abcdef0"],"Parameters":{"commands":["true"]},"TimeoutSeconds":60}"#,
    r#"{"CommandId":"00000000-0000-4000-8000-000000000000","InstanceId":"i-0123456789abcdef0","Details":true,"MaxResults":5}"#,
    r#"{"Filters":[{"Key":"InstanceIds","Values":["i-0123456789abcdef0"]}],"MaxResults":5,"NextToken":"abc"}"#,
    r#"{"Targets":[{"Key":"tag:Name","Values":["a"]}],"MaxConcurrency":"50%","MaxErrors":"0","DocumentName":"AWS-RunShellScript"}"#,
];

/// Pieces that decoders have stumbled over elsewhere.
const PIECES: [&str; 20] = [
    "",
    "&",
    "=",
    "%",
    "%zz",
    "%00",
    "%ff%fe",
    ".",
    "..",
    "-1",
    "0",
    "99999999999999999999",
    "1e400",
    "null",
    "true",
    "[",
    "}",
    "\"",
    "\\ud800",
    "\u{202e}💥",
];

fn mutate(text: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..=bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 12));
        match rng.random_range(0..5) {
            0 => drop(bytes.drain(at..to)),
            1 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again.repeat(rng.random_range(1..40)));
            }
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            _ => {
                let piece = PIECES.choose(rng).expect("pieces");
                bytes.splice(at..to, piece.bytes());
            }
        }
    }
    bytes
}

async fn check(
    service: &'static str,
    make: impl Fn(&str, &mut StdRng) -> (Option<String>, Vec<u8>),
) {
    let (client, endpoint) = (reqwest::Client::new(), endpoint(&refusing().await).await);
    let operations = MADE_TRUE.iter().find(|s| s.name == service).expect("a service").made_true;
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    for number in 0..REQUESTS {
        let operation = operations.choose(&mut rng).expect("operations").name;
        let (target, body) = make(operation, &mut rng);
        let mut request =
            client.post(&endpoint).header("authorization", authorization(service, "us-east-1"));
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let shown = String::from_utf8_lossy(&body).into_owned();
        let told = || format!("seed {seed}, number {number}, {operation}: {shown}");
        let answer =
            request.body(body).send().await.unwrap_or_else(|error| panic!("{}: {error}", told()));
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("text"));
        assert!(status < 500 || status == 501, "{}\n{status}: {text}", told());
        if status == 200 {
            continue;
        }
        let code = if service == "ssm" {
            let value: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}\n{error}: {text}", told()));
            value["__type"].as_str().map(str::to_owned)
        } else {
            let root =
                Element::parse(&text).unwrap_or_else(|error| panic!("{}\n{error}: {text}", told()));
            root.text_at(&["Errors", "Error", "Code"])
        };
        assert!(code.is_some_and(|code| !code.is_empty()), "{}\n{status}: {text}", told());
    }
}

#[tokio::test]
async fn a_malformed_form_gets_an_error_of_ec2() {
    check("ec2", |operation, rng| {
        let form = FORMS.choose(rng).expect("forms");
        let mut body = format!("Action={operation}&").into_bytes();
        body.extend(mutate(form, rng));
        (None, body)
    })
    .await;
}

#[tokio::test]
async fn malformed_json_gets_an_error_of_systems_manager() {
    check("ssm", |operation, rng| {
        let body = mutate(BODIES.choose(rng).expect("bodies"), rng);
        (Some(format!("AmazonSSM.{operation}")), body)
    })
    .await;
}
