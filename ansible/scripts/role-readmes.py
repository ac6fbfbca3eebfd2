#!/usr/bin/env python3
"""Writes the variables table of every role's README from its meta/argument_specs.yml.

With --check nothing is written: status 1 names each README that is out of date, and each variable whose default in
defaults/main.yml is not the one that the specification tells people. Needs PyYAML, which comes with Ansible.
"""

import argparse
import json
import pathlib
import sys

import yaml

BEGIN = "<!-- variables: written by scripts/role-readmes.py from meta/argument_specs.yml -->"
END = "<!-- end of variables -->"
ROLES = pathlib.Path(__file__).resolve().parent.parent / "roles"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def show(value):
    """A default as it would stand in a variables file, short enough for a table."""
    text = value if isinstance(value, str) and value else json.dumps(value)
    return "`" + text.replace("|", "\\|") + "`"


def kind(option):
    return option["type"] + (f" of {option['elements']}" if "elements" in option else "")


def table(options):
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        default = "required" if option.get("required") else show(option["default"])
        meaning = option["description"]
        if "choices" in option:
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        if "options" in option:
            meaning += " Keys: " + ", ".join(f"`{key}`" for key in option["options"]) + "."
        lines.append(f"| `{name}` | {kind(option)} | {default} | {meaning} |")
    return "\n".join(lines)


def tables(entries):
    """The main entry point's table; any other's under a line with its name and purpose."""
    return "\n\n".join(
        ("" if name == "main" else f"Entry point `{name}`: {entry['description']}\n\n") + table(entry["options"])
        for name, entry in entries.items()
    )


def complaints_about_defaults(role, options):
    defaults = load(role / "defaults" / "main.yml")
    own = {name: option.get("default") for name, option in options.items() if not option.get("required")}
    for name in sorted(defaults.keys() | own.keys()):
        if name not in own:
            yield f"{role.name}: `{name}` has a default but no specification"
        elif name not in defaults:
            yield f"{role.name}: `{name}` is specified but has no default"
        elif defaults[name] != own[name]:
            yield f"{role.name}: `{name}` defaults to {defaults[name]!r}, the specification says {own[name]!r}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say what is out of date")
    check = parser.parse_args().check
    complaints = []
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        entries = load(role / "meta" / "argument_specs.yml")["argument_specs"]
        options = {name: option for entry in entries.values() for name, option in entry["options"].items()}
        complaints += complaints_about_defaults(role, options)
        readme = role / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            complaints.append(f"{role.name}: README.md has no place for the variables")
            continue
        before, rest = text.split(BEGIN)
        wanted = before + BEGIN + "\n" + tables(entries) + "\n" + END + rest.split(END)[1]
        if wanted != text and check:
            complaints.append(f"{role.name}: README.md is out of date; run scripts/role-readmes.py")
        elif wanted != text:
            readme.write_text(wanted, encoding="utf-8")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
