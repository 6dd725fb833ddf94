#!/usr/bin/env bash
# Everything that is checked without running it. Goes on after a finding, so that one run shows them all.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

failed=()
skipped=()
check() {
	run "$@" || failed+=("$*")
}

check cargo fmt --all --check
check cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
check cargo xtask tidy
check cargo xtask crds --check

if have shellcheck; then
	check shellcheck --external-sources hack/*.sh .ci/run
else
	skipped+=('the scripts: shellcheck is not installed (apt-get install shellcheck)')
fi
if have cargo-deny; then
	check cargo deny --locked --offline check bans licenses sources
else
	skipped+=('licences and banned crates: cargo-deny is not installed (cargo install --locked cargo-deny)')
fi

report_skipped 'NOT CHECKED' ${skipped[@]+"${skipped[@]}"}
((${#failed[@]} == 0)) || die "$(printf 'failed: %s\n' "${failed[@]}")"
