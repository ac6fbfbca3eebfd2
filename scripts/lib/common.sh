# shellcheck shell=bash
# Sourced by every script: where things are, and how a script talks to people.
# Sets: repository, cache, state, bin_dir, venv (all absolute) and puts the tools on PATH.

set -Eeuo pipefail
# What fails without a word of its own is named by its place; `fail` and expected failures do not come here.
trap 'printf "error: %s:%s ended with status %s\n" "${BASH_SOURCE[0]}" "$LINENO" "$?" >&2' ERR

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calldata-foundation
# The state folder belongs to the rehearsal cloud and to what these scripts start for it.
state=${XDG_STATE_HOME:-$HOME/.local/state}/calldata-foundation
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# On a runner the action has put the tools on PATH; this folder is not there then.
bin_dir=$CARGO_TARGET_DIR/debug
# Python tools of a deployment, and those of the checks (Ansible among them).
venv=$cache/venv
export DEPLOY_VENV=$cache/venv-checks
export PATH=$bin_dir:$venv/bin:$DEPLOY_VENV/bin:$cache/bin:$HOME/.cargo/bin:$PATH
# A variable that names a missing file stops Terraform.
[ -e "${TF_CLI_CONFIG_FILE:-/}" ] || unset TF_CLI_CONFIG_FILE
# Colour is for terminals; logs and summaries get plain text.
[ -t 1 ] || export TF_CLI_ARGS_init=-no-color TF_CLI_ARGS_plan=-no-color TF_CLI_ARGS_apply=-no-color TF_CLI_ARGS_destroy=-no-color
SECONDS=0

# Exit statuses of docs/exit-codes.md.
readonly usage=2 denied=5 unavailable=6

# harmless: text from outside, stdin to stdout. The runner takes `::command::` at a line's start and `##[command]` anywhere
# for its own, and a bare CR ends a line; control characters are for terminals.
harmless() {
  LC_ALL=C tr '\000-\010\013-\037\177' '?' | sed -e 's/##\[/#\\u{23}[/g' -e 's/^\([[:space:]]*\)::/\1\\u{3a}:/'
}

say() { printf '[%4d s] %s\n' "$SECONDS" "$*" | harmless >&2; }

# fail STATUS MESSAGE [HINT]
fail() {
  printf 'error: %s\n' "$2" | harmless >&2
  [ -z "${3:-}" ] || printf 'hint: %s\n' "$3" | harmless >&2
  exit "$1"
}

# The environment's folder name for what a person typed; `stage` is an alias.
environment_name() {
  local name=$1 known
  [ "$name" != stage ] || name=staging
  known=$(find "$repository/terraform/environments" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort | paste -sd' ')
  case " $known " in
    *" $name "*) printf '%s\n' "$name" ;;
    *) fail "$usage" "unknown environment \`$1\`" "known: ${known// /, } (each is a folder under terraform/environments)" ;;
  esac
}

# new_run_folder ENVIRONMENT: sets out to a new folder for a run, and links `latest` to it.
new_run_folder() {
  out=$repository/.deploy/$1/$(date -u +%Y%m%dT%H%M%SZ)
  mkdir -p "$out"
  ln -sfn "$(basename "$out")" "$repository/.deploy/$1/latest"
}

# quietly LOG TEXT COMMAND… : runs it with its output in LOG, says TEXT, every 20 s while it lasts the last line of LOG, and
# shows the log's end when it fails.
quietly() {
  local log=$1 text=$2 status=0 beat nap='' start=$SECONDS
  shift 2
  mkdir -p "$(dirname "$log")"
  : >"$log"
  say "$text"
  (
    trap 'kill "$nap" 2>/dev/null; exit 0' TERM
    while kill -0 "$$" 2>/dev/null; do
      sleep 20 & nap=$!
      wait "$nap"
      say "… $((SECONDS - start)) s: $(tail -n 1 "$log" | tr -d '\r' | sed 's,^ *,,' | cut -c 1-100)"
    done
  ) &
  beat=$!
  "$@" >"$log" 2>&1 </dev/null || status=$?
  kill "$beat" 2>/dev/null || :
  wait "$beat" 2>/dev/null || :
  if [ "$status" != 0 ]; then
    tail -n 30 "$log" | harmless >&2
    case $status in 130 | 143) exit "$status" ;; esac
    fail "$unavailable" "$text: failed with status $status" "the whole output is in $log"
  fi
}
