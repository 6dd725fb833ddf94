#!/usr/bin/env bash
# Prints the directory that holds kube-apiserver and etcd (and kubectl, where PATH has none).
#
#   hack/kube-apiserver.sh [BINARY...]     only these: kube-apiserver, etcd, kubectl
#
# Uses KUBEBUILDER_ASSETS where that is set. Else builds the versions that hack/kube-apiserver/go.mod pins, once, into a
# cache. Exits with 3 where neither can be had.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODULE=$ROOT/hack/kube-apiserver

if (($#)); then
	wanted=("$@")
else
	wanted=(kube-apiserver etcd)
	have kubectl || wanted+=(kubectl)
fi

missing_in() {
	local dir=$1 binary
	for binary in "${wanted[@]}"; do
		[[ -x $dir/$binary ]] || echo "$binary"
	done
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
	missing=$(missing_in "$KUBEBUILDER_ASSETS")
	[[ -z $missing ]] ||
		die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no executable ${missing//$'\n'/, }: put it there, or unset the variable to build from source"
	echo "$KUBEBUILDER_ASSETS"
	exit
fi

key=$({ cat "$MODULE/go.mod" "$MODULE/go.sum" && uname -sm; } | sha256)
dir=$CACHE/kube-apiserver/${key:0:16}
missing=$(missing_in "$dir")
if [[ -z $missing ]]; then
	echo "$dir"
	exit
fi

have go || not_here "${missing//$'\n'/, }: needs Go to build (https://go.dev/dl), or KUBEBUILDER_ASSETS set to a directory that has it"
# Downloads no module; fails where this Go is older than the pinned module allows.
version=$(cd "$MODULE" && go list -m -f '{{.Version}}' k8s.io/kubernetes) ||
	not_here "${missing//$'\n'/, }: $(go version) cannot read hack/kube-apiserver/go.mod (see the line above); install a newer Go, or set KUBEBUILDER_ASSETS"

package_of() {
	case $1 in
	etcd) echo go.etcd.io/etcd/server/v3 ;;
	kube-apiserver | kubectl) echo "k8s.io/kubernetes/cmd/$1" ;;
	*) die "no recipe for $1; there is one for kube-apiserver, etcd and kubectl" ;;
	esac
}

# Without these, both programs call themselves v0.0.0-master.
IFS=. read -r major minor _ <<<"${version#v}"
ldflags='-s -w'
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	ldflags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
done

mkdir -p "$dir"
for binary in $missing; do
	package=$(package_of "$binary")
	say "building $binary from source (for Kubernetes $version); minutes the first time, then cached"
	started=$SECONDS
	build_go "$MODULE" "$package" "$ldflags" "$dir/$binary"
	say "built $dir/$binary in $((SECONDS - started)) s"
done
echo "$dir"
