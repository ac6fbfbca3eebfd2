#!/usr/bin/env bash
# First step of action.yml: refuses an environment that could replace our commands, then writes the outputs version,
# source-hash and bin-dir.
set -euo pipefail

fail() {
    # A line end in a value would begin a command of somebody else's.
    local text=${1//'%'/%25}
    text=${text//$'\r'/%0D}
    printf '::error title=calldata-foundation tools::%s\n' "${text//$'\n'/%0A}" >&2
    exit 2
}

# Exported functions would replace the commands below by somebody else's.
if env --null | grep --null-data '^BASH_FUNC_' >/dev/null; then
    fail 'the environment holds exported shell functions (BASH_FUNC_…); unset them before this action'
fi
[[ ${BUILD:-} == source ]] ||
    fail "input build is \`${BUILD:-}\`; only \`source\` exists until the first release"
[[ -n ${RUNNER_TOOL_CACHE:-} && -n ${GITHUB_OUTPUT:-} ]] ||
    fail 'RUNNER_TOOL_CACHE or GITHUB_OUTPUT is not set; this script runs as a step of action.yml'

cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
version=$(sed --quiet '/^\[workspace\.package\]/,/^\[/ s/^version = "\([0-9A-Za-z.+-]*\)"$/\1/p' Cargo.toml)
[[ -n $version ]] || fail 'Cargo.toml names no version'

# Names and contents of everything that a tool is built from, whatever folder the checkout is in.
source_hash=$(find Cargo.toml Cargo.lock bins crates -type f -print0 | LC_ALL=C sort --zero-terminated |
    xargs --null sha256sum | sha256sum | cut --characters=1-64)

{
    printf 'version=%s\n' "$version"
    printf 'source-hash=%s\n' "$source_hash"
    printf 'bin-dir=%s\n' "$RUNNER_TOOL_CACHE/calldata-foundation/$version-${source_hash:0:12}/$(uname --machine)"
} >>"$GITHUB_OUTPUT"
