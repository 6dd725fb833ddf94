#!/usr/bin/env bash
# Makes an image with PostgreSQL, oncelet-demo/postgres:1, in the engine, from what Debian's package put on this machine: nothing
# is pulled. It starts in the phases of the official image, with POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB and the scripts in
# /docker-entrypoint-initdb.d. Its database is in /data, and takes connections on its socket without a password.
#
#   hack/postgres-image.sh [ENGINE-URL] [--install]     default: the first engine that answers
#
# Where PostgreSQL is missing, it is installed (Debian) in CI or with --install; else this exits with 3.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/images.sh
source "$(dirname "${BASH_SOURCE[0]}")/images.sh"

IMAGE=oncelet-demo/postgres:1
PROGRAMS=(initdb pg_ctl postgres psql pg_isready)

url='' install=${CI:-}
for argument; do
	case $argument in
	--install) install=true ;;
	*) url=$argument ;;
	esac
done
[[ -n $url ]] || url=$(engine_url) || die 'no engine answers; hack/ensure-engine.sh gets one'

find_postgres() {
	local candidate
	for candidate in /usr/lib/postgresql/*/bin; do
		[[ ! -x $candidate/initdb || ! -x $candidate/postgres || ! -x $candidate/psql ]] || echo "$candidate"
	done | sort -V | tail -n 1
}

bin=$(find_postgres)
if [[ -z $bin ]]; then
	if [[ $install != true ]] || ! on_debian; then
		not_here 'PostgreSQL is not installed (hack/postgres-image.sh --install)'
	fi
	apt_install postgresql
	bin=$(find_postgres)
fi
version=${bin#/usr/lib/postgresql/} version=${version%/bin}

content=$({
	cat "$bin/postgres" "${BASH_SOURCE[0]}"
} | sha256)
if image_has_content "$IMAGE" "$content"; then
	say "image: $IMAGE is already in the engine at $url"
	exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,data,etc,tmp,run,usr/bin,"usr/lib/postgresql/$version","usr/share/postgresql"}

mkdir "$root/usr/lib/postgresql/$version/bin"
for program in "${PROGRAMS[@]}"; do
	cp "$bin/$program" "$root/usr/lib/postgresql/$version/bin/"
done
cp -R "${bin%/bin}/lib" "$root/usr/lib/postgresql/$version/lib"
# Compiling queries needs a compiler.
rm -rf "$root/usr/lib/postgresql/$version/lib"/{bitcode,pgxs,llvmjit*}
cp -R "/usr/share/postgresql/$version" "$root/usr/share/postgresql/$version"
for program in "${PROGRAMS[@]}"; do
	ln -s "../lib/postgresql/$version/bin/$program" "$root/usr/bin/$program"
done
libraries_into "$root" "${PROGRAMS[@]/#/$bin/}" "${bin%/bin}"/lib/{plpgsql,dict_snowball}.so
mkdir -p "$root/usr/share/zoneinfo/Etc"
for zone in UTC GMT Etc/UTC; do
	cp -L "/usr/share/zoneinfo/$zone" "$root/usr/share/zoneinfo/$zone"
done

applets_into "$root" sh cat ls mkdir rm sleep test touch true
printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'postgres:x:70:70:postgres:/data:/bin/sh' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'postgres:x:70:' >"$root/etc/group"
cat >"$root/bin/run-postgres" <<-'SCRIPT'
	#!/bin/sh
	# What the entrypoint of the official image does, in short: at the first start a temporary server, which takes connections on its
	# socket alone, for the database and the scripts; it is shut down, and the real server takes its place.
	set -e
	: "${POSTGRES_USER:=postgres}"
	: "${POSTGRES_DB:=$POSTGRES_USER}"
	if ! test -s /data/pg/PG_VERSION; then
		if test -z "$POSTGRES_PASSWORD"; then
			echo 'Error: POSTGRES_PASSWORD is not set' >&2
			exit 1
		fi
		echo "$POSTGRES_PASSWORD" >/tmp/password
		initdb --pgdata /data/pg --username "$POSTGRES_USER" --pwfile /tmp/password --locale C --encoding UTF8
		rm /tmp/password
		echo 'host all all all scram-sha-256' >>/data/pg/pg_hba.conf
		pg_ctl -D /data/pg -o "-k /tmp -c listen_addresses=''" -w start
		query() { psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$@"; }
		test "$POSTGRES_DB" = postgres || query postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
		for file in /docker-entrypoint-initdb.d/*; do
			case $file in
			*.sh) . "$file" ;;
			*.sql) query "$POSTGRES_DB" -f "$file" ;;
			esac
		done
		pg_ctl -D /data/pg -m fast -w stop
		echo 'PostgreSQL init process complete; ready for start up.'
	fi
	exec postgres -D /data/pg -k /tmp -c listen_addresses='*'
SCRIPT
chmod 755 "$root" "$root"/{bin,etc,run,usr} "$root/bin/run-postgres"
chmod 1777 "$root/data" "$root/tmp"

import_image "$IMAGE" "$root" "$content" 'ENV PATH=/usr/bin:/bin' 'ENV PGHOST=/tmp' 'USER postgres' 'CMD ["/bin/run-postgres"]'
