//! Nothing leaves its place: clouds beside each other, a daemon that was killed, callers and hosts that try.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::traces;

/// What stands in a file that no answer may show.
const SECRET_FILE: &str = "/etc/passwd";

pub(crate) fn scenarios(shared: &Cloud) {
    control_is_closed(shared);
    paths_stay_inside(shared);
    let (first, second) = shared.check("two clouds start at once", || {
        std::thread::scope(|scope| {
            // Credentials of the first one's roles are renewed ten seconds after they were made.
            let renewing = ["--timing", "short,credential-renewal=1190s"];
            let clouds =
                [scope.spawn(move || Cloud::up(&renewing)), scope.spawn(|| Cloud::up(&[]))];
            let [first, second] = clouds.map(|cloud| cloud.join().expect("a cloud"));
            (first, second)
        })
    });
    let (here, there) = shared.check("each has a host of its own", || {
        std::thread::scope(|scope| {
            let hosts = [&first, &second].map(|cloud| {
                scope.spawn(|| {
                    let id = cloud.launch("isolated", "bookworm", "", &[]);
                    open(cloud, &cloud.group);
                    cloud.online(&id);
                    id
                })
            });
            let [here, there] = hosts.map(|host| host.join().expect("a host"));
            (here, there)
        })
    });
    hosts_stay_inside(shared, &first, &here, &second, &there);
    shared.check("credentials of a role are renewed before they expire", || {
        credentials_are_renewed(&first, &here);
    });
    shared.check("a killed daemon is found by `up`, and `down` is clean", || {
        kill(&first);
        assert_eq!(first.local(&["status"]).code, 6, "it does not run");
        first.start(&[]);
        let known = first.ok(&["ec2", "describe-instances"]);
        let ids = known.to_string();
        for container in first.containers() {
            assert!(ids.contains(&container), "{container} belongs to nobody: {known}");
        }
        first.finish();
    });
    shared.check("after a killed daemon `down` is clean as well", || {
        kill(&second);
        second.finish();
    });
}

/// Everything in from everywhere: then it is not the group that holds.
fn open(cloud: &Cloud, group: &str) {
    cloud.ok(&[
        "ec2",
        "authorize-security-group-ingress",
        "--group-id",
        group,
        "--protocol=-1",
        "--cidr=0.0.0.0/0",
    ]);
}

