#!/usr/bin/env bash
# Makes the small image of the demo and the tests, oncelet-demo/busybox:1, in the engine. Nothing is pulled where a static
# busybox can be had on the machine.
#
#   hack/test-image.sh [ENGINE-URL]     default: the first engine that answers
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

REPOSITORY=oncelet-demo/busybox
TAG=1
APPLETS=(sh ash '[' awk base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false find grep gunzip
	gzip head hostname id kill ln ls md5sum mkdir mkfifo mktemp mv nc nohup od printenv printf ps pwd readlink realpath rm
	rmdir sed seq setsid sha256sum sleep sort stat stty sync tail tar tee test time timeout touch tr true tty uname uniq usleep
	wc wget which whoami xargs yes)

url=${1:-$(engine_url)} || die 'no engine answers; hack/ensure-engine.sh gets one'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Unpacked into the cache, not installed: this needs no root, and replaces no busybox of the machine.
busybox_from_debian() {
	on_debian && have dpkg-deb || return 1
	if [[ ! -x $CACHE/busybox/bin/busybox ]]; then
		say "fetching Debian's busybox-static into $CACHE/busybox"
		(
			cd "$work"
			# As root apt would drop its rights, and could not write here.
			download=(apt-get download -qq -o "APT::Sandbox::User=$(id -un)" busybox-static)
			"${download[@]}" >&2 || {
				as_root apt-get update -qq
				"${download[@]}" >&2
			}
			mkdir -p "$CACHE/busybox"
			dpkg-deb -x busybox-static_*.deb "$CACHE/busybox"
		) || return 1
	fi
	echo "$CACHE/busybox/bin/busybox"
}

# Takes the binary out of an image that the engine has, or may pull.
busybox_from_image() {
	local image container
	for image in busybox:musl busybox:latest; do
		if engine_curl "$url" "/images/$image/json" >/dev/null 2>&1; then break; fi
	done
	if ! engine_curl "$url" "/images/$image/json" >/dev/null 2>&1; then
		image=busybox:musl
		say "pulling $image"
		engine_curl "$url" '/images/create?fromImage=busybox&tag=musl' -X POST >/dev/null || return 1
	fi
	container=$(engine_curl "$url" /containers/create -H 'Content-Type: application/json' -d "{\"Image\":\"$image\",\"Cmd\":[\"true\"]}" |
		sed -n 's/.*"Id":"\([0-9a-f]*\)".*/\1/p')
	[[ -n $container ]] || return 1
	engine_curl "$url" "/containers/$container/archive?path=/bin/busybox" | tar -xO >"$work/busybox-from-image"
	engine_curl "$url" "/containers/$container?force=true" -X DELETE >/dev/null
	chmod 755 "$work/busybox-from-image"
	echo "$work/busybox-from-image"
}

find_busybox() {
	local candidate
	# One of another operating system would not run in a container.
	if [[ $(uname -s) == Linux ]]; then
		for candidate in /bin/busybox /usr/bin/busybox; do
			if is_static "$candidate"; then
				echo "$candidate"
				return
			fi
		done
	fi
	busybox_from_debian || busybox_from_image
}

busybox=$(find_busybox) ||
	die 'no static busybox can be had: install the package busybox-static, or give the engine the image busybox:musl'

root=$work/root
mkdir -p "$root"/{bin,data,dev,etc,home/app,proc,root,sys,tmp}
install -m 755 "$busybox" "$root/bin/busybox"
for applet in "${APPLETS[@]}"; do
	ln -s busybox "$root/bin/$applet"
done
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'app:x:1000:1000:app:/home/app:/bin/sh' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'app:x:1000:' >"$root/etc/group"
chmod 755 "$root" "$root"/{bin,dev,etc,home,proc,sys}
chmod 700 "$root/root"
chmod 1777 "$root/data" "$root/home/app" "$root/tmp"
chmod 644 "$root"/etc/{passwd,group}

content=$({
	cat "$busybox" "${BASH_SOURCE[0]}"
} | sha256)
label=oncelet-demo.content
if engine_curl "$url" "/images/$REPOSITORY:$TAG/json" 2>/dev/null | grep -q "\"$label\":\"$content\""; then
	say "image: $REPOSITORY:$TAG is already in the engine at $url"
	exit
fi

# Else the one that this replaces stays without a name.
engine_curl "$url" "/images/$REPOSITORY:$TAG" -X DELETE >/dev/null 2>&1 || true

# The owner is root whoever builds this.
owner=(--owner=0 --group=0)
tar --version 2>/dev/null | grep -q GNU || owner=(--uid 0 --gid 0)
tar -C "$root" "${owner[@]}" -cf "$work/root.tar" .
query="fromSrc=-&repo=$REPOSITORY&tag=$TAG"
# LABEL …, ENV PATH=/bin, CMD ["/bin/sh"]
query+="&changes=LABEL%20$label=$content&changes=ENV%20PATH=/bin&changes=CMD%20%5B%22/bin/sh%22%5D"
engine_curl "$url" "/images/create?$query" -X POST -H 'Content-Type: application/x-tar' -H 'Expect:' \
	--data-binary "@$work/root.tar" >"$work/answer" ||
	die "the engine at $url did not take the image: $(cat "$work/answer")"
known() { engine_curl "$url" "/images/$REPOSITORY:$TAG/json" >/dev/null 2>&1; }
if ! known; then
	# Podman 4.3 ignores the tag and calls it latest.
	engine_curl "$url" "/images/$REPOSITORY:latest/tag?repo=$REPOSITORY&tag=$TAG" -X POST >/dev/null
	engine_curl "$url" "/images/$REPOSITORY:latest" -X DELETE >/dev/null
fi
known || die "the engine at $url took the image but does not know $REPOSITORY:$TAG: $(cat "$work/answer")"
say "image: made $REPOSITORY:$TAG in the engine at $url"
