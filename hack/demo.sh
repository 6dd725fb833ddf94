#!/usr/bin/env bash
# The story of the README in a terminal: a program runs once, everything is restarted, its outcome comes back.
#
# Ends by itself, and takes away what it made: the container oncelet-demo-db, a temporary directory, its own oncelet. Stops
# and tells why as soon as anything is not as the README says.
#
#   ONCELET_BIN=/path/to/oncelet hack/demo.sh     with that binary instead of building one
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

CONTAINER=oncelet-demo-db
up_pid=''
work=''

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
	TITLE=$'\e[1m' COMMAND=$'\e[36m' OUT_PLAIN=$'\e[0m'
else
	TITLE='' COMMAND='' OUT_PLAIN=''
fi

chapter() { printf '\n%s%s%s\n\n' "$TITLE" "$*" "$OUT_PLAIN"; }
typed() { printf '%s$ %s%s\n' "$COMMAND" "$*" "$OUT_PLAIN"; }
show() {
	typed "$*"
	"$@"
}

# Ends oncelet up as a person would, and returns how it ended.
end_up() {
	local pid=$up_pid
	up_pid=''
	kill -TERM "$pid" 2>/dev/null || true
	for _ in {1..100}; do
		if ! kill -0 "$pid" 2>/dev/null; then
			wait "$pid"
			return
		fi
		sleep 0.1
	done
	warn 'oncelet up did not end within 10 seconds of SIGTERM; killing it'
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid"
}

clean_up() {
	local status=$?
	trap - EXIT
	if ((status != 0)) && [[ -s $work/oncelet.log ]]; then
		printf '\n%sthe demo stopped; the end of the log of oncelet up:%s\n' "$RED" "$PLAIN" >&2
		tail -n 40 "$work/oncelet.log" >&2
	fi
	[[ -z $up_pid ]] || end_up || true
	if [[ -n $work ]]; then
		engine_curl "$DOCKER_HOST" "/containers/$CONTAINER?force=true&v=true" -X DELETE >/dev/null 2>&1 || true
		rm -rf "$work"
	fi
	exit "$status"
}
trap clean_up EXIT

# --- what it takes ---

tools=$(hack/ensure-tools.sh)
DOCKER_HOST=$(hack/ensure-engine.sh)
export DOCKER_HOST
hack/test-image.sh "$DOCKER_HOST"
if [[ -z ${ONCELET_BIN:-} ]]; then
	say 'building oncelet (minutes the first time)'
	run cargo build --quiet --locked --package oncelet
	ONCELET_BIN=${CARGO_TARGET_DIR:-target}/debug/oncelet
fi
bin=$(cd "$(dirname "$ONCELET_BIN")" && pwd)
export PATH=$bin${tools:+:$tools}:$PATH

if engine_curl "$DOCKER_HOST" "/containers/$CONTAINER/json" >/dev/null 2>&1; then
	die "there is a container $CONTAINER already, from the samples or an interrupted demo, and the demo needs a new one: make clean-demo removes it"
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/oncelet-demo.XXXXXX")

# --- how it is told ---

start_up() {
	typed "oncelet up &"
	oncelet up --listen 127.0.0.1:0 --page 127.0.0.1:0 >>"$work/oncelet.log" 2>&1 &
	up_pid=$!
	for _ in {1..150}; do
		kill -0 "$up_pid" 2>/dev/null || die 'oncelet up ended'
		# Both: a kubeconfig of the run before may still be there.
		if [[ -s $KUBECONFIG ]] && kubectl get --raw /readyz >/dev/null 2>&1; then
			return
		fi
		sleep 0.2
	done
	die 'oncelet up did not become ready within 30 seconds'
}

apply_and_wait() {
	show kubectl apply -f deploy/samples/
	show kubectl wait --for=condition=Complete cexec/seed-database --timeout=60s
	show kubectl get ctr,cexec
}

field() { kubectl get cexec seed-database -o "jsonpath={.status.$1}"; }

# The five things that are restored together, and what they belong to.
outcome() {
	local name
	for name in startupTimestamp finishTimestamp exitCode stdout stderr effectiveEnv effectiveArgs containerId runId; do
		printf '%s: %s\n' "$name" "$(field "$name")"
	done
}

restart_container() {
	if have docker; then
		show docker restart "$CONTAINER"
	else
		typed "curl --unix-socket ${DOCKER_HOST#unix://} -X POST http://localhost/containers/$CONTAINER/restart"
		engine_curl "$DOCKER_HOST" "/containers/$CONTAINER/restart" -X POST
	fi
}

# The file that the program appends to, out of the container without running anything there.
seed_log() { engine_curl "$DOCKER_HOST" "/containers/$CONTAINER/archive?path=/data/seed.log" | tar -xO; }

show_seed_log() {
	local lines
	if have docker; then
		show docker exec "$CONTAINER" cat /data/seed.log
		show docker exec "$CONTAINER" wc -l /data/seed.log
	else
		typed "curl --unix-socket ${DOCKER_HOST#unix://} http://localhost/containers/$CONTAINER/archive?path=/data/seed.log | tar -xO"
		seed_log
	fi
	lines=$(seed_log | wc -l)
	((lines == 1)) || die "/data/seed.log has $lines lines, where one run writes one"
}

# --- the story ---

chapter 'oncelet without a cluster: a small Kubernetes API and the controller, in one process'
export ONCELET_DATA_DIR=$work/data KUBECONFIG=$work/data/kubeconfig
typed "export ONCELET_DATA_DIR=$ONCELET_DATA_DIR KUBECONFIG=$KUBECONFIG"
start_up

chapter 'A container that outlives everything, and a program to run in it once'
apply_and_wait
[[ $(field exitCode) == 0 ]] || die "seed-database ended with exit code $(field exitCode)"
[[ $(field restored) == false ]] || die 'the first run calls itself restored'
first=$(outcome)

chapter 'What the program said, and the line that each run of it would add'
show oncelet logs seed-database
show_seed_log

chapter 'Everything is restarted: oncelet, and with it every object; and the container'
typed 'kill %1   # oncelet up'
end_up || die "oncelet up ended with $? after SIGTERM"
restart_container
start_up
show kubectl get ctr,cexec
[[ -z $(kubectl get ctr,cexec -o name) ]] || die 'objects are left, where a new API server should have none'

chapter 'The application asks again'
apply_and_wait
[[ $(field restored) == true ]] || die 'the outcome does not call itself restored'
again=$(outcome)
if [[ $again != "$first" ]]; then
	diff <(echo "$first") <(echo "$again") >&2 || true
	die 'the outcome is not the one of the first run'
fi
show oncelet runs list
show_seed_log
printf '\n  started    %s\n  finished   %s\n  exit code  %s\n  env       %s\n' \
	"$(field startupTimestamp)" "$(field finishTimestamp)" "$(field exitCode)" "$(kubectl get cexec seed-database -o 'jsonpath={range .status.effectiveEnv[*]} {.name}={.value}{end}')"

chapter 'The program ran once. Its outcome came back.'
end_up || die "oncelet up ended with $? after SIGTERM"
