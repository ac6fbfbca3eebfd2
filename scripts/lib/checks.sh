# shellcheck shell=bash
# Sourced by scripts/test.sh: runs checks one after the other, counts them, and knows how each folder is checked.
# Uses: repository, logs.

passed=0 failed=0

# check NAME COMMAND…: one line with its time; the end of its output when it fails.
check() {
  local name=$1 status=0 start=$SECONDS log=$logs/$1.log
  shift
  [ ! -t 2 ] || printf '  …       %s\r' "$name" >&2
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    printf '  ok      %-28s %4d s\n' "$name" "$((SECONDS - start))"
  else
    failed=$((failed + 1))
    printf '  FAILED  %-28s %4d s  (status %d)\n' "$name" "$((SECONDS - start))" "$status"
    tail -n 80 "$log" | sed 's/^/          /'
  fi
}

# The last line, in the form that CI reads, and the exit status.
conclude() {
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" = 0 ] || exit 1
}

# Every script, and every library by itself: what a library takes from its caller, or sets for it, is no fault there.
check_shell() {
  local file scripts=() libraries=()
  while read -r file; do
    case $(head -n 1 "$file") in
      '#!'*sh) scripts+=("$file") ;;
      '# shellcheck shell='*) libraries+=("$file") ;;
    esac
  done < <(git ls-files -co --exclude-standard scripts .ci terraform bins)
  shellcheck "${scripts[@]}" &&
    shellcheck --exclude=SC2034,SC2154 "${libraries[@]}"
}

check_ansible() {
  (cd "$repository/ansible" && ansible-lint --offline --strict)
}

# Format, validate and test of every root and module; two at a time, as each mostly waits for its provider.
check_terraform() {
  (cd "$repository/terraform" && printf '%s\n' bootstrap bootstrap/identity environments/* modules/*) |
    xargs -P 2 -n 1 "$repository/terraform/scripts/check.sh"
}

# cargo-deny, from source: a few minutes once per machine.
cargo_deny() {
  export PATH=$cache/cargo-tools/bin:$PATH
  command -v cargo-deny >/dev/null ||
    CARGO_TARGET_DIR=$cache/tools-target quietly "$state/logs/cargo-deny.log" "building cargo-deny" \
      cargo install cargo-deny --locked --debug --version 0.20.2 --root "$cache/cargo-tools"
}
