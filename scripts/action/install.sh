#!/usr/bin/env bash
# Last step of action.yml: builds the tools that BIN_DIR lacks, runs each once, and puts BIN_DIR on PATH.
set -euo pipefail

cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
bin_dir=${BIN_DIR:?BIN_DIR is empty: did the first step of action.yml run?}
version=${VERSION:?VERSION is empty: did the first step of action.yml run?}
tools=(tf-to-inventory wait-for-cloud-init ssm-run-playbook smoke-test-http smoke-test-sip cleanup-orphans notify-slack)

missing=()
for tool in "${tools[@]}"; do
    [[ -x $bin_dir/$tool ]] || missing+=(--package "$tool")
done

if ((${#missing[@]} > 0)); then
    command -v cargo >/dev/null || {
        printf '::error title=calldata-foundation tools::cargo is not on PATH; install Rust before this action\n' >&2
        exit 2
    }
    target=${CARGO_TARGET_DIR:-${RUNNER_TEMP:-/tmp}/calldata-foundation-target}
    cargo build --locked --target-dir "$target" "${missing[@]}"
    mkdir --parents "$bin_dir"
    for tool in "${tools[@]}"; do
        [[ -x $bin_dir/$tool ]] || install --mode=0755 "$target/debug/$tool" "$bin_dir/$tool"
    done
fi

# A cache that was cut short, or a binary that is not the tool, shows here and not in the middle of a deployment.
for tool in "${tools[@]}"; do
    found=$("$bin_dir/$tool" --version) || found="exit status $?"
    if [[ $found != "$tool $version" ]]; then
        # A line end in it would begin a command of somebody else's.
        found=${found//'%'/%25} found=${found//$'\r'/%0D} found=${found//$'\n'/%0A}
        printf '::error title=calldata-foundation tools::%s --version says "%s" instead of "%s %s"; delete the cache of this action and run again\n' \
            "$tool" "$found" "$tool" "$version" >&2
        exit 2
    fi
    printf '%s\n' "$found"
done
printf '%s\n' "$bin_dir" >>"${GITHUB_PATH:?GITHUB_PATH is not set}"
