//! The control API, asked by the commands.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::control::{PREFIX, Problem, Status};
use crate::error::Error;
use crate::place::State;

/// A client of one running cloud.
pub(crate) struct Client<'a> {
    state: &'a State,
    http: reqwest::Client,
}

/// How long an answer may take; a stream may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

impl<'a> Client<'a> {
    pub(crate) fn new(state: &'a State) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(PATIENCE)
            .build()
            .map_err(|error| Error::setup("cannot make an HTTP client", error))?;
        Ok(Self { state, http })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://127.0.0.1:{}{PREFIX}/{path}", self.state.port);
        self.http.request(method, url).bearer_auth(self.state.token.reveal())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Error> {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        answer(self.request(Method::DELETE, path)).await
    }

    /// An answer without an end.
    pub(crate) async fn stream(&self, path: &str) -> Result<Response, Error> {
        checked(self.request(Method::GET, path).send().await.map_err(failed)?).await
    }

    pub(crate) async fn status(&self) -> Result<Status, Error> {
        self.get("status").await
    }
}

fn failed(error: reqwest::Error) -> Error {
    Error::setup("the rehearsal cloud does not answer", error)
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Error> {
    let response = request.timeout(PATIENCE).send().await.map_err(failed)?;
    checked(response).await?.json().await.map_err(failed)
}

async fn checked(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem: Problem = response.json().await.map_err(failed)?;
    match (status.as_u16(), problem.field) {
        (400 | 404, Some(field)) => Err(Error::BadInput(format!("{field}: {}", problem.message))),
        _ => Err(Error::setup("the rehearsal cloud refuses", problem.message)),
    }
}
