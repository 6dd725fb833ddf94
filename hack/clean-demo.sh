#!/usr/bin/env bash
# Removes what the demo and the samples leave in the engine: their containers (oncelet-demo-*), their image.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if ! url=$(engine_url); then
	say 'no engine answers; nothing to remove'
	exit
fi
# The engine matches parts of names; ours begin so.
filters='%7B%22name%22%3A%5B%22%5E%2F%3Foncelet-demo-%22%5D%7D' # {"name":["^/?oncelet-demo-"]}
ids=$(engine_curl "$url" "/containers/json?all=true&filters=$filters" | grep -o '"Id":"[0-9a-f]\{64\}"' | cut -d'"' -f4) || true
for id in $ids; do
	engine_curl "$url" "/containers/$id?force=true&v=true" -X DELETE >/dev/null
	say "removed container ${id:0:12}"
done
if engine_curl "$url" /images/oncelet-demo/busybox:1 -X DELETE >/dev/null 2>&1; then
	say 'removed image oncelet-demo/busybox:1'
fi
