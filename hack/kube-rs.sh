#!/usr/bin/env bash
# kube-rs's own cluster tests, as published with its crates, against the embedded server: those that need no Pods or Services.
#
#   hack/kube-rs.sh
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# What is run of each crate. All others of their cluster tests make Pods, or look for kinds that only a cluster serves (pods,
# deployments, API services).
client=(entry_create_missing_object entry_update_existing_object entry_create_dry_run)
runtime=(event_recorder_cache_retain)
kube=(derived_resource_queryable_and_has_subresources api_get_opt_handles_404
	custom_resource_generates_correct_core_structs)

# A workspace of the published sources, with the versions of our own lock file.
work=$ROOT/target/kube-rs
mkdir -p "$work"
cp Cargo.lock "$work/Cargo.lock"
metadata=$(cargo metadata --locked --format-version 1)
for crate in kube kube-client kube-runtime; do
	manifest=$(grep -o "\"manifest_path\":\"[^\"]*/$crate-[0-9][^\"]*\"" <<<"$metadata" | cut -d'"' -f4)
	rm -rf "${work:?}/$crate"
	cp -R "${manifest%/*}" "$work/$crate"
	rm -f "$work/$crate/Cargo.lock"
done
# Publishing takes out what would be a circle.
for crate in kube-client kube-runtime; do
	printf '\n[dev-dependencies.kube]\npath = "../kube"\nfeatures = ["derive", "client", "runtime", "ws"]\n' \
		>>"$work/$crate/Cargo.toml"
done
cat >"$work/Cargo.toml" <<-TOML
	[workspace]
	members = ["kube", "kube-client", "kube-runtime"]
	resolver = "2"

	[patch.crates-io]
	kube = { path = "kube" }
	kube-client = { path = "kube-client" }
	kube-runtime = { path = "kube-runtime" }

	[profile.dev]
	debug = false
TOML

run cargo build --locked --package oncelet-apiserver --example serve
dir=$(mktemp -d "${TMPDIR:-/tmp}/oncelet-kube-rs.XXXXXX")
target/debug/examples/serve "$dir" >"$dir/log" 2>&1 &
server=$!
# shellcheck disable=SC2317 # reached by the trap
clean_up() {
	kill "$server" 2>/dev/null || true
	rm -rf "$dir"
}
trap clean_up EXIT
for _ in {1..100}; do
	grep -q ^serving "$dir/log" && break
	sleep 0.1
done

# tests_of CRATE FEATURES TEST...
tests_of() {
	local crate=$1 features=$2
	shift 2
	run env KUBECONFIG="$dir/kubeconfig" cargo test --manifest-path "$work/Cargo.toml" --package "$crate" --lib \
		--features "$features" -- --ignored --test-threads 1 "$@" 2>&1 | tee "$dir/output" >&2
	# A test that was renamed must not pass by not being there.
	grep -q "^test result: ok. $# passed" "$dir/output" || die "not all $# tests of $crate were there and passed"
}
tests_of kube-client client,rustls-tls,ring,ws "${client[@]}"
tests_of kube-runtime unstable-runtime "${runtime[@]}"
tests_of kube client,rustls-tls,ring,runtime,derive "${kube[@]}"
