//! The environment variables that this project reads, each in one place and typed.

use std::path::PathBuf;

/// What the process environment says about GitHub Actions, the terminal and the user's folders.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `GITHUB_ACTIONS` is `true`.
    pub in_actions: bool,
    /// `GITHUB_OUTPUT`: the file that takes step outputs.
    pub output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`: the file that takes Markdown.
    pub step_summary: Option<PathBuf>,
    /// `GITHUB_SERVER_URL`, e.g. `https://github.com`.
    pub server_url: Option<String>,
    /// `GITHUB_REPOSITORY`, `owner/name`.
    pub repository: Option<String>,
    /// `GITHUB_RUN_ID`.
    pub run_id: Option<String>,
    /// `GITHUB_RUN_ATTEMPT`, counted from 1.
    pub run_attempt: Option<String>,
    /// `GITHUB_ACTOR`: who started the run.
    pub actor: Option<String>,
    /// `GITHUB_REF_NAME`: branch or tag.
    pub ref_name: Option<String>,
    /// `GITHUB_SHA`: the commit.
    pub sha: Option<String>,
    /// `GITHUB_WORKSPACE`: the checkout.
    pub workspace: Option<PathBuf>,
    /// `NO_COLOR` is set and not empty (<https://no-color.org>).
    pub no_color: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`, or `HOME/.cache`.
    pub cache_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`, or `HOME/.local/state`.
    pub state_home: Option<PathBuf>,
}

#[expect(clippy::disallowed_methods, reason = "this module is where the environment is read")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a variable is set and empty.
#[expect(clippy::disallowed_methods, reason = "this module is where the environment is read")]
pub fn is_empty_variable(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Reads one variable whose name the user chose by a flag such as `--password-env NAME`. Empty counts as not set.
pub fn named_variable(name: &str) -> Option<String> {
    variable(name)
}

impl Environment {
    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        let home = variable("HOME").map(PathBuf::from);
        let under_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
        Self {
            in_actions: variable("GITHUB_ACTIONS").as_deref() == Some("true"),
            output: variable("GITHUB_OUTPUT").map(PathBuf::from),
            step_summary: variable("GITHUB_STEP_SUMMARY").map(PathBuf::from),
            server_url: variable("GITHUB_SERVER_URL"),
            repository: variable("GITHUB_REPOSITORY"),
            run_id: variable("GITHUB_RUN_ID"),
            run_attempt: variable("GITHUB_RUN_ATTEMPT"),
            actor: variable("GITHUB_ACTOR"),
            ref_name: variable("GITHUB_REF_NAME"),
            sha: variable("GITHUB_SHA"),
            workspace: variable("GITHUB_WORKSPACE").map(PathBuf::from),
            no_color: variable("NO_COLOR").is_some(),
            cache_home: variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| under_home(".cache")),
            state_home: variable("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| under_home(".local/state")),
            home,
        }
    }
}
