//! The real binary: what it reads, writes, refuses, and what Ansible makes of it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod ansible;
mod command;
mod formats;
mod fuzz;
mod guess;
mod patterns;
mod properties;
mod secrets;
mod sources;

use deploy_testkit::Tool;
use std::path::{Path, PathBuf};

const BINARY: &str = env!("CARGO_BIN_EXE_tf-to-inventory");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tool() -> Tool {
    Tool::new(BINARY)
}

#[test]
fn it_documents_itself() {
    deploy_testkit::manual_can_be_read(BINARY);
    deploy_testkit::readme_shows_help(BINARY, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
