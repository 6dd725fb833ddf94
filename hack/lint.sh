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
	# The database of advisories is fetched anew; without a network, the one of before serves.
	cargo deny --locked fetch db >/dev/null 2>&1 || true
	if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-db*/*" >/dev/null; then
		check cargo deny --locked --offline check advisories
	else
		skipped+=('security advisories: their database cannot be fetched (https://github.com/rustsec/advisory-db)')
	fi
else
	skipped+=('licences, banned crates and security advisories: cargo-deny is not installed (cargo install --locked cargo-deny)')
fi

report_skipped 'NOT CHECKED' ${skipped[@]+"${skipped[@]}"}
((${#failed[@]} == 0)) || die "$(printf 'failed: %s\n' "${failed[@]}")"
