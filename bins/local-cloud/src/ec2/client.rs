//! Calls from inside: Auto Scaling uses EC2 as its clients do, with the same checks and hosts. Of request faults those
//! strike that would reach it on AWS.

use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::answers::Refusal;
use super::{Ec2, Request};
use crate::operation::Form;
use crate::requests::launches;
use crate::xml::Element;

/// The largest answer that is read: far above that of one call for one instance.
const LARGEST: usize = 4 * 1024 * 1024;

/// An error that EC2 answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct CallError {
    /// EC2's code.
    pub(crate) code: String,
    /// Its message.
    pub(crate) message: String,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.to_owned(), message: refusal.message }
    }
}

impl Ec2 {
    /// Sets or removes tags that only AWS itself may (`aws:…`), so past the checks that callers meet.
    pub(crate) async fn tag_itself(&self, operation: &str, mut form: Form) -> Result<(), Refusal> {
        form.push("Action", operation);
        form.push("Version", "2016-11-15");
        self.upstream.ask("ec2", &self.settings.region, &form).await?;
        self.refresh().await
    }

    /// [`Self::call`] for a launch or an end, which request faults may strike.
    pub(crate) async fn call_for_scaling(
        self: &Arc<Self>,
        operation: &str,
        form: Form,
    ) -> Result<Element, CallError> {
        let strike = launches::strike_scaling(&self.faults, &self.hosts, operation, &form).await;
        match strike {
            Some(error) => Err(CallError { code: error.code, message: error.message }),
            None => self.call(operation, form).await,
        }
    }

    /// Calls an operation in the region of this cloud, where no fault strikes: what Auto Scaling asks only to know is no
    /// call of its own on AWS.
    pub(crate) async fn call(
        self: &Arc<Self>,
        operation: &str,
        mut form: Form,
    ) -> Result<Element, CallError> {
        form.remove(|name| matches!(name, "Action" | "Version"));
        form.push("Action", operation);
        form.push("Version", "2016-11-15");
        let region = self.settings.region.clone();
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=local-cloud/20260101/{region}/ec2/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        let mut request = Request {
            region,
            form: Form::default(),
            method: Method::POST,
            uri: Uri::from_static("/"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        if let Ok(scope) = HeaderValue::from_str(&scope) {
            request.headers.insert(header::AUTHORIZATION, scope);
        }
        request.replace(form);
        let response = self.handle(request).await;
        let status = response.status();
        let internal = |why: String| CallError { code: "InternalError".into(), message: why };
        let body = to_bytes(response.into_body(), LARGEST)
            .await
            .map_err(|error| internal(format!("{operation}: {error}")))?;
        let root = Element::parse(&String::from_utf8_lossy(&body))
            .map_err(|error| internal(format!("{operation}: {status}: {error}")))?;
        if status.is_success() {
            return Ok(root);
        }
        let error = root.at(&["Errors", "Error"]);
        let read =
            |name| error.and_then(|e| e.text_at(&[name])).unwrap_or_else(|| status.to_string());
        Err(CallError { code: read("Code"), message: read("Message") })
    }
}
