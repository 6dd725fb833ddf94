#!/usr/bin/env bash
# Makes the small image of the demo and the tests, oncelet-demo/busybox:1, in the engine. Nothing is pulled where a static
# busybox can be had on the machine.
#
#   hack/test-image.sh [ENGINE-URL]     default: the first engine that answers
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/images.sh
source "$(dirname "${BASH_SOURCE[0]}")/images.sh"

IMAGE=oncelet-demo/busybox:1
APPLETS=(sh ash '[' awk base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false find grep gunzip
	gzip head hostname id kill ln ls md5sum mkdir mkfifo mktemp mv nc nohup od printenv printf ps pwd readlink realpath rm
	rmdir sed seq setsid sha256sum sleep sort stat stty sync tail tar tee test time timeout touch tr true tty uname uniq usleep
	wc wget which whoami xargs yes)

url=${1:-$(engine_url)} || die 'no engine answers; hack/ensure-engine.sh gets one'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

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
if image_has_content "$IMAGE" "$content"; then
	say "image: $IMAGE is already in the engine at $url"
	exit
fi
import_image "$IMAGE" "$root" "$content" 'ENV PATH=/bin' 'CMD ["/bin/sh"]'
