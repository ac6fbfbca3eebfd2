//! The outside: Slack's Web API and incoming webhooks. Knows how Slack says no, and never shows a secret.
//!
//! Sources: <https://docs.slack.dev/reference/methods/chat.postMessage>,
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks> (errors of webhooks).

use crate::Error;
use deploy_cli::Exit;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use url::{Host, Url};

/// Connecting takes no longer; a network that swallows packets is found out early.
const CONNECT: Duration = Duration::from_secs(3);
/// Pause before another attempt where Slack names none.
const PAUSE: Duration = Duration::from_secs(1);
/// An answer is some hundred bytes; more is not Slack.
const ANSWER_BYTES: usize = 256 * 1024;

/// A value that no output shows.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a message goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// `chat.postMessage`, or `chat.update` when `ts` is known.
    Bot {
        /// The bot's token.
        token: Secret,
        /// Base of the Web API.
        api: Url,
        /// Where to post.
        channel: String,
        /// The message to update.
        ts: Option<String>,
    },
    /// An incoming webhook; its URL is the secret.
    Webhook(Secret),
}

/// What Slack said about a message that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Identifies the message within its channel.
    pub ts: Option<String>,
    /// The channel's ID, which `chat.update` wants.
    pub channel_id: Option<String>,
    /// The message to update was gone, so a new one was posted.
    pub replaced: bool,
}

/// Why a message is not known to have arrived.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Slack answered and says no.
    #[error("Slack refused it: `{code}`")]
    Refused {
        /// Slack's word for the reason.
        code: String,
    },
    /// Too many messages; the pause that Slack asks for does not fit into the time.
    #[error("Slack takes no more messages for now (asks to wait {} s)", wait.as_secs())]
    Limited {
        /// What `Retry-After` says.
        wait: Duration,
    },
    /// An HTTP status that Slack's documentation does not give.
    #[error("answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// Slack is not where the message goes: it was answered with a redirect.
    #[error("answered with a redirect (HTTP status {status}), which is not followed")]
    Redirect {
        /// The status.
        status: u16,
    },
    /// The answer is not Slack's.
    #[error("answered with something that is not Slack's answer: `{start}`")]
    NotSlack {
        /// How it starts, made harmless.
        start: String,
    },
    /// Slack took the message but cut it.
    #[error("Slack shortened the message")]
    Truncated,
    /// No connection.
    #[error("cannot connect to `{host}`: {why}")]
    Connect {
        /// The host, not the URL: that may be a secret.
        host: String,
        /// The reasons, without the URL.
        why: String,
    },
    /// The message went out and the answer was lost.
    #[error("no answer from `{host}`: {why}; the message may be there")]
    Lost {
        /// The host.
        host: String,
        /// The reasons, without the URL.
        why: String,
    },
    /// The time was over before an answer came.
    #[error("no answer within {} s; the message may be there", limit.as_secs_f32())]
    Timeout {
        /// The whole time.
        limit: Duration,
    },
}

impl DeliveryError {
    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { code } => kind(code).0,
            Self::Truncated => Exit::Internal,
            Self::Timeout { .. } => Exit::Timeout,
            Self::Redirect { .. } | Self::NotSlack { .. } => Exit::Usage,
            Self::Status { .. }
            | Self::Limited { .. }
            | Self::Connect { .. }
            | Self::Lost { .. } => Exit::Unavailable,
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> Option<String> {
        let text = match self {
            Self::Refused { code } => kind(code).1,
            Self::Limited { .. } => {
                "run the step again later, or send fewer messages to this channel"
            }
            Self::Redirect { .. } | Self::NotSlack { .. } => {
                "check the address: is it Slack's, is there a proxy between?"
            }
            Self::Connect { .. } => {
                "check the network and the proxy variables; https://slack-status.com tells about outages"
            }
            Self::Status { .. } | Self::Lost { .. } | Self::Timeout { .. } => {
                "look into the channel before running the step again; https://slack-status.com tells about outages"
            }
            Self::Truncated => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the message may be in the channel nevertheless.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Timeout { .. } | Self::Truncated | Self::NotSlack { .. } => {
                true
            }
            Self::Status { status } => *status >= 500,
            Self::Refused { code } => matches!(
                code.as_str(),
                "fatal_error" | "internal_error" | "request_timeout" | "rollup_error"
            ),
            Self::Limited { .. } | Self::Redirect { .. } | Self::Connect { .. } => false,
        }
    }
}

