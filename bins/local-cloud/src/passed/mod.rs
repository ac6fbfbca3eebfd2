//! Calls of services other than EC2 that the emulator answers: their form is checked, their lists are cut into pages,
//! and when the emulator breaks, its page for people becomes an error in the caller's protocol.

mod form;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};
use bytes::Bytes;
use serde_json::Value;

use self::form::{cut, form_fields, json, lower_first, validation_code};
use crate::failure::{self, Dialect, Failure};
use crate::log;
use crate::model::{self, Operation, Page, Protocol};
use crate::operation::{self, Form, Scope};
use crate::paging::{self, Shelf};
use crate::upstream::{Answer, Lost, Upstream};
use crate::xml::Element;

/// An emulator that answers the same token again and again is not followed for ever.
const MOST_CALLS: usize = 1000;

/// Why a call has no answer of the emulator's.
#[derive(Debug)]
pub enum Unanswered {
    /// It is refused here.
    Refused(Box<Response<Body>>),
    /// The emulator cannot be reached.
    Unreachable(Lost),
}

impl From<Lost> for Unanswered {
    fn from(error: Lost) -> Self {
        Self::Unreachable(error)
    }
}

/// One call: what of it is needed to answer it, or to make it again for the emulator's next page.
#[derive(Debug)]
struct Call<'a> {
    scope: &'a Scope,
    name: String,
    operation: &'static Operation,
    fields: Fields,
    parts: &'a Parts,
}

#[derive(Debug, Clone)]
enum Fields {
    Query(Form),
    Json(Value),
}

/// Answers a call whose service has a model.
pub async fn answer(
    upstream: &Upstream,
    shelf: &Shelf,
    scope: &Scope,
    parts: &Parts,
    body: Bytes,
) -> Result<Response<Body>, Unanswered> {
    let call = match read(scope, parts, &body) {
        Ok(Some(call)) => call,
        Ok(None) => return plain(upstream, scope, parts, body).await,
        Err((failure, dialect)) => return Err(refused(&scope.service, &failure, dialect)),
    };
    let Some(page) = call.operation.page else {
        let what = format!("{} {}", scope.service, call.name);
        let answer = upstream.fetch(parts.method.clone(), &parts.uri, &parts.headers, body).await?;
        return mended(upstream, &what, call.dialect(), answer).await;
    };
    call.paged(upstream, shelf, page).await
}

/// A call without a model of its form, e.g. in a protocol of paths.
async fn plain(
    upstream: &Upstream,
    scope: &Scope,
    parts: &Parts,
    body: Bytes,
) -> Result<Response<Body>, Unanswered> {
    let what = format!("{} {} {}", scope.service, parts.method, parts.uri.path());
    let answer = upstream.fetch(parts.method.clone(), &parts.uri, &parts.headers, body).await?;
    mended(upstream, &what, Dialect::Rest, answer).await
}

/// The emulator's answer, unless it is its web server's page.
async fn mended(
    upstream: &Upstream,
    what: &str,
    dialect: Dialect,
    answer: Answer,
) -> Result<Response<Body>, Unanswered> {
    if failure::is_page(answer.status, answer.headers.get(header::CONTENT_TYPE)) {
        let failure = broken(upstream, what, dialect).await;
        return Err(Unanswered::Refused(Box::new(failure.response(dialect))));
    }
    Ok(answer.into_response())
}

/// What the emulator's page means.
pub async fn broken(upstream: &Upstream, what: &str, dialect: Dialect) -> Failure {
    let words = upstream.last_words().await;
    let failure = Failure::of_the_emulator(what, words.as_deref(), dialect);
    log::line(format_args!("{}: {}", failure.code, failure.message));
    failure
}

fn refused(what: &str, failure: &Failure, dialect: Dialect) -> Unanswered {
    log::line(format_args!("{what}: {}: {}", failure.code, failure.message));
    Unanswered::Refused(Box::new(failure.response(dialect)))
}

