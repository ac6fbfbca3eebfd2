//! What a tool says of itself: its README shows its `--help`, and its completions and man page can be read.

use crate::Tool;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const BEGIN: &str = "<!-- what --help prints; renewed by README_BLESS=1 cargo test -->\n```text\n";
const END: &str = "```\n";

/// Holds the block below [`BEGIN`] in a README against what `program --help` prints; with `README_BLESS` in the
/// environment, renews it.
///
/// # Panics
/// When the README has no such block or shows something else.
pub fn readme_shows_help(program: impl AsRef<Path>, readme: impl AsRef<Path>) {
    let help = Tool::new(&program).args(["--help"]).run();
    assert_eq!(help.code, 0, "{help:?}");
    let page = fs::read_to_string(&readme).expect("the README can be read");
    let (before, rest) = page.split_once(BEGIN).unwrap_or_else(|| panic!("no block below {BEGIN}"));
    let (_, after) = rest.split_once(END).expect("the end of the block");
    let lines: String = help.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let wanted = format!("{before}{BEGIN}{lines}{END}{after}");
    if renew() {
        fs::write(&readme, wanted).expect("the README can be written");
    } else {
        assert!(
            page == wanted,
            "{} does not show what --help prints; renew it: README_BLESS=1 cargo test",
            readme.as_ref().display()
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's switch is no flag of the tool")]
fn renew() -> bool {
    std::env::var_os("README_BLESS").is_some()
}

/// Loads the completions into bash, which then must complete `--`, and looks at the man page.
///
/// # Panics
/// When one of them is not what it should be.
pub fn manual_can_be_read(program: impl AsRef<Path>) {
    let program = program.as_ref();
    let name = program.file_name().and_then(|name| name.to_str()).expect("a program's name");
    let completions = Tool::new(program).args(["--completions", "bash"]).run();
    assert_eq!((completions.code, completions.stderr.as_str()), (0, ""), "{completions:?}");
    let script = format!(
        "{}\nset -- $(complete -p {name}); while [ \"$1\" != -F ]; do shift; done\n\
         COMP_WORDS=({name} --); COMP_CWORD=1; $2 {name} -- {name}; echo \"${{COMPREPLY[*]}}\"",
        completions.stdout
    );
    let bash = Command::new("bash")
        .args(["-c", &script])
        .stderr(Stdio::inherit())
        .output()
        .expect("bash can be started");
    let offered = String::from_utf8_lossy(&bash.stdout);
    assert!(offered.contains("--verbose") && offered.contains("--help"), "offered: {offered}");
    let page = Tool::new(program).args(["--man-page"]).run();
    assert_eq!((page.code, page.stderr.as_str()), (0, ""), "{page:?}");
    assert!(page.stdout.contains(&format!(".TH {name}")), "{}", page.stdout);
    assert!(page.stdout.contains("EXIT STATUS\"\n.TP\n0\n"), "{}", page.stdout);
    let wrong = Tool::new(program).args(["--completions", "dos"]).run();
    assert_eq!(wrong.code, 2, "{wrong:?}");
}
