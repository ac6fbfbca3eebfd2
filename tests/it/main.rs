//! Contracts between the tools and checks of the repository itself.

mod contracts;
#[expect(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]
mod foreign_text;
mod repository;
mod scripts;
mod signatures;

use std::path::{Path, PathBuf};

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}

/// A tool's binary: cargo puts tests into `deps` beside the binaries of the same build.
fn tool(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test knows where it is");
    folder.pop();
    folder.pop();
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run the tests with --workspace", path.display());
    path
}

/// The tools that a workflow or a person calls.
const TOOLS: [&str; 8] = [
    "tf-to-inventory",
    "wait-for-cloud-init",
    "ssm-run-playbook",
    "smoke-test-sip",
    "smoke-test-http",
    "cleanup-orphans",
    "notify-slack",
    "local-cloud",
];
