//! Every EC2 request comes here first: its form is checked, and a list is cut into pages.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Response, Uri, header};
use bytes::Bytes;

use super::answers::{self, Refusal};
use super::{Ec2, Request, check};
use crate::coverage::{self, Class};
use crate::log;
use crate::model::Ec2Page;
use crate::paging;
use crate::xml::Element;

/// More than any list here; an emulator that answers the same token again and again is not followed for ever.
const MOST_CALLS: usize = 1000;
/// The largest answer that is read.
const LARGEST: usize = 64 << 20;

impl Ec2 {
    /// Answers a request.
    pub async fn serve(self: &Arc<Self>, mut request: Request) -> Response<Body> {
        let (name, operation) = match check::operation(&request.form) {
            Ok((name, operation)) => (name.to_owned(), operation),
            Err(refusal) => return logged("EC2", &refusal, Class::Answered),
        };
        if answers::pretended(&name, &request.form).is_some() {
            return self.handle(request).await;
        }
        if let Err(refusal) = check::fields(operation, &request.form) {
            return logged(&name, &refusal, class_of(&name));
        }
        let Some(page) = operation.page else { return self.handle(request).await };
        let size = match check::page_size(&page, &request.form) {
            Ok(size) => size,
            Err(refusal) => return logged(&name, &refusal, class_of(&name)),
        };
        let list = paging::list_of("ec2", &request.region, &name);
        if let Some(token) = request.form.get("NextToken").filter(|token| !token.is_empty()) {
            return match self.shelf.page(list, token) {
                Some(body) => coverage::mark(xml(body), class_of(&name)),
                None => {
                    let message = "The specified pagination token is not valid or is expired.";
                    let refusal = Refusal::client("InvalidPaginationToken", message);
                    logged(&name, &refusal, class_of(&name))
                }
            };
        }
        if size.is_some() || request.form.get("NextToken").is_some() {
            request.form.remove(|name| name == "MaxResults" || name == "NextToken");
            request.rewrite();
        }
        self.paged(request, page, size, list).await
    }

    async fn paged(
        self: &Arc<Self>,
        request: Request,
        page: Ec2Page,
        size: Option<usize>,
        list: u64,
    ) -> Response<Body> {
        let again = request.copy();
        let (mut parts, body) = self.handle(request).await.into_parts();
        let Ok(body) = to_bytes(Body::new(body), LARGEST).await else {
            return Refusal::server("InternalError", "the answer is too large").response();
        };
        let more = contains(&body, b"<nextToken>");
        if !parts.status.is_success() || (size.is_none() && !more) {
            return Response::from_parts(parts, Body::from(body));
        }
        let Some(mut root) =
            std::str::from_utf8(&body).ok().and_then(|text| Element::parse(text).ok())
        else {
            return Response::from_parts(parts, Body::from(body));
        };
        if let Err(response) = self.collect(&again, &page, &mut root).await {
            return response;
        }
        let items: Vec<Element> =
            root.child(page.list).map_or_else(Vec::new, |list| list.children.clone());
        let lengths = paging::lengths(items.len(), size, usize::MAX);
        let first = self.shelf.cut(list, &lengths, |range, token| {
            let items = items.get(range).unwrap_or_default();
            paging::write_xml(&root, &[page.list], items, ("nextToken", token), None)
        });
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(first))
    }

    /// Takes over the pages that the emulator makes of its own accord.
    async fn collect(
        self: &Arc<Self>,
        request: &Request,
        page: &Ec2Page,
        root: &mut Element,
    ) -> Result<(), Response<Body>> {
        for _ in 0..MOST_CALLS {
            let Some(token) = root.text_at(&["nextToken"]) else { return Ok(()) };
            let mut request = request.copy();
            request.form.push("NextToken", token);
            request.rewrite();
            let (parts, body) = self.handle(request).await.into_parts();
            let body = to_bytes(Body::new(body), LARGEST).await.unwrap_or_default();
            if !parts.status.is_success() {
                return Err(Response::from_parts(parts, Body::from(body)));
            }
            let text = String::from_utf8_lossy(&body);
            let Ok(mut next) = Element::parse(&text) else { return Ok(()) };
            let items = next.child_mut(page.list).map(|list| std::mem::take(&mut list.children));
            if let (Some(list), Some(items)) = (root.child_mut(page.list), items) {
                list.children.extend(items);
            }
            root.children.retain(|child| child.name != "nextToken");
            if let Some(token) = next.text_at(&["nextToken"]) {
                root.children.push(Element::leaf("nextToken", &token));
            }
        }
        Ok(())
    }
}

impl Request {
    /// The same request once more.
    fn copy(&self) -> Self {
        Self {
            region: self.region.clone(),
            form: self.form.clone(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }

    /// Makes its body say what its fields say.
    pub(super) fn rewrite(&mut self) {
        self.method = Method::POST;
        self.uri = Uri::from_static("/");
        self.body = Bytes::from(self.form.encode());
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        self.headers.remove(header::CONTENT_LENGTH);
    }
}

fn xml(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=UTF-8"));
    response
}

fn logged(what: &str, refusal: &Refusal, class: Class) -> Response<Body> {
    log::line(format_args!("{what}: {}: {}", refusal.code, refusal.message));
    coverage::mark(refusal.response(), class)
}

fn class_of(operation: &str) -> Class {
    coverage::services()
        .find(|service| service.name == "ec2")
        .map_or(Class::Answered, |service| service.class(operation))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
