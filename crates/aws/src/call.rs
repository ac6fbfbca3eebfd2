//! Single calls to AWS, signed and sent without a generated client: a client for every service would make a program ten
//! times as large, and its start slower. Region, retries, timeouts and credentials are those of [`crate::load`].

use crate::s3::S3;
use crate::{Error, SdkConfig, chain};
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{
    HttpStatusCodeClassifier, TransientErrorClassifier,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_types::service_config::ServiceConfigKey;
use std::fmt;
use std::time::{Duration, SystemTime};

/// A service as its endpoint, its signature and the user's settings call it.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The name in endpoints and signatures, e.g. `ec2`.
    pub name: &'static str,
    /// The name in the user's settings (`AWS_ENDPOINT_URL_<ID>`), e.g. `Auto Scaling`.
    pub id: &'static str,
    /// The version of the query API.
    pub version: &'static str,
}

/// Signs and sends.
#[derive(Debug, Clone)]
pub struct Client(SdkConfig);

impl Client {
    /// A client with these settings. Nothing is asked yet.
    pub fn new(config: SdkConfig) -> Self {
        Self(config)
    }

    /// Makes a call of a query API (`operation` is named like an IAM action) and returns its answer, which is XML.
    ///
    /// # Errors
    /// [`Error`], sorted by what a person can do about it.
    pub async fn query(
        &self,
        service: Service,
        operation: &'static str,
        action: &str,
        parameters: Vec<(String, String)>,
    ) -> Result<String, Error> {
        let fixed = [("Action", action), ("Version", service.version)];
        let fixed = fixed.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let body: Vec<String> = fixed
            .chain(parameters)
            .map(|(key, value)| format!("{}={}", encoded(&key, false), encoded(&value, false)))
            .collect();
        let request = Request {
            method: "POST",
            path: "/".to_owned(),
            headers: vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
            body: body.join("&").into_bytes(),
            attempt_timeout: None,
        };
        let answer = self.send(service, operation, self.region(), request).await;
        let bytes = answer.map_err(|error| error.sorted(operation))?;
        String::from_utf8(bytes).map_err(|_| Error::Unavailable {
            operation,
            code: None,
            message: "the answer is not UTF-8".into(),
        })
    }

    /// Makes a call of a JSON 1.1 API and returns its answer. `target` is what the service takes in `X-Amz-Target`.
    ///
    /// # Errors
    /// [`Error`], sorted by what a person can do about it.
    pub async fn json(
        &self,
        service: Service,
        operation: &'static str,
        target: &'static str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, Error> {
        let request = Request {
            method: "POST",
            path: "/".to_owned(),
            headers: vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)],
            body: body.to_string().into_bytes(),
            attempt_timeout: None,
        };
        let answer = self.send(service, operation, self.region(), request).await;
        let bytes = answer.map_err(|error| error.sorted(operation))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Unavailable {
            operation,
            code: None,
            message: format!("the answer is not JSON: {error}"),
        })
    }

    pub(crate) fn region(&self) -> String {
        self.0.region().map(ToString::to_string).unwrap_or_default()
    }

    /// What the user set for the service or for all, else AWS's own.
    fn endpoint(&self, service: Service, region: &str) -> String {
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let own = key.ok().and_then(|key| self.0.service_config()?.load_config(key));
        own.or_else(|| self.0.endpoint_url().map(str::to_owned))
            .unwrap_or_else(|| self.public_endpoint(service, region))
    }

    /// Where another machine finds the service: what the user set for it alone, else AWS's own name. What is set for all
    /// services says where this machine finds AWS, often an address on loopback.
    pub(crate) fn endpoint_for_others(&self, service: Service, region: &str) -> String {
        let here = self.endpoint(service, region);
        if self.0.endpoint_url() == Some(here.as_str()) {
            self.public_endpoint(service, region)
        } else {
            here
        }
    }

    /// AWS's own name of the service.
    fn public_endpoint(&self, service: Service, region: &str) -> String {
        let fips = if self.0.use_fips() == Some(true) { "-fips" } else { "" };
        let end = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://{}{fips}.{region}.amazonaws.com{end}", service.name)
    }

    pub(crate) async fn send(
        &self,
        service: Service,
        operation: &'static str,
        region: String,
        request: Request,
    ) -> Result<Vec<u8>, Failed> {
        let identity = self.identity(operation).await?;
        let mut builder = Operation::builder()
            .service_name(service.name)
            .operation_name(operation)
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint(service, &region))
            .no_auth()
            .interceptor(Signature { service, region, identity, body: request.body.clone() });
        if let Some(client) = self.0.http_client() {
            builder = builder.http_client(client);
        }
        if let Some(retries) = self.0.retry_config() {
            builder = builder.standard_retry(retries);
        }
        if let Some(timeouts) = self.0.timeout_config() {
            let mut timeouts = timeouts.to_builder();
            if let Some(time) = request.attempt_timeout {
                timeouts.set_operation_attempt_timeout(Some(time));
            }
            builder = builder.timeout_config(timeouts.build());
        }
        if let Some(sleep) = self.0.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        builder
            .retry_classifier(TransientErrorClassifier::<Refusal>::new())
            .retry_classifier(AwsErrorCodeClassifier::<Refusal>::default())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .serializer(|request: Request| request.http())
            .deserializer(answer)
            .build()
            .invoke(request)
            .await
            .map_err(|error| Failed::Call(Box::new(error)))
    }

    pub(crate) async fn identity(&self, operation: &'static str) -> Result<Identity, Failed> {
        use aws_credential_types::provider::ProvideCredentials as _;
        use aws_credential_types::provider::error::CredentialsError;
        let denied =
            |message: String| Failed::Credentials(Error::Denied { operation, code: None, message });
        let none = || denied("no AWS credentials were found".into());
        let provider = self.0.credentials_provider().ok_or_else(none)?;
        match provider.provide_credentials().await {
            Ok(credentials) => Ok(credentials.into()),
            Err(CredentialsError::CredentialsNotLoaded(_)) => Err(none()),
            Err(error) => Err(denied(chain(&error))),
        }
    }
}

