//! What goes wrong around the cloud: it is named in one line with what to do, and `down` works afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::cloud::{Cloud, Run, variable};
use crate::traces;

pub(crate) fn scenarios(shared: &Cloud) {
    ranges_that_clash(shared);
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
        let vpc = cloud.ok(&["ec2", "create-vpc", "--cidr-block", used.trim()]);
        let vpc = vpc["Vpc"]["VpcId"].as_str().expect("a VPC").to_owned();
        let range = used.trim().replace("/16", "/24");
        let subnet = cloud.ok(&["ec2", "create-subnet", "--vpc-id", &vpc, "--cidr-block", &range]);
        let subnet = subnet["Subnet"]["SubnetId"].as_str().expect("a subnet").to_owned();
        let group = cloud.ok(&[
            "ec2",
            "create-security-group",
            "--group-name",
            "clash",
            "--description",
            "x",
            "--vpc-id",
            &vpc,
        ]);
        let group = group["GroupId"].as_str().expect("a group").to_owned();
        let more = ["--subnet-id", &subnet, "--security-group-ids", &group];
        let told = match cloud.try_launch("clash", "bookworm", "", &more) {
            Err(error) => error.message,
            Ok(id) => {
                cloud.until_state(&id, "terminated");
                cloud.instance(&id)["StateReason"]["Message"].to_string() + &cloud.log()
            }
        };
        assert!(told.contains("docker0") && told.contains(used.trim()), "{told}");
        cloud.ok(&["ec2", "describe-instances"]);
    });
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
