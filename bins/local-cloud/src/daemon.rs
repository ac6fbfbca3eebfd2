//! The daemon: the endpoint on loopback, the emulator behind it, and everything that makes its answers true.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use deploy_cli::{Context, Exit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::args::ServeArgs;
use crate::authentication::signed_only;
use crate::autoscaling::AutoScaling;
use crate::control::{self, Control, Token};
use crate::credentials::{AccessKey, Credentials};
use crate::ec2::catalogue::{Lifeline, write_for_moto};
use crate::ec2::{Ec2, Settings};
use crate::edge::Edge;
use crate::engine::Engine;
use crate::error::Error;
use crate::faults::Faults;
use crate::hosts::Hosts;
use crate::image::Store;
use crate::place::{Place, State, Terms};
use crate::process::{self, Identity};
use crate::proxy::{self, Proxy};
use crate::ssm::Ssm;
use crate::tls::Authority;
use crate::upstream::Upstream;
use crate::vitals::Vitals;
use crate::{imds, listener, log};

const MOTO_START: &str = include_str!("../upstream/serve.py");
/// Beside it, so that Python finds it.
const MOTO_CORRECTIONS: &str = include_str!("../upstream/moto_corrections.py");
/// How long the daemon waits at its end for hosts that are being made; less than `down` waits for the daemon.
const LAST_HOSTS: Duration = Duration::from_millis(1500);
/// How long the emulator may take until it answers.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(60);

