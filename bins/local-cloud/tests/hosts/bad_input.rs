//! What goes wrong around the cloud: it is named in one line with what to do, and `down` works afterwards.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cloud::{Cloud, Run, free_port, variable};
use crate::traces;

pub(crate) fn scenarios(shared: &Cloud) {
    ranges_that_clash(shared);
    a_full_disk(shared);
    another_emulator(shared);
    let tools = tempfile::tempdir().expect("a folder");
    let (broken, path) = breakable_docker(tools.path());
    let cloud = Cloud::up_with(&[("PATH", &path)], &[]);
    let id = cloud.launch("around", "bookworm", "", &[]);
    cloud.note();
    shared.check("an engine that has gone is named, and `down` says that it needs it", || {
        std::fs::write(&broken, "").expect("a file");
        let error = cloud.try_launch("late", "bookworm", "", &[]);
        let failed = || {
            let state =
                cloud.ok(&["ec2", "describe-instances", "--filters", "Name=tag:Name,Values=late"]);
            state.to_string().contains("Server.InternalError")
                || state.to_string().contains("terminated")
        };
        match error {
            Err(error) => assert!(error.message.contains("Docker daemon"), "{error:?}"),
            Ok(_) => cloud.until("the launch fails", failed),
        }
        let run = cloud.local(&["down"]);
        assert_ne!(run.code, 0, "{run}");
        one_clear_error(&run, "Docker daemon");
        std::fs::remove_file(&broken).expect("it was there");
    });
    shared.check("`up` puts that right", || {
        cloud.start(&[]);
        assert_eq!(
            cloud.containers(),
            Vec::<String>::new(),
            "{id} and its network are of the earlier cloud"
        );
    });
    shared.check("an emulator that died ends the daemon, which says why", || {
        let emulator = cloud.upstream_process().to_string();
        let daemon = format!("/proc/{}/exe", cloud.daemon());
        assert!(
            Command::new("kill").args(["-KILL", &emulator]).status().expect("kill runs").success()
        );
        cloud.until("the daemon ends", || !Path::new(&daemon).exists());
        let log = cloud.log();
        assert!(log.lines().any(|line| line.contains("the emulator ended")), "{log}");
        let run = cloud.local(&["status"]);
        assert!(run.code == 6 && run.stdout.contains("local-cloud down"), "{run}");
    });
    shared.check("`down` is clean afterwards", || cloud.finish());
}

/// A VPC that would cut the machine off from its own network is no place for hosts.
fn ranges_that_clash(cloud: &Cloud) {
    cloud.check("a range that the machine uses is refused by the name of its interface", || {
        let used = traces::output(
            "docker",
            &["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"],
        );
        refused_range(cloud, used.trim(), &format!("{} (docker0)", used.trim()));
    });
    cloud.check("a range that the machine reaches by a route is refused, too", || {
        let route = Route::add("10.37.8.0/24");
        refused_range(cloud, "10.37.0.0/16", &format!("{} (lo)", route.0));
    });
}

