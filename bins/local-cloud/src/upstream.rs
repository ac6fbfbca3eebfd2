//! The emulator behind the proxy: how requests are passed on, and how the cloud itself asks it something.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::control::Token;
use crate::error::Error;
use crate::failure;
use crate::operation::Form;
use crate::xml::Element;

/// The header in which our own moto wants its secret.
pub const SECRET: HeaderName = HeaderName::from_static("x-local-cloud-secret");

/// The access key of the cloud's own questions.
const OWN: &str = "local-cloud";
/// How the query protocol's requests are written.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A client of the emulator; clones share connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    base: String,
    /// For the cloud's own questions.
    client: reqwest::Client,
    /// For what is passed on: it takes a path as it came, where a URL would be tidied (`a/../b` is a key in S3).
    passing: Client<HttpConnector, Body>,
    /// Without it our own moto answers nobody.
    secret: Option<HeaderValue>,
    log: Option<PathBuf>,
}

/// A request that was passed on has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Lost {
    what: String,
    why: String,
}

impl Lost {
    fn new(what: impl std::fmt::Display, error: impl std::error::Error) -> Self {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Self { what: what.to_string(), why }
    }
}

/// Why a question to the emulator has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached.
    #[error("the emulator behind the rehearsal cloud does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// It answered an error.
    #[error("{operation}: {code}: {message}")]
    Refused {
        /// What was asked.
        operation: String,
        /// The AWS error code.
        code: String,
        /// Its message.
        message: String,
    },
    /// Its answer cannot be read.
    #[error("{operation}: {why}")]
    Unreadable {
        /// What was asked.
        operation: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// An answer held in memory, so that it can be read and adjusted.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer for the caller, unchanged.
    pub fn into_response(self) -> Response<Body> {
        with_headers(self.status, &self.headers, Body::from(self.body))
    }

    /// The answer with another body.
    pub fn with_body(self, body: String) -> Response<Body> {
        with_headers(self.status, &self.headers, Body::from(body))
    }

    /// The body as XML.
    pub fn xml(&self) -> Option<Element> {
        Element::parse(std::str::from_utf8(&self.body).ok()?).ok()
    }
}

impl Upstream {
    /// A client of the emulator at this address.
    pub fn new(base: &str) -> Result<Self, Error> {
        Self::with_secret(base, None)
    }

