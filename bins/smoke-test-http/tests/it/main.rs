//! The real binary against small HTTP doubles on real sockets, and its bad input.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking")]

use deploy_testkit::{Outcome, Tool};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// A double of an HTTP service: one answer per connection, the last one for all that follow.
struct Double {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Double {
    fn new(answers: Vec<String>) -> Self {
        Self::serve(move |stream, number| {
            let mut stream = stream;
            answer(&mut stream, &answers[number.min(answers.len() - 1)]);
        })
    }

    /// Takes connections and never answers.
    fn silent() -> Self {
        Self::serve(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())))
    }

    /// Speaks TLS with a certificate that nobody issued.
    fn self_signed() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Self::serve(move |stream, _| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(&mut rustls::StreamOwned::new(connection, stream), &ok("fine"));
        })
    }

    fn serve(work: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (counter, work) = (Arc::clone(&asked), Arc::new(work));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (number, work) = (counter.fetch_add(1, Ordering::SeqCst), Arc::clone(&work));
                thread::spawn(move || work(stream, number));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/health", self.address)
    }
}

fn answer(stream: &mut (impl Read + Write), text: &str) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(text.as_bytes());
}

fn http(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nServer: double\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn ok(body: &str) -> String {
    http("200 OK", "", body)
}

fn tool(args: &[&str]) -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_smoke-test-http")).args(args)
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

#[test]
fn a_healthy_service_passes_and_is_described() {
    let double = Double::new(vec![ok(r#"{"status":"ok"}"#)]);
    let url = double.url();
    let args =
        [url.as_str(), "--expect-json", "status=ok", "--expect-text", "status", "--format", "json"];
    let outcome = tool(&args).actions().run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let report = report(&outcome);
    assert_eq!(report["title"], format!("{url} is healthy"));
    let data = &report["subjects"][0]["data"];
    assert_eq!(
        (&data["status"], &data["server"], &data["tries"]),
        (&json!(200), &json!("double"), &json!(1))
    );
    assert_eq!(outcome.outputs["outcome"], "success");
    assert!(outcome.summary.contains("| ✅ |"), "{}", outcome.summary);
}

#[test]
fn waiting_ends_when_the_service_becomes_healthy() {
    let double =
        Double::new(vec![http("503 Service Unavailable", "", "{\"asterisk\":\"down\"}"), ok("{}")]);
    let outcome = tool(&[&double.url(), "--wait", "30s"]).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains(", at try 2"), "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains(
            "not yet healthy: status 503, expected 200; it said: {\"asterisk\":\"down\"}"
        )
    );
    assert_eq!(double.asked.load(Ordering::SeqCst), 2);
}

#[test]
fn each_way_of_being_unhealthy_is_named_and_has_its_status() {
    let check = |answer: String, args: &[&str], expected: &str| {
        let double = Double::new(vec![answer]);
        let outcome = tool(&[&double.url()]).args(args).run();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
    };
    check(
        http("503 Down", "", "postgresql is down"),
        &[],
        "status 503, expected 200; it said: postgresql is down",
    );
    check(
        http("301 Moved", "Location: /elsewhere\r\n", ""),
        &[],
        "status 301 leads to `/elsewhere`",
    );
    check(
        ok("{\"status\":\"bad\"}"),
        &["--expect-json", "status=ok"],
        "`status` is `bad`, expected `ok`",
    );
    check(ok("<html>"), &["--expect-json", "status=ok"], "the answer is no JSON");
    check(ok("starting"), &["--expect-text", "ready"], "the answer does not contain `ready`");
    check("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), &[], "does not answer in HTTP");
    check(String::new(), &[], "does not answer in HTTP");
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort".to_owned(),
        &[],
        "does not answer in HTTP",
    );
}

#[test]
fn a_redirect_is_followed_only_when_asked() {
    let end = Double::new(vec![ok("here")]);
    let start = Double::new(vec![http("302 Found", &format!("Location: {}\r\n", end.url()), "")]);
    assert_eq!(tool(&[&start.url(), "--follow", "--expect-text", "here"]).run().code, 0);
    assert_eq!(tool(&[&start.url(), "--expect", "200,302"]).run().code, 0);
    assert_eq!(tool(&[&start.url()]).run().code, 1);
    let itself = Double::new(vec![http("302 Found", "Location: /health\r\n", "")]);
    let outcome = tool(&[&itself.url(), "--follow"]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
}

#[test]
fn silence_is_a_timeout_a_closed_port_a_verdict_and_a_missing_name_unavailable() {
    let check = |url: &str, code: i32, expected: &str| {
        let outcome = tool(&[url, "--timeout", "300ms"]).run();
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
    };
    check(&Double::silent().url(), 4, "no whole answer (timeout) within 300 ms");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&format!("http://{closed}/"), 1, "refused the connection: nothing listens there");
    check("http://no-such-host.invalid/", 6, "cannot resolve `no-such-host.invalid`");
}

#[test]
fn a_certificate_that_nobody_issued_is_a_verdict_that_says_so() {
    let double = Double::self_signed();
    let outcome = tool(&[&format!("https://localhost:{}/", double.address.port())]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stdout.contains("no TLS with localhost:")
            && outcome.stdout.contains("UnknownIssuer"),
        "{}",
        outcome.stdout
    );
    let plain = Double::new(vec![ok("plain")]);
    let outcome = tool(&[&format!("https://{}/", plain.address)]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("no TLS with"), "{}", outcome.stdout);
}

#[test]
fn waiting_keeps_its_deadline_and_ends_with_the_last_real_answer() {
    let double = Double::new(vec![http("503 Down", "", "starting")]);
    let started = Instant::now();
    let outcome = tool(&[&double.url(), "--wait", "2s"]).run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("status 503"), "{}", outcome.stdout);
    let elapsed = started.elapsed().as_millis();
    assert!((1000..3000).contains(&elapsed), "{elapsed}");
    let started = Instant::now();
    let outcome = tool(&[&Double::silent().url(), "--wait", "1s", "--timeout", "20s"]).run();
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
}

#[test]
fn an_inventory_names_the_services_and_junit_has_them_all() {
    let (good, bad) = (
        Double::new(vec![ok("{}")]),
        Double::new(vec![http("500 Oops", "", "<broken> & \"bad\"")]),
    );
    let call = tool(&[
        "--inventory",
        "inventory.json",
        "--limit",
        "nginx",
        "--path",
        "/up",
        "--junit",
        "out/http.xml",
    ]);
    let inventory = |port: u16| {
        let host = json!({"web-1": {"public_ip": "127.0.0.1"}, "db-1": {}});
        let vars = json!({"deploy_project": "demo", "deploy_environment": "dev", "port": port});
        json!({"all": {"vars": vars, "hosts": host, "children": {"nginx": {"hosts": {"web-1": {}}}}}}).to_string()
    };
    fs::write(call.home().join("inventory.json"), inventory(0)).unwrap();
    let port = good.address.port().to_string();
    let outcome = call.args(["--port", &port, "--format", "json"]).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let report = report(&outcome);
    assert_eq!(report["subjects"][0]["name"], format!("web-1 http://127.0.0.1:{port}/up"));
    assert_eq!((&report["project"], &report["environment"]), (&json!("demo"), &json!("dev")));

    let call = tool(&[&good.url(), &bad.url(), "--junit", "out/http.xml"]);
    let mut child = call.spawn();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let junit = fs::read_to_string(call.home().join("out/http.xml")).unwrap();
    assert!(
        junit.contains("tests=\"2\" failures=\"1\"")
            && junit.contains("&lt;broken&gt; &amp; &quot;bad&quot;"),
        "{junit}"
    );
}

#[test]
fn a_signal_ends_the_waiting() {
    for (signal, code) in
        [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)]
    {
        let double = Double::silent();
        let call = tool(&[&double.url(), "--wait", "60s", "--timeout", "60s"]);
        let mut child = call.spawn();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        lines.find(|line| line.contains("asking")).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn bad_input_is_one_clear_error_before_any_request() {
    let check = |args: &[&str], code: i32, expected: &str| {
        let call = tool(args);
        let inventory = json!({"all": {"hosts": {"a": {}, "b": {"public_ip": "nowhere"}}}});
        fs::write(call.home().join("inventory.json"), inventory.to_string()).unwrap();
        let outcome = call.run();
        assert_eq!(outcome.code, code, "{args:?} {outcome:?}");
        assert!(outcome.stderr.contains(expected), "{args:?} {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error:").count(), 1, "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    };
    check(&[], 2, "required");
    check(&["not a url"], 2, "relative URL without a base");
    check(&["ftp://host/"], 2, "unknown scheme `ftp`");
    check(&["http://host:0/"], 2, "bad port `0`");
    check(&["http://host:65536/"], 2, "invalid port number");
    check(&["http://user:pw@host/"], 2, "credentials in a URL");
    check(&["http://host/", "--expect", "99"], 2, "99 is not in");
    check(&["http://host/", "--expect-json", "status"], 2, "expected KEY=VALUE");
    check(&["http://host/", "--limit", "web"], 2, "cannot be used with");
    check(&["http://host/", "--wait", "soon"], 2, "expected a duration");
    check(&["--inventory", "missing.json"], 2, "cannot read the inventory `missing.json`");
    check(&["--inventory", "inventory.json", "--path", "health"], 2, "begins with `/`");
    check(
        &["--inventory", "inventory.json", "--scheme", "gopher"],
        2,
        "possible values: http, https",
    );
    check(
        &["--inventory", "inventory.json"],
        2,
        "host `a` has no public address in the inventory\nhint: leave",
    );
    check(&["--inventory", "inventory.json", "--limit", "b"], 2, "the public address `nowhere`");
    check(&["--inventory", "inventory.json", "--limit", "c"], 2, "bad `--limit`");
    check(
        &["--inventory", "inventory.json", "--limit", "a:!a"],
        3,
        "no host in `inventory.json` matches `a:!a`",
    );
}

#[test]
fn it_documents_itself() {
    let program = env!("CARGO_BIN_EXE_smoke-test-http");
    deploy_testkit::manual_can_be_read(program);
    deploy_testkit::readme_shows_help(program, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
