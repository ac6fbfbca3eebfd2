//! Measures a running rehearsal cloud for `scripts/bench/local-cloud`; prints one JSON object.
//!
//!     bench calls ENDPOINT EMULATOR          passed and own calls, one after the other and at a rate
//!     bench hosts ENDPOINT COUNT CIDR        from RunInstances until Systems Manager reaches all; their instance ids
//!
//! Calls are signed with the key that `local-cloud up` exports.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(
    clippy::disallowed_methods,
    reason = "its key comes from the environment, as for every client"
)]
#![expect(clippy::unwrap_used, reason = "a measurement that fails has no result")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;

use local_cloud::operation::Form;
use local_cloud::xml::Element;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Pairs of calls to compare.
const PAIRS: usize = 500;
/// The rate that must be sustained, and for how long.
const RATE: u32 = 200;
const SUSTAINED: Duration = Duration::from_secs(10);
/// How long hosts may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["calls", endpoint, emulator] => calls(endpoint, emulator).await,
        ["hosts", endpoint, count, cidr] => hosts(endpoint, count.parse().unwrap(), cidr).await,
        _ => panic!("bench calls ENDPOINT EMULATOR | bench hosts ENDPOINT COUNT CIDR"),
    };
    println!("{result}");
}

/// One address.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    base: String,
    key: Credentials,
}

