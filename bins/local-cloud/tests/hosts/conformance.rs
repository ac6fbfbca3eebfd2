//! boto3 judges: a session of some hundred calls, each answer compared with botocore's model.

use std::process::Command;

use crate::answers;
use crate::cloud::{Cloud, cache};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");

pub(crate) fn scenarios(cloud: &Cloud) {
    let python = cache().join("venv-checks/bin/python");
    assert!(
        python.exists(),
        "no {}: scripts/test.sh makes it from scripts/requirements-checks.txt",
        python.display()
    );
    cloud.check("the comparison sees every kind of fault", || {
        let tests = Command::new(&python)
            .args(["-m", "unittest", "test_shapes.py"])
            .current_dir(FOLDER)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("Python runs");
        assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
    });
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let file = scratch.path().join("answers.jsonl");
    let image = cloud.image("bookworm");
    cloud.check("boto3 goes through a session", || {
        let session = Command::new(&python)
            .args(["session.py".as_ref(), file.as_os_str()])
            .args(["--vpc", &cloud.vpc, "--subnet", &cloud.subnet, "--group", &cloud.group])
            .args(["--profile", &cloud.profile, "--image", &image])
            .current_dir(FOLDER)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(cloud.environment())
            .output()
            .expect("Python runs");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let read = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        answers::keep(text.lines().map(read));
        assert!(session.status.success(), "{}", String::from_utf8_lossy(&session.stderr));
        assert!(text.lines().count() >= 100, "{} answers", text.lines().count());
    });
}
