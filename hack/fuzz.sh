#!/usr/bin/env bash
# Random inputs, ten million of them: whatever comes from a container (frames, records, archives), dotenv files and references,
# and every request path of the API server. About two hours on two cores. An input that fails is kept in the crate's
# proptest-regressions, and is tried first from then on.
#
#   ONCELET_FUZZ_CASES=N hack/fuzz.sh    N for each property (a request to the API server takes ten times as long: a tenth of N)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

cases=${ONCELET_FUZZ_CASES:-1100000}
run env ONCELET_FUZZ_CASES="$cases" cargo test --locked --workspace --test fuzz
run env ONCELET_FUZZ_CASES="$cases" cargo test --locked --workspace --lib supervise::fuzz
run env ONCELET_FUZZ_CASES=$((cases / 10)) cargo test --locked --workspace --lib tests::noise
