//! The agent of Systems Manager is installed only when the pinned key has signed it: the script of the user data itself, with
//! real signatures by keys made here. What downloads and what installs is stood in for.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn the_agent_is_installed_only_when_the_pinned_key_has_signed_it() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("home")).unwrap();
    fs::set_permissions(at("home"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at("agent.deb"), "the package").unwrap();
    for name in ["amazon", "other"] {
        gpg(
            scratch.path(),
            &["--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "never"],
        );
        gpg(scratch.path(), &["--armor", "--output", &format!("{name}.asc"), "--export", name]);
        let signature = format!("{name}.sig");
        gpg(
            scratch.path(),
            &["--local-user", name, "--output", &signature, "--detach-sign", "agent.deb"],
        );
    }
    let shown = gpg(scratch.path(), &["--with-colons", "--list-keys", "amazon"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let fingerprint = shown.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    write_script(scratch.path(), fingerprint.trim_end_matches(':'));

    let good = install(scratch.path(), "amazon.sig", "amazon.asc");
    assert!(good.status.success(), "{good:?}");
    assert!(at("installed").exists());
    fs::remove_file(at("installed")).unwrap();
    let wrong =
        [("other.sig", "other.asc", "has no key"), ("other.sig", "amazon.asc", "is not signed by")];
    for (signature, keys, words) in wrong {
        let run = install(scratch.path(), signature, keys);
        assert!(!run.status.success() && !at("installed").exists(), "{run:?}");
        assert!(String::from_utf8_lossy(&run.stderr).contains(words), "{run:?}");
    }
    fs::write(at("agent.deb"), "another package").unwrap();
    let run = install(scratch.path(), "amazon.sig", "amazon.asc");
    assert!(!run.status.success() && !at("installed").exists(), "{run:?}");
}

fn gpg(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--quiet"]).args(arguments).current_dir(folder);
    let run = command.env("GNUPGHOME", folder.join("home")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    run
}

/// The script as the user data writes it, and programs that stand in for those that would touch this machine.
fn write_script(folder: &Path, fingerprint: &str) {
    let template = crate::root().join("terraform/modules/compute/user-data.yml.tftpl");
    let template = fs::read_to_string(template).unwrap();
    let (_, script) = template.split_once("      #!/bin/sh\n").unwrap();
    let (script, _) = script.split_once("\nruncmd:").unwrap();
    let script: Vec<&str> =
        script.lines().map(|line| line.strip_prefix("      ").unwrap_or(line)).collect();
    let script = script
        .join("\n")
        .replace("${key_fingerprint}", fingerprint)
        .replace("${region}", "us-east-1")
        .replace("${key_url}", "https://example.com/keys.asc");
    fs::write(folder.join("install"), script).unwrap();
    fs::create_dir(folder.join("bin")).unwrap();
    let curl = "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" != --output ] || out=$2; shift; done\n\
        case $1 in *.deb.sig) cp \"$SIGNATURE\" \"$out\" ;; *.deb) cp agent.deb \"$out\" ;; *) cp \"$KEYS\" \"$out\" ;; esac\n";
    let dpkg = "#!/bin/sh\n[ \"$1\" = --print-architecture ] || touch installed\n";
    let systemctl = "#!/bin/sh\n[ \"$1\" != cat ]\n";
    for (name, text) in [("curl", curl), ("dpkg", dpkg), ("systemctl", systemctl)] {
        let path = folder.join("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn install(folder: &Path, signature: &str, keys: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", r#"PATH="$PWD/bin:$PATH" exec sh install"#]).current_dir(folder);
    command.env("SIGNATURE", signature).env("KEYS", keys).output().unwrap()
}
