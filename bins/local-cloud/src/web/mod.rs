//! The page that shows what runs: one file without anything from elsewhere. It shows nothing by itself; what it shows it
//! asks the control API for, with the token that comes in the address' fragment.

use axum::response::{Html, IntoResponse, Response};

use crate::control::{PREFIX, Token};

const PAGE: &str = include_str!("page.html");

/// The address of the page. A fragment is never sent, so the token stays out of every log.
pub fn address(port: u16, token: &Token) -> String {
    format!("http://127.0.0.1:{port}{PREFIX}/#token={}", token.reveal())
}

/// The page.
pub async fn page() -> Response {
    let nonce = hex::encode(rand::random::<[u8; 16]>());
    // Only this script and this style, only questions to where it comes from, in nobody's frame.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [("content-security-policy", policy), ("x-frame-options", "DENY".to_owned())];
    (headers, Html(PAGE.replace("NONCE", &nonce))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
        let answer = page().await;
        let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next());
        let nonce = nonce.expect("a nonce");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("body");
        let page = String::from_utf8_lossy(&body);
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
        for elsewhere in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "eval("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }
}
