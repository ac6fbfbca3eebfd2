//! What hosts boot, and what goes wrong with it: read from the hosts themselves and from what EC2 says of them.

use serde_json::Value;

use crate::cloud::Cloud;
use crate::traces;

/// Suite, version of its cloud-init, and the status that it ends with, whatever else is wrong with the host.
const SUITES: [(&str, &str, &str); 4] = [
    ("bullseye", "20.4", "done"),
    ("bookworm", "22.4", "done"),
    ("trixie", "25.1", "degraded done"),
    ("*-cloud-init-sid-*", "26.2", "done"),
];

pub(crate) fn scenarios(cloud: &Cloud) {
    for (kind, flags) in [
        ("clock-skew", ["--seconds", "600"].as_slice()),
        ("disk-full", &[]),
        ("cloud-init-degraded", &[]),
        ("cloud-init-error", &[]),
        ("cloud-init-hang", &[]),
        ("cloud-init-disabled", &[]),
        ("no-cloud-init", &[]),
        ("never-boots", &["--count", "1"]),
    ] {
        let host = format!("tag:Boot={kind}");
        let mut args = vec!["add", kind, "--host", &host];
        args.extend(flags);
        cloud.fault(&args);
    }
    let launch = |kind: &str, suite: &str| {
        let tags = format!(
            "ResourceType=instance,Tags=[{{Key=Name,Value=boot-{kind}}},{{Key=Boot,Value={kind}}}]"
        );
        cloud.launch(&format!("boot-{kind}"), suite, "", &["--tag-specifications", &tags])
    };
    // The longest first: all boot at once, whichever is looked at.
    let never = launch("never-boots", "bookworm");
    let of_suites: Vec<String> = ["clock-skew", "disk-full", "cloud-init-degraded", "none"]
        .into_iter()
        .zip(SUITES)
        .map(|(kind, (suite, ..))| launch(kind, suite))
        .collect();
    let plain = launch("plain", "trixie");
    let failing = launch("cloud-init-error", "bookworm");
    let hanging = launch("cloud-init-hang", "trixie");
    let disabled = launch("cloud-init-disabled", "bookworm");
    let without = launch("no-cloud-init", "bookworm");

    for (id, (suite, version, status)) in of_suites.iter().zip(SUITES) {
        cloud.check(&format!("{suite} boots cloud-init {version} from EC2: {status}"), || {
            ends(cloud, id, version, status, 0);
        });
    }
    cloud.check("a trixie without a fault ends done, with nothing recoverable", || {
        ends(cloud, &plain, "25.1", "done", 0);
        let said = cloud.exec(&plain, "cloud-init status --format json").stdout;
        let said: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(said["recoverable_errors"], serde_json::json!({}), "{said}");
    });
    cloud.check("the console holds what cloud-init said, on every suite", || {
        for id in &of_suites {
            let console = console(cloud, id);
            assert!(console.contains("Cloud-init v. "), "{id}: {console}");
            assert!(console.contains("Datasource DataSourceEc2"), "{id}: {console}");
        }
    });
    cloud.check("a wrong clock is wrong for programs, and sleeping works", || {
        let run = cloud.exec(&of_suites[0], "sleep 0.1 && date +%s");
        let ahead = run.stdout.trim().parse::<i64>().expect("a time") - now();
        assert!((595..=605).contains(&ahead), "{ahead} s ahead");
    });
    cloud.check("a full disk is full for root", || {
        cloud.until("the disk is full", || {
            cloud.exec(&of_suites[1], "! head -c 5000000 /dev/zero >/root/more").code == 0
        });
        let run = cloud.exec(&of_suites[1], "df --output=pcent / | tail -n 1");
        assert_eq!(run.stdout.trim(), "100%", "{run}");
        assert!(cloud.disks() > 0, "it is looked for at the end");
    });
    cloud.check("a failing cloud-init says why", || {
        ends(cloud, &failing, "22.4", "error", 1);
    });
    cloud.check("a hanging cloud-init runs for ever, beside an agent that is online", || {
        cloud.online(&hanging);
        cloud.until("it hangs", || {
            cloud
                .exec(&hanging, "pgrep -f 'sleep infinity' && cloud-init status")
                .stdout
                .contains("running")
        });
        assert!(result(cloud, &hanging).is_none());
    });
    cloud.check("a disabled cloud-init is disabled, one that is not there not found", || {
        cloud.online(&disabled);
        let run = cloud.exec(&disabled, "cloud-init status --long");
        assert!(run.stdout.contains("status: disabled"), "{run}");
        cloud.online(&without);
        assert_eq!(cloud.exec(&without, "cloud-init status").code, 127);
        assert!(result(cloud, &without).is_none());
    });
    cloud.check("a host that never boots is impaired, and heals at the next boot", || {
        assert!(console(cloud, &never).contains("Gave up waiting for root file system device"));
        cloud.until("it is impaired", || status(cloud, &never) == "impaired");
        cloud.ok(&["ec2", "reboot-instances", "--instance-ids", &never]);
        cloud.online(&never);
    });
    cloud.check("a panicked host is running, impaired, and has said so", || {
        let id = &without;
        cloud.fault(&["add", "kernel-panic", "--host", id, "--count", "1", "--delay", "1s"]);
        cloud.ok(&["ec2", "reboot-instances", "--instance-ids", id]);
        cloud.until("it is impaired", || status(cloud, id) == "impaired");
        assert_eq!(cloud.state(id), "running");
        assert!(console(cloud, id).contains("Kernel panic - not syncing"));
    });
    cloud.check("a host reboots by itself", || {
        let boot = |id: &str| cloud.exec(id, "cut -d' ' -f22 /proc/1/stat").stdout;
        let before = boot(&disabled);
        cloud.fault(&["add", "host-reboot", "--host", &disabled, "--count", "1", "--delay", "10s"]);
        cloud.ok(&["ec2", "reboot-instances", "--instance-ids", &disabled]);
        cloud.until("it was rebooted twice", || {
            cloud.log().contains(&format!("{disabled} reboots by itself"))
                && status(cloud, &disabled) == "ok"
        });
        assert_ne!(before, boot(&disabled));
    });
    let mut all: Vec<&str> = of_suites.iter().map(String::as_str).collect();
    all.extend([&never, &plain, &failing, &hanging, &disabled, &without].map(|id| id.as_str()));
    cloud.check("all are terminated", || cloud.terminate(&all));
    own_image(cloud);
}

