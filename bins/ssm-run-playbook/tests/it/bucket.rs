//! Bundles that travel through a bucket.

use crate::double::{Double, Fault};
use crate::{FIRST, Repository, ended};
use deploy_testkit::Tool;
use std::fs;

const FINE: &str = "- name: Fine\n  ansible.builtin.debug:\n    msg: x\n";

/// The hosts' way to the bucket is the double's too.
fn tool(repository: &Repository, double: &Double, args: &[&str]) -> Tool {
    let args = [&["--bucket", "bundles"], args].concat();
    // Other than what holds for all services, which would be the runner's own way.
    let url = double.url().replace("127.0.0.1", "localhost");
    repository.tool(double, &args).env("AWS_ENDPOINT_URL_S3", url)
}

#[test]
fn an_object_that_somebody_else_writes_at_the_same_time_is_sent_again() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[Fault::ConflictOnce]);
    ended(&tool(&repository, &double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!((double.count("PUT object"), double.objects()), (2, Vec::<String>::new()));
}

#[test]
fn a_bundle_travels_through_the_bucket_once_and_nothing_stays() {
    let repository = Repository::new(FINE);
    // More than fits into commands.
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..200_000).flat_map(|_| next()).collect();
    repository.write("ansible/roles/demo/files/noise", &noise);
    let double = Double::start(&[]);
    ended(&repository.tool(&double, &[]).run(), 2, &["compressed; at most 524288", "`--bucket`"]);
    ended(
        &repository.tool(&double, &["--print-bundle"]).run(),
        2,
        &["compressed; at most 524288 can be sent this way; see `--bucket`", "noise"],
    );
    assert!(double.operations().is_empty());

    let first = tool(&repository, &double, &[]).run();
    ended(&first, 0, &["1 of 1 hosts good"]);
    assert_eq!(double.runs(), 2);
    assert!(double.sent_sizes().iter().all(|size| *size < 12_000), "{:?}", double.sent_sizes());
    let objects: Vec<String> =
        double.operations().into_iter().filter(|name| name.ends_with("object")).collect();
    assert_eq!(objects, ["PUT object", "GET object", "DELETE object"]);
    assert_eq!(double.objects(), Vec::<String>::new());

    double.clear();
    ended(&tool(&repository, &double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert!(!double.operations().iter().any(|name| name.ends_with("object")));
}

#[test]
fn an_object_of_another_run_is_used_and_left_and_one_that_vanishes_is_sent_again() {
    let repository = Repository::new(FINE);
    let double = Double::start(&[]);
    let printed = tool(&repository, &double, &["--print-bundle"]).run();
    ended(&printed, 0, &["it would travel through s3://bundles/ssm-run-playbook/"]);
    let key = printed.stdout.lines().last().unwrap().split("s3:/").nth(1).unwrap().to_owned();
    // Another run's host reads it while ours begins: the first GET finds it gone.
    double.fault(Fault::ObjectGone);
    double.put(&key, b"of another run");
    ended(&tool(&repository, &double, &[]).run(), 0, &["1 of 1 hosts good"]);
    assert_eq!((double.count("PUT object"), double.count("GET object")), (2, 2));
    assert_eq!(double.objects(), Vec::<String>::new());

    double.put(&key, b"not what the key says");
    fs::remove_dir_all(double.base(FIRST)).unwrap();
    ended(&tool(&repository, &double, &[]).run(), 6, &["is not what its name says; delete it"]);
    assert_eq!(double.objects(), [key]);
}

#[test]
fn a_bucket_that_is_denied_ends_the_run_and_a_failed_run_leaves_no_object() {
    let repository = Repository::new("- name: Bad\n  ansible.builtin.fail:\n");
    let double = Double::start(&[]);
    ended(&tool(&repository, &double, &[]).run(), 1, &["demo : Bad"]);
    assert_eq!((double.count("PUT object"), double.count("DELETE object")), (1, 1));
    assert_eq!(double.objects(), Vec::<String>::new());

    fs::remove_dir_all(double.base(FIRST)).unwrap();
    double.fault(Fault::DenyBucket);
    ended(&tool(&repository, &double, &[]).run(), 5, &["s3:PutObject was denied"]);
}
