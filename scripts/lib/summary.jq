# The summary of a deployment as Markdown that also reads well on a terminal.
# Input: the reports (jq's inputs). Variables: environment, mode, status, out, repository, bin, steps, inventory.

def seconds: . / 1000 | if . < 10 then (. * 10 | round / 10) else round end | "\(.) s";
def pad($width): tostring | . + (" " * ([$width - length, 0] | max));
def bar($most): . as $ms | ($ms * 40 / ([$most, 1] | max) | floor) as $n | "█" * $n + (if $n == 0 then "▏" else "" end);
def mark: {success: "ok", failed: "FAILED", warned: "warning", skipped: "skipped", unknown: "unknown"}[.] // .;

# Text from outside in one line of Markdown: nothing that links, pings or ends a cell, and no command to the runner.
def cell: tostring | gsub("[[:cntrl:]]"; " ") | gsub("(?<c>[\\\\|\\[\\]`*])"; "\\\(.c)") | gsub("<"; "&lt;") | gsub("@"; "&#64;");

[inputs] as $reports
| ($inventory[0].all // {hosts: {}, children: {}}) as $all
| ([$steps[].elapsed_ms] | add // 0) as $total
| ([$steps[].elapsed_ms] | max // 0) as $most
| (
  "# \($environment)\(if $mode == "local" then " in the rehearsal cloud" else "" end): "
    + (if $status == 0 then "deployed and verified" elif $status == 130 or $status == 143 then "stopped" else "FAILED" end)
    + " in \($total | seconds)",
  "",
  "## Hosts",
  "",
  (if ($all.hosts | length) == 0 then "none known yet" else
    "| host | instance | private | public | groups |", "|---|---|---|---|---|",
    ($all.hosts | to_entries[] | .key as $host
      | "| \($host | cell) | \(.value.instance_id | cell) | \(.value.private_ip // "–" | cell) | \(.value.public_ip // "–" | cell) | \([
          $all.children | to_entries[] | select(.value.hosts | has($host)) | .key] | join(", ") | cell) |")
  end),
  "",
  "## What was verified",
  "",
  (if ($reports | length) == 0 then "nothing yet" else
    ($reports | sort_by(.started_at)[]
      | "- **\(.tool | cell)**: \(.title | cell)",
        (if .tool | IN("tf-to-inventory", "plan", "apply") then empty else
          (.subjects[] | "  - \(.outcome | mark): \(.name | cell): \(.detail | cell)") end))
  end),
  "",
  "## Time",
  "",
  "```",
  ($steps[] | "\(.step | pad(10)) \(.elapsed_ms | seconds | pad(8)) \(.elapsed_ms | bar($most))\(
      if .status == 0 then "" else " status \(.status)" end)"),
  "```",
  "",
  "## What next",
  "",
  "- these commands are for a shell in the clone: `cd \($repository)`",
  "- put the tools on your PATH: `export PATH=\"\($bin):$PATH\"`",
  (if $mode == "local" then "- say whose API is meant, in each new shell: `env=$(local-cloud up) && eval \"$env\"`" else empty end),
  (if $status != 0 then
    ([$steps[] | select(.status != 0) | .step][0] // "plan") as $step
    | "- the log of each step: `ls \($out)/logs/`",
      # A plan that failed to apply no longer fits the state, or will not when the lock is free.
      (if $step | IN("plan", "apply") then
        "- plan and apply again: `scripts/deploy-environment.sh \($environment)\(if $mode == "local" then " --local" else "" end)`"
       else "- run that step again: `scripts/steps/\($step).sh --env \($environment) --out \($out)`" end) else empty end),
  ($all.hosts | to_entries[0].value.instance_id // empty
    | if $mode == "local" then "- look into a host: `local-cloud exec \(.) -- systemctl status --no-pager`, or `local-cloud logs \(.)`"
      else "- look into a host: `aws ssm start-session --target \(.)` (needs session-manager-plugin)" end),
  (if $mode == "local" then
    "- take it down: `scripts/deploy-environment.sh \($environment) --local --destroy`, or all at once `local-cloud down`"
   else "- take it down: `scripts/deploy-environment.sh \($environment) --destroy`" end),
  "- every file of this run: `\($out)/`"
)