/// An image of one's own: a suite's, with a file more.
fn own_image(cloud: &Cloud) {
    let name = format!("boot-{}", std::process::id());
    let bookworm = host_image(cloud, "bookworm");
    let docker = |args: &[&str]| {
        let output = std::process::Command::new("docker").args(args).output().expect("docker");
        assert!(output.status.success(), "docker {args:?}: {output:?}");
    };
    cloud.check("an image of one's own becomes a machine image and boots", || {
        docker(&[
            "run",
            "--name",
            &name,
            "--network",
            "none",
            "--entrypoint",
            "/bin/sh",
            &bookworm,
            "-c",
            &format!("echo {name} >/etc/mine"),
        ]);
        docker(&["commit", "--change", "ENTRYPOINT [\"/bin/false\"]", &name, &name]);
        docker(&["rm", &name]);
        let added = cloud.local(&["image", "add", &name, "--from", &name]);
        docker(&["image", "rm", &name]);
        assert_eq!(added.code, 0, "{added}");
        let ami = added.stdout.trim();
        // A cache that somebody tidied: the layer is made again when it is wanted.
        docker(&["image", "rm", "--force", &host_image(cloud, &name)]);
        let filter = format!("Name=name,Values={name}");
        let found = cloud.ok(&["ec2", "describe-images", "--owners", "self", "--filters", &filter]);
        assert_eq!(found.pointer("/Images/0/ImageId").and_then(Value::as_str), Some(ami));
        let id = cloud.launch(&name, ami, "", &[]);
        ends(cloud, &id, "22.4", "done", 0);
        assert_eq!(cloud.exec(&id, "cat /etc/mine").stdout.trim(), name);
        cloud.terminate(&[&id]);
        damaged(cloud, &name, ami);
        assert_eq!(cloud.local(&["image", "remove", &name]).code, 0);
        let found = cloud.ok(&["ec2", "describe-images", "--owners", "self", "--filters", &filter]);
        assert_eq!(found["Images"], Value::Array(Vec::new()));
    });
}

