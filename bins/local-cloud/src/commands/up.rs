//! `local-cloud up`: looks at the machine, makes what is missing, starts the daemon, waits until it answers.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use deploy_cli::report::Report;
use deploy_cli::{Context, Done, Exit};
use tokio::process::Child;

use super::{ask, down, image, room, running};
use crate::args::{Proxies, UpArgs};
use crate::docker::{Docker, Engine};
use crate::ec2::quota;
use crate::error::Error;
use crate::image::suites::{Suite, USUAL};
use crate::image::{Bootable, Store};
use crate::place::{Place, State, Terms, make_folder, make_private_folder};
use crate::process::{self, Identity, capture, last_lines, within};
use crate::tls::Authority;
use crate::{DEFAULT_REGION, venv};

/// A host with everything installed takes about 2 GiB on disk; images and a little room come on top.
const FREE_BYTES: u64 = 5 << 30;
/// Ports of endpoints that were not asked for by number: several projects get one each.
const PORTS: std::ops::RangeInclusive<u16> = 4570..=4599;

/// Starts the rehearsal cloud unless it runs, and prints the environment to reach it.
pub async fn up(args: &UpArgs, project: &str, place: &Place, ctx: &Context) -> Result<Done, Error> {
    if let Some(state) = running(place) {
        ctx.progress().note(&format!("already runs, process {}", state.daemon.pid));
        return found(&state, args, place, ctx).await;
    }
    let engine = unless_stopped(ctx, within(args.timeout, check_machine(args))).await?;
    make_folder(&place.cache)?;
    // Two people at once: the second waits and finds what the first one made.
    let lock = lock(&place.cache.join("local-cloud.lock"), ctx).await?;
    if let Some(state) = running(place) {
        return found(&state, args, place, ctx).await;
    }
    let serve = unless_stopped(ctx, prepare(args, project, place, &engine, ctx)).await?;
    let started = start(&serve, args, place, ctx).await;
    drop(lock);
    match started {
        Ok(state) => Ok(finished(&state, args, ctx, "started")),
        Err(error) => {
            if let Ok(log) = std::fs::read_to_string(place.daemon_log())
                && !matches!(error, Error::Stopped(_))
                && !log.is_empty()
            {
                ctx.untrusted("end of the daemon's log", &last_lines(&log, 10));
            }
            within(args.timeout, down::remove(project, place)).await?;
            Err(error)
        }
    }
}

/// Work that ends at once when a signal comes; the programs that it had started end with it.
async fn unless_stopped<T>(
    ctx: &Context,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        exit = ctx.stopped() => Err(Error::Stopped(exit)),
        done = work => done,
    }
}

/// The end of `up` where it runs already. Images can still be built; what else was asked for and is not so is said.
async fn found(state: &State, args: &UpArgs, place: &Place, ctx: &Context) -> Result<Done, Error> {
    ask(state).await?;
    let ignored = ignored(args, ctx.region(), state);
    if !ignored.is_empty() {
        ctx.progress().warn(&format!(
            "it runs with other settings, which stay: {}; to change them, `local-cloud down` (its hosts go) and then `up`",
            ignored.join(", ")
        ));
    }
    if !args.suites.is_empty() {
        let store = Store::open(place)?;
        build(&store, &args.suites, ctx).await?;
    }
    Ok(finished(state, args, ctx, "already runs"))
}

/// What is asked for in so many words and is not so in the cloud that runs.
fn ignored(args: &UpArgs, region: Option<&str>, state: &State) -> Vec<String> {
    let Terms { seed, timing, upstream, max_vcpus } = &state.terms;
    let upstream = upstream.as_deref().unwrap_or("a moto of its own");
    let settings = [
        ("--port", args.port.map(|port| port.to_string()), state.port.to_string()),
        ("--region", region.map(str::to_owned), state.region.clone()),
        ("--upstream", args.upstream.clone(), upstream.to_owned()),
        ("--seed", args.seed.map(|seed| seed.to_string()), seed.to_string()),
        ("--max-vcpus", args.max_vcpus.map(|number| number.to_string()), max_vcpus.to_string()),
        ("--timing", args.timing.as_ref().map(|timing| timing.text().to_owned()), timing.clone()),
    ];
    let other = settings.into_iter().filter_map(|(flag, asked, is)| Some((flag, asked?, is)));
    other
        .filter(|(_, asked, is)| asked != is)
        .map(|(flag, asked, is)| format!("{flag} is {is}, not {asked}"))
        .collect()
}