/// Serves until a signal comes or something that it cannot do without ends.
pub async fn serve(
    args: &ServeArgs,
    project: &str,
    place: &Place,
    ctx: &Context,
) -> Result<Exit, Error> {
    // A session of its own: no terminal and no job control reaches it. It fails only for a leader, which has one.
    let _ = rustix::process::setsid();
    let region = ctx.region().unwrap_or(crate::DEFAULT_REGION);
    let listener = TcpListener::bind(("127.0.0.1", args.port))
        .await
        .map_err(|error| Error::setup("cannot listen", format!("port {}: {error}", args.port)))?;
    let images = Store::open(place)?;
    // Of no use for an emulator that somebody else started.
    let secret = Token::random();
    let (mut child, base) = match (&args.upstream, &args.python) {
        (Some(url), _) => (None, url.clone()),
        (None, Some(python)) => {
            let (mut child, base) = start_moto(python, place, &images)?;
            tell_secret(&mut child, &secret).await?;
            (Some(child), base)
        }
        (None, None) => return Err(Error::BadInput("`--python` or `--upstream` is needed".into())),
    };
    let me = Identity::of(std::process::id())
        .ok_or_else(|| Error::setup("cannot read /proc", "no entry of this process"))?;
    let (token, access_key) = (Token::random(), AccessKey::random());
    let credentials = Credentials::of_owner(&access_key);
    place.write_state(&State {
        token: token.clone(),
        access_key,
        project: project.to_owned(),
        region: region.to_owned(),
        port: args.port,
        daemon: me,
        upstream: child.as_ref().and_then(Child::id).and_then(Identity::of),
        terms: Terms {
            seed: args.seed,
            timing: args.timing.text().to_owned(),
            upstream: args.upstream.clone(),
            max_vcpus: args.max_vcpus,
        },
    })?;
    let secret = child.as_ref().map(|_| &secret);
    let upstream = Upstream::with_secret(&base, secret)?.with_log(place.upstream_log());
    wait_for(&upstream, child.as_mut(), place).await?;

    let hosts = Hosts::default();
    let faults = Faults::seeded(args.seed);
    let settings = Settings {
        project: project.to_owned(),
        region: region.to_owned(),
        images: images.clone(),
        unified_cgroup: args.unified_cgroup,
        timing: args.timing.clone(),
        engine: Engine::new(args.docker_host.as_deref())?,
        max_vcpus: args.max_vcpus,
    };
    let ec2 = Arc::new(Ec2::new(settings, upstream.clone(), hosts.clone(), faults.clone()));
    tokio::spawn(Arc::clone(&ec2).follow_network_faults());
    let keeper = Arc::clone(&ec2);
    tokio::spawn(async move { keeper.networks.keep().await });
    if let Err(refusal) = ec2.complete_defaults().await {
        // Another emulator may not know these calls; then its default VPC stays as it is.
        log::line(format_args!("the default VPC stays as it is: {}", refusal.message));
    }
    let ssm = Ssm::new(&ec2);
    let autoscaling = Arc::new(AutoScaling::new(Arc::clone(&ec2)));
    ec2.roles.tell(credentials.clone());
    let api = proxy::router(Proxy {
        shelf: Arc::default(),
        upstream,
        ec2: Arc::clone(&ec2),
        autoscaling: Arc::clone(&autoscaling),
        ssm: ssm.clone(),
        faults: faults.clone(),
        past: Arc::default(),
    });
    let api = signed_only(api, credentials);
    ec2.set_edge(Edge {
        metadata: control::only_as_metadata(imds::router(Arc::clone(&ec2))),
        api: control::only_as_aws(api.clone().merge(ssm.agent_router())),
        tls: Authority::open(&place.authority())?.acceptor(region)?,
        hops: {
            let ec2 = Arc::clone(&ec2);
            Arc::new(move |caller| ec2.metadata_hops(caller))
        },
        guest: {
            let ec2 = Arc::clone(&ec2);
            Arc::new(move |caller, vpc| ec2.is_guest(caller, vpc))
        },
    });
    let control = Control {
        port: args.port,
        token,
        ec2: Arc::clone(&ec2),
        ssm,
        faults: faults.clone(),
        vitals: Vitals::default(),
    };
    let own = control::router(control.clone());
    tokio::spawn(autoscaling.run());
    log::line(format_args!("{project} serves {region} on 127.0.0.1:{} before {base}", args.port));
    // Waiting for a child closes its stdin, which tells moto to end; so it is held elsewhere.
    if let Some(stdin) = child.as_mut().and_then(|child| child.stdin.take()) {
        ec2.set_lifeline(Lifeline { stdin, amis: place.amis() }).await;
    }
    let ended = async {
        match child.as_mut() {
            Some(child) => child.wait().await.map(|status| status.to_string()),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = listener::serve(listener, own.merge(control::only_from_here(api, args.port))) => {
            Ok(Exit::Success)
        }
        () = control.watch() => Ok(Exit::Success),
        watched = Arc::clone(&ec2).watch_hosts() => watched.map(|()| Exit::Success),
        status = ended => Err(Error::setup(
            "the emulator ended",
            format!(
                "{}; its log: {}",
                status.unwrap_or_else(|error| error.to_string()),
                place.upstream_log().display()
            ),
        )),
        exit = ctx.stopped() => {
            // What the engine was asked for it makes, whether or not anybody waits for it; so `down` would miss it.
            if tokio::time::timeout(LAST_HOSTS, ec2.rest()).await.is_err() {
                log::line("hosts are still being made");
            }
            Ok(exit)
        }
    }
}

fn start_moto(python: &Path, place: &Place, images: &Store) -> Result<(Child, String), Error> {
    let write = |name: &str, text: &str| {
        let path = place.state.join(name);
        std::fs::write(&path, text).map(|()| path.clone()).map_err(|source| Error::File {
            doing: "write",
            path,
            source,
        })
    };
    let script = write("moto-serve.py", MOTO_START)?;
    write("moto_corrections.py", MOTO_CORRECTIONS)?;
    let amis = place.amis();
    write_for_moto(images, &amis)?;
    let log_path = place.upstream_log();
    let log = std::fs::File::create(&log_path).map_err(|source| Error::File {
        doing: "write",
        path: log_path,
        source,
    })?;
    let second = log.try_clone().map_err(|error| Error::setup("cannot log", error))?;
    let port = free_port()?;
    let child = process::command(python)
        .arg(&script)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .env("MOTO_AMIS_PATH", &amis)
        .env("MOTO_ENABLE_AMI_VALIDATION", "true")
        .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
        .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        .current_dir(&place.state)
        // Moto ends when it closes: with this process, however that ends.
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(second)
        .spawn()
        .map_err(|error| Error::setup("cannot start moto", error))?;
    Ok((child, format!("http://127.0.0.1:{port}")))
}

/// The first line on moto's stdin. Neither its arguments nor its environment have it.
async fn tell_secret(child: &mut Child, secret: &Token) -> Result<(), Error> {
    let line = format!("{}\n", secret.reveal());
    match child.stdin.as_mut() {
        Some(stdin) => stdin.write_all(line.as_bytes()).await,
        None => Err(std::io::Error::other("it has no stdin")),
    }
    .map_err(|error| Error::setup("cannot speak to moto", error))
}

/// A loopback port that nobody uses now.
fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::setup("cannot find a free port", error))
}

async fn wait_for(
    upstream: &Upstream,
    mut child: Option<&mut Child>,
    place: &Place,
) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + UPSTREAM_PATIENCE;
    while !upstream.answers().await {
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            let text = std::fs::read_to_string(place.upstream_log()).unwrap_or_default();
            let why = format!("{status}: {}", process::last_lines(&text, 3));
            return Err(Error::setup("moto ended while it started", why));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::setup("the emulator does not answer", "within a minute"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
