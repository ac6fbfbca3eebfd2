//! The Docker engine's own interface, for what is asked often: a call costs a hundredth of a run of the `docker` program.
//!
//! Paths and answers: Docker Engine API reference, "Containers" and "System" (without a version: the engine's newest).

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::docker::INSTANCE_LABEL;
use crate::error::Error;

/// Where the engine listens unless it was told otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// How long the engine may take over a question, and over work on a container. It is asked on a socket of this machine:
/// when this passes it hangs.
const QUESTION: Duration = Duration::from_secs(30);
/// See [`QUESTION`].
const WORK: Duration = Duration::from_secs(120);

/// A connection to the engine; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    client: reqwest::Client,
}

/// What the engine says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Whether it runs.
    pub running: bool,
    /// Its first process, as this machine numbers it.
    pub pid: u32,
}

/// The end of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The instance.
    pub instance_id: String,
    /// The exit status of its first process.
    pub status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: InspectedState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    running: bool,
    pid: u32,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    actor: Actor,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    attributes: std::collections::BTreeMap<String, String>,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or this machine's.
    pub fn new(docker_host: Option<&str>) -> Result<Self, Error> {
        let socket = socket(docker_host)?;
        // A URL's host means nothing on a socket; no proxy of the environment is asked.
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .build()
            .map_err(|error| Error::setup("cannot reach the Docker engine", error))?;
        Ok(Self { client })
    }

    /// A container as it is now; `None` when there is none.
    pub async fn inspect(&self, name: &str) -> Result<Option<Container>, Error> {
        let answer =
            self.call("inspect", self.client.get(url(name, "/json")).timeout(QUESTION)).await?;
        if answer.status().as_u16() == 404 {
            return Ok(None);
        }
        let inspected: Inspected =
            good("inspect", answer).await?.json().await.map_err(|error| lost("inspect", &error))?;
        let InspectedState { running, pid } = inspected.state;
        Ok(Some(Container { running, pid }))
    }

    /// Starts a container; one that runs is left alone.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        let answer =
            self.call("start", self.client.post(url(name, "/start")).timeout(WORK)).await?;
        good("start", answer).await.map(drop)
    }

    /// Lets a container shut down, and ends it when it takes longer than that. What does not run, or is not there, has
    /// ended.
    pub async fn stop(&self, name: &str, patience: Duration) -> Result<(), Error> {
        let path = format!("/stop?t={}", patience.as_secs().max(1));
        let answer =
            self.call("stop", self.client.post(url(name, &path)).timeout(patience + WORK)).await?;
        if answer.status().as_u16() == 404 {
            return Ok(());
        }
        good("stop", answer).await.map(drop)
    }

    /// Removes a container, running or not, with its anonymous volumes. One that is not there is removed.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let request = self.client.delete(url(name, "?force=true&v=true")).timeout(WORK);
        let answer = self.call("rm", request).await?;
        // 409: another call is removing it already.
        if matches!(answer.status().as_u16(), 404 | 409) {
            return Ok(());
        }
        good("rm", answer).await.map(drop)
    }

    /// The last lines of a container's terminal, whether it runs or not.
    pub async fn console(&self, name: &str, lines: u32) -> Result<String, Error> {
        let path = format!("/logs?stdout=true&stderr=true&tail={lines}");
        let answer = self.call("logs", self.client.get(url(name, &path)).timeout(QUESTION)).await?;
        if answer.status().as_u16() == 404 {
            return Ok(String::new());
        }
        let bytes = good("logs", answer).await?.bytes().await.map_err(|e| lost("logs", &e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tells every end of a container with this label, until the engine ends; then says why.
    pub async fn deaths(&self, label: &str, tell: mpsc::UnboundedSender<Death>) -> Error {
        let filters = json!({"label": [label], "event": ["die"], "type": ["container"]});
        let filters = [("filters", filters.to_string())];
        let url = match url::Url::parse_with_params("http://docker/events", filters) {
            Ok(url) => url,
            Err(error) => return Error::setup("cannot ask the Docker engine", error),
        };
        let answer = match self.call("events", self.client.get(url)).await {
            Ok(answer) => answer,
            Err(error) => return error,
        };
        let mut stream = match good("events", answer).await {
            Ok(answer) => answer.bytes_stream(),
            Err(error) => return error,
        };
        let mut rest = Vec::new();
        while let Some(Ok(bytes)) = stream.next().await {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if let Some(death) = read_death(&line)
                    && tell.send(death).is_err()
                {
                    break;
                }
            }
        }
        Error::DockerGone { why: "it closed the connection".into() }
    }

    async fn call(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Error> {
        request.send().await.map_err(|error| lost(what, &error))
    }
}

/// The socket's path.
fn socket(docker_host: Option<&str>) -> Result<PathBuf, Error> {
    match docker_host.filter(|text| !text.is_empty()) {
        None => Ok(Path::new(SOCKET).to_owned()),
        Some(text) => text
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
            .map(PathBuf::from)
            .ok_or_else(|| {
                Error::BadInput(format!(
                    "DOCKER_HOST is `{text}`: hosts need an engine on this machine, `unix:///path`"
                ))
            }),
    }
}

fn url(container: &str, path: &str) -> String {
    format!("http://docker/containers/{container}{path}")
}

fn lost(what: &str, error: &reqwest::Error) -> Error {
    if error.is_connect() {
        return Error::DockerGone { why: format!("`docker {what}` finds nobody") };
    }
    let output = if error.is_timeout() { "the engine hangs".to_owned() } else { error.to_string() };
    Error::Program { program: format!("docker {what}"), output }
}

async fn good(what: &str, answer: reqwest::Response) -> Result<reqwest::Response, Error> {
    // 304: it is so already.
    if answer.status().is_success() || answer.status().as_u16() == 304 {
        return Ok(answer);
    }
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let output = serde_json::from_str::<Said>(&text).map_or_else(
        |_| format!("{status} {}", crate::process::last_lines(&text, 1)),
        |said| said.message,
    );
    Err(Error::Program { program: format!("docker {what}"), output })
}

fn read_death(line: &[u8]) -> Option<Death> {
    let mut attributes = serde_json::from_slice::<Event>(line).ok()?.actor.attributes;
    Some(Death {
        instance_id: attributes.remove(INSTANCE_LABEL)?,
        status: attributes.remove("exitCode").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_on_this_machine_will_do() {
        let check = |host: Option<&str>, expected: &str| {
            assert_eq!(socket(host).expect("good"), Path::new(expected));
        };
        check(None, SOCKET);
        check(Some(""), SOCKET);
        check(Some("unix:///run/user/0/docker.sock"), "/run/user/0/docker.sock");
        for bad in ["tcp://10.0.0.1:2375", "unix://relative", "ssh://elsewhere"] {
            let error = socket(Some(bad)).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn a_death_names_the_instance() {
        let line = format!(
            r#"{{"Type":"container","Action":"die","Actor":{{"ID":"1","Attributes":{{"{INSTANCE_LABEL}":"i-1","exitCode":"129"}}}}}}"#
        );
        let death = Death { instance_id: "i-1".into(), status: "129".into() };
        assert_eq!(read_death(line.as_bytes()), Some(death));
        assert_eq!(read_death(b"{}\n"), None);
        assert_eq!(read_death(br#"{"Actor":{"Attributes":{"exitCode":"0"}}}"#), None);
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_said_to_be() {
        let folder = tempfile::tempdir().expect("folder");
        let host = format!("unix://{}/none.sock", folder.path().display());
        let engine = Engine::new(Some(&host)).expect("client");
        let error = engine.inspect("x").await.expect_err("nobody listens");
        assert!(matches!(error, Error::DockerGone { .. }), "{error}");
    }
}