/// Builds the images that are to be there from the start.
async fn build(store: &Store, suites: &[&'static Suite], ctx: &Context) -> Result<(), Error> {
    for suite in suites {
        image::ensure(store, &Bootable::Suite(suite), ctx).await?;
    }
    Ok(())
}

async fn lock(path: &Path, ctx: &Context) -> Result<File, Error> {
    let failed = |source| Error::File { doing: "lock", path: path.to_owned(), source };
    let file = File::create(path).map_err(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if !told => {
                ctx.progress().step("waiting for another `local-cloud up`");
                told = true;
            }
            Err(TryLockError::WouldBlock) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            exit = ctx.stopped() => return Err(Error::Stopped(exit)),
        }
    }
}

/// Makes what is missing and gives the daemon's command line.
async fn prepare(
    args: &UpArgs,
    project: &str,
    place: &Place,
    engine: &Engine,
    ctx: &Context,
) -> Result<Vec<String>, Error> {
    if place.state.exists() {
        ctx.progress().step("removing what an earlier one left behind");
    }
    within(args.timeout, down::remove(project, place)).await?;
    make_private_folder(&place.state)?;
    find_room(&place.state)?;
    let authority = Authority::open(&place.authority())?;
    let mut serve = vec![
        "serve".to_owned(),
        format!("--port={}", choose_port(args)?),
        format!("--project={project}"),
        format!("--region={}", ctx.region().unwrap_or(DEFAULT_REGION)),
        format!("--seed={}", args.seed.unwrap_or_default()),
        format!("--max-vcpus={}", args.max_vcpus.unwrap_or_else(usual_quota)),
        format!("--timing={}", args.timing.clone().unwrap_or_default().text()),
    ];
    match &args.upstream {
        Some(url) => serve.push(format!("--upstream={url}")),
        None => {
            let folder = place.venv();
            let python = venv::ensure(&folder, ctx.progress()).await?;
            serve.push(format!("--python={}", python.display()));
        }
    }
    let store = Store::new(place, authority.certificate);
    let suites = if args.suites.is_empty() { &[&USUAL][..] } else { &args.suites };
    build(&store, suites, ctx).await?;
    room::make(ctx);
    if engine.unified_cgroup {
        ctx.progress().note(
            "this engine uses cgroup v2: hosts are booted the usual way for it, untested so far",
        );
        serve.push("--unified-cgroup".into());
    }
    Ok(serve)
}