/// A route in a table that nothing looks at. It goes with the value.
struct Route(&'static str);

impl Route {
    const TABLE: &'static str = "4711";

    fn add(range: &'static str) -> Self {
        traces::output("ip", &["route", "replace", range, "dev", "lo", "table", Self::TABLE]);
        Self(range)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // Another run beside this one may have taken it away already.
        let args = ["route", "delete", self.0, "table", Self::TABLE];
        let _ = Command::new("ip").args(args).stderr(Stdio::null()).status();
    }
}

/// A launch in a VPC of this range is refused at once: with what is in its way, and what to do.
fn refused_range(cloud: &Cloud, range: &str, used: &str) {
    let vpc = cloud.ok(&["ec2", "create-vpc", "--cidr-block", range]);
    let vpc = vpc["Vpc"]["VpcId"].as_str().expect("a VPC").to_owned();
    let first = range.replace("/16", "/24");
    let subnet = cloud.ok(&["ec2", "create-subnet", "--vpc-id", &vpc, "--cidr-block", &first]);
    let subnet = subnet["Subnet"]["SubnetId"].as_str().expect("a subnet").to_owned();
    let group = ["ec2", "create-security-group", "--group-name", "clash", "--description", "x"];
    let group = cloud.ok(&[&group[..], &["--vpc-id", &vpc]].concat());
    let group = group["GroupId"].as_str().expect("a group").to_owned();
    let more = ["--subnet-id", &subnet, "--security-group-ids", &group];
    let error = cloud.try_launch("clash", "bookworm", "", &more).expect_err("refused");
    assert_eq!(error.code, "InvalidVpc.Range");
    for part in [vpc.as_str(), range, used, "choose another range for the VPC"] {
        assert!(error.message.contains(part), "{part}: {error:?}");
    }
    for (operation, flag, id) in [
        ("delete-security-group", "--group-id", &group),
        ("delete-subnet", "--subnet-id", &subnet),
        ("delete-vpc", "--vpc-id", &vpc),
    ] {
        cloud.ok(&["ec2", operation, flag, id]);
    }
}

/// A file system of this size in a folder; unmounted when it goes.
struct Small(tempfile::TempDir);

impl Small {
    fn of(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text");
        traces::output("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path]);
        Self(folder)
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).expect("a file");
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A daemon that still has a file open there is gone when its cloud is; until then the mount is only hidden.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// The folder of the state has no room: at the start, and later.
fn a_full_disk(shared: &Cloud) {
    let small = Small::of("4m");
    let folder = small.0.path().to_str().expect("text").to_owned();
    let project = format!("{}-full", shared.project);
    let port = free_port().to_string();
    let local = |args: &[&str]| {
        shared.local_with(
            &[("XDG_STATE_HOME", folder.as_str()), ("LOCAL_CLOUD_PROJECT", project.as_str())],
            args,
        )
    };
    shared.check("a full disk is named before anything is made", || {
        small.fill();
        let run = local(&["up", "--port", &port]);
        assert_eq!(run.code, 6, "{run}");
        one_clear_error(&run, &folder);
        assert!(run.stderr.contains("No space left on device"), "{run}");
        assert!(run.stderr.contains("free some disk space"), "{run}");
        assert_eq!(local(&["down"]).code, 0);
    });
    shared.check("a disk that fills later stops nothing, and `down` works", || {
        std::fs::remove_file(small.0.path().join("filler")).expect("it was there");
        let run = local(&["up", "--port", &port]);
        assert_eq!(run.code, 0, "{run}");
        small.fill();
        for args in [&["fault", "add", "throttle", "--service", "kms"][..], &["status"]] {
            let run = local(args);
            assert_eq!(run.code, 0, "{run}");
        }
        let run = local(&["down"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(traces::processes(&project), Vec::new());
    });
}

/// `--upstream`: an emulator that somebody else runs, moto as it comes, answers ordinary calls and is left alone.
fn another_emulator(shared: &Cloud) {
    let own = shared.upstream_process();
    let command = std::fs::read_to_string(format!("/proc/{own}/cmdline")).expect("it runs");
    let python = command.split('\0').next().expect("a program");
    let port = free_port().to_string();
    let mut emulator = Command::new(python)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
        .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("moto starts");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let listens = || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
        shared.until("moto listens", listens);
        shared.check("hosts boot before another emulator, which stays", || {
            let cloud = Cloud::up(&["--upstream", &format!("http://127.0.0.1:{port}")]);
            // It knows nothing of our images' names.
            let id = cloud.launch("upstream", "ami-0deb120000b00c0de", "", &[]);
            cloud.online(&id);
            cloud.finish();
            assert!(listens(), "it is not ours to end");
        });
    }));
    emulator.kill().expect("it ran");
    emulator.wait().expect("it ended");
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A `docker` before the real one on a `PATH`, which says what the real one says without an engine while a file is there.
fn breakable_docker(folder: &Path) -> (std::path::PathBuf, String) {
    let (program, broken) = (folder.join("docker"), folder.join("broken"));
    let path = variable("PATH").expect("PATH is set").to_string_lossy().into_owned();
    let real =
        std::env::split_paths(&path).map(|folder| folder.join("docker")).find(|p| p.exists());
    let script = format!(
        "#!/bin/sh\nif [ -e '{}' ]; then\n  echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. \
         Is the docker daemon running?' >&2\n  exit 1\nfi\nexec '{}' \"$@\"\n",
        broken.display(),
        real.expect("docker is on PATH").display()
    );
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it can run");
    (broken, format!("{}:{path}", folder.display()))
}

fn one_clear_error(run: &Run, what: &str) {
    let errors: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(what), "{run}");
}
