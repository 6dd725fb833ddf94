#!/usr/bin/env bash
# Makes sure that what the build and the tests need is on this machine; on Debian and its relatives it installs what is
# missing, elsewhere it says what to do. Never installs a language toolchain.
#
#   hack/ensure-tools.sh [--tests]     --tests: also what only the tests need
#
# Prints one directory to put on PATH, or nothing: the one that holds the kubectl it had to get.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

have cargo || die "there is no Rust toolchain: see https://rustup.rs, then try again"
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
installed=$(cd "$ROOT" && rustc --version | cut -d' ' -f2)
oldest=$(printf '%s\n' "$needed" "$installed" | sort -t. -k1,1n -k2,2n | head -n 1)
[[ $oldest == "$needed" ]] || die "oncelet needs Rust $needed, this is $installed: rustup update"

packages=()
# SQLite and zstd are compiled from source.
have cc || packages+=(gcc libc6-dev)
have curl || packages+=(curl ca-certificates)
if ((${#packages[@]})); then
	on_debian || die "install a C compiler and curl, then try again"
	apt_install "${packages[@]}"
fi

if [[ ${1:-} == --tests ]] && ! is_static /bin/busybox; then
	if on_debian; then
		apt_install busybox-static
	else
		warn 'there is no static busybox at /bin/busybox; the tests of crates/engine that need it will fail'
	fi
fi

# Tests reach an engine through it.
if [[ ${1:-} == --tests && ! -x /usr/sbin/sshd ]]; then
	if on_debian; then
		apt_install openssh-server
	else
		warn 'there is no SSH server; the test of an engine behind SSH will fail'
	fi
fi

# The tests of the page look at it with it.
if [[ ${1:-} == --tests ]] && ! { have chromium && have chromedriver; }; then
	if on_debian; then
		apt_install chromium chromium-driver
	else
		warn 'there is no chromium with its chromedriver; the tests of the page are skipped'
	fi
fi

# The tests of the store record its writes with it.
if [[ ${1:-} == --tests ]] && ! have strace; then
	if on_debian; then
		apt_install strace
	else
		warn 'there is no strace; the crash images of crates/store are skipped'
	fi
fi

# Older kubectls cannot be relied on for `wait` and server-side validation.
OLDEST_KUBECTL=1.27
debian_kubectl() {
	local candidate
	apt_update
	candidate=$(apt-cache policy kubernetes-client 2>/dev/null | sed -n 's/.*Candidate: //p')
	[[ $candidate == [0-9]* ]] && dpkg --compare-versions "$candidate" ge "$OLDEST_KUBECTL"
}

if ! have kubectl; then
	status=0
	dir=$("$ROOT/hack/kube-apiserver.sh" kubectl) || status=$?
	if ((status == 0)); then
		echo "$dir"
	elif ((status == NOT_HERE)) && on_debian && debian_kubectl; then
		apt_install kubernetes-client
	else
		die "there is no kubectl: see https://kubernetes.io/docs/tasks/tools, or install Go and it is built from source"
	fi
fi
