#!/usr/bin/env bash
# The tests, with all they need: an engine, kubectl, images; for the rest a real kube-apiserver and a Podman of their own. What
# cannot be had here is skipped, and named at the end.
#
#   hack/test.sh                          make test: what a change needs. Every crate's own tests, and the end-to-end suite
#                                         with the embedded API server and one engine
#   hack/test.sh rest                     all the others: Podman, the kube-apiserver, the oldest kubectl, both servers compared,
#                                         the documentation, habits, torture, the model
#   hack/test.sh all                      make test-all: both
#   hack/test.sh CARGO-TEST-ARGUMENT...   what the arguments name, with all that any test needs
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

case ${1:-main} in
main) parts=(main) ;;
rest) parts=(rest) ;;
all) parts=(main rest) ;;
*) parts=(arguments) ;;
esac

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

databases() {
	or_skip POSTGRES "the stories of a real database, on $1" hack/postgres-image.sh "$1"
	or_skip MARIADB "the stories of MariaDB, on $1" hack/mariadb-image.sh "$1"
}

prepare() {
	local tools
	tools=$(hack/ensure-tools.sh --tests)
	export PATH=${tools:+$tools:}$PATH
	DOCKER_HOST=$(hack/ensure-engine.sh)
	export DOCKER_HOST
	hack/test-image.sh "$DOCKER_HOST"
	have docker || skipped+=('the end-to-end suite: it looks into containers with the docker command, which is not on PATH')
}

prepare_rest() {
	databases "$DOCKER_HOST"
	or_skip KUBEBUILDER_ASSETS 'the end-to-end suite against a real kube-apiserver' hack/kube-apiserver.sh
	or_skip ONCELET_TEST_KUBECTLS 'the tests with the oldest kubectl that is supported' hack/kubectl-oldest.sh
	podman_dir=$(mktemp -d "${TMPDIR:-/tmp}/oncelet-podman.XXXXXX")
	or_skip ONCELET_TEST_PODMAN 'the engine tests against Podman' hack/podman.sh start "$podman_dir"
	if [[ -n ${ONCELET_TEST_PODMAN:-} ]]; then
		hack/test-image.sh "$ONCELET_TEST_PODMAN"
		databases "$ONCELET_TEST_PODMAN"
	fi
}

failed=0
cargo_test() {
	run cargo test --locked --no-fail-fast "$@" || failed=1
}

# suites CRATE...: the integration tests of these crates, as options of cargo test. The packages themselves are never chosen: with
# other packages, dependencies have other features, and are built once more.
suites() {
	local crate path
	for crate in "$@"; do
		for path in "$crate"/tests/*.rs "$crate"/tests/*/main.rs; do
			[[ -e $path ]] || continue
			path=${path%/main.rs}
			printf '%s\n' --test "$(basename "${path%.rs}")"
		done
	done
}

build() {
	[[ -e target/debug/oncelet ]] || say 'building everything for the first time: about five minutes on two cores'
	run cargo build --locked --workspace
	# What the end-to-end suite starts is up to date now.
	export ONCELET_TEST_IS_BUILT=yes
}

main() {
	local crates options
	crates=(crates/*)
	mapfile -t options < <(suites "${crates[@]#crates/model}" xtask)
	cargo_test --workspace --lib --bins "${options[@]}"
	# Most of a scenario is waiting for containers.
	cargo_test --workspace --test e2e -- embedded::
}

rest() {
	local options
	mapfile -t options < <(suites crates/model)
	cargo_test --workspace "${options[@]}" --test differential --test docs --test habits --test torture
	# What needs Podman, a kube-apiserver or other kubectls was ignored before.
	cargo_test --workspace --test engines --test faults --test supervised -- podman::
	cargo_test --workspace --test kubectl
	cargo_test --workspace --test e2e -- --skip embedded::
	# Those that need both engines, or the image of a real database.
	cargo_test --workspace --test e2e -- embedded::one_daemon_works
	cargo_test --workspace --test e2e -- seed
}

prepare
if [[ ${parts[0]} == main ]]; then
	build
	main
fi
if [[ ${parts[*]} == main ]]; then
	say 'make test-all runs the rest: Podman, a real kube-apiserver, databases, torture, the model, the documentation'
else
	prepare_rest
fi
if [[ ${parts[*]} == *rest ]]; then
	build
	rest
fi
if [[ ${parts[0]} == arguments ]]; then
	cargo_test "$@"
fi
report_skipped SKIPPED ${skipped[@]+"${skipped[@]}"}
exit "$failed"
