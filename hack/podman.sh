#!/usr/bin/env bash
# A Podman of its own for tests: an API service with its own storage, settings and socket, apart from any other Podman.
#
#   hack/podman.sh start DIR [--install]   starts it with everything in DIR, and prints its address
#   hack/podman.sh stop DIR                removes its containers, ends it, and empties DIR
#
# Where Podman is missing, start installs it (Debian) in CI or with --install, else exits with 3.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PROGRAMS=(podman runc)
PACKAGES=(podman runc netavark aardvark-dns)

usage() { die 'usage: hack/podman.sh start DIR [--install] | stop DIR'; }
(($# >= 2)) || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
install=${CI:-}
[[ ${3:-} != --install ]] || install=true

export CONTAINERS_CONF=$dir/containers.conf
podman_here() { podman --root "$dir/storage" --runroot "$dir/run" --tmpdir "$dir/tmp" "$@"; }

start() {
	local url=unix://$dir/podman.sock program
	for program in "${PROGRAMS[@]}"; do
		have "$program" && continue
		if [[ $install == true ]] && on_debian; then
			apt_install "${PACKAGES[@]}"
		else
			not_here "$program is not installed (hack/podman.sh start DIR --install, or apt-get install ${PACKAGES[*]})"
		fi
	done
	is_root || not_here 'the Podman of the tests runs as root'
	if engine_answers "$url"; then
		echo "$url"
		return
	fi
	# Root without CAP_SYS_RESOURCE may not raise limits; crun does not get along with hybrid cgroups; no systemd, no
	# journal; images come from hack/test-image.sh.
	cat >"$CONTAINERS_CONF" <<-'CONF'
		[containers]
		default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]

		[engine]
		runtime = "runc"
		cgroup_manager = "cgroupfs"
		events_logger = "file"

		[network]
		network_backend = "netavark"
	CONF
	rm -f "$dir/podman.sock"
	say "starting a Podman service in $dir"
	setsid nohup podman --root "$dir/storage" --runroot "$dir/run" --tmpdir "$dir/tmp" \
		system service --time=0 "$url" </dev/null >"$dir/podman.log" 2>&1 &
	echo $! >"$dir/podman.pid"
	for _ in {1..60}; do
		if engine_answers "$url"; then
			echo "$url"
			return
		fi
		ps -p "$(<"$dir/podman.pid")" >/dev/null 2>&1 || break
		sleep 0.5
	done
	tail -n 20 "$dir/podman.log" >&2
	die 'Podman was started but does not answer'
}

stop() {
	if have podman && [[ -f $CONTAINERS_CONF ]]; then
		podman_here rm --all --force --time 0 >/dev/null || warn "Podman's containers could not all be removed"
	fi
	stop_pid podman "$dir/podman.pid"
	# Each exec leaves two monitors that wait five minutes and then look for the storage again.
	local monitors
	monitors=$(ps -eo pid=,comm=,args= | awk -v mine="$dir/storage/" '$2 == "conmon" && index($0, mine) { print $1 }')
	# shellcheck disable=SC2086 # one word for each pid
	[[ -z $monitors ]] || kill -KILL $monitors 2>/dev/null || true
	if have podman && [[ -f $CONTAINERS_CONF ]]; then
		# Unmounts what the storage has mounted, so that it can go.
		podman_here system reset --force >/dev/null 2>&1 || true
	fi
	rm -rf "${dir:?}"/{storage,run,tmp,containers.conf,podman.sock,podman.log}
}

case $action in
start) start ;;
stop) stop ;;
*) usage ;;
esac
