//! The endpoint as the daemon puts it together, with a small server in the emulator's place.

use std::sync::Arc;

use axum::Router;
use local_cloud::autoscaling::AutoScaling;
use local_cloud::control::{self, Control, Token};
use local_cloud::ec2::{Ec2, Settings};
use local_cloud::engine::Engine;
use local_cloud::faults::Faults;
use local_cloud::hosts::Hosts;
use local_cloud::image::Store;
use local_cloud::place::Place;
use local_cloud::proxy::{self, Proxy};
use local_cloud::ssm::Ssm;
use local_cloud::timing::Timing;
use local_cloud::upstream::Upstream;
use local_cloud::vitals::Vitals;
use tokio::net::TcpListener;

/// A running endpoint.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) token: Token,
    pub(crate) faults: Faults,
    pub(crate) proxy: Proxy,
}

/// Serves on a free port and gives the address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn nowhere() -> Place {
    Place { state: "/nowhere".into(), cache: "/nowhere".into() }
}

/// The endpoint before `upstream`.
pub(crate) async fn endpoint(upstream: &str) -> Endpoint {
    let upstream = Upstream::new(upstream).expect("client");
    let settings = Settings {
        project: "test".into(),
        region: "us-east-1".into(),
        images: Store::new(&nowhere(), String::new()),
        unified_cgroup: false,
        timing: Timing::short(),
        engine: Engine::new(Some("unix:///nowhere/docker.sock")).expect("client"),
        max_vcpus: 16,
    };
    let (hosts, faults, token) = (Hosts::default(), Faults::default(), Token::random());
    let ec2 = Arc::new(Ec2::new(settings, upstream.clone(), hosts.clone(), faults.clone()));
    let ssm = Ssm::new(&ec2);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("address");
    let control = Control {
        port: address.port(),
        token: token.clone(),
        ec2: Arc::clone(&ec2),
        ssm: ssm.clone(),
        faults: faults.clone(),
        vitals: Vitals::default(),
    };
    let proxy = Proxy {
        upstream,
        autoscaling: Arc::new(AutoScaling::new(Arc::clone(&ec2))),
        ec2,
        ssm,
        shelf: Arc::default(),
        faults: faults.clone(),
        past: Arc::default(),
    };
    let api = proxy::router(proxy.clone());
    let router = control::router(control).merge(api);
    tokio::spawn(local_cloud::listener::serve(listener, router));
    Endpoint { url: format!("http://{address}"), token, faults, proxy }
}
