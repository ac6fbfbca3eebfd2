//! A browser without a window, driven through its own protocol (chromedevtools.github.io/devtools-protocol) over pipes.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One page in a browser.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: String,
    last: u64,
    _folder: TempDir,
}

impl Browser {
    /// Opens an address.
    pub(crate) fn open(address: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
            assert!(made.success(), "mkfifo");
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        let start = "exec chromium --headless --no-sandbox --disable-gpu --hide-scrollbars \
                     --remote-debugging-pipe --window-size=1280,800 --user-data-dir=\"$3\" about:blank 3<\"$1\" 4>\"$2\"";
        let child = Command::new("sh")
            .args(["-c", start, "sh"])
            .args([&to, &from])
            .arg(folder.path().join("profile"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        // In the order in which the shell opens them.
        let to = File::options().write(true).open(to).expect("a pipe");
        let from = BufReader::new(File::open(from).expect("a pipe"));
        let mut browser =
            Self { child, to, from, session: String::new(), last: 0, _folder: folder };
        let page = browser.ask("Target.createTarget", json!({"url": address}));
        let attached = browser
            .ask("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Waits until the page shows all of these texts, and gives its HTML.
    pub(crate) fn until_shown(&mut self, texts: &[&str], limit: Duration) -> String {
        let begun = Instant::now();
        loop {
            let script = "[document.body.innerText, document.documentElement.outerHTML]";
            let found =
                self.ask("Runtime.evaluate", json!({"expression": script, "returnByValue": true}));
            let value = &found["result"]["value"];
            let shown = value[0].as_str().unwrap_or_default();
            let missing: Vec<_> = texts.iter().filter(|text| !shown.contains(*text)).collect();
            if missing.is_empty() {
                return value[1].as_str().unwrap_or_default().to_owned();
            }
            assert!(begun.elapsed() < limit, "the page does not show {missing:?}:\n{shown}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A picture of the page, PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let picture = self.ask("Page.captureScreenshot", json!({"format": "png"}));
        let text = picture["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("the browser answers");
            assert!(!answer.is_empty(), "no browser: `apt-get install chromium`");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whether it can still be ended decides nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
