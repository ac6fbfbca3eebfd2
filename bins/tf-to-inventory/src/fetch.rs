//! Gets the bytes of a source: stdin, file, S3, or what Terraform says about a folder.

use crate::Args;
use crate::error::Error;
use crate::file;
use crate::folder::{self, Place};
use crate::profile;
use crate::source::{Object, Source};
use deploy_actions::named_variable;
use deploy_aws::{Bucket, Client};
use deploy_cli::Context;
use std::io;
use std::path::Path;
use std::process::Stdio;

/// A document and what people call it.
pub(crate) struct Fetched {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) async fn fetch(source: &Source, args: &Args, ctx: &Context) -> Result<Fetched, Error> {
    match source {
        Source::Stdin => {
            let name = "stdin".to_owned();
            let bytes = file::read_stdin();
            let bytes = bytes.map_err(|source| Error::Read { name: name.clone(), source })?;
            Ok(Fetched { name, bytes })
        }
        Source::File(path) => from_file(path),
        Source::Object(object) => from_s3(object, ctx).await,
        Source::Folder(path) => {
            let shown = format!("the settings in `{}`", path.display());
            match place(path, args).map_err(|source| Error::Read { name: shown, source })? {
                Place::File(path) => from_file(&path),
                Place::Object(object) => from_s3(&object, ctx).await,
                Place::NoWorkspace { workspace, known } => {
                    Err(Error::Workspace { folder: path.clone(), workspace, known })
                }
                Place::Ask { why } => {
                    ask(path, why, workspace(args).as_deref(), args.terraform.as_deref()).await
                }
            }
        }
    }
}

/// Where the state of a folder lies, with what flags and environment say about it.
pub(crate) fn place(folder: &Path, args: &Args) -> io::Result<Place> {
    let data = named_variable("TF_DATA_DIR");
    folder::place(folder, data.as_deref(), workspace(args).as_deref())
}

fn workspace(args: &Args) -> Option<String> {
    args.workspace.clone().or_else(|| named_variable("TF_WORKSPACE"))
}

fn from_file(path: &Path) -> Result<Fetched, Error> {
    let name = format!("`{}`", path.display());
    let bytes = std::fs::read(path).map_err(|source| Error::Read { name: name.clone(), source })?;
    Ok(Fetched { name, bytes })
}

async fn from_s3(object: &Object, ctx: &Context) -> Result<Fetched, Error> {
    let name = format!("`s3://{}/{}`", object.bucket, object.key);
    let failed =
        |source| profile::explain(&name, source, |name, source| Error::Object { name, source });
    let config = deploy_aws::load(ctx, object.region.as_deref()).await.map_err(failed)?;
    let bucket = Bucket::new(Client::new(config), &object.bucket);
    let bytes = bucket.get(&object.key).await.map_err(failed)?;
    Ok(Fetched { name, bytes })
}

/// `state pull` of Terraform or OpenTofu. It reads the state through the backend and needs no provider.
async fn ask(
    folder: &Path,
    why: String,
    workspace: Option<&str>,
    program: Option<&str>,
) -> Result<Fetched, Error> {
    let by_terragrunt = folder.join("terragrunt.hcl").is_file();
    let programs = match program {
        Some(program) => vec![program],
        // Terragrunt makes the configuration and its backend: without it the folder has no state.
        None if by_terragrunt => vec![TERRAGRUNT],
        None => vec!["terraform", "tofu"],
    };
    let failed = |why: String| Error::Terraform { folder: folder.to_owned(), why };
    for program in &programs {
        let mut command = command(program, folder)
            .map_err(|error| failed(format!("`{program}` cannot be started: {error}")))?;
        command
            .args(["state", "pull"])
            .env("TF_INPUT", "0")
            .env("TF_IN_AUTOMATION", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.envs(workspace.map(|name| ("TF_WORKSPACE", name)));
        let output = match command.output().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(format!("`{program}` cannot be started: {error}"))),
            Ok(output) => output,
        };
        if !output.status.success() {
            let said = headline(&String::from_utf8_lossy(&output.stderr));
            return Err(failed(format!("`{program} state pull` failed: {said}")));
        }
        if output.stdout.trim_ascii().is_empty() {
            return Err(failed(format!("`{program} state pull` knows no state")));
        }
        let name = format!("the state of `{}`", folder.display());
        return Ok(Fetched { name, bytes: output.stdout });
    }
    Err(failed(format!("{why}, and there is no {} to ask", programs.join(" or "))))
}

const TERRAGRUNT: &str = "terragrunt";

/// The program in that folder. Terragrunt refuses `-chdir`, which would lead past the configuration that it makes; and it
/// is told to ask nothing, and to write Terraform's stdout as it is.
fn command(program: &str, folder: &Path) -> io::Result<tokio::process::Command> {
    let is_terragrunt = Path::new(program)
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains(TERRAGRUNT));
    if !is_terragrunt {
        let mut command = tokio::process::Command::new(program);
        command.arg(format!("-chdir={}", folder.display()));
        return Ok(command);
    }
    // A path is meant from here, not from the folder.
    let program = match program.contains('/') {
        true => std::path::absolute(program)?,
        false => program.into(),
    };
    let mut command = tokio::process::Command::new(program);
    command.current_dir(folder);
    for name in ["NON_INTERACTIVE", "TF_FORWARD_STDOUT"] {
        command.env(format!("TG_{name}"), "true");
    }
    // Of versions before 0.73.
    command.env("TERRAGRUNT_NON_INTERACTIVE", "true").env("TERRAGRUNT_FORWARD_TF_STDOUT", "true");
    Ok(command)
}

/// The headline of Terraform's error; the rest may hold anything.
fn headline(stderr: &str) -> String {
    let line = stderr.lines().find_map(|line| line.split_once("Error: "));
    let text = line.map_or("it does not say why", |(_, text)| text);
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::headline;

    #[test]
    fn terraforms_errors_are_cut_to_their_headline() {
        let text = "╷\n│ Error: Backend initialization required, please run \"terraform init\"\n│ \n│ Reason: x\n╵\n";
        assert_eq!(
            headline(text),
            "Backend initialization required, please run \"terraform init\""
        );
        assert_eq!(headline(""), "it does not say why");
    }
}
