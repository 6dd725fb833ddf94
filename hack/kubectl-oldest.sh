#!/usr/bin/env bash
# Prints the path of the oldest kubectl that is supported, which hack/kubectl-oldest pins: it asks for older documents than
# the newer ones do. Builds it once, into a cache. Exits with 3 where there is no Go.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE=$ROOT/hack/kubectl-oldest
key=$({ cat "$MODULE"/* && uname -sm; } | sha256)
program=$CACHE/kubectl-oldest/${key:0:16}
if [[ -x $program ]]; then
	echo "$program"
	exit
fi

have go || not_here 'the oldest kubectl: needs Go to build (https://go.dev/dl)'
version=$(cd "$MODULE" && go list -m -f '{{.Version}}' k8s.io/kubectl) ||
	not_here "the oldest kubectl: $(go version) cannot read hack/kubectl-oldest/go.mod (see the line above); install a newer Go"
# k8s.io/kubectl v0.29.15 is kubectl v1.29.15.
ldflags="-s -w -X k8s.io/component-base/version.gitVersion=v1.${version#v0.}"

say "building kubectl v1.${version#v0.} from source; a minute the first time, then cached"
mkdir -p "${program%/*}"
build_go "$MODULE" . "$ldflags" "$program"
echo "$program"