fn control_is_closed(cloud: &Cloud) {
    let own = format!("127.0.0.1:{}", cloud.port);
    let ask = |head: &str, body: &[u8]| status(cloud.port, head, body);
    cloud.check("the control API wants its token, its name and no other site", || {
        let token = cloud.token();
        let get = |more: &str| ask(&format!("GET /_local-cloud/status HTTP/1.1\r\n{more}"), b"");
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let host = format!("Host: {own}\r\n");
        assert_eq!(get(&format!("{host}{}", bearer(&token))), 200);
        assert_eq!(get(&host), 401, "no token");
        assert_eq!(get(&format!("{host}{}", bearer(&"0".repeat(64)))), 401, "a wrong token");
        assert_eq!(get(&format!("Host: evil.example\r\n{}", bearer(&token))), 403);
        assert_eq!(get(&format!("{host}Origin: http://evil.example\r\n{}", bearer(&token))), 403);
    });
    cloud.check("the state file is for its owner alone", || {
        let file = cloud.state_folder().join("state.json");
        let mode = file.metadata().expect("the state file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    });
    cloud.check("a page of another site cannot use the endpoint, nor reset the emulator", || {
        let post = |path: &str, more: &str| {
            ask(&format!("POST {path} HTTP/1.1\r\n{more}Content-Length: 0\r\n"), b"")
        };
        let host = format!("Host: {own}\r\n");
        assert_eq!(post("/moto-api/reset", &host), 403);
        assert_eq!(post("/", &format!("{host}Origin: http://evil.example\r\n")), 403);
        assert_eq!(post("/", "Host: evil.example\r\n"), 403);
        cloud.ok(&["ec2", "describe-vpcs", "--vpc-ids", &cloud.vpc]);
    });
    cloud.check("another account of this machine can do nothing", || {
        // With a made-up credential scope, on the endpoint and at the emulator behind it.
        let nobody = |port: u16, path: &str, body: &str| {
            let output = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent"])
                .args(["--output", "/dev/null", "--write-out", "%{http_code}", "--data", body])
                .args(["--header", "X-Amz-Date: 20260101T000000Z", "--header"])
                .arg(
                    "Authorization: AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/ec2/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature=0",
                )
                .arg(format!("http://127.0.0.1:{port}{path}"))
                .output()
                .expect("setpriv and curl");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let launch = "Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1";
        assert_eq!(nobody(cloud.port, "/", launch), "401");
        assert_eq!(nobody(cloud.upstream_port(), "/", launch), "403");
        assert_eq!(nobody(cloud.upstream_port(), "/moto-api/reset", ""), "403");
        cloud.ok(&["ec2", "describe-vpcs", "--vpc-ids", &cloud.vpc]);
        let read = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
            .arg(cloud.state_folder())
            .output()
            .expect("setpriv");
        assert!(!read.status.success(), "its state is readable");
    });
    cloud.check("a page of another site on this machine cannot use it either", || {
        for site in ["cross-site", "same-site"] {
            let head = format!(
                "GET /?Action=DescribeVpcs HTTP/1.1\r\nHost: {own}\r\nSec-Fetch-Site: {site}\r\n"
            );
            assert_eq!(ask(&head, b""), 403, "{site}");
        }
    });
    cloud.check("a request without end is not read to its end", || {
        let length = 64 << 20;
        for (service, target) in [("ec2", ""), ("ssm", "X-Amz-Target: AmazonSSM.SendCommand\r\n")] {
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {own}\r\nAuthorization: AWS4-HMAC-SHA256 \
                 Credential=k/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\
                 {target}Content-Length: {length}\r\n"
            );
            let status = ask(&head, &vec![b'x'; 8 << 20]);
            assert!((400..500).contains(&status), "{service}: {status}");
        }
    });
}

/// The status of an answer to a request written by hand.
fn status(port: u16, head: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the endpoint listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
        .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .expect("the head is sent");
    // It may answer and hang up before it has read everything.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer to {head}: {text}"))
}

/// Names that are paths stay names.
fn paths_stay_inside(cloud: &Cloud) {
    let secret = std::fs::read_to_string(SECRET_FILE).expect("a file that must not be shown");
    let line = secret.lines().next().expect("not empty").to_owned();
    let hidden = |answer: &Value| assert!(!answer.to_string().contains(&line), "{answer}");
    let up = format!("../../../../../../../..{SECRET_FILE}");
    cloud.check("an object's key is no path", || {
        cloud.ok(&["s3api", "create-bucket", "--bucket", "isolation"]);
        let folder = tempfile::tempdir().expect("a folder");
        let (put, got) = (folder.path().join("put"), folder.path().join("got"));
        std::fs::write(&put, "mine").expect("a file");
        let (put, got) = (put.to_str().expect("text"), got.to_str().expect("text"));
        for key in [up.as_str(), SECRET_FILE, "..%2f..%2fetc%2fpasswd", "a/../../b"] {
            cloud.ok(&[
                "s3api",
                "put-object",
                "--bucket",
                "isolation",
                "--key",
                key,
                "--body",
                put,
            ]);
            cloud.ok(&["s3api", "get-object", "--bucket", "isolation", "--key", key, got]);
            assert_eq!(std::fs::read_to_string(got).expect("the object"), "mine", "{key}");
        }
        let now = std::fs::read_to_string(SECRET_FILE).expect("it is still there");
        assert_eq!(now, secret, "{SECRET_FILE} was written");
    });
    cloud.check("names of documents, commands and hosts are no paths", || {
        for args in [
            &["ssm", "get-document", "--name", &up][..],
            &["ssm", "describe-document", "--name", &up],
            &[
                "ssm",
                "send-command",
                "--instance-ids",
                "i-0123456789abcdef0",
                "--document-name",
                &up,
            ],
            &["ssm", "get-command-invocation", "--command-id", &up, "--instance-id", &up],
            &["ec2", "get-console-output", "--instance-id", &up],
            &["ec2", "run-instances", "--image-id", &up],
        ] {
            let error = cloud.aws(args).expect_err("it must be refused");
            hidden(&json!(format!("{error:?}")));
        }
        for args in [&["logs", &up][..], &["exec", &up, "--", "true"]] {
            let run = cloud.local(args);
            assert_eq!(run.code, 2, "{run}");
        }
    });
}

/// What a host can reach: its cloud's APIs and its own network, nothing else of this machine.
fn hosts_stay_inside(shared: &Cloud, cloud: &Cloud, host: &str, other: &Cloud, foreign: &str) {
    let reaches = |address: &str, port: u16| {
        let command = format!("timeout 2 bash -c '</dev/tcp/{address}/{port}'");
        cloud.exec(host, &command).code == 0
    };
    let gateway = cloud.cidr.replace("0.0/16", "0.1");
    shared.check("a host reaches this machine as the internet, and not as its neighbour", || {
        // As anything else that runs on the machine: it would answer at each of its addresses.
        let listener = TcpListener::bind(("0.0.0.0", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let outside = format!("timeout 60 bash -c '</dev/tcp/198.51.100.1/{port}'");
        assert_eq!(cloud.exec(host, &outside).code, 0, "what stands for the internet");
        // Of the engine's own bridge; the engine does not always say it.
        let engine = traces::output("ip", &["-4", "-o", "address", "show", "docker0"]);
        let engine = engine.split_whitespace().nth(3).and_then(|range| range.split('/').next());
        let engine = engine.expect("an address of docker0").to_owned();
        let beside = other.cidr.replace("0.0/16", "0.1");
        for address in [gateway.as_str(), &beside, &engine] {
            let here = TcpStream::connect((address, port));
            assert!(here.is_ok(), "it listens at {address}: {here:?}");
            assert!(!reaches(address, port), "{address}:{port}");
        }
    });
    shared.check("a host reaches no port of the cloud itself", || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        assert!(!reaches("198.51.100.1", port), "bound to loopback");
        for port in [cloud.port, other.port, cloud.upstream_port()] {
            assert!(!reaches(&gateway, port) && !reaches("198.51.100.1", port), "{port}");
        }
    });
    shared.check("a host reaches no host of another cloud by its private address", || {
        let answer = other.instance(foreign);
        let address = answer["PrivateIpAddress"].as_str().expect("an address");
        let listen = "nohup python3 -m http.server 8099 >/dev/null 2>&1 & \
                      for i in $(seq 50); do ss -ltn | grep -q :8099 && exit 0; done; exit 1";
        other.until("it listens", || other.exec(foreign, listen).code == 0);
        let itself = format!("timeout 2 bash -c '</dev/tcp/{address}/8099'");
        assert_eq!(other.exec(foreign, &itself).code, 0, "it listens on {address}");
        assert!(!reaches(address, 8099), "{address}");
    });
    shared.check("a host does not reach the control API through the APIs that it may call", || {
        let command = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {}' \
             https://ssm.us-east-1.amazonaws.com/_local-cloud/status",
            cloud.token()
        );
        let run = cloud.exec(host, &command);
        assert!(run.code == 0 && run.stdout.starts_with('4'), "{run}");
    });
}

fn credentials_are_renewed(cloud: &Cloud, host: &str) {
    let root = "http://169.254.169.254/latest";
    let command = format!(
        "token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {root}/api/token); \
         curl -s -H \"X-aws-ec2-metadata-token: $token\" {root}/meta-data/iam/security-credentials/{}",
        cloud.profile
    );
    let credentials = || -> Value {
        let run = cloud.exec(host, &command);
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
    };
    let time = |credentials: &Value| -> jiff::Timestamp {
        let text = credentials["Expiration"].as_str().expect("an expiration");
        text.parse().expect("a time")
    };
    let first = credentials();
    let newer = std::cell::RefCell::new(first.clone());
    cloud.until("there are new ones", || {
        *newer.borrow_mut() = credentials();
        newer.borrow()["AccessKeyId"] != first["AccessKeyId"]
    });
    let newer = newer.into_inner();
    assert!(time(&first) > jiff::Timestamp::now(), "the old ones hold meanwhile");
    assert!(time(&newer) > time(&first));
    for part in ["SecretAccessKey", "Token"] {
        assert_ne!(newer[part], first[part], "{part}");
    }
}

/// Ends a cloud's daemon as a crash would.
fn kill(cloud: &Cloud) {
    cloud.note();
    let daemon = cloud.daemon().to_string();
    let killed = Command::new("kill").args(["-KILL", &daemon]).status().expect("kill runs");
    assert!(killed.success());
    cloud.until("the daemon is gone", || {
        !std::path::Path::new("/proc").join(&daemon).join("exe").exists()
    });
}
