//! Connections to the endpoint. Written out, since a fault may end one without an answer, which no handler can.

use std::net::IpAddr;

use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::log;

/// Where a request comes from; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub IpAddr);

/// The connection ends here, without an answer; an extension of a response.
#[derive(Debug, Clone, Copy)]
pub struct HangUp;

/// Serves until it is aborted.
pub async fn serve(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small; without it they would wait for each other.
                let _ = stream.set_nodelay(true);
                let router = router.clone();
                tokio::spawn(async move {
                    // A client that goes away in the middle is its own affair.
                    let _ = connection(stream, router, peer.ip()).await;
                });
            }
            Err(error) => {
                // Out of descriptors: the ones in use have to end first.
                log::line(format_args!("cannot accept a connection: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

/// Serves one connection to its end.
///
/// # Errors
/// When the connection broke, or a fault ended it.
pub async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    peer: IpAddr,
) -> Result<(), hyper::Error> {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Caller(peer));
        let answer = inner.call(request);
        async move {
            let response: Response<axum::body::Body> = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<HangUp>().is_some() {
                // For hyper an error of the service, whereupon it closes the connection.
                return Err("a fault closes the connection");
            }
            Ok(response)
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}
