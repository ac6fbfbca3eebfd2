# shellcheck shell=bash
# Sourced by setup.sh: the Docker engine, found, installed or started.

# Starts the Docker engine unless one answers: by the service manager where one runs, else by hand, detached, with its log in
# the state folder. $state/dockerd.pid remembers an engine started by hand, so that it can be stopped again.
docker_engine() {
  local pid log=$state/logs/dockerd.log _
  # An engine of the user's own, docker-ce for example, is used as it is.
  docker info >/dev/null 2>&1 && return
  command -v dockerd >/dev/null || packages docker.io iptables
  # Debian 13 has the client in a package of its own.
  command -v docker >/dev/null || packages docker-cli
  mkdir -p "$state/logs"
  if [ -d /run/systemd/system ]; then
    quietly "$log" "starting Docker" systemctl start docker
  else
    say "starting dockerd (no service manager runs here; log: $log)"
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
    pid=$!
    printf '%s %s\n' "$pid" "$(process_start "$pid")" >"$state/dockerd.pid"
  fi
  for _ in {1..60}; do
    docker info >/dev/null 2>&1 && return
    [ -z "${pid:-}" ] || [ -d "/proc/$pid" ] || break
    sleep 0.5
  done
  tail -n 5 "$log" >&2
  stop_docker_engine
  fail "$unavailable" "the Docker engine does not answer" "its log is $log"
}

# When a process started, in clock ticks after boot: with the pid it names a process for good.
process_start() { sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; }

# Stops the engine that docker_engine started by hand, unless something still runs in it, or nobody can tell.
stop_docker_engine() {
  local pid='' start='' running _
  [ -s "$state/dockerd.pid" ] || return 0
  read -r pid start <"$state/dockerd.pid" || :
  if [ -d "/proc/${pid:-none}" ] && [ "$(process_start "$pid")" = "$start" ]; then
    running=$(timeout 20 docker ps -q 2>/dev/null) || running=unknown
    if [ -n "$running" ] || [ -e "$state/local-cloud/calldata/state.json" ]; then
      say "dockerd (process $pid) stays: something runs in it"
      return 0
    fi
    kill "$pid"
    for _ in {1..60}; do
      [ -d "/proc/$pid" ] || break
      sleep 0.25
    done
    [ ! -d "/proc/$pid" ] || { say "dockerd (process $pid) does not end"; return 0; }
  fi
  rm -f "$state/dockerd.pid"
}