/// What an error code of the Web API or a webhook means and what helps.
fn kind(code: &str) -> (Exit, &'static str) {
    match code {
        "channel_not_found" => {
            (Exit::Usage, "give the channel's ID, and invite the bot if the channel is private")
        }
        "not_in_channel" => (
            Exit::Denied,
            "invite the bot: `/invite @bot` in the channel, or add the scope chat:write.public",
        ),
        "is_archived" | "channel_is_archived" => {
            (Exit::Usage, "choose another channel, or unarchive this one")
        }
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
            (Exit::Denied, "put a valid bot token (xoxb-…) into NOTIFY_SLACK_TOKEN")
        }
        "missing_scope" | "not_allowed_token_type" => {
            (Exit::Denied, "add the scope chat:write to the Slack app and install it again")
        }
        "no_service" | "no_active_hooks" | "invalid_token" | "no_team" | "user_not_found" => (
            Exit::Denied,
            "the webhook was removed or its author left: make a new one and put it into NOTIFY_SLACK_WEBHOOK",
        ),
        "message_not_found" | "cant_update_message" | "edit_window_closed" | "is_inactive" => {
            (Exit::Usage, "leave out `--ts` to post a new message")
        }
        "invalid_blocks"
        | "invalid_blocks_format"
        | "invalid_payload"
        | "msg_too_long"
        | "msg_blocks_too_long"
        | "no_text"
        | "block_mismatch" => {
            (Exit::Internal, "run with `--dry-run` and add the payload to the report")
        }
        "ratelimited"
        | "rate_limited"
        | "service_unavailable"
        | "internal_error"
        | "fatal_error"
        | "request_timeout"
        | "rollup_error" => {
            (Exit::Unavailable, "run the step again; https://slack-status.com tells about outages")
        }
        code if code.starts_with("restricted_action") || code == "action_prohibited" => {
            (Exit::Denied, "an administrator of the workspace must allow posting to this channel")
        }
        _ => (
            Exit::Unavailable,
            "Slack's documentation of chat.postMessage lists what this word means",
        ),
    }
}

/// An address that a secret may be sent to.
///
/// # Errors
/// [`Error::Address`] unless it is https on one of Slack's hosts, or loopback (for tests).
pub fn address(what: &'static str, text: &str) -> Result<Url, Error> {
    let refuse = |why| Error::Address { what, why };
    let url = Url::parse(text).map_err(|_| refuse("is not a URL"))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    if loopback {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(refuse("is not an https address"));
    }
    let host = url.host_str().unwrap_or_default();
    let slack = ["slack.com", "slack-gov.com"].iter().any(|domain| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if slack { Ok(url) } else { Err(refuse("does not point to Slack")) }
}

/// Sends `payload` within `limit`, retries included.
///
/// It is sent again only when Slack cannot have taken it: no connection, HTTP 429, `ratelimited`. There is no key that
/// would make a second attempt harmless, and two messages are worse than a warning.
///
/// # Errors
/// [`Error::Delivery`], or [`Error::Address`] for an address that no secret may go to.
pub async fn deliver(
    target: &Target,
    payload: &Value,
    limit: Duration,
) -> Result<Delivered, Error> {
    let deadline = Instant::now() + limit;
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .user_agent(concat!("notify-slack/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| DeliveryError::Connect { host: "slack".into(), why: reasons(error) })?;
    let sender = Sender { client, deadline, limit };
    match target {
        Target::Webhook(url) => {
            let url = address("NOTIFY_SLACK_WEBHOOK", url.reveal())?;
            let answer = sender.send(&url, |request| request.json(payload), webhook_answer).await?;
            Ok(answer)
        }
        Target::Bot { token, api, channel, ts } => {
            let call = async |method: &str, ts: Option<&str>| {
                let url =
                    Url::parse(&format!("{}/{method}", api.as_str().trim_end_matches('/')))
                        .map_err(|_| Error::Address { what: "`--api-url`", why: "is not a URL" })?;
                let body = addressed(payload, channel, ts);
                let request =
                    |request: RequestBuilder| request.bearer_auth(token.reveal()).json(&body);
                Ok::<_, Error>(sender.send(&url, request, api_answer).await?)
            };
            let Some(ts) = ts else { return call("chat.postMessage", None).await };
            match call("chat.update", Some(ts)).await {
                Err(Error::Delivery(DeliveryError::Refused { code }))
                    if code == "message_not_found" =>
                {
                    let delivered = call("chat.postMessage", None).await?;
                    Ok(Delivered { replaced: true, ..delivered })
                }
                other => other,
            }
        }
    }
}

/// The payload as the Web API wants it.
pub fn addressed(payload: &Value, channel: &str, ts: Option<&str>) -> Value {
    let mut body = payload.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("channel".into(), channel.into());
        if let Some(ts) = ts {
            fields.insert("ts".into(), ts.into());
        }
    }
    body
}

struct Sender {
    client: Client,
    deadline: Instant,
    limit: Duration,
}

impl Sender {
    async fn send(
        &self,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
        read: impl Fn(StatusCode, &str) -> Result<Delivered, DeliveryError>,
    ) -> Result<Delivered, DeliveryError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        loop {
            let attempt = self.attempt(dress(self.client.post(url.clone())), &host, &read);
            let error = match tokio::time::timeout_at(self.deadline, attempt).await {
                Ok(Ok(delivered)) => return Ok(delivered),
                Ok(Err(error)) => error,
                Err(_) => return Err(DeliveryError::Timeout { limit: self.limit }),
            };
            let pause = match &error {
                DeliveryError::Limited { wait } => *wait,
                DeliveryError::Connect { .. } => PAUSE,
                _ => return Err(error),
            };
            if Instant::now() + pause >= self.deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        request: RequestBuilder,
        host: &str,
        read: impl Fn(StatusCode, &str) -> Result<Delivered, DeliveryError>,
    ) -> Result<Delivered, DeliveryError> {
        let lost = |error| DeliveryError::Lost { host: host.to_owned(), why: reasons(error) };
        let mut response = request.send().await.map_err(|error| {
            let host = host.to_owned();
            if error.is_connect() || error.is_builder() {
                DeliveryError::Connect { host, why: reasons(error) }
            } else {
                DeliveryError::Lost { host, why: reasons(error) }
            }
        })?;
        let status = response.status();
        if status.is_redirection() {
            return Err(DeliveryError::Redirect { status: status.as_u16() });
        }
        let wait = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs)
            .unwrap_or(PAUSE);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(DeliveryError::Limited { wait });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES {
                return Err(not_slack(&String::from_utf8_lossy(&body)));
            }
        }
        match read(status, &String::from_utf8_lossy(&body)) {
            Err(DeliveryError::Refused { code }) if code == "ratelimited" => {
                Err(DeliveryError::Limited { wait })
            }
            other => other,
        }
    }
}

