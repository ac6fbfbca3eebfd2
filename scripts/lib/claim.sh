# shellcheck shell=bash
# Sourced by scripts/ and terraform/scripts/: which run works on an environment, on this machine and in the state's lock.
# Uses: fail (of the script that sources this).

# claim_run ENVIRONMENT WHAT: notes in .deploy/ENVIRONMENT/running that this process works on it, or ends with 6 and names
# the run that does. A note of a process that is gone counts for nothing. DEPLOY_RUN tells scripts called by this one.
claim_run() {
  local folder other
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.deploy/$1
  mkdir -p "$folder"
  DEPLOY_RUN=$$-$(started_at $$)
  export DEPLOY_RUN
  # The lock is for the look and the note only: nothing that is started later can keep it.
  other=$(
    exec 9>"$folder/running.lock"
    flock 9
    run_that_works "$1" && exit
    printf '%s\n' "$DEPLOY_RUN" "$2" "$(date -u +%FT%TZ)" 'not there yet' >"$folder/running"
  )
  [ -z "$other" ] || fail 6 "another run works on $1: $other" \
    "wait until it has ended, then start again; nothing was built or changed"
}

# claim_folder ENVIRONMENT DIR: notes where the files of this run go.
claim_folder() {
  local note
  note=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.deploy/$1/running
  sed -i '4s#.*#'"${2//#/\\#}"'#' "$note"
}

# run_that_works ENVIRONMENT: prints which other run on this machine works on it; status 1 when there is none.
run_that_works() {
  local run='' what='' since='' files='' folder pid
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.deploy/$1
  { read -r run && read -r what && read -r since && read -r files; } 2>/dev/null <"$folder/running" || return 1
  pid=${run%%-*}
  [ "$run" != "${DEPLOY_RUN:-}" ] && [ "$run" = "$pid-$(started_at "$pid")" ] || return 1
  printf '%s, process %s, since %s; its folder: %s' "$what" "$pid" "$since" "$files"
}

# When a process started, in clock ticks after boot: with its number it names a process for good.
started_at() { sed 's/.*) //' "/proc/${1:-none}/stat" 2>/dev/null | cut -d' ' -f20; }

# refuse_locked_state ENVIRONMENT REGION: ends with 6 where the state's lock is taken. It only looks: where it cannot tell
# (no bucket yet, no right to read the table), Terraform itself says it later.
refuse_locked_state() {
  local folder bucket=${TF_STATE_BUCKET:-} table=${TF_STATE_LOCK_TABLE:-calldata-foundation-tfstate-lock} account lock held id
  if [ -z "$bucket" ]; then
    account=$(aws sts get-caller-identity --query Account --output text 2>/dev/null) || return 0
    bucket=calldata-foundation-tfstate-$account-$2
  fi
  lock=$bucket/$1/terraform.tfstate
  held=$(aws dynamodb get-item --region "$2" --table-name "$table" --consistent-read --key "{\"LockID\":{\"S\":\"$lock\"}}" \
    --query Item.Info.S --output text 2>/dev/null) || return 0
  case $held in '' | None) return 0 ;; esac
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/terraform/environments/$1
  id=$(jq -r '.ID // "ID" | gsub("[^0-9a-f-]"; "")' <<<"$held")
  held=$(jq -r '"\(.Who // "somebody"), \(.Operation // "unknown operation"), since \(.Created // "an unknown time")"' <<<"$held" |
    LC_ALL=C tr -cd '[:print:]')
  fail 6 "another run has the lock of the state of $1: $held" \
    "wait until that run has ended, then start again; if it was killed and nothing of it runs any more: terraform -chdir=$folder force-unlock $id"
}