/// The quota of vCPUs that suits this machine.
fn usual_quota() -> u32 {
    quota::fitting(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// Writes as much as a daemon does in its first hour: one that starts on a full disk could not even log why it ends.
fn find_room(state: &Path) -> Result<(), Error> {
    let path = state.join("room");
    let failed = |source| Error::File { doing: "write", path: path.clone(), source };
    std::fs::write(&path, [0; 256 << 10]).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)
}

async fn start(
    serve: &[String],
    args: &UpArgs,
    place: &Place,
    ctx: &Context,
) -> Result<State, Error> {
    ctx.progress().step("starting the endpoint");
    let begun = Instant::now();
    let mut child = spawn(serve, args, place)?;
    let outcome = wait_for(&mut child, begun, args, place, ctx).await;
    if outcome.is_err()
        && let Some(daemon) = child.id().and_then(Identity::of)
    {
        daemon.end(Duration::from_secs(2)).await;
    }
    outcome
}

async fn wait_for(
    child: &mut Child,
    begun: Instant,
    args: &UpArgs,
    place: &Place,
    ctx: &Context,
) -> Result<State, Error> {
    let answers = async {
        loop {
            if let Some(state) = running(place)
                && ask(&state).await.is_ok()
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        state = answers => {
            let took = deploy_cli::human(begun.elapsed());
            ctx.progress().note(&format!("answers on http://127.0.0.1:{} after {took}", state.port));
            Ok(state)
        }
        ended = child.wait() => {
            let log = std::fs::read_to_string(place.daemon_log()).unwrap_or_default();
            let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let why = format!("{status}: {}", last_lines(&log, 2));
            Err(Error::setup("the daemon ended while it started", why))
        }
        () = tokio::time::sleep(args.timeout) => {
            Err(Error::TooLate { program: "local-cloud serve".into(), after: args.timeout })
        }
        exit = ctx.stopped() => Err(Error::Stopped(exit)),
    }
}

fn spawn(serve: &[String], args: &UpArgs, place: &Place) -> Result<Child, Error> {
    let log_path = place.daemon_log();
    let log = File::create(&log_path).map_err(|source| Error::File {
        doing: "write",
        path: log_path,
        source,
    })?;
    let second = log.try_clone().map_err(|error| Error::setup("cannot log", error))?;
    let mut command = process::daemon();
    command.args(serve).stdout(log).stderr(second);
    for (flag, folder) in [
        ("--state-home", &args.shared.folders.state_home),
        ("--cache-home", &args.shared.folders.cache_home),
        ("--home", &args.shared.folders.home),
    ] {
        if let Some(folder) = folder {
            command.arg(flag).arg(folder);
        }
    }
    command.spawn().map_err(|error| Error::setup("cannot start the daemon", error))
}

fn finished(state: &State, args: &UpArgs, ctx: &Context, how: &str) -> Done {
    let title = format!("{how} on http://127.0.0.1:{}", state.port);
    let report: Report =
        ctx.report().project(Some(&state.project)).finish(Exit::Success.name(), title);
    if !ctx.in_actions() {
        // Its token is for people at this machine, not for the log of a job.
        ctx.progress().note(&format!("page: {}", crate::web::address(state.port, &state.token)));
    }
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(exports(state, &args.proxies));
    done
}

/// Lines for `eval`. Version 1 of the AWS CLI knows only the older name of the region. The key is this cloud's
/// own, good until `down`; with the metadata service turned off, tools on this machine do not ask one that is not theirs. What
/// would lead to another account or past the endpoint goes.
fn exports(state: &State, proxies: &Proxies) -> String {
    let mut text = format!(
        "export AWS_ENDPOINT_URL=http://127.0.0.1:{0}\n\
         export AWS_ACCESS_KEY_ID={2}\n\
         export AWS_SECRET_ACCESS_KEY={3}\n\
         export AWS_REGION={1}\n\
         export AWS_DEFAULT_REGION={1}\n\
         export AWS_EC2_METADATA_DISABLED=true\n\
         unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_IGNORE_CONFIGURED_ENDPOINT_URLS\n",
        state.port, state.region, state.access_key.id, state.access_key.secret
    );
    if let Some(exceptions) = proxies.exceptions() {
        for name in ["NO_PROXY", "no_proxy"] {
            text.push_str(&format!("export {name}='{exceptions}'\n"));
        }
    }
    text
}

/// Everything that must be there, looked at before anything is made; all that is missing is said at once.
async fn check_machine(args: &UpArgs) -> Result<Engine, Error> {
    if let Some(url) = &args.upstream
        && url::Url::parse(url).ok().filter(|url| url.scheme() == "http").is_none()
    {
        return Err(Error::BadInput(format!("`{url}` is no http address of an emulator")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let mut missing = Vec::new();
    for (program, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
        ("debootstrap", "debootstrap"),
    ] {
        // It runs even where it refuses the flag; only a program that is not there cannot be started.
        match capture(program, ["--version"], None).await {
            Ok(_) => {}
            Err(late @ Error::TooLate { .. }) => return Err(late),
            Err(_) => {
                missing.push(format!("the program `{program}` (`apt-get install {package}`)"));
            }
        }
    }
    if args.upstream.is_none() {
        let probe = capture("python3", ["-c", "import ensurepip, venv"], None).await;
        if let Err(late @ Error::TooLate { .. }) = probe {
            return Err(late);
        }
        if !probe.is_ok_and(|output| output.status.success()) {
            missing.push("Python 3 with venv (`apt-get install python3-venv`)".into());
        }
    }
    if let Some(port) = args.port
        && let Err(error) = free(port)
    {
        missing.push(format!("port {port} ({error}; choose another with `--port`)"));
    }
    if !hands_over_packets().await {
        missing.push(
            "the kernel's `br_netfilter`, for security groups (`modprobe br_netfilter`)".into(),
        );
    }
    let engine = match Docker::engine().await {
        Ok(engine) => {
            missing.extend(check_disk(Path::new(&engine.root)));
            Some(engine)
        }
        Err(late @ Error::TooLate { .. }) => return Err(late),
        Err(_) => {
            missing.push(
                "a Docker engine that answers (`apt-get install docker.io`, then start `dockerd`)"
                    .into(),
            );
            None
        }
    };
    match engine {
        Some(engine) if missing.is_empty() => Ok(engine),
        _ => Err(Error::Missing(missing)),
    }
}

/// Whether nobody listens on a loopback port.
fn free(port: u16) -> std::io::Result<()> {
    std::net::TcpListener::bind(("127.0.0.1", port)).map(drop)
}

/// The port that was asked for, or the first free one. Whoever starts at the same time waits for the lock meanwhile.
fn choose_port(args: &UpArgs) -> Result<u16, Error> {
    if let Some(port) = args.port {
        return Ok(port);
    }
    PORTS.into_iter().find(|port| free(*port).is_ok()).ok_or_else(|| {
        let range = format!(
            "port (all of {} to {} are taken; choose one with `--port`)",
            PORTS.start(),
            PORTS.end()
        );
        Error::Missing(vec![range])
    })
}

/// Whether bridges can hand packets to packet rules; where that is a module of the kernel, it is loaded.
async fn hands_over_packets() -> bool {
    let there = || Path::new("/proc/sys/net/bridge").is_dir();
    if !there() {
        // What it says does not matter: whether it is there afterwards does.
        let _ = capture("modprobe", ["br_netfilter"], None).await;
    }
    there()
}

fn check_disk(folder: &Path) -> Option<String> {
    let space = rustix::fs::statvfs(folder).ok()?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    (free < FREE_BYTES).then(|| {
        format!(
            "disk space: {} GiB free below {}, {} GiB needed",
            free >> 30,
            folder.display(),
            FREE_BYTES >> 30
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            project: "calldata".into(),
            region: "us-east-1".into(),
            port: 4570,
            daemon: Identity { pid: 1, start: 1 },
            upstream: None,
            token: crate::control::Token::default(),
            access_key: crate::credentials::AccessKey { id: "K".into(), secret: "s".into() },
            terms: Terms { seed: 0, timing: "short".into(), upstream: None, max_vcpus: 16 },
        }
    }

    #[test]
    fn stdout_holds_nothing_but_lines_to_eval() {
        let proxies = Proxies { used: Some("http://proxy:3128".into()), ..Proxies::default() };
        let text = exports(&state(), &proxies);
        let good = |line: &str| line.starts_with("export ") || line.starts_with("unset AWS_");
        assert!(text.lines().all(good), "{text}");
        assert!(text.ends_with("export no_proxy='127.0.0.1,localhost'\n"), "{text}");
        assert!(!exports(&state(), &Proxies::default()).contains("PROXY"));
    }

    #[test]
    fn what_a_running_cloud_does_not_change_is_named() {
        let check = |flags: &[&str], region: Option<&str>, expected: &[&str]| {
            let words = ["local-cloud", "up"].iter().chain(flags);
            let args = <crate::args::Args as clap::Parser>::try_parse_from(words).expect("good");
            let crate::args::Command::Up(args) = args.command else { panic!("not `up`") };
            assert_eq!(ignored(&args, region, &state()), expected, "{flags:?}");
        };
        check(&[], None, &[]);
        check(&["--port", "4570", "--timing", "short", "--seed", "0"], Some("us-east-1"), &[]);
        check(&["--port", "4580"], None, &["--port is 4570, not 4580"]);
        check(
            &["--seed=7", "--timing=aws"],
            Some("eu-west-1"),
            &[
                "--region is us-east-1, not eu-west-1",
                "--seed is 0, not 7",
                "--timing is short, not aws",
            ],
        );
        check(
            &["--upstream", "http://x"],
            None,
            &["--upstream is a moto of its own, not http://x"],
        );
    }
}