/// The Web API answers 200 also when it refuses: `ok` decides.
fn api_answer(status: StatusCode, body: &str) -> Result<Delivered, DeliveryError> {
    let answer: Option<Value> = serde_json::from_str(body).ok();
    let Some((answer, ok)) =
        answer.and_then(|answer| answer["ok"].as_bool().map(|ok| (answer, ok)))
    else {
        return Err(if status.is_success() {
            not_slack(body)
        } else {
            DeliveryError::Status { status: status.as_u16() }
        });
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if !ok {
        return Err(DeliveryError::Refused {
            code: word(answer["error"].as_str().unwrap_or("unknown")),
        });
    }
    if !status.is_success() {
        return Err(DeliveryError::Status { status: status.as_u16() });
    }
    if answer["response_metadata"]["warnings"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == "message_truncated"))
    {
        return Err(DeliveryError::Truncated);
    }
    Ok(Delivered { ts: text(&answer["ts"]), channel_id: text(&answer["channel"]), replaced: false })
}

/// A webhook answers `ok`, or one word that says why not.
fn webhook_answer(status: StatusCode, body: &str) -> Result<Delivered, DeliveryError> {
    let body = body.trim();
    match body {
        "ok" if status.is_success() => Ok(Delivered::default()),
        body if !body.is_empty() && body.len() <= 60 && word(body) == body => {
            Err(DeliveryError::Refused { code: body.to_owned() })
        }
        _ if status.is_success() => Err(not_slack(body)),
        _ => Err(DeliveryError::Status { status: status.as_u16() }),
    }
}

fn not_slack(body: &str) -> DeliveryError {
    let start =
        body.chars().take(60).map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    DeliveryError::NotSlack { start }
}

/// An error code as Slack writes them; anything else in it is dropped.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')).take(60).collect()
}

/// The chain of reasons, without the URL: that of a webhook is a secret.
fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_slack_by_https_only() {
        let check = |url: &str, good: bool| assert_eq!(address("it", url).is_ok(), good, "{url}");
        check("https://hooks.slack.com/services/T/B/x", true);
        check("https://slack.com/api", true);
        check("https://hooks.slack-gov.com/services/T/B/x", true);
        check("http://127.0.0.1:8080/", true);
        check("http://hooks.slack.com/services/T/B/x", false);
        check("https://evilslack.com/", false);
        check("https://slack.com.example.org/", false);
        check("https://slack.com@example.org/", false);
        check("http://localhost.example.org/", false);
        check("not a url", false);
    }

    #[test]
    fn a_polite_no_is_a_no() {
        let ok = StatusCode::OK;
        let api = |body: &str| api_answer(ok, body).map_err(|error| error.to_string());
        assert!(api(r#"{"ok":true,"ts":"1.2","channel":"C1"}"#).is_ok());
        assert_eq!(
            api(r#"{"ok":false,"error":"invalid_auth"}"#).unwrap_err(),
            "Slack refused it: `invalid_auth`"
        );
        assert!(api("<html>").is_err() && api("{}").is_err() && api("").is_err());
        assert!(
            api(r#"{"ok":true,"response_metadata":{"warnings":["message_truncated"]}}"#).is_err()
        );
        let hook =
            |status, body: &str| webhook_answer(status, body).map_err(|error| error.to_string());
        assert!(hook(ok, "ok").is_ok());
        assert_eq!(
            hook(StatusCode::NOT_FOUND, "no_service").unwrap_err(),
            "Slack refused it: `no_service`"
        );
        assert!(hook(ok, "fine").is_err() && hook(StatusCode::BAD_GATEWAY, "ok").is_err());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let target = Target::Webhook(Secret::new("https://hooks.slack.com/services/CANARY"));
        assert!(!format!("{target:?}").contains("CANARY"));
    }
}