    /// A client of an emulator that answers only those who know its secret.
    pub fn with_secret(base: &str, secret: Option<&Token>) -> Result<Self, Error> {
        let secret = secret
            .map(|secret| {
                HeaderValue::from_str(secret.reveal()).map(|mut value| {
                    value.set_sensitive(true);
                    value
                })
            })
            .transpose()
            .map_err(|error| Error::setup("cannot make an HTTP client", error))?;
        let own = HeaderMap::from_iter(secret.iter().map(|secret| (SECRET, secret.clone())));
        let client = reqwest::Client::builder()
            .default_headers(own)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_PATIENCE)
            .build()
            .map_err(|error| Error::setup("cannot make an HTTP client", error))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_PATIENCE));
        connector.set_nodelay(true);
        let passing = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, passing, secret, log: None })
    }

    /// Knows its log, which tells why it failed.
    pub fn with_log(mut self, log: PathBuf) -> Self {
        self.log = Some(log);
        self
    }

    /// The exception in its log that made it fail just now: it is written after the answer, so it is waited for.
    pub async fn last_words(&self) -> Option<String> {
        const PATIENCE: Duration = Duration::from_millis(500);
        let path = self.log.as_ref()?;
        let before = std::fs::metadata(path).ok()?.len();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let new = read_from(path, before)?;
            if let Some(words) = failure::last_exception(&new) {
                return Some(words.to_owned());
            }
            if tokio::time::Instant::now() > deadline {
                // Written already, then: the last one of the log, which is short of one traceback.
                let end = read_from(path, before.saturating_sub(16 * 1024))?;
                return failure::last_exception(&end).map(str::to_owned);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether anything answers.
    pub async fn answers(&self) -> bool {
        self.client.get(&self.base).timeout(Duration::from_secs(2)).send().await.is_ok()
    }

    /// Passes a request on and its answer back, both as streams.
    pub async fn stream(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Lost> {
        let (parts, body) = self.pass(method, uri, headers, body).await?.into_parts();
        Ok(with_headers(parts.status, &parts.headers, Body::new(body)))
    }

    /// Passes a request on and waits for its whole answer.
    pub async fn fetch(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Lost> {
        let answer = self.pass(method, uri, headers, Body::from(body)).await?;
        let (parts, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX)
            .await
            .map_err(|error| Lost::new("its answer ends early", error))?;
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn pass(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, Lost> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let target = format!("{}{path}", self.base);
        let uri = Uri::try_from(&target).map_err(|error| Lost::new(&target, error))?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        *request.headers_mut() = headers.clone();
        for name in HOP_BY_HOP {
            request.headers_mut().remove(name);
        }
        request.headers_mut().remove(SECRET);
        if let Some(secret) = &self.secret {
            request.headers_mut().insert(SECRET, secret.clone());
        }
        self.passing.request(request).await.map_err(|error| Lost::new(&self.base, error))
    }

    /// The ARN of a caller, as `GetCallerIdentity` answers for the access key of its request.
    pub async fn identity(&self, headers: &HeaderMap) -> String {
        const UNKNOWN: &str = "arn:aws:iam::123456789012:user/unknown";
        let key = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.split_once("Credential=")?.1.split('/').next())
            .unwrap_or("unknown");
        let form = Form::new([("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]);
        let asked = self
            .signed(key, "us-east-1", "sts")
            .header(header::CONTENT_TYPE, FORM)
            .body(form.encode())
            .timeout(Duration::from_secs(5))
            .send();
        let Ok(answer) = asked.await else { return UNKNOWN.to_owned() };
        let text = answer.text().await.unwrap_or_default();
        Element::parse(&text)
            .ok()
            .and_then(|root| root.text_at(&["GetCallerIdentityResult", "Arn"]))
            .unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// A question in the name of whoever has this access key. The emulator looks at the scope of a signature only.
    fn signed(&self, access_key: &str, region: &str, service: &str) -> reqwest::RequestBuilder {
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/20260101/{region}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        self.client.post(&self.base).header(header::AUTHORIZATION, signature)
    }

    /// Asks a query-protocol operation in the cloud's own name.
    pub async fn ask(&self, service: &str, region: &str, form: &Form) -> Result<Element, AskError> {
        self.ask_as(service, region, form, OWN).await
    }

    /// Asks a query-protocol operation in the name of whoever has this access key.
    pub async fn ask_as(
        &self,
        service: &str,
        region: &str,
        form: &Form,
        access_key: &str,
    ) -> Result<Element, AskError> {
        let operation = form.get("Action").unwrap_or_default().to_owned();
        let answer = self
            .signed(access_key, region, service)
            .header(header::CONTENT_TYPE, FORM)
            .body(form.encode())
            .timeout(Duration::from_secs(60))
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        let root = Element::parse(&text).map_err(|error| AskError::Unreadable {
            operation: operation.clone(),
            why: error.to_string(),
        })?;
        if status.is_success() {
            return Ok(root);
        }
        // EC2: Response/Errors/Error; the other query services: ErrorResponse/Error.
        let error = root.at(&["Errors", "Error"]).or_else(|| root.child("Error"));
        let read =
            |name| error.and_then(|e| e.text_at(&[name])).unwrap_or_else(|| status.to_string());
        Err(AskError::Refused { operation, code: read("Code"), message: read("Message") })
    }

    /// Asks an operation of a service that speaks AWS JSON 1.1 in the cloud's own name: the status and the answer.
    pub async fn ask_json(
        &self,
        service: &str,
        region: &str,
        target: &str,
        request: &serde_json::Value,
    ) -> Result<(StatusCode, serde_json::Value), AskError> {
        let answer = self
            .signed(OWN, region, service)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(request.to_string())
            .timeout(Duration::from_secs(60))
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        let value = serde_json::from_str(&text).map_err(|error| AskError::Unreadable {
            operation: target.to_owned(),
            why: error.to_string(),
        })?;
        Ok((status, value))
    }
}

/// The text of a file from a position on.
fn read_from(path: &Path, start: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Headers that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

fn with_headers(status: StatusCode, headers: &HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let own = [header::CONTENT_LENGTH, header::DATE];
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(name) && !own.contains(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
