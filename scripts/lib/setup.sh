# shellcheck shell=bash
# Sourced after common.sh: installs what a fresh Debian or Ubuntu machine lacks. Every function is safe to call again,
# and does nothing when what it installs is there.

# Fails with the first thing that is missing and cannot be installed, before anything is built.
preflight() {
  [ "$(id -u)" = 0 ] || fail "$usage" "this needs root: it installs packages, starts Docker and makes networks" "run it with sudo"
  command -v apt-get >/dev/null || fail "$usage" "apt-get is missing: only Debian 12/13 and Ubuntu 24.04 are supported" \
    "install what docs/development.md lists by hand"
  mkdir -p "$cache"
  local free needed=8
  [ -d "$CARGO_TARGET_DIR" ] || needed=14
  free=$(($(df --output=avail -k "$cache" | tail -n 1) / 1024 / 1024))
  [ "$free" -ge "$needed" ] ||
    fail "$usage" "only $free GiB are free under $cache, $needed are needed" "free some space, or set XDG_CACHE_HOME to a larger disk"
}

# packages NAME…: installs the Debian packages that are missing.
packages() {
  local name missing=()
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] || quietly "$state/logs/apt.log" "installing Debian packages: ${missing[*]}" \
    bash -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"' apt "${missing[@]}"
}

# Starts the Docker engine: by the service manager where one runs, else by hand, detached, with its log in the state
# folder. $state/dockerd.pid remembers an engine started by hand, so that it can be stopped again.
docker_engine() {
  packages docker.io iptables
  docker info >/dev/null 2>&1 && return
  if [ -d /run/systemd/system ]; then
    quietly "$state/logs/dockerd.log" "starting Docker" systemctl start docker
  else
    say "starting dockerd (no service manager runs here; log: $state/logs/dockerd.log)"
    mkdir -p "$state/logs"
    setsid nohup dockerd >"$state/logs/dockerd.log" 2>&1 </dev/null &
    printf '%s %s\n' "$!" "$(process_start "$!")" >"$state/dockerd.pid"
  fi
  local _
  for _ in {1..60}; do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  stop_docker_engine
  fail "$unavailable" "the Docker engine does not answer" "its log is $state/logs/dockerd.log"
}

# When a process started, in clock ticks after boot: with the pid it names a process for good.
process_start() { sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; }

# Stops the engine that docker_engine started by hand, unless somebody's container still runs in it.
stop_docker_engine() {
  local pid start _
  [ -f "$state/dockerd.pid" ] || return 0
  read -r pid start <"$state/dockerd.pid"
  if [ -d "/proc/$pid" ] && [ "$(process_start "$pid")" = "$start" ]; then
    [ -z "$(timeout 20 docker ps -q 2>/dev/null)" ] || { say "dockerd stays: containers run in it"; return 0; }
    kill "$pid"
    for _ in {1..60}; do
      [ -d "/proc/$pid" ] || break
      sleep 0.25
    done
  fi
  rm -f "$state/dockerd.pid"
}

# python_tools FOLDER REQUIREMENTS: a virtual environment with exactly the versions of that file.
python_tools() {
  local wanted stamp=$1/.requirements
  packages python3 python3-venv
  wanted=$(sha256sum <"$2")
  if [ ! -x "$1/bin/python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$1"
    quietly "$state/logs/pip.log" "installing Python tools into $1" \
      "$1/bin/pip" install --disable-pip-version-check -r "$2"
    printf '%s' "$wanted" >"$stamp"
  fi
}

# Terraform, and where its provider comes from when the public registry cannot be reached.
terraform_tool() {
  local version=1.11.4 archive
  packages curl unzip
  if ! command -v terraform >/dev/null; then
    archive=terraform_${version}_linux_$(dpkg --print-architecture).zip
    mkdir -p "$cache/bin"
    quietly "$state/logs/terraform.log" "installing Terraform $version" download_terraform "$version" "$archive"
  fi
  provider_mirror
}

# download_terraform VERSION ARCHIVE: from HashiCorp's release server, its checksum verified, into the cache folder.
download_terraform() {
  local folder base=https://releases.hashicorp.com/terraform/$1 sums=terraform_$1_SHA256SUMS
  folder=$(mktemp -d)
  curl -sSf --output-dir "$folder" -O "$base/$2" -O "$base/$sums" &&
    (cd "$folder" && grep " $2\$" "$sums" | sha256sum -c - && unzip -o "$2" terraform -d "$cache/bin") || return
  rm -rf "$folder"
}

# Sets TERRAFORM_PROVIDER_MIRROR when the registry named in the lock file does not answer: Terraform's implied folders
# first, then a shallow search. Says what it found.
provider_mirror() {
  local registry found
  [ -z "${TERRAFORM_PROVIDER_MIRROR:-}" ] || return 0
  registry=$(sed -n 's#^provider "\([^/]*\)/.*#\1#p' "$repository/terraform/environments/dev/.terraform.lock.hcl" | head -n 1)
  rm -f "$state/provider-mirror"
  curl -sSf --max-time 5 -o /dev/null "https://$registry/.well-known/terraform.json" 2>/dev/null && return 0
  # Folders that do not exist are no fault here.
  found=$(find "$HOME/.terraform.d/plugins" "${XDG_DATA_HOME:-$HOME/.local/share}/terraform/plugins" \
    /usr/local/share/terraform/plugins /usr/share/terraform/plugins -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || found=$(find / -xdev -maxdepth 6 -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || fail "$unavailable" "the Terraform registry does not answer and no provider mirror was found" \
    "set TERRAFORM_PROVIDER_MIRROR to a folder made by \`terraform providers mirror\`"
  export TERRAFORM_PROVIDER_MIRROR=${found%/"$registry"/hashicorp/aws}
  # For steps that are run by hand later.
  mkdir -p "$state"
  printf '%s\n' "$TERRAFORM_PROVIDER_MIRROR" >"$state/provider-mirror"
  say "the Terraform registry does not answer: providers come from $TERRAFORM_PROVIDER_MIRROR"
}

# The Rust toolchain and our own tools, one profile, into the shared target folder.
rust_tools() {
  packages build-essential
  if ! command -v cargo >/dev/null; then
    packages curl ca-certificates
    quietly "$state/logs/rustup.log" "installing Rust" \
      bash -c 'curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt --no-modify-path'
  fi
  quietly "$state/logs/cargo-build.log" "building the tools (the first time takes minutes)" \
    cargo build --locked --workspace --bins --manifest-path "$repository/Cargo.toml"
}
