//! The real binary: what it reads, writes, refuses, and what Ansible makes of it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod ansible;
mod command;
mod guess;
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