/// Docker's name of what hosts of an image boot from.
fn host_image(cloud: &Cloud, name: &str) -> String {
    let listed = cloud.local(&["image", "list"]).stdout;
    let row = listed.lines().find(|line| line.starts_with(&format!("{name} ")));
    let built = row.and_then(|line| line.split_once('(')?.1.split_once(')'));
    built.unwrap_or_else(|| panic!("{name} is not built: {listed}")).0.to_owned()
}

/// An image whose programs do not run, then one whose source is gone: an instance of it ends, and says so.
fn damaged(cloud: &Cloud, name: &str, ami: &str) {
    let docker = |args: &[&str]| traces::output("docker", args);
    let ends = |what: &str| {
        let id = cloud.launch(name, ami, "", &[]);
        cloud.until_state(&id, "terminated");
        let reason = cloud.instance(&id)["StateReason"]["Message"].to_string();
        assert!(reason.contains(&format!("`{name}`")) && reason.contains(what), "{reason}");
        assert!(reason.contains("image add"), "what to do: {reason}");
    };
    let image = host_image(cloud, name);
    let work = format!("{name}-work");
    docker(&["run", "--name", &work, "--entrypoint", "/bin/rm", &image, "/sbin/init"]);
    docker(&["commit", &work, &image]);
    docker(&["rm", &work]);
    ends("cannot be used");
    docker(&["image", "rm", "--force", &image, &format!("local-cloud/{ami}:source")]);
    ends("Docker has it no more");
}

/// Waits for cloud-init's end and looks how it was.
fn ends(cloud: &Cloud, id: &str, version: &str, status: &str, errors: usize) {
    cloud.until(&format!("cloud-init of {id} has ended"), || result(cloud, id).is_some());
    let result = result(cloud, id).expect("it was there");
    let source = result.pointer("/v1/datasource").and_then(Value::as_str).unwrap_or_default();
    assert!(source.starts_with("DataSourceEc2"), "{result}");
    assert_eq!(result.pointer("/v1/errors").and_then(Value::as_array).map(Vec::len), Some(errors));
    let run = cloud.exec(id, "cloud-init --version 2>&1; cloud-init status --long");
    assert!(run.stdout.contains(&format!("cloud-init {version}")), "{run}");
    let of = |name: &str| run.stdout.lines().find_map(|line| line.strip_prefix(name));
    let said = of("extended_status: ").or_else(|| of("status: "));
    assert_eq!(said, Some(status), "{run}");
}

fn result(cloud: &Cloud, id: &str) -> Option<Value> {
    serde_json::from_str(&cloud.exec(id, "cat /run/cloud-init/result.json").stdout).ok()
}

fn console(cloud: &Cloud, id: &str) -> String {
    let answer = cloud.ok(&["ec2", "get-console-output", "--instance-id", id]);
    answer["Output"].as_str().unwrap_or_default().to_owned()
}

/// The instance's own status check.
fn status(cloud: &Cloud, id: &str) -> String {
    let answer = cloud.ok(&["ec2", "describe-instance-status", "--instance-ids", id]);
    let status = answer.pointer("/InstanceStatuses/0/InstanceStatus/Status");
    status.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_secs()).expect("before the end of time")
}
