# shellcheck shell=bash
# Sourced by deploy-environment.sh: runs one step and remembers its time; the summary of a run.
# Uses: repository, environment, mode, out.

# run_step NAME: its stdout goes to the terminal and to logs/NAME.log, its time and status to steps.jsonl. stderr is
# copied to logs/NAME.err only where it is no terminal: on one, the tools draw live rows.
run_step() {
  local step=$1 status=0 start end
  say "── $step"
  mkdir -p "$out/logs"
  start=$(date +%s%N)
  # The step stays in the foreground, where Ctrl-C reaches it; `tee -i` outlives Ctrl-C to log the step's last words.
  if [ -t 2 ]; then
    "$repository/scripts/steps/$step.sh" --env "$environment" --out "$out" > >(tee -i "$out/logs/$step.log") || status=$?
  else
    "$repository/scripts/steps/$step.sh" --env "$environment" --out "$out" \
      > >(tee -i "$out/logs/$step.log") 2> >(tee -i "$out/logs/$step.err" >&2) || status=$?
  fi
  end=$(date +%s%N)
  jq -cn --arg step "$step" --argjson status "$status" --argjson elapsed_ms "$(((end - start) / 1000000))" \
    '{step: $step, status: $status, elapsed_ms: $elapsed_ms}' >>"$out/steps.jsonl"
  [ "$status" = 0 ] || say "── $step ended with status $status (docs/exit-codes.md says what that means)"
  return "$status"
}

# write_summary STATUS: summary.md from steps.jsonl, the inventory and the reports; also shown on the terminal.
write_summary() {
  local reports=() report inventory=/dev/null
  for report in "$out"/reports/*.json; do [ ! -s "$report" ] || reports+=("$report"); done
  [ ! -s "$out/inventory.json" ] || inventory=$out/inventory.json
  jq -rn --arg environment "$environment" --arg mode "$mode" --argjson status "$1" --arg out "${out#"$repository"/}" --arg repository "$repository" --arg bin "$bin_dir:$venv/bin:$cache/bin" \
    --slurpfile steps "$out/steps.jsonl" --slurpfile inventory "$inventory" \
    -f "$repository/scripts/lib/summary.jq" "${reports[@]}" </dev/null >"$out/summary.md" || return
  printf '\n' && cat "$out/summary.md"
  [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"
}
