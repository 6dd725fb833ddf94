#!/usr/bin/env bash
# All tests, with all they need: an engine, a real kube-apiserver, a Podman of their own, kubectl, the image. What cannot be
# had here is skipped, and named at the end.
#
#   hack/test.sh [CARGO-TEST-ARGUMENT...]     default: --workspace
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

skipped=()
podman_dir=''
# shellcheck disable=SC2317 # reached by the trap
clean_up() {
	if [[ -n $podman_dir ]]; then
		hack/podman.sh stop "$podman_dir"
		rm -rf "$podman_dir"
	fi
}
trap clean_up EXIT

# or_skip VARIABLE WHAT COMMAND...: exports what COMMAND prints as VARIABLE; where it is not to be had here, notes it.
or_skip() {
	local variable=$1 what=$2 value status=0
	shift 2
	value=$("$@") || status=$?
	case $status in
	0) export "$variable=$value" ;;
	"$NOT_HERE") skipped+=("$what (the reason is above, at \"not here\")") ;;
	*) die "$* failed; the reason is above" ;;
	esac
}

tools=$(hack/ensure-tools.sh --tests)
export PATH=${tools:+$tools:}$PATH
DOCKER_HOST=$(hack/ensure-engine.sh)
export DOCKER_HOST
hack/test-image.sh "$DOCKER_HOST"
databases() {
	or_skip POSTGRES "the stories of a real database, on $1" hack/postgres-image.sh "$1"
	or_skip MARIADB "the stories of MariaDB, on $1" hack/mariadb-image.sh "$1"
}
databases "$DOCKER_HOST"
have docker || skipped+=('the end-to-end suite: it looks into containers with the docker command, which is not on PATH')

or_skip KUBEBUILDER_ASSETS 'the end-to-end suite against a real kube-apiserver' hack/kube-apiserver.sh
or_skip ONCELET_TEST_KUBECTLS 'the tests with the oldest kubectl that is supported' hack/kubectl-oldest.sh

podman_dir=$(mktemp -d "${TMPDIR:-/tmp}/oncelet-podman.XXXXXX")
or_skip ONCELET_TEST_PODMAN 'the engine tests against Podman' hack/podman.sh start "$podman_dir"
if [[ -n ${ONCELET_TEST_PODMAN:-} ]]; then
	hack/test-image.sh "$ONCELET_TEST_PODMAN"
	databases "$ONCELET_TEST_PODMAN"
fi

if (($# == 0)); then
	set -- --workspace
	# The binary is built with the tests of its own crate; the end-to-end suite need not build it again, with other features.
	export ONCELET_TEST_IS_BUILT=yes
fi
status=0
run cargo test --locked --no-fail-fast "$@" || status=$?
report_skipped SKIPPED ${skipped[@]+"${skipped[@]}"}
exit "$status"
