//! Checks of the repository: what documents say, workflows pin and tools link.

use crate::{TOOLS, root, tool};
use deploy_cli::Exit;
use deploy_testkit::Tool;
use regex::Regex;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file that git knows or would add.
fn files(ending: &str) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    text.lines()
        .filter(|name| name.ends_with(ending))
        .map(|name| root().join(name))
        .filter(|p| p.exists())
        .collect()
}

fn workflows() -> Vec<PathBuf> {
    let mut found = files(".yml");
    found.retain(|path| {
        path.starts_with(root().join(".github/workflows"))
            || path.file_name().is_some_and(|name| name == "action.yml")
    });
    assert!(found.len() >= 3, "{found:?}");
    found
}

#[test]
fn every_tool_explains_itself_and_its_readme_names_every_flag() {
    let flag = Regex::new(r"--[a-z][a-z-]+").unwrap();
    for name in TOOLS {
        let help = Tool::new(tool(name)).args(["--help"]).run();
        assert_eq!(help.code, 0, "{name}: {}", help.stderr);
        let version = Tool::new(tool(name)).args(["--version"]).run();
        assert_eq!(version.stdout.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
        let readme = read(format!("bins/{name}/README.md"));
        let every_tool_has = ["--help", "--version"];
        for found in flag
            .find_iter(&help.stdout)
            .map(|found| found.as_str())
            .filter(|f| !every_tool_has.contains(f))
        {
            assert!(readme.contains(found), "bins/{name}/README.md does not name {found}");
        }
    }
}

#[test]
fn every_tool_refuses_an_unknown_flag_with_status_2() {
    for name in TOOLS {
        let outcome = Tool::new(tool(name)).args(["--no-such-flag"]).run();
        assert_eq!(outcome.code, 2, "{name}");
        assert!(outcome.stderr.contains("--no-such-flag"), "{name}: {}", outcome.stderr);
    }
}

#[test]
fn only_tools_that_talk_to_aws_link_its_sdk() {
    for name in TOOLS {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "-p", name, "-e", "normal", "--prefix", "none"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let links = String::from_utf8_lossy(&output.stdout).contains("aws-sdk-");
        let talks =
            ["tf-to-inventory", "wait-for-cloud-init", "ssm-run-playbook", "cleanup-orphans"]
                .contains(&name);
        assert_eq!(links, talks, "{name}");
    }
}

#[test]
fn the_page_of_exit_statuses_is_the_enum() {
    let mut table = String::from("| status | name | meaning |\n|---|---|---|\n");
    for exit in Exit::ALL {
        table.push_str(&format!("| {} | {} | {} |\n", exit.code(), exit.name(), exit.meaning()));
    }
    let page = read("docs/exit-codes.md");
    assert!(page.contains(&table), "docs/exit-codes.md must hold this table:\n{table}");
}

#[test]
fn external_actions_are_pinned_to_a_commit_with_its_version_beside_it() {
    let uses = Regex::new(r"(?m)^\s*(?:- )?uses:\s*(\S+)(.*)$").unwrap();
    let pinned = Regex::new(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$").unwrap();
    for path in workflows() {
        for found in uses.captures_iter(&fs::read_to_string(&path).unwrap()) {
            let (action, rest) = (&found[1], &found[2]);
            if !action.starts_with("./") {
                assert!(pinned.is_match(action), "{}: {action}", path.display());
                assert!(
                    rest.trim().starts_with("# v"),
                    "{}: {action} has no version comment",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_expression_stands_inside_a_run_line() {
    for path in workflows() {
        let text = fs::read_to_string(&path).unwrap();
        let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let mut stack = vec![&document];
        while let Some(value) = stack.pop() {
            if let Some(object) = value.as_object() {
                if let Some(run) = object.get("run").and_then(|run| run.as_str()) {
                    assert!(!run.contains("${{"), "{}: {run}", path.display());
                }
                stack.extend(object.values());
            } else if let Some(array) = value.as_array() {
                stack.extend(array);
            }
        }
    }
}

#[test]
fn every_input_and_output_of_the_action_is_described() {
    let action: serde_json::Value = serde_saphyr::from_str(&read("action.yml")).unwrap();
    let documentation = read("docs/github-actions-setup.md");
    for section in ["inputs", "outputs"] {
        let entries =
            action[section].as_object().unwrap_or_else(|| panic!("action.yml has no {section}"));
        for (name, entry) in entries {
            assert!(entry["description"].is_string(), "{section}: {name} has no description");
            assert!(
                documentation.contains(&format!("`{name}`")),
                "docs/github-actions-setup.md lacks `{name}`"
            );
        }
    }
}

#[test]
fn workflows_at_the_top_lead_to_githubs_folder() {
    let target = fs::read_link(root().join("workflows")).expect("`workflows` is a link");
    assert_eq!(target, Path::new(".github/workflows"));
}

#[test]
fn the_version_stands_in_the_changelog() {
    let changelog = read("CHANGELOG.md");
    let unreleased = changelog.find("## Unreleased").expect("the changelog begins with Unreleased");
    assert!(
        changelog[unreleased..].contains(env!("CARGO_PKG_VERSION")),
        "CHANGELOG.md lacks the version"
    );
}

#[test]
fn relative_links_in_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)(?:#[^)]*)?\)").unwrap();
    let mut broken = Vec::new();
    for path in files(".md") {
        for found in link.captures_iter(&fs::read_to_string(&path).unwrap()) {
            let target = &found[1];
            if !target.contains("://") && !target.starts_with("mailto:") {
                let folder = path.parent().expect("a file has a folder");
                if !folder.join(target).exists() {
                    broken.push(format!("{}: {target}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_first_screen_of_the_readme_holds_exactly_the_two_commands() {
    let readme = read("README.md");
    let first_screen = readme.split("\n## ").next().expect("split gives at least one part");
    assert!(first_screen.lines().count() <= 24, "the first screen is longer than a screen");
    let blocks: Vec<&str> = first_screen.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    let commands: Vec<&str> =
        blocks[0].lines().filter(|line| line.starts_with("scripts/")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].starts_with("scripts/deploy-environment.sh dev --local"), "{commands:?}");
    assert!(commands[1].starts_with("scripts/test.sh"), "{commands:?}");
}

/// What each page under docs/ and each tool's README says before anything else.
#[test]
fn every_page_opens_with_what_it_is_when_to_read_it_and_one_command() {
    let mut pages: Vec<PathBuf> = files(".md");
    let folders = ["docs", "docs/contracts", "docs/decisions", "terraform", "ansible"];
    pages.retain(|path| {
        let is_readme = path.file_name().is_some_and(|name| name == "README.md");
        folders.iter().any(|folder| {
            path.parent() == Some(&root().join(folder)) && (*folder == "docs" || is_readme)
        })
    });
    pages.extend(TOOLS.iter().map(|tool| root().join(format!("bins/{tool}/README.md"))));
    assert!(pages.len() > 14, "{pages:?}");
    let opening = Regex::new(
        r"\A# [^\n]+\n\n- \*\*What this is:\*\* [^\n]+\.\n- \*\*Read it when:\*\* [^\n]+\.\n- \*\*One command:\*\* `[^`\n]+`\n\n",
    )
    .unwrap();
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        assert!(opening.is_match(&text), "{}", path.display());
    }
}

/// What only those who wrote it understand.
#[test]
fn pages_have_no_private_vocabulary() {
    let words = Regex::new(
        r"(?i)\b((made|makes?) (\w+ ){0,3}true\b|bring(s|ing)? (\w+ ){0,4}home|comes? home|(is|are) worth|brought home)",
    )
    .unwrap();
    let mut pages = files(".md");
    pages.retain(|path| path.starts_with(root().join("docs")) || path.ends_with("README.md"));
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        let found: Vec<&str> = words.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
}

/// Pictures of the chain and of the workflow name the steps and jobs that there are, in their order.
#[test]
fn pictures_of_the_chain_name_the_steps_that_there_are() {
    let chain = |page: &str| -> Vec<String> {
        let text = read(page);
        let line = text.lines().find(|line| line.trim_start().starts_with("plan --")).unwrap();
        let label = Regex::new(r"\|[^|]*\|").unwrap();
        label.replace_all(line, "").split("-->").map(|step| step.trim().to_owned()).collect()
    };
    let script = read("scripts/deploy-environment.sh");
    let steps = script.lines().find_map(|line| line.strip_prefix("for step in ")).unwrap();
    assert_eq!(chain("README.md").join(" ") + "; do", steps);
    let workflow: serde_json::Value =
        serde_saphyr::from_str(&read(".github/workflows/deploy-dev.yml")).unwrap();
    let mut jobs: Vec<&String> = workflow["jobs"].as_object().unwrap().keys().collect();
    let mut drawn = chain("docs/github-actions-setup.md");
    jobs.sort();
    drawn.sort();
    assert_eq!(drawn.iter().collect::<Vec<_>>(), jobs);
}
