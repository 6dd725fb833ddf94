#!/usr/bin/env bash
# Makes sure that a Docker-compatible engine answers, and prints its address.
#
# Where one answers already, nothing is touched. Else, on Debian and its relatives, Docker is installed and started;
# hack/stop-engine.sh ends what was started here.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SOCKET=/var/run/docker.sock
URL=unix://$SOCKET

describe() {
	engine_curl "$1" /version --max-time 5 |
		sed -n 's/.*"Components":\[{"Name":"\([^"]*\)","Version":"\([^"]*\)".*/\1 \2/p' | head -n 1
}

found() {
	local what
	what=$(describe "$1") || true
	say "engine: ${what:-a Docker-compatible engine} at $1 ($2)"
	echo "$1"
	exit
}

if url=$(engine_url); then
	found "$url" 'already there; left as it is'
fi
[[ -z ${DOCKER_HOST:-} ]] ||
	die "DOCKER_HOST=$DOCKER_HOST does not answer. Start that engine, or unset DOCKER_HOST to look for another"
if [[ -S $SOCKET && ! -w $SOCKET ]]; then
	die "there is an engine at $SOCKET, but $(id -un) may not use it. Join its group (sudo usermod -aG docker $(id -un), then log in again), or run this as root"
fi

if ! have dockerd; then
	on_debian || die "no container engine answers. Install Docker (https://docs.docker.com/engine/install) or Podman (https://podman.io), start it, and try again"
	say 'no container engine answers on this machine: installing Docker'
	apt_update
	packages=(docker.io iptables)
	# Newer releases keep the command apart.
	! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
	apt_install "${packages[@]}"
fi

mkdir -p "$STATE"
if [[ -d /run/systemd/system ]]; then
	say 'starting Docker through systemd'
	as_root systemctl start docker
	touch "$STATE/docker.systemd"
else
	say "starting dockerd in the background (log: $STATE/dockerd.log)"
	# The socket belongs to the user who asked, not to a group that they would have to join first.
	launch=(dockerd --pidfile "$STATE/dockerd.pid" --host "$URL" --group "$(id -gn)")
	is_root || launch=(sudo "${launch[@]}")
	printf '%s$ %s &%s\n' "$DIM" "${launch[*]}" "$PLAIN" >&2
	setsid nohup "${launch[@]}" </dev/null >"$STATE/dockerd.log" 2>&1 &
	launched=$!
fi

for _ in {1..120}; do
	if engine_answers "$URL"; then
		found "$URL" 'started just now; hack/stop-engine.sh ends it'
	fi
	if [[ -n ${launched:-} ]] && ! ps -p "$launched" >/dev/null 2>&1; then
		break
	fi
	sleep 0.5
done
[[ ! -f $STATE/dockerd.log ]] || tail -n 20 "$STATE/dockerd.log" >&2
if [[ -S $SOCKET && ! -w $SOCKET ]]; then
	die "Docker runs, but $(id -un) may not use $SOCKET: sudo usermod -aG docker $(id -un), log in again, and try again"
fi
die 'Docker was started but does not answer at '"$URL"
