//! What is refused before any call is made.

use crate::{id, inventory, tool};
use serde_json::{Value, json};

fn refused(inventory: &Value, args: &[&str], code: i32, expected: &str) {
    // A port that nobody listens on: a call would end with another status.
    let outcome = tool(inventory).aws("http://127.0.0.1:9").args(args).run();
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

#[test]
fn hosts_that_cannot_be_waited_for_are_all_named() {
    let hosts = json!({"all": {"hosts": {
        "a": {"private_ip": "10.0.0.1"}, "b": {"instance_id": "i-12"}, "c": {"instance_id": id(1)}, "d": {"instance_id": id(1)},
        "e": {"instance_id": id(2), "ansible_aws_ssm_region": "eu-west-1"}, "f": {"instance_id": id(3), "ansible_aws_ssm_region": "us-east-1"}
    }}});
    let expected = format!(
        "host `a` has no instance_id; host `b` has the instance_id `i-12`, which EC2 does not give; \
         hosts `c` and `d` are the same instance `{}`; its hosts are in several regions (eu-west-1, us-east-1); use `--limit`",
        id(1)
    );
    refused(&hosts, &[], 2, &expected);
    refused(&inventory(1001), &[], 2, "1001 hosts are more than the 1000 of one run");
}

#[test]
fn bad_flags_and_files_are_refused() {
    refused(
        &inventory(1),
        &["--limit", "typo"],
        2,
        "`typo` of the pattern `typo` matches no host and no group",
    );
    refused(
        &inventory(1),
        &["--limit", "all:!host-1"],
        3,
        "no host in `inventory.json` matches `all:!host-1`",
    );
    refused(&inventory(0), &[], 3, "no host in `inventory.json` matches `all`");
    refused(&json!({}), &[], 2, "not an inventory: it has no group `all`");
    for timeout in ["0s", "-5s", "soon", "10"] {
        refused(&inventory(1), &[&format!("--timeout={timeout}")], 2, "invalid value");
    }
    for flag in ["--timeout", "--unknown-grace", "--linger"] {
        refused(&inventory(1), &[flag, "-5s"], 2, "a duration cannot be negative");
    }
    refused(&inventory(1), &["--limit", ""], 2, "error: `--limit` is empty\nhint: ");
    let outcome =
        deploy_testkit::Tool::new(crate::BINARY).args(["--inventory", "missing.json"]).run();
    assert_eq!(outcome.code, 2);
    insta::assert_snapshot!(outcome.stderr, @r"
    error: cannot read the inventory `missing.json`
      caused by: No such file or directory (os error 2)
    hint: `tf-to-inventory outputs.json --output inventory.json` writes it
    ");
}
