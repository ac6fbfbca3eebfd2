//! How what a run needs comes to a host: Ansible itself, and a bundle that is too large for commands.

use crate::cloud::{Cloud, Run};
use crate::start;
use serde_json::json;
use std::fs;

const BUCKET: &str = "bundles";

/// Copies a large file, and fails.
const LARGE: &str = "- name: Copy
  ansible.builtin.copy:
    src: noise
    dest: /root/noise
    mode: '0600'
- name: Fail
  ansible.builtin.fail:
    msg: too late
";

/// A host without Ansible says so, and why it cannot be installed; when it can be, that takes a while.
pub(crate) fn begin_a_run_that_installs_ansible(cloud: &Cloud, host: &str) -> Run {
    let ended = start(cloud, "no-ansible", &[host], "site.yml", &[]).ended();
    assert_eq!(ended.code, 1, "{ended}");
    let detail = ended.host(host)["detail"].as_str().unwrap();
    assert!(detail.contains("not on PATH; pass `--install-ansible`"), "{ended}");

    let install = |name| start(cloud, name, &[host], "site.yml", &["--install-ansible"]);
    let broken =
        "mv /etc/apt/sources.list /root; echo 'deb file:/nowhere ./' >/etc/apt/sources.list";
    cloud.exec(host, broken);
    let ended = install("no-packages").ended();
    assert_eq!(ended.code, 1, "{ended}");
    let detail = ended.host(host)["detail"].as_str().unwrap();
    assert!(detail.starts_with("Ansible cannot be installed: E: "), "{ended}");
    assert!(detail.contains("file:/nowhere") && !detail.contains("Reading"), "{ended}");
    assert!(!detail.ends_with(';'), "{ended}");
    cloud.exec(host, "mv /root/sources.list /etc/apt/");
    install("install")
}

pub(crate) fn a_play_runs_where_ansible_was_installed(cloud: &Cloud, run: Run, host: &str) {
    let ended = run.ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(ended.host(host)["data"]["changed"], 3, "{ended}");
    // What a package makes is for everybody, although a run's own files are not.
    let readable = "find /usr/lib/python3/dist-packages/ansible ! -perm -o+r; cat /etc/demo/lines";
    assert_eq!(cloud.exec(host, readable), "one\n");
    cloud.say("a play runs where Ansible was installed for it");
}

/// The object is gone after a run that fails, and one that somebody changed is refused.
pub(crate) fn a_large_bundle_travels_through_a_bucket(cloud: &Cloud, host: &str) {
    let folder = cloud.folder("ansible");
    // Numbers that do not compress well: above 512 KiB, with which only a bucket will do.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(700_000).collect();
    for room in ["files", "tasks"] {
        fs::create_dir_all(folder.join("roles/large").join(room)).unwrap();
    }
    fs::write(folder.join("roles/large/files/noise"), &noise).unwrap();
    fs::write(folder.join("roles/large/tasks/main.yml"), LARGE).unwrap();
    let play = "- hosts: all\n  gather_facts: false\n  roles: [large]\n";
    fs::write(folder.join("playbooks/large.yml"), play).unwrap();
    cloud.call("s3", "create_bucket", json!({"Bucket": BUCKET}));
    let objects = || {
        let list = cloud.call("s3", "list_objects_v2", json!({"Bucket": BUCKET}));
        list["KeyCount"].as_u64().unwrap()
    };

    let ended = start(cloud, "no-bucket", &[host], "large.yml", &[]).ended();
    assert_eq!(ended.code, 2, "{ended}");
    assert!(ended.stderr.contains("`--bucket`"), "{ended}");
    let args = ["--bucket", BUCKET];
    let ended = start(cloud, "bucket", &[host], "large.yml", &args).ended();
    assert_eq!(ended.code, 1, "{ended}");
    assert_eq!(ended.host(host)["data"]["failed_tasks"][0]["message"], "too late", "{ended}");
    assert_eq!(cloud.exec(host, "stat -c %s /root/noise"), format!("{}\n", noise.len()));
    assert_eq!(objects(), 0, "the object stays");

    let printed = [&args[..], &["--print-bundle"]].concat();
    let printed = start(cloud, "print-bundle", &[host], "large.yml", &printed).ended();
    let key = printed.stdout.split(&format!("s3://{BUCKET}/")).nth(1).unwrap().trim();
    cloud.call("s3", "put_object", json!({"Bucket": BUCKET, "Key": key, "Body": "another"}));
    cloud.exec(host, "rm -r /var/lib/ssm-run-playbook/bundles /root/noise");
    let ended = start(cloud, "tampered", &[host], "large.yml", &args).ended();
    assert_eq!(ended.code, 6, "{ended}");
    let detail = ended.host(host)["detail"].as_str().unwrap();
    assert!(detail.contains(key) && detail.contains("is not what its name says"), "{ended}");
    assert_eq!(cloud.exec(host, "ls -d /root/noise"), "");
    assert_eq!(objects(), 1, "it is not ours");
    cloud.say("a large bundle travels through a bucket, and no other content");
}