/// Why a call gave nothing.
pub(crate) enum Failed {
    Credentials(Error),
    Call(Box<SdkError<Refusal, HttpResponse>>),
}

impl Failed {
    pub(crate) fn sorted(self, operation: &'static str) -> Error {
        match self {
            Self::Credentials(error) => error,
            Self::Call(error) => Error::from_sdk(operation, *error),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Encoded.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
    /// For a body that takes longer than a question.
    pub(crate) attempt_timeout: Option<Duration>,
}

impl Request {
    fn http(self) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(SdkBody::from(self.body));
        request.set_method(self.method)?;
        request.set_uri(self.path)?;
        for (name, value) in self.headers {
            request.headers_mut().insert(name, value);
        }
        let agent = concat!("calldata-foundation/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert("user-agent", agent);
        Ok(request)
    }
}

fn answer(response: &HttpResponse) -> Result<Vec<u8>, OrchestratorError<Refusal>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        return Ok(body.to_vec());
    }
    let text = String::from_utf8_lossy(body);
    let header = |name| response.headers().get(name).map(str::to_owned);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| json.get(name)?.as_str().map(str::to_owned);
    let mut meta = ErrorMetadata::builder();
    // `__type` may be `namespace#Code`.
    let typed = field("__type").and_then(|kind| kind.rsplit('#').next().map(str::to_owned));
    if let Some(code) = between(&text, "Code").or(typed) {
        meta = meta.code(code);
    }
    let status = response.status().as_u16();
    let message = between(&text, "Message").or_else(|| field("message"));
    let message =
        message.or_else(|| field("Message")).unwrap_or_else(|| format!("status {status}"));
    Err(OrchestratorError::operation(Refusal {
        meta: meta.message(message).build(),
        region: header("x-amz-bucket-region").or_else(|| between(&text, "Region")),
    }))
}

/// What stands in the first element of this name. Errors of all three services are flat XML.
fn between(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = quick_xml::escape::unescape(inner).ok()?;
    (!plain.is_empty()).then(|| plain.into_owned())
}

/// AWS's refusal of a call.
#[derive(Debug)]
pub(crate) struct Refusal {
    meta: ErrorMetadata,
    /// Where the bucket is.
    pub(crate) region: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meta.fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl ProvideErrorMetadata for Refusal {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

/// Signs each attempt anew, since the signature holds the time.
#[derive(Debug)]
struct Signature {
    service: Service,
    region: String,
    identity: Identity,
    body: Vec<u8>,
}

impl Intercept for Signature {
    fn name(&self) -> &'static str {
        "Signature"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let settings = signing(self.service);
        let parameters = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(self.service.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let request = context.request_mut();
        let body = SignableBody::Bytes(&self.body);
        let signable =
            SignableRequest::new(request.method(), request.uri(), request.headers().iter(), body)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }
}

/// How a service wants its signature.
pub(crate) fn signing(service: Service) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if service.name == S3.name {
        // <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings
}

/// Percent-encoding as signatures want it: everything but unreserved characters, and `/` in paths.
pub(crate) fn encoded(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into())
            }
            b'/' if path => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_signatures_want_them() {
        assert_eq!(encoded("env:/dev/a b+é.tfstate", true), "env%3A/dev/a%20b%2B%C3%A9.tfstate");
        assert_eq!(encoded("a/b=c&d", false), "a%2Fb%3Dc%26d");
    }

    #[test]
    fn errors_of_all_services_are_read() {
        let ec2 = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>a &lt;b&gt;</Message></Error></Errors></Response>";
        assert_eq!(between(ec2, "Code").as_deref(), Some("UnauthorizedOperation"));
        assert_eq!(between(ec2, "Message").as_deref(), Some("a <b>"));
        assert_eq!(between(ec2, "Region"), None);
        assert_eq!(between("<Code>", "Code"), None);
    }
}
