# shellcheck shell=bash
# Sourced by scripts/test.sh: runs checks one after the other, counts them, and knows how each folder is checked.
# Uses: repository, cache, state, logs.

passed=0 failed=0 skipped=0

# check NAME COMMAND…: one line with its time, the end of its output when it fails, and while it lasts a line every 20 s
# with the last line of its output.
check() {
  local name=$1 status=0 start=$SECONDS log=$logs/$1.log beat nap=''
  shift
  : >"$log"
  (
    trap 'kill "$nap" 2>/dev/null; exit 0' TERM
    while kill -0 "$$" 2>/dev/null; do
      sleep 20 & nap=$!
      wait "$nap"
      printf '  …       %-28s %4d s  %s\n' "$name" "$((SECONDS - start))" "$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-100)"
    done
  ) &
  beat=$!
  ("$@") >"$log" 2>&1 </dev/null || status=$?
  kill "$beat" 2>/dev/null || :
  wait "$beat" || :
  count "$name" "$status" "$((SECONDS - start))"
}

# begin NAME COMMAND…: a check that mostly waits runs beside the next one, until `finish` counts it.
begin() {
  local name=$1
  shift
  (
    begun=$SECONDS status=0
    # A process group of its own, for `leave`: Ctrl-C does not reach what runs in the background.
    # shellcheck disable=SC2016
    setsid sh -c 'echo $$ >"$0"; exec "$@"' "$logs/beside" "$@" >"$logs/$name.log" 2>&1 </dev/null || status=$?
    printf '%d %d\n' "$status" "$((SECONDS - begun))" >"$logs/$name.end"
  ) &
  beside=$!
}

# finish NAME: waits for the check that was begun.
finish() {
  local name=$1 status seconds
  wait "$beside" || :
  rm "$logs/beside"
  read -r status seconds <"$logs/$name.end"
  count "$name" "$status" "$seconds"
}

# count NAME STATUS SECONDS: one line, and the end of its output when it failed.
count() {
  if [ "$2" = 0 ]; then
    passed=$((passed + 1))
    printf '  ok      %-28s %4d s\n' "$1" "$3"
  else
    failed=$((failed + 1))
    printf '  FAILED  %-28s %4d s  (status %d)\n' "$1" "$3" "$2"
    tail -n 80 "$logs/$1.log" | sed 's/^/          /'
  fi
}

# skip NAME WHY: said and counted, never silent.
skip() {
  skipped=$((skipped + 1))
  printf '  skipped %-28s         %s\n' "$1" "$2"
}

# The last line, in the form that CI reads, and the exit status.
conclude() {
  printf '\n%d passed, %d failed' "$passed" "$failed"
  [ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
  printf '\n'
  [ "$failed" = 0 ] || exit 1
}

# Every script, and every library by itself: what a library takes from its caller, or sets for it, is no fault there.
check_shell() {
  local file scripts=() libraries=()
  while read -r file; do
    [ -f "$file" ] || continue
    case $(head -n 1 "$file" | tr -d '\0') in
      '#!'*sh) scripts+=("$file") ;;
      '# shellcheck shell='*) libraries+=("$file") ;;
    esac
  done < <(git ls-files -co --exclude-standard scripts .ci terraform bins)
  shellcheck "${scripts[@]}" &&
    shellcheck --exclude=SC2034,SC2154 "${libraries[@]}"
}

check_ansible() {
  cd "$repository/ansible" && ansible-lint --offline --strict
}

# Format, validate and test of every root and module; two at a time, as each mostly waits for its provider.
check_terraform() {
  (cd "$repository/terraform" && printf '%s\n' bootstrap bootstrap/identity environments/* modules/*) |
    xargs -P 2 -n 1 "$repository/terraform/scripts/check.sh"
}

# cargo_deny ARGUMENTS…: from source, a few minutes once per machine.
cargo_deny() {
  export PATH=$cache/cargo-tools/bin:$PATH
  if ! command -v cargo-deny >/dev/null; then
    CARGO_TARGET_DIR=$cache/tools-target cargo install cargo-deny --locked --debug --version 0.20.2 --root "$cache/cargo-tools" || return
  fi
  cargo-deny --workspace "$@"
}

# The advisories need RustSec's database, a git repository.
check_advisories() {
  if timeout 15 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    check cargo-deny-advisories cargo_deny check advisories
  else
    skip cargo-deny-advisories "RustSec's database cannot be reached"
  fi
}
