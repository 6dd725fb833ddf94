# shellcheck shell=bash
# How the images of the demo and the tests are made, without a pull. Sourced, after lib.sh; the caller sets `url`, the engine's
# address, and `work`, a directory for what is passing.
# shellcheck disable=SC2154 # these two

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

# image_has_content IMAGE CONTENT: whether the engine has the image, made from this content.
image_has_content() {
	engine_curl "$url" "/images/$1/json" 2>/dev/null | grep -q "\"oncelet-demo.content\":\"$2\""
}

# import_image IMAGE ROOT CONTENT CHANGE...: makes the image from a directory; each change is an instruction of a Dockerfile.
import_image() {
	local image=$1 root=$2 content=$3 change query
	local repository=${image%:*} tag=${image##*:} owner=(--owner=0 --group=0)
	shift 3
	# Else the one that this replaces stays without a name.
	engine_curl "$url" "/images/$image" -X DELETE >/dev/null 2>&1 || true
	# The owner is root whoever builds this.
	tar --version 2>/dev/null | grep -q GNU || owner=(--uid 0 --gid 0)
	tar -C "$root" "${owner[@]}" -cf "$work/root.tar" .
	query="fromSrc=-&repo=$repository&tag=$tag"
	for change in "LABEL oncelet-demo.content=$content" "$@"; do
		change=${change//'%'/%25} change=${change//' '/%20} change=${change//'['/%5B} change=${change//']'/%5D}
		query+="&changes=${change//'"'/%22}"
	done
	engine_curl "$url" "/images/create?$query" -X POST -H 'Content-Type: application/x-tar' -H 'Expect:' \
		--data-binary "@$work/root.tar" >"$work/answer" ||
		die "the engine at $url did not take the image: $(cat "$work/answer")"
	if ! image_has_content "$image" "$content"; then
		# Podman 4.3 ignores the tag and calls it latest.
		engine_curl "$url" "/images/$repository:latest/tag?repo=$repository&tag=$tag" -X POST >/dev/null
		engine_curl "$url" "/images/$repository:latest" -X DELETE >/dev/null
	fi
	image_has_content "$image" "$content" ||
		die "the engine at $url took the image but does not know $image: $(cat "$work/answer")"
	say "image: made $image in the engine at $url"
}

# libraries_into ROOT FILE...: copies what the files are linked with, the loader included.
libraries_into() {
	local root=$1 library
	shift
	while read -r library; do
		mkdir -p "$root${library%/*}"
		cp -L "$library" "$root$library"
	done < <(ldd "$@" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u)
}

# applets_into ROOT APPLET...: busybox, and links to it.
applets_into() {
	local root=$1 busybox applet
	shift
	busybox=$(find_busybox) || die 'no static busybox can be had: install the package busybox-static'
	mkdir -p "$root/bin"
	install -m 755 "$busybox" "$root/bin/busybox"
	for applet; do
		ln -s busybox "$root/bin/$applet"
	done
}
