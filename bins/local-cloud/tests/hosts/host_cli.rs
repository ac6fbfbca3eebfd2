//! The unmodified AWS CLI on a host, with nothing but the host's role: S3, Secrets Manager, Parameter Store.

use std::process::Command;

use serde_json::json;

use crate::cloud::{Cloud, Run, cache};

/// Looks what a host of this profile may do, and reads what was put there from outside.
pub(crate) fn uses_its_role(cloud: &Cloud, host: &str) {
    install(cloud, host);
    // A bucket's name with a dot is never part of a host name, so its address has it in the path.
    let bucket = format!("role.{}", cloud.project);
    cloud.ok(&["s3api", "create-bucket", "--bucket", &bucket]);
    cloud.ok(&[
        "secretsmanager",
        "create-secret",
        "--name",
        "role/password",
        "--secret-string",
        "s3cret",
    ]);
    let parameter = ["--name", "/role/realm", "--type", "SecureString", "--value", "example.org"];
    cloud.ok(&[&["ssm", "put-parameter"], &parameter[..]].concat());

    let who = aws(cloud, host, "sts get-caller-identity --query Arn --output text");
    let role = format!(":assumed-role/{}/{host}", cloud.profile);
    assert!(who.stdout.trim().ends_with(&role), "{who}");
    let copied = aws(
        cloud,
        host,
        &format!("s3 cp /etc/hostname s3://{bucket}/from/host --only-show-errors"),
    );
    assert_eq!(copied.code, 0, "{copied}");
    let listed = cloud.ok(&["s3api", "list-objects-v2", "--bucket", &bucket]);
    assert_eq!(listed["Contents"][0]["Key"], "from/host", "{listed}");
    let back = aws(cloud, host, &format!("s3 cp s3://{bucket}/from/host -"));
    assert_eq!(back.stdout, cloud.exec(host, "cat /etc/hostname").stdout);
    let read = "secretsmanager get-secret-value --query SecretString --output text --secret-id";
    let secret = |name: &str| aws(cloud, host, &format!("{read} {name}"));
    let denied = secret("role/password");
    let said = format!(
        "{role} is not authorized to perform: secretsmanager:GetSecretValue on resource: role/password"
    );
    assert!(denied.stderr.contains("AccessDeniedException"), "{denied}");
    assert!(denied.stderr.contains(&said), "{denied}");
    may_read(cloud, "arn:aws:secretsmanager:*:*:secret:role/*-??????");
    let allowed = secret("role/password");
    assert_eq!(allowed.stdout, "s3cret\n", "{allowed}");
    let realm = "ssm get-parameter --name /role/realm --with-decryption --query Parameter.Value";
    let realm = aws(cloud, host, &format!("{realm} --output text"));
    assert_eq!(realm.stdout, "example.org\n", "{realm}");
    let missing = secret("role/nothing");
    // Without a secret there is no ARN with six characters at its end.
    assert!(missing.stderr.contains("AccessDeniedException"), "{missing}");
    may_read(cloud, "*");
    let missing = secret("role/nothing");
    assert!(missing.stderr.contains("ResourceNotFoundException"), "{missing}");
}

/// Lets the role of this profile read secrets of this ARN.
fn may_read(cloud: &Cloud, arn: &str) {
    let statement =
        json!({"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    let put = ["iam", "put-role-policy", "--role-name", &cloud.profile, "--policy-name", "secrets"];
    cloud.ok(&[&put[..], &["--policy-document", &policy]].concat());
}

fn aws(cloud: &Cloud, host: &str, command: &str) -> Run {
    // As Debian's AWS CLI has it: the certificates that the host trusts.
    let environment = "PYTHONPATH=/opt/cli AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt AWS_DEFAULT_REGION=us-east-1";
    cloud.exec(host, &format!("{environment} python3 -m awscli {command}"))
}

/// Copies the AWS CLI of this machine to the host: it is Python, as the host's own is.
fn install(cloud: &Cloud, host: &str) {
    let python = cache().join("venv/bin/python");
    let script = format!(
        "set -e; cd \"$('{}' -c 'import awscli, pathlib; print(pathlib.Path(awscli.__file__).parents[1])')\"; \
         docker exec {container} mkdir -p /opt/cli; \
         tar -cf - --exclude=__pycache__ --exclude='pip*' --exclude=awscli/examples . | \
         docker cp --quiet - {container}:/opt/cli",
        python.display(),
        container = format_args!("{}-{host}", cloud.project),
    );
    let copied = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}
