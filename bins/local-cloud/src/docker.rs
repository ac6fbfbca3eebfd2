//! Containers, networks and images, through the `docker` program.

use std::path::Path;

use crate::error::Error;
use crate::process::{self, Output, last_lines, run, run_all};

/// Label that carries the project; everything made here has it, and `down` finds it by it.
pub const PROJECT_LABEL: &str = "calldata.local-cloud.project";
/// Label of a container that carries its instance id.
pub const INSTANCE_LABEL: &str = "calldata.local-cloud.instance";

/// The Docker objects of one project.
#[derive(Debug, Clone)]
pub struct Docker {
    project: String,
}

impl Docker {
    /// Those of this project.
    pub fn new(project: &str) -> Self {
        Self { project: project.to_owned() }
    }

    /// `LABEL=project`, for filters and creation.
    pub fn label(&self) -> String {
        format!("{PROJECT_LABEL}={}", self.project)
    }

    /// The container's name of an instance.
    pub fn container(&self, instance_id: &str) -> String {
        format!("{}-{instance_id}", self.project)
    }

    /// The version of the engine, if it answers, and whether it uses cgroup v2.
    pub async fn engine() -> Result<Engine, Error> {
        let text = run(
            "docker",
            ["info", "--format", "{{.ServerVersion}} {{.CgroupVersion}} {{.DockerRootDir}}"],
            None,
        )
        .await?;
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(_), Some(cgroup), Some(root)) => {
                Ok(Engine { unified_cgroup: cgroup == "2", root: root.to_owned() })
            }
            _ => Err(Error::setup("the Docker engine does not answer", text.trim())),
        }
    }

    /// Whether an image of this name exists.
    pub async fn has_image(name: &str) -> Result<bool, Error> {
        let seen = process::capture("docker", ["image", "inspect", name], None).await?;
        // An engine that does not answer knows nothing of the image; that must not look as if it were missing.
        if seen.status.success() || seen.stderr.contains("No such image") {
            return Ok(seen.status.success());
        }
        let output = process::last_lines(&seen.stderr, 1);
        Err(Error::Program { program: "docker image inspect".into(), output })
    }

    /// Ids of all containers of the project.
    pub async fn containers(&self) -> Result<Vec<String>, Error> {
        let filter = format!("label={}", self.label());
        words(run("docker", ["ps", "--all", "--quiet", "--filter", &filter], None).await?)
    }

    /// Names of all networks of the project.
    pub async fn networks(&self) -> Result<Vec<String>, Error> {
        let filter = format!("label={}", self.label());
        let args = ["network", "ls", "--format", "{{.Name}}", "--filter", &filter];
        words(run("docker", args, None).await?)
    }

    /// Removes containers, running or not, with their anonymous volumes.
    pub async fn remove(containers: &[String]) -> Result<(), Error> {
        if containers.is_empty() {
            return Ok(());
        }
        let mut args: Vec<&str> = vec!["rm", "--force", "--volumes"];
        args.extend(containers.iter().map(String::as_str));
        run_all("docker", &args, None).await.map(drop)
    }

    /// Whether a container runs.
    pub async fn running(&self, instance_id: &str) -> Result<bool, Error> {
        let name = self.container(instance_id);
        let args = ["container", "inspect", "--format", "{{.State.Running}}", &name];
        Ok(process::capture("docker", args, None).await?.stdout.trim() == "true")
    }

    /// Unpacks a tar archive over the file system of a host that does not run.
    pub async fn copy_archive(&self, instance_id: &str, archive: &Path) -> Result<(), Error> {
        let file = std::fs::File::open(archive).map_err(|source| Error::File {
            doing: "read",
            path: archive.to_owned(),
            source,
        })?;
        let target = format!("{}:/", self.container(instance_id));
        let output = process::capture_file("docker", ["cp", "-", &target], file).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Program { program: "docker cp".into(), output: last_lines(&output.stderr, 3) })
    }

    /// Runs a command inside a host.
    pub async fn exec(&self, instance_id: &str, command: &[&str]) -> Result<Output, Error> {
        let name = self.container(instance_id);
        let args = ["exec", name.as_str()].into_iter().chain(command.iter().copied());
        process::capture("docker", args, None).await
    }
}

/// What matters about the engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// cgroup v2, as on most machines.
    pub unified_cgroup: bool,
    /// Where it keeps images and containers.
    pub root: String,
}

fn words(text: String) -> Result<Vec<String>, Error> {
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