/// Reads and checks a call; `None` when it comes in a protocol that is not looked at.
fn read<'a>(
    scope: &'a Scope,
    parts: &'a Parts,
    body: &Bytes,
) -> Result<Option<Call<'a>>, (Failure, Dialect)> {
    let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    if let Some(target) = target {
        let Some(operations) = model::service(Protocol::Json, &scope.service) else {
            return Ok(None);
        };
        let name = operation::from_target(target).unwrap_or_default();
        let found = operations.get(name).ok_or_else(|| {
            Failure::client(
                "UnknownOperationException",
                format!("Unknown operation `{}`", cut(name)),
            )
        });
        let read = found.and_then(|operation| {
            let value = json(operation, body, &scope.service)?;
            Ok((operation, Fields::Json(value)))
        });
        let (operation, fields) = read.map_err(|failure| (failure, Dialect::Json))?;
        return Ok(Some(Call { scope, name: name.to_owned(), operation, fields, parts }));
    }
    let Some(operations) = model::service(Protocol::Query, &scope.service) else { return Ok(None) };
    if parts.uri.path() != "/" {
        return Ok(None);
    }
    let query = parts.uri.query().filter(|query| query.contains("Action="));
    let form = Form::parse(query.map_or(&body[..], str::as_bytes));
    let read = || {
        if form.names().filter(|name| *name == "Action").count() > 1 {
            let message = "The query string names more than one Action";
            return Err(Failure::client("MalformedQueryString", message));
        }
        let name = form.get("Action").filter(|name| !name.is_empty()).ok_or_else(|| {
            Failure::client("MissingAction", "The request must contain the parameter Action")
        })?;
        let operation = operations.get(name).ok_or_else(|| {
            let version = cut(form.get("Version").unwrap_or_default());
            let message = format!("Could not find operation {} for version {version}", cut(name));
            Failure::client("InvalidAction", message)
        })?;
        form_fields(operation, &form)?;
        Ok((name.to_owned(), operation))
    };
    let (name, operation) = read().map_err(|failure| (failure, Dialect::Query))?;
    Ok(Some(Call { scope, name, operation, fields: Fields::Query(form), parts }))
}

/// The code for a token that leads nowhere (the services' API references).
fn token_code(service: &str, protocol: Protocol) -> &'static str {
    match service {
        "ssm" => "InvalidNextToken",
        "secretsmanager" => "InvalidNextTokenException",
        "kms" => "InvalidMarkerException",
        "tagging" => "PaginationTokenExpiredException",
        "autoscaling" | "monitoring" => "InvalidNextToken",
        "logs" | "ecs" => "InvalidParameterException",
        "rds" | "elasticache" => "InvalidParameterValue",
        "sns" => "InvalidParameter",
        _ if protocol == Protocol::Query => "ValidationError",
        _ => "ValidationException",
    }
}

