# shellcheck shell=bash
# Sourced after common.sh: installs what a fresh Debian or Ubuntu machine lacks. Every function is safe to call again, and
# does nothing when what it installs is there.

# shellcheck source=../lib/docker.sh
. "$repository/scripts/lib/docker.sh"
# shellcheck source=../lib/terraform.sh
. "$repository/scripts/lib/terraform.sh"

# Fails with the first thing that is missing and cannot be installed, before anything is built.
preflight() {
  [ "$(id -u)" = 0 ] || fail "$usage" "this needs root: it installs packages, starts Docker and makes networks" "run it with sudo"
  command -v apt-get >/dev/null || fail "$usage" "apt-get is missing: only Debian 12/13 and Ubuntu 24.04 are supported" \
    "install what docs/development.md lists by hand"
  mkdir -p "$cache"
  local free needed=8
  [ -d "$CARGO_TARGET_DIR/debug" ] || needed=14
  free=$(($(df --output=avail -k "$cache" | tail -n 1) / 1024 / 1024))
  [ "$free" -ge "$needed" ] ||
    fail "$usage" "only $free GiB are free under $cache, $needed are needed" "free some space, or set XDG_CACHE_HOME to a larger disk"
}

# packages NAME…: installs the Debian packages that are missing. A fresh cloud machine may hold apt's lock for minutes.
packages() {
  local name missing=()
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} != 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "$usage" "Debian packages are missing: ${missing[*]}" "as root: apt-get install ${missing[*]}"
  quietly "$state/logs/apt.log" "installing Debian packages: ${missing[*]}" bash -c '
    apt-get update &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"' apt "${missing[@]}"
}

# python_tools FOLDER REQUIREMENTS: a virtual environment with exactly the versions of that file.
python_tools() {
  local wanted stamp=$1/.requirements
  packages python3 python3-venv
  # The file and what it includes.
  wanted=$(cat "$repository"/scripts/requirements*.txt | sha256sum)
  if [ ! -x "$1/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$1"
    quietly "$state/logs/pip.log" "installing Python tools into $1" \
      "$1/bin/pip" install --disable-pip-version-check -r "$2"
    printf '%s' "$wanted" >"$stamp"
  fi
}

# The Rust toolchain and our own tools, one profile, into the shared target folder.
rust_tools() {
  local wanted found
  packages build-essential
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || found=missing
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ] || [ "$found" = missing ]; then
    packages curl ca-certificates
    quietly "$state/logs/rustup.log" "installing Rust: cargo is $found (or put cargo >= $wanted, clippy and rustfmt on PATH yourself)" bash -o pipefail -c '
      curl --connect-timeout 15 -sSf https://sh.rustup.rs |
        sh -s -- -y --profile minimal --default-toolchain stable -c clippy -c rustfmt --no-modify-path'
    hash -r
  fi
  quietly "$state/logs/cargo-build.log" "building the tools (the first time takes minutes)" \
    cargo build --locked --workspace --bins --manifest-path "$repository/Cargo.toml"
}