impl Client {
    fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let exported = |name| std::env::var(name).expect("`local-cloud up` exports a key");
        let (id, secret) = (exported("AWS_ACCESS_KEY_ID"), exported("AWS_SECRET_ACCESS_KEY"));
        let key = Credentials::new(id, secret, None, None, "bench");
        Self { http, base: base.trim_end_matches('/').to_owned(), key }
    }

    fn request(
        &self,
        service: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> reqwest::RequestBuilder {
        let url = format!("{}/", self.base);
        let identity = self.key.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let host = self.base.trim_start_matches("http://");
        let all = headers.iter().copied().chain([("host", host)]);
        let signable =
            SignableRequest::new("POST", url.as_str(), all, SignableBody::Bytes(body.as_bytes()));
        let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
        let request = self.http.post(&url);
        let own = instructions.headers().chain(headers.iter().copied());
        own.fold(request, |request, (name, value)| request.header(name, value)).body(body)
    }

    async fn query(&self, service: &str, form: &Form) -> Element {
        let kind = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let answer = self.request(service, &kind, form.encode()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{:?}: {text}", form.get("Action"));
        Element::parse(&text).unwrap()
    }

    async fn ec2(&self, fields: &[(&str, &str)]) -> Element {
        let mut form = Form::new([("Version", "2016-11-15")]);
        for (name, value) in fields {
            form.push(*name, *value);
        }
        self.query("ec2", &form).await
    }

    async fn ssm(&self, operation: &str, body: &Value) -> Value {
        let target = format!("AmazonSSM.{operation}");
        let headers = [("x-amz-target", &*target), ("content-type", "application/x-amz-json-1.1")];
        let answer = self.request("ssm", &headers, body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A call that the emulator answers.
    async fn passed(&self) {
        let form = Form::new([("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]);
        self.query("sts", &form).await;
    }

    /// A call of EC2 that the emulator answers, and whose form is looked at on its way.
    async fn ec2_passed(&self) {
        self.ec2(&[("Action", "DescribeVpcs")]).await;
    }

    /// A call that the rehearsal cloud answers itself.
    async fn own(&self) {
        self.ssm("ListCommands", &json!({})).await;
    }
}

async fn calls(endpoint: &str, emulator: &str) -> Value {
    let (through, direct) = (Client::new(endpoint), Client::new(emulator));
    for _ in 0..20 {
        through.passed().await;
        direct.passed().await;
        through.ec2_passed().await;
        direct.ec2_passed().await;
        through.own().await;
    }
    let (mut with, mut without, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ec2_with, mut ec2_without) = (Vec::new(), Vec::new());
    // One after the other in turns, so that what the machine does besides meets all alike.
    for _ in 0..PAIRS {
        with.push(timed(through.passed()).await);
        without.push(timed(direct.passed()).await);
        ec2_with.push(timed(through.ec2_passed()).await);
        ec2_without.push(timed(direct.ec2_passed()).await);
        own.push(timed(through.own()).await);
    }
    let (with, without) = (percentile(&mut with, 50), percentile(&mut without, 50));
    let (ec2_with, ec2_without) = (percentile(&mut ec2_with, 50), percentile(&mut ec2_without, 50));
    let own_rate = sustained(&through, |client| async move { client.own().await }).await;
    let passed_rate = sustained(&through, |client| async move { client.passed().await }).await;
    json!({
        "passed_ms": with,
        "direct_ms": without,
        "overhead_ms": with - without,
        "ec2_passed_ms": ec2_with,
        "ec2_direct_ms": ec2_without,
        "ec2_overhead_ms": ec2_with - ec2_without,
        "own_ms": percentile(&mut own, 50),
        "passed_at_200_per_s": passed_rate,
        "own_at_200_per_s": own_rate,
    })
}

/// Starts calls at the rate whether or not earlier ones have ended; says how they went.
async fn sustained<F, R>(client: &Client, call: F) -> Value
where
    F: Fn(Arc<Client>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let client = Arc::new(client.clone());
    let mut clock = tokio::time::interval(Duration::from_secs(1) / RATE);
    let (mut running, begun) = (JoinSet::new(), Instant::now());
    while begun.elapsed() < SUSTAINED {
        clock.tick().await;
        let call = call(Arc::clone(&client));
        running.spawn(timed(call));
    }
    let started = running.len();
    let mut times = running.join_all().await;
    json!({
        "calls": started,
        "per_s": started as f64 / begun.elapsed().as_secs_f64(),
        "median_ms": percentile(&mut times, 50),
        "p99_ms": percentile(&mut times, 99),
    })
}

/// Milliseconds that something takes.
async fn timed(work: impl Future<Output = ()>) -> f64 {
    let begun = Instant::now();
    work.await;
    begun.elapsed().as_secs_f64() * 1000.0
}

fn percentile(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() - 1) * percent / 100]
}

async fn hosts(endpoint: &str, count: usize, cidr: &str) -> Value {
    let client = Client::new(endpoint);
    let (subnet, image) = (subnet(&client, cidr).await, image(&client).await);
    let begun = Instant::now();
    let number = count.to_string();
    let answer = client
        .ec2(&[
            ("Action", "RunInstances"),
            ("ImageId", &image),
            ("InstanceType", "t3.micro"),
            ("SubnetId", &subnet),
            ("MinCount", &number),
            ("MaxCount", &number),
            ("IamInstanceProfile.Name", "bench"),
        ])
        .await;
    let answered = begun.elapsed();
    let ids: Vec<String> = answer
        .items(&["instancesSet"])
        .filter_map(|instance| instance.text_at(&["instanceId"]))
        .collect();
    assert_eq!(ids.len(), count);
    let mut online = vec![None; count];
    while online.iter().any(Option::is_none) {
        assert!(begun.elapsed() < PATIENCE, "not online after {PATIENCE:?}: {online:?}");
        let answer = client.ssm("DescribeInstanceInformation", &json!({"MaxResults": 50})).await;
        for host in answer["InstanceInformationList"].as_array().into_iter().flatten() {
            let number = ids.iter().position(|id| host["InstanceId"] == id.as_str());
            if let Some(number) = number
                && host["PingStatus"] == "Online"
            {
                online[number].get_or_insert(begun.elapsed().as_millis());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    json!({
        "hosts": count,
        "answered_ms": answered.as_millis(),
        "first_online_ms": online.iter().flatten().min(),
        "all_online_ms": online.iter().flatten().max(),
        "ids": ids,
    })
}

/// A subnet whose hosts reach Systems Manager, and an instance profile `bench` that it asks for; made once.
async fn subnet(client: &Client, cidr: &str) -> String {
    let found = client
        .ec2(&[
            ("Action", "DescribeSubnets"),
            ("Filter.1.Name", "cidr-block"),
            ("Filter.1.Value.1", cidr),
        ])
        .await;
    if let Some(subnet) = found.items(&["subnetSet"]).next() {
        return subnet.text_at(&["subnetId"]).unwrap();
    }
    let vpc = client.ec2(&[("Action", "CreateVpc"), ("CidrBlock", cidr)]).await;
    let vpc = vpc.text_at(&["vpc", "vpcId"]).unwrap();
    let made =
        client.ec2(&[("Action", "CreateSubnet"), ("VpcId", &vpc), ("CidrBlock", cidr)]).await;
    let subnet = made.text_at(&["subnet", "subnetId"]).unwrap();
    client
        .ec2(&[
            ("Action", "ModifySubnetAttribute"),
            ("SubnetId", &subnet),
            ("MapPublicIpOnLaunch.Value", "true"),
        ])
        .await;
    let gateway = client.ec2(&[("Action", "CreateInternetGateway")]).await;
    let gateway = gateway.text_at(&["internetGateway", "internetGatewayId"]).unwrap();
    client
        .ec2(&[
            ("Action", "AttachInternetGateway"),
            ("InternetGatewayId", &gateway),
            ("VpcId", &vpc),
        ])
        .await;
    let tables = client
        .ec2(&[
            ("Action", "DescribeRouteTables"),
            ("Filter.1.Name", "vpc-id"),
            ("Filter.1.Value.1", &vpc),
        ])
        .await;
    let table = tables.items(&["routeTableSet"]).next().unwrap().text_at(&["routeTableId"]);
    client
        .ec2(&[
            ("Action", "CreateRoute"),
            ("RouteTableId", &table.unwrap()),
            ("DestinationCidrBlock", "0.0.0.0/0"),
            ("GatewayId", &gateway),
        ])
        .await;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    for fields in [
        [("Action", "CreateRole"), ("RoleName", "bench"), ("AssumeRolePolicyDocument", trust)],
        [
            ("Action", "AttachRolePolicy"),
            ("RoleName", "bench"),
            ("PolicyArn", "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"),
        ],
        [("Action", "CreateInstanceProfile"), ("InstanceProfileName", "bench"), ("Path", "/")],
        [
            ("Action", "AddRoleToInstanceProfile"),
            ("InstanceProfileName", "bench"),
            ("RoleName", "bench"),
        ],
    ] {
        let mut form = Form::new(fields);
        form.push("Version", "2010-05-08");
        client.query("iam", &form).await;
    }
    subnet
}

async fn image(client: &Client) -> String {
    let images = client
        .ec2(&[
            ("Action", "DescribeImages"),
            ("Filter.1.Name", "name"),
            ("Filter.1.Value.1", "debian-12-amd64-*"),
        ])
        .await;
    images.items(&["imagesSet"]).next().unwrap().text_at(&["imageId"]).unwrap()
}
