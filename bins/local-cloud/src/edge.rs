//! What hosts reach at the edge of their VPC: instance metadata, and the AWS APIs with TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::serve::ListenerExt as _;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::{listener, log};

/// The services at the edge; one set for all VPCs, since the caller's address says which host asks.
#[derive(Clone)]
pub struct Edge {
    /// Instance metadata.
    pub metadata: Router,
    /// The AWS APIs, and the agent's own paths.
    pub api: Router,
    /// TLS in front of them.
    pub tls: TlsAcceptor,
    /// How many hops instance metadata may go to a caller; `None` is as many as it takes.
    pub hops: Arc<dyn Fn(IpAddr) -> Option<u32> + Send + Sync>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edge")
    }
}

impl Edge {
    /// Serves instance metadata until it is aborted. What it sends goes as many hops as the asking instance allows
    /// (`HttpPutResponseHopLimit`): with one, a container on the host gets no answer, as on AWS.
    pub fn serve_metadata(&self, listener: TcpListener) -> AbortHandle {
        let hops = Arc::clone(&self.hops);
        let listener = listener.tap_io(move |stream| {
            let limit = stream.peer_addr().ok().and_then(|caller| (*hops)(caller.ip()));
            // A connection that has just ended takes no option, and needs none.
            if let Some(limit) = limit {
                let _ = stream.set_ttl(limit);
            }
        });
        let service = self.metadata.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                log::line(format_args!("instance metadata ended: {error}"));
            }
        })
        .abort_handle()
    }

    /// Serves the AWS APIs with TLS until it is aborted.
    pub fn serve_tls(&self, listener: TcpListener) -> AbortHandle {
        let edge = self.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, host)) => {
                        tokio::spawn(edge.clone().connection(stream, host));
                    }
                    Err(error) => {
                        // Out of descriptors: the ones in use have to end first.
                        log::line(format_args!("cannot accept a host's connection: {error}"));
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                }
            }
        })
        .abort_handle()
    }

    async fn connection(self, stream: tokio::net::TcpStream, host: SocketAddr) {
        let stream = match self.tls.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => return log::line(format_args!("a host's TLS handshake failed: {error}")),
        };
        // Who calls is known by its address, as at instance metadata.
        let api = self.api.layer(Extension(ConnectInfo(host)));
        if let Err(error) = listener::connection(stream, api, host.ip()).await {
            log::line(format_args!("a host's connection ended: {error}"));
        }
    }
}
