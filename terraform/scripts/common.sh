# shellcheck shell=bash disable=SC2034 # The variables are for the scripts that source this.
# What the scripts of this folder share; sourced, not run. The caller has set -euo pipefail.

# A plan can hold secrets.
umask 077
terraform_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository_root=$(dirname "$terraform_root")
project=calldata-foundation
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}

export TF_IN_AUTOMATION=1 TF_INPUT=0 CHECKPOINT_DISABLE=1
export TF_VAR_region=${TF_VAR_region:-$region}
# Some machines name a configuration file that is not there; Terraform would warn at every call.
if [[ -n ${TF_CLI_CONFIG_FILE:-} && ! -e $TF_CLI_CONFIG_FILE ]]; then unset TF_CLI_CONFIG_FILE; fi

# A signal while another script of this folder runs: that one ends first, then this one.
stop_between_steps() {
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
stop_between_steps

# fail STATUS MESSAGE [HINT]: statuses as in docs/exit-codes.md.
# A step that calls a script of this folder names a file in TERRAFORM_WHY for the reason, which its report tells.
fail() {
  printf 'error: %s\n' "$2" >&2
  if [[ -n ${TERRAFORM_WHY:-} ]]; then printf '%s\n' "$2" >"$TERRAFORM_WHY"; fi
  if [[ -n ${3:-} ]]; then printf 'hint: %s\n' "$3" >&2; fi
  exit "$1"
}

say() { printf '%s\n' "$*" >&2; }

# environment_of NAME: sets environment and root, or ends with status 2.
environment_of() {
  environment=$1
  if [[ $environment == stage ]]; then environment=staging; fi
  root=$terraform_root/environments/$environment
  if [[ ! $environment =~ ^[a-z]+$ || ! -f $root/backend.tf ]]; then
    fail 2 "unknown environment \`$1\`" "there is: $(cd "$terraform_root/environments" && echo -- * | cut -c4-)"
  fi
}

# terraform_in FOLDER ARGS…: Terraform there. What it said on stderr stays in terraform_errors.
# It runs in a process group of its own (`set -m`), where Ctrl-C does not reach it, and is told once to stop, whoever
# was signalled: it then ends the calls that it is in and stores the state; a second signal would make it drop the state.
# Even so, what a cut call has just made may be in no state. So where let_finish is set (apply, destroy) the first signal
# lets Terraform finish, and the second one stops it; except on a GitHub runner, which kills everything 10 s after its first.
data_base='' # check.sh sets it: the parent of one folder per root, to leave the roots' own alone.
terraform_in() {
  local folder=$1 log status=0 stopped='' told='' child
  shift
  log=$(mktemp)
  set -m
  TF_DATA_DIR=${data_base:-$folder}${data_base:+${folder#"$terraform_root"}}/.terraform \
    terraform -chdir="$folder" "$@" 2>"$log" &
  child=$!
  set +m
  trap 'terraform_stop 130' INT
  trap 'terraform_stop 143' TERM
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child" || status=$?; done
  stop_between_steps
  terraform_errors=$(sed 's/\x1b\[[0-9;]*m//g' "$log")
  cat "$log" >&2
  rm -f "$log"
  if [[ -n $stopped ]]; then exit "$stopped"; fi
  return "$status"
}

# terraform_stop STATUS: what a signal means to the Terraform that runs; see terraform_in.
terraform_stop() {
  if [[ -z $stopped && -n ${let_finish:-} && ${GITHUB_ACTIONS:-} != true ]]; then
    echo 'stopping as soon as Terraform has finished what it applies; once more stops it at once, and may lose what it is making' >&2
  elif [[ -z $told ]]; then
    told=yes
    kill -INT "$child"
  fi
  stopped=${stopped:-$1}
}

# fail_terraform MESSAGE: ends with 5 (denied), 6 (unavailable) or 1, from what Terraform said last.
fail_terraform() {
  case $terraform_errors in
    *'Failed to query available provider packages'* | *'Failed to install provider'* | *'Could not load the schema for provider'* \
      | *'Required plugins are not installed'* | *'Invalid provider registry host'*)
      fail 6 "$1: Terraform's provider is missing, and where it should come from does not have it: ${TERRAFORM_PROVIDER_MIRROR:-its registry}" \
        'set TERRAFORM_PROVIDER_MIRROR to a folder made by `terraform providers mirror`, or unset it where the registry can be reached' ;;
    *'Error acquiring the state lock'*) fail_locked "$1" ;;
    *'No valid credential sources'* | *ExpiredToken* | *InvalidClientTokenId* | *AccessDenied* | *UnauthorizedOperation* | *SignatureDoesNotMatch*)
      fail 5 "$1: AWS does not accept the credentials" 'are they set, and not expired?' ;;
    *'connection refused'* | *'no such host'* | *'i/o timeout'* | *Throttling* | *'StatusCode: 50'[0-9]*)
      fail 6 "$1: AWS cannot be reached${AWS_ENDPOINT_URL:+ at $AWS_ENDPOINT_URL}" 'is the endpoint up, and the network?' ;;
    *) fail 1 "$1" ;;
  esac
}

# run_folder [DIR]: makes DIR, or a new folder for this run, and sets out to its absolute path.
run_folder() {
  out=${1:-$repository_root/.deploy/$environment/$(date -u +%Y%m%dT%H%M%SZ)}
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  if [[ -z ${1:-} ]]; then ln -sfn "${out##*/}" "${out%/*}/latest"; fi
}

# fail_locked MESSAGE: ends with 6 and says who has the state's lock, from what Terraform said of it.
fail_locked() {
  local id who what since holder='' name=${environment:-bootstrap}
  lock_field() { sed -n "s/^[│[:space:]]*$1:[[:space:]]*//p" <<<"$terraform_errors" | head -n 1 | LC_ALL=C tr -cd '[:print:]'; }
  id=$(lock_field ID) who=$(lock_field Who) what=$(lock_field Operation) since=$(lock_field Created)
  if [[ -z $id ]]; then
    fail 6 "$1: the lock of its state could not be had" 'what Terraform said above names the reason'
  fi
  holder=$(run_that_works "$name") || :
  fail 6 "$1: another run has the lock of its state: ${who:-somebody}, ${what:-unknown operation}, since ${since:-an unknown time}${holder:+; $holder}" \
    "wait until that run has ended, then start again; if it was killed and nothing of it runs any more: terraform -chdir=${root:-${folder:-.}} force-unlock $id"
}

# shellcheck source=../../scripts/lib/claim.sh
source "$repository_root/scripts/lib/claim.sh"
# shellcheck source=../../scripts/lib/provider.sh
source "$repository_root/scripts/lib/provider.sh"

# Where the provider comes from when not from its registry.
plugin_arguments=()
if [[ -n ${TERRAFORM_PROVIDER_MIRROR:-} && ! -d $TERRAFORM_PROVIDER_MIRROR ]]; then
  fail 2 "TERRAFORM_PROVIDER_MIRROR names no folder: \`$TERRAFORM_PROVIDER_MIRROR\`"
fi
provider_mirror
if [[ -n ${TERRAFORM_PROVIDER_MIRROR:-} ]]; then
  plugin_arguments=("-plugin-dir=$(cd "$TERRAFORM_PROVIDER_MIRROR" && pwd)")
fi