impl Call<'_> {
    fn dialect(&self) -> Dialect {
        match self.fields {
            Fields::Query(_) => Dialect::Query,
            Fields::Json(_) => Dialect::Json,
        }
    }

    fn protocol(&self) -> Protocol {
        match self.fields {
            Fields::Query(_) => Protocol::Query,
            Fields::Json(_) => Protocol::Json,
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match &self.fields {
            Fields::Query(form) => form.get(name).map(str::to_owned),
            Fields::Json(value) => match value.get(name)? {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                other => Some(other.to_string()),
            },
        }
        .filter(|text| !text.is_empty())
    }

    /// The page size that is asked for.
    fn size(&self, page: &Page) -> Result<Option<usize>, Failure> {
        let Some(text) = self.text(page.size) else { return Ok(None) };
        let bound = |must: &str| {
            let message = format!(
                "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must have value \
                 {must}",
                cut(&text),
                lower_first(page.size)
            );
            let code = match self.protocol() {
                Protocol::Query => "ValidationError",
                Protocol::Json => validation_code(&self.scope.service),
            };
            Err(Failure::client(code, message))
        };
        match text.parse::<i64>() {
            Ok(size) if size < i64::from(page.least) => {
                bound(&format!("greater than or equal to {}", page.least))
            }
            Ok(size) if size > i64::from(page.most) => {
                bound(&format!("less than or equal to {}", page.most))
            }
            Ok(size) => Ok(usize::try_from(size).ok()),
            Err(_) => bound("that is a whole number"),
        }
    }

    async fn paged(
        &self,
        upstream: &Upstream,
        shelf: &Shelf,
        page: Page,
    ) -> Result<Response<Body>, Unanswered> {
        let what = format!("{} {}", self.scope.service, self.name);
        let size = self.size(&page).map_err(|failure| refused(&what, &failure, self.dialect()))?;
        let list = paging::list_of(&self.scope.service, &self.scope.region, &self.name);
        if let Some(token) = self.text(page.token) {
            let body = shelf.page(list, &token).ok_or_else(|| {
                let code = token_code(&self.scope.service, self.protocol());
                let failure = Failure::client(code, "The specified token isn't valid.");
                refused(&what, &failure, self.dialect())
            })?;
            return Ok(self.reply(body));
        }
        let answer = self.ask(upstream, &page, None).await?;
        if !answer.status.is_success() {
            return mended(upstream, &what, self.dialect(), answer).await;
        }
        // Of its own accord a service gives up to its most; 100 is the usual default where that is more.
        let usual = page.most.min(100) as usize;
        let Some(first) = self.cut(upstream, shelf, &page, &answer, (list, size, usual)).await?
        else {
            return Ok(answer.into_response());
        };
        let mut response = answer.with_body(String::new());
        *response.body_mut() = Body::from(first);
        Ok(response)
    }

    /// Asks the emulator for the whole list, or for what follows its token.
    async fn ask(
        &self,
        upstream: &Upstream,
        page: &Page,
        token: Option<&str>,
    ) -> Result<Answer, Lost> {
        let mut headers = self.parts.headers.clone();
        headers.remove(header::CONTENT_LENGTH);
        let body = match self.fields.clone() {
            Fields::Query(mut form) => {
                form.remove(|name| name == page.size || name == page.token);
                if let Some(token) = token {
                    form.push(page.token, token);
                }
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
                );
                form.encode()
            }
            Fields::Json(mut value) => {
                if let Some(object) = value.as_object_mut() {
                    object.remove(page.size);
                    object.remove(page.token);
                    if let Some(token) = token {
                        object.insert(page.token.to_owned(), token.into());
                    }
                }
                value.to_string()
            }
        };
        upstream.fetch(Method::POST, &Uri::from_static("/"), &headers, Bytes::from(body)).await
    }

    /// The first page of an answer; the others are put on the shelf. `None` when the answer has no such list.
    async fn cut(
        &self,
        upstream: &Upstream,
        shelf: &Shelf,
        page: &Page,
        answer: &Answer,
        (list, size, usual): (u64, Option<usize>, usize),
    ) -> Result<Option<Bytes>, Unanswered> {
        match self.fields {
            Fields::Json(_) => {
                let Ok(mut root) = serde_json::from_slice::<Value>(&answer.body) else {
                    return Ok(None);
                };
                let Some(mut items) = root.get(page.list).and_then(Value::as_array).cloned() else {
                    return Ok(None);
                };
                for _ in 0..MOST_CALLS {
                    let Some(token) = root.get(page.next).and_then(Value::as_str) else { break };
                    let next = self.ask(upstream, page, Some(token)).await?;
                    let Ok(value) = serde_json::from_slice::<Value>(&next.body) else { break };
                    let more = value.get(page.list).and_then(Value::as_array);
                    items.extend(more.into_iter().flatten().cloned());
                    root[page.next] = value.get(page.next).cloned().unwrap_or_default();
                }
                let lengths = paging::lengths(items.len(), size, usual);
                Ok(Some(shelf.cut(list, &lengths, |range, token| {
                    let items = items.get(range).unwrap_or_default();
                    paging::write_json(&root, page.list, items, (page.next, token), page.more)
                })))
            }
            Fields::Query(_) => {
                let Some(mut root) = answer.xml() else { return Ok(None) };
                let result = format!("{}Result", self.name);
                let path = [result.as_str(), page.list];
                let Some(mut items) = root.at(&path).map(|list| list.children.clone()) else {
                    return Ok(None);
                };
                for _ in 0..MOST_CALLS {
                    let Some(token) = root.text_at(&[&result, page.next]) else { break };
                    let next = self.ask(upstream, page, Some(&token)).await?;
                    let Some(next) = next.xml() else { break };
                    items
                        .extend(next.at(&path).map_or_else(Vec::new, |list| list.children.clone()));
                    if let Some(shown) = root.child_mut(&result) {
                        let token = next.text_at(&[&result, page.next]).unwrap_or_default();
                        shown.set(Element::leaf(page.next, &token));
                    }
                }
                let lengths = paging::lengths(items.len(), size, usual);
                Ok(Some(shelf.cut(list, &lengths, |range, token| {
                    let items = items.get(range).unwrap_or_default();
                    paging::write_xml(&root, &path, items, (page.next, token), page.more)
                })))
            }
        }
    }

    /// A page from the shelf.
    fn reply(&self, body: Bytes) -> Response<Body> {
        let kind = match self.fields {
            Fields::Query(_) => HeaderValue::from_static("text/xml"),
            // 1.0 or 1.1, as it was asked.
            Fields::Json(_) => self
                .parts
                .headers
                .get(header::CONTENT_TYPE)
                .cloned()
                .unwrap_or(HeaderValue::from_static("application/x-amz-json-1.1")),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(service: &str, target: Option<&str>, body: &[u8]) -> String {
        let scope = Scope { service: service.into(), region: "us-east-1".into() };
        let mut request = axum::http::Request::post("/");
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        match read(&scope, &parts, &Bytes::copy_from_slice(body)) {
            Ok(Some(call)) => match call.operation.page.map(|page| call.size(&page)) {
                Some(Ok(size)) => format!("{size:?}"),
                Some(Err(failure)) => failure.code,
                None => "ok".into(),
            },
            Ok(None) => "not looked at".into(),
            Err((failure, _)) => failure.code,
        }
    }

    #[test]
    fn a_bad_json_request_gets_awss_code() {
        let check = |operation: &str, body: &[u8], expected: &str| {
            let target = format!("secretsmanager.{operation}");
            assert_eq!(code("secretsmanager", Some(&target), body), expected, "{operation}");
        };
        check("GetSecretValue", br#"{"SecretId":"a"}"#, "ok");
        check("GetSecretValue", b"", "ValidationException");
        check("GetSecretValue", b"{}", "ValidationException");
        check("GetSecretValue", br#"{"SecretId":null}"#, "ValidationException");
        check("GetSecretValue", br#"{"SecretId":5}"#, "SerializationException");
        check("GetSecretValue", b"{\"SecretId\":\"\xff\"}", "SerializationException");
        check("GetSecretValue", b"[]", "SerializationException");
        check("GetSecretValue", b"{", "SerializationException");
        check("GetSecretValue", "[".repeat(100_000).as_bytes(), "SerializationException");
        check("Nope", b"{}", "UnknownOperationException");
        check("ListSecrets", b"{}", "None");
        check("ListSecrets", br#"{"MaxResults":100}"#, "Some(100)");
        check("ListSecrets", br#"{"MaxResults":101}"#, "ValidationException");
        check("ListSecrets", br#"{"MaxResults":0}"#, "ValidationException");
        check("ListSecrets", br#"{"MaxResults":1.5}"#, "ValidationException");
        check("ListSecrets", br#"{"MaxResults":"5"}"#, "SerializationException");
    }

    #[test]
    fn a_bad_query_request_gets_awss_code() {
        let check = |body: &str, expected: &str| {
            assert_eq!(code("iam", None, body.as_bytes()), expected, "{body}");
        };
        check("Action=ListRoles", "None");
        check("Action=ListRoles&MaxItems=10", "Some(10)");
        check("Action=ListRoles&MaxItems=0", "ValidationError");
        check("Action=ListRoles&MaxItems=x", "ValidationError");
        check("", "MissingAction");
        check("Action=", "MissingAction");
        check("Action=Nope", "InvalidAction");
        check("Action=ListRoles&Action=ListUsers", "MalformedQueryString");
        check("Action=DeleteRole", "ValidationError");
        check("Action=DeleteRole&RoleName=%ff", "MalformedInput");
        check("Action=DeleteRole&RoleName=a", "ok");
    }

    #[test]
    fn other_protocols_are_not_looked_at() {
        assert_eq!(code("s3", None, b""), "not looked at");
        assert_eq!(code("athena", Some("AmazonAthena.ListWorkGroups"), b"{"), "not looked at");
    }
}
