//! `ssm-run-playbook` against hosts that really boot, with Ansible on them, and every fault that a run meets: each has to
//! end with the right verdict, exit status and words. Needs root, Docker and minutes, so a feature turns it on.
//!
//!     cargo test --locked -p pipeline-tests --features rehearsal --test playbook -- --nocapture
//!
//! One test, because one cloud and one wave of hosts serve all checks; what takes long on one host goes on beside the
//! checks of another.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it does and ends where something is wrong"
)]

mod arrivals;
#[path = "../cloud/mod.rs"]
mod cloud;
mod faults;
mod permissions;
mod plays;
mod scripts;

use cloud::{Cloud, Host, Run, Tool};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Debian's bookworm.
const WITHOUT_ANSIBLE: &str = "ami-0deb120000b00c0de";
const TOOL: Tool<'_> = Tool { program: "ssm-run-playbook", key: None, region: "us-east-1" };

#[test]
fn every_run_is_judged_by_its_truth() {
    let image = image_with_ansible();
    let cloud = Cloud::up("playbook", Duration::from_secs(300));
    launch(&cloud, &image);
    plays::write(&cloud.folder("ansible"));
    let doomed = faults::begin_a_run_on_a_host_that_is_terminated(&cloud, "doomed");
    faults::a_disk_that_fills_is_named(&cloud, "full");
    plays::a_play_runs_and_a_second_run_changes_nothing(&cloud, &["main", "skewed"]);
    plays::a_bad_wave_stops_the_rest(&cloud, "main", "skewed", "unprepared");
    let install = arrivals::begin_a_run_that_installs_ansible(&cloud, "unprepared");
    let dropped = faults::begin_a_run_whose_agent_dies(&cloud, "skewed");
    faults::an_agent_that_is_away_for_a_while_changes_no_verdict(&cloud, "main");
    faults::throttling_changes_no_verdict(&cloud, "main");
    faults::a_lost_reply_runs_the_play_once(&cloud, "main");
    faults::the_deadline_ends_ansible_after_its_task(&cloud, "main");
    faults::a_kill_by_the_kernel_is_told_from_the_deadline(&cloud, "main");
    faults::a_second_run_names_who_has_the_host(&cloud, "main");
    faults::sigint_cancels_and_frees_the_host(&cloud, "main");
    arrivals::a_large_bundle_travels_through_a_bucket(&cloud, "main");
    plays::secrets_are_seen_by_the_play_alone(&cloud, "main");
    plays::a_reboot_is_survived_and_followed(&cloud, "main");
    permissions::the_least_policy_is_enough_and_each_part_needed(&cloud, "main");
    scripts::people_ask_hosts(&cloud, "main");
    arrivals::a_play_runs_where_ansible_was_installed(&cloud, install, "unprepared");
    faults::a_terminated_host_is_no_success(&cloud, doomed, "doomed");
    faults::an_agent_that_died_is_no_success(&cloud, dropped, "skewed");
    faults::a_command_that_no_agent_takes_is_said(&cloud, "skewed");
    // Last, since it leaves a run on the host.
    faults::expired_credentials_end_the_run_and_name_what_goes_on(&cloud, "main");
    cloud.say("all is judged");
}

/// Built once; Docker remembers it.
fn image_with_ansible() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/ansible-image.sh");
    let tools = cloud::program("local-cloud");
    let output = Command::new("sh")
        .args(["-c", r#"PATH="$0:$PATH" exec "$1""#])
        .args([tools.parent().unwrap(), &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn launch(cloud: &Cloud, image: &str) {
    // The agent's requests are refused from five minutes on.
    cloud.fault(&["add", "clock-skew", "--host", "skewed", "--seconds", "240"]);
    cloud.fault(&["add", "disk-full", "--host", "full", "--percent", "99"]);
    let hosts = ["main", "skewed", "full", "doomed", "unprepared"];
    for name in hosts {
        let image = if name == "unprepared" { WITHOUT_ANSIBLE } else { image };
        cloud.launch(&Host { name, image, ..Host::default() });
    }
    for host in hosts {
        cloud.until(&format!("{host} has booted"), || {
            cloud.exec(host, "[ ! -e /run/cloud-init/result.json ] || echo done") == "done\n"
        });
        cloud.until(&format!("the agent of {host} is online"), || {
            let information =
                cloud.call("ssm", "describe_instance_information", serde_json::json!({}));
            let list = information["InstanceInformationList"].as_array().unwrap().clone();
            list.iter()
                .any(|info| info["InstanceId"] == cloud.id(host) && info["PingStatus"] == "Online")
        });
    }
    cloud.say("all have booted");
}

/// Starts a playbook of the test's own Ansible folder.
fn start(cloud: &Cloud, name: &str, hosts: &[&str], playbook: &str, args: &[&str]) -> Run {
    start_as(cloud, &TOOL, name, hosts, playbook, args)
}

fn start_as(
    cloud: &Cloud,
    tool: &Tool<'_>,
    name: &str,
    hosts: &[&str],
    playbook: &str,
    args: &[&str],
) -> Run {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let all = [&["--ansible-dir", "../ansible"], args, &[playbook]].concat();
    cloud.start(tool, name, &hosts, &all)
}
