//! Doors of the machine that stay shut: to callers that are no hosts, to hosts when packet rules vanish, to programs that
//! hang, and to one call that would take the whole machine.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cloud::{Cloud, free_port, variable};
use crate::traces;

pub(crate) fn scenarios(shared: &Cloud) {
    a_hanging_engine(shared);
    shared.check("a launch beyond the quota is refused", || {
        let image = shared.image("bookworm");
        let launch = ["ec2", "run-instances", "--image-id", &image, "--subnet-id", &shared.subnet];
        let many = [&launch[..], &["--instance-type", "t3.micro", "--count", "500"]].concat();
        let message = shared.refused("VcpuLimitExceeded", &many);
        assert!(message.contains("current vCPU limit of "), "{message}");
    });
    let cloud = Cloud::up(&[]);
    let host = cloud.launch("doors", "bookworm", "", &[]);
    cloud.online(&host);
    let doors = Doors::of(&cloud, &host);
    shared.check("hosts are served at the edge", || {
        let run = cloud.exec(&host, METADATA);
        assert!(run.code == 0 && run.stdout.trim() == host, "{run}");
    });
    shared.check("who is no host is not served there", || {
        for port in &doors.ports {
            let try_it = format!("timeout 2 bash -c '</dev/tcp/{}/{port}'", doors.gateway);
            let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "bash", "-c"];
            let own = Command::new("setpriv").args(nobody).arg(&try_it).status().expect("it runs");
            assert!(!own.success(), "as nobody: {}:{port}", doors.gateway);
            let args = ["run", "--rm", "--network", "bridge", "--entrypoint", "bash"];
            let mut other = Command::new("docker");
            other.args(args).args([&doors.image, "-c", &try_it]);
            let status = other.status().expect("docker runs");
            assert!(!status.success(), "from docker0: {}:{port}", doors.gateway);
        }
    });
    rules_that_vanish(shared, &cloud, &host, &doors);
    cloud.finish();
}

/// Prints the instance id, as instance metadata gives it.
const METADATA: &str = "token=$(curl -s -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    http://169.254.169.254/latest/api/token) && curl -s -m 3 -H \"X-aws-ec2-metadata-token: $token\" \
    http://169.254.169.254/latest/meta-data/instance-id";

/// What a cloud with one host has at its edge.
struct Doors {
    table: String,
    bridge: String,
    gateway: String,
    address: String,
    image: String,
    /// Of metadata and TLS.
    ports: Vec<String>,
}

impl Doors {
    fn of(cloud: &Cloud, host: &str) -> Self {
        let table = format!("local_cloud_{}", cloud.project.replace('-', "_"));
        let listed = traces::output("nft", &["list", "chain", "ip", &table, "edge"]);
        let rule = listed.lines().find(|line| line.contains("tcp dport {")).expect("a rule");
        let ports = rule.split(['{', '}']).nth(1).expect("ports").split(',');
        let gateway = rule.split("ip daddr ").nth(1).and_then(|rest| rest.split(' ').next());
        let container = format!("{}-{host}", cloud.project);
        let format = "{{.Config.Image}}";
        let image = traces::output("docker", &["inspect", "--format", format, &container]);
        let answer = cloud.instance(host);
        Self {
            bridge: rule.split('"').nth(1).expect("a bridge").to_owned(),
            gateway: gateway.expect("an address").to_owned(),
            address: answer["PrivateIpAddress"].as_str().expect("an address").to_owned(),
            image: image.trim().to_owned(),
            ports: ports.map(|port| port.trim().to_owned()).collect(),
            table,
        }
    }

    fn stands(&self, family: &str) -> bool {
        let list = ["list", "table", family, &self.table];
        Command::new("nft").args(list).output().expect("nft runs").status.success()
    }

    /// Removes the rules of this one cloud, as a flush or a firewall's reload would those of the machine.
    fn delete_rules(&self) {
        for family in ["ip", "ip6", "bridge"] {
            let delete = ["delete", "table", family, &self.table];
            assert!(Command::new("nft").args(delete).status().expect("nft runs").success());
        }
    }
}

fn rules_that_vanish(shared: &Cloud, cloud: &Cloud, host: &str, doors: &Doors) {
    let signal = |name: &str| {
        let daemon = cloud.daemon().to_string();
        let status = Command::new("kill").args([name, &daemon]).status().expect("kill runs");
        assert!(status.success());
    };
    let listener = TcpListener::bind(("0.0.0.0", 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    // Past the daemon, which stands still for a while.
    let reaches = |address: &str| {
        let command = format!("timeout 2 bash -c '</dev/tcp/{address}/{port}'");
        let container = format!("{}-{host}", cloud.project);
        let args = ["exec", &container, "bash", "-c", &command];
        Command::new("docker").args(args).status().expect("docker runs").success()
    };
    shared.check("while its rules are missing a host reaches nothing", || {
        assert!(reaches("198.51.100.1"), "with its rules it reaches what stands for the internet");
        // A daemon that stands still cannot write them again.
        signal("-STOP");
        doors.delete_rules();
        let open: Vec<&str> = ["198.51.100.1", doors.gateway.as_str()]
            .into_iter()
            .filter(|address| reaches(address))
            .collect();
        let own_table = format!("{}_guard", doors.table);
        let flushed = Command::new("nft").args(["delete", "table", "inet", &own_table]).output();
        let args =
            ["route", "get", "169.254.169.254", "from", &doors.address, "iif", &doors.bridge];
        let way = Command::new("ip").args(args).output().expect("ip runs");
        signal("-CONT");
        assert_eq!(open, Vec::<&str>::new(), "open without rules");
        assert!(!flushed.expect("nft runs").status.success(), "the guard cannot be deleted");
        let said = String::from_utf8_lossy(&way.stdout);
        assert!(!way.status.success(), "there is a way to the machine's own metadata: {said}");
    });
    shared.check("rules that vanish are back at once", || {
        let all = || ["ip", "ip6", "bridge"].iter().all(|family| doors.stands(family));
        cloud.until("they are back", all);
        let begun = Instant::now();
        doors.delete_rules();
        cloud.until("they are back", all);
        println!("rules were back after {} ms", begun.elapsed().as_millis());
        // A second on a machine that has the time; here dozens of hosts boot meanwhile.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(reaches("198.51.100.1") && !reaches(&doors.gateway));
        let run = cloud.exec(host, METADATA);
        assert!(run.code == 0 && run.stdout.trim() == host, "{run}");
    });
}

/// `up` and `down` with a `docker` that never ends.
fn a_hanging_engine(shared: &Cloud) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("docker");
    std::fs::write(&program, "#!/bin/sh\nsleep 600 & wait\n").expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it can run");
    let path = variable("PATH").expect("PATH is set").to_string_lossy().into_owned();
    let path = format!("{}:{path}", folder.path().display());
    let project = format!("hosts-{}-hangs", std::process::id());
    let port = free_port().to_string();
    for (command, expected) in [
        (&["up", "--timeout", "3s", "--port", &port][..], "`docker info` did not end within"),
        (&["down", "--timeout", "3s"], "hosts and networks (`docker ps` did not end within"),
    ] {
        shared.check(&format!("`{}` ends although docker hangs", command[0]), || {
            let begun = Instant::now();
            let variables = [("PATH", path.as_str()), ("LOCAL_CLOUD_PROJECT", project.as_str())];
            let run = shared.local_with(&variables, command);
            let took = begun.elapsed();
            assert_eq!(run.code, 4, "{run}");
            assert!(run.stderr.contains(expected), "{run}");
            assert!(took < Duration::from_secs(10), "{took:?}");
        });
    }
}
