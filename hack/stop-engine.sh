#!/usr/bin/env bash
# Ends the engine that hack/ensure-engine.sh started. Leaves every other engine alone.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sudo=()
is_root || sudo=(sudo)

if [[ -f $STATE/docker.systemd ]]; then
	say 'stopping Docker through systemd'
	as_root systemctl stop docker.socket docker
	rm -f "$STATE/docker.systemd"
elif [[ -f $STATE/dockerd.pid ]]; then
	say "stopping dockerd (pid $("${sudo[@]}" cat "$STATE/dockerd.pid"))"
	stop_pid dockerd "$STATE/dockerd.pid" "${sudo[@]}"
else
	say 'no engine was started by hack/ensure-engine.sh; nothing to stop'
fi
