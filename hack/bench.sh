#!/usr/bin/env bash
# The benchmarks: builds what they need, runs them, and writes docs/benchmarks.md.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

tools=$(hack/ensure-tools.sh)
export PATH=${tools:+$tools:}$PATH
KUBEBUILDER_ASSETS=$(hack/kube-apiserver.sh) || die 'the benchmarks compare with a kube-apiserver, which cannot be had here (see above)'
export KUBEBUILDER_ASSETS
DOCKER_HOST=$(hack/ensure-engine.sh)
export DOCKER_HOST
hack/test-image.sh "$DOCKER_HOST"
run cargo build --release --locked --package oncelet
ONCELET_BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release/oncelet
export ONCELET_BIN
run cargo bench --locked --package oncelet-tests --bench bench
