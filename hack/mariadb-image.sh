#!/usr/bin/env bash
# Makes an image with MariaDB, oncelet-demo/mariadb:1, in the engine, from what Debian's packages put on this machine: nothing
# is pulled. It starts in the phases of the official image, with MARIADB_ROOT_PASSWORD, MARIADB_DATABASE and the scripts in
# /docker-entrypoint-initdb.d. Its database is in /data.
#
#   hack/mariadb-image.sh [ENGINE-URL] [--install]     default: the first engine that answers
#
# Where MariaDB is missing, it is installed (Debian) in CI or with --install; else this exits with 3.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/images.sh
source "$(dirname "${BASH_SOURCE[0]}")/images.sh"

IMAGE=oncelet-demo/mariadb:1
SHARE=/usr/share/mysql
# What mariadb-install-db tells a server without tables.
TABLES=(mysql_system_tables mysql_performance_tables mysql_system_tables_data maria_add_gis_sp_bootstrap)

url='' install=${CI:-}
for argument; do
	case $argument in
	--install) install=true ;;
	*) url=$argument ;;
	esac
done
[[ -n $url ]] || url=$(engine_url) || die 'no engine answers; hack/ensure-engine.sh gets one'

is_here() { [[ -x /usr/sbin/mariadbd && -x /usr/bin/mariadb && -f $SHARE/${TABLES[0]}.sql ]]; }
if ! is_here; then
	if [[ $install != true ]] || ! on_debian; then
		not_here 'MariaDB is not installed (hack/mariadb-image.sh --install)'
	fi
	# Without the package that starts a server on this machine.
	apt_install mariadb-server-core mariadb-client-core
	is_here || die 'MariaDB is installed, and is not where Debian puts it'
fi

content=$({
	cat /usr/sbin/mariadbd "${BASH_SOURCE[0]}"
} | sha256)
if image_has_content "$IMAGE" "$content"; then
	say "image: $IMAGE is already in the engine at $url"
	exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,data,etc,tmp,usr/bin,usr/sbin} "$root$SHARE"
cp /usr/sbin/mariadbd "$root/usr/sbin/"
cp /usr/bin/mariadb "$root/usr/bin/"
libraries_into "$root" /usr/sbin/mariadbd /usr/bin/mariadb
cp -R "$SHARE"/{charsets,english} "$root$SHARE/"
for tables in "${TABLES[@]}"; do
	cp "$SHARE/$tables.sql" "$root$SHARE/"
done

applets_into "$root" sh cat ls mkdir rm sleep test touch true
printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'mysql:x:999:999:mysql:/data:/bin/sh' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'mysql:x:999:' >"$root/etc/group"
cat >"$root/etc/my.cnf" <<-'CONFIG'
	[mariadbd]
	datadir=/data/mysql
	innodb_log_file_size=8M
	innodb_buffer_pool_size=16M
	[client-server]
	socket=/tmp/mysql.sock
CONFIG
{
	printf '%s\n' '#!/bin/sh' "share=$SHARE tables='${TABLES[*]}'"
	cat <<-'SCRIPT'
		# What the entrypoint of the official image does, in short: at the first start a temporary server without a network, for the
		# password, the database and the scripts; it is shut down, and the real server takes its place.
		set -e
		if ! test -d /data/mysql/mysql; then
			if test -z "$MARIADB_ROOT_PASSWORD"; then
				echo 'Error: MARIADB_ROOT_PASSWORD is not set' >&2
				exit 1
			fi
			mkdir -p /data/mysql
			{
				printf '%s\n' 'CREATE DATABASE mysql;' 'USE mysql;' 'SET @auth_root_socket=NULL;'
				for table in $tables; do cat "$share/$table.sql"; done
			} | mariadbd --bootstrap >/dev/null
			mariadbd --skip-networking &
			temporary=$!
			until mariadb -u root -e 'SELECT 1' >/dev/null 2>&1; do sleep 0.1; done
			echo 'Temporary server started.'
			{
				echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';"
				echo "CREATE USER 'root'@'%' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD'; GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
				test -z "$MARIADB_DATABASE" || echo "CREATE DATABASE \`$MARIADB_DATABASE\`;"
			} | mariadb -u root
			query() { mariadb -u root -p"$MARIADB_ROOT_PASSWORD" "$@"; }
			for file in /docker-entrypoint-initdb.d/*; do
				case $file in
				*.sh) . "$file" ;;
				*.sql) query ${MARIADB_DATABASE:+"$MARIADB_DATABASE"} <"$file" ;;
				esac
			done
			kill "$temporary"
			wait "$temporary"
			echo 'MariaDB init process done. Ready for start up.'
		fi
		exec mariadbd
	SCRIPT
} >"$root/bin/run-mariadb"
chmod 755 "$root" "$root"/{bin,etc,usr,usr/bin,usr/sbin} "$root/bin/run-mariadb"
chmod 644 "$root"/etc/{passwd,group,my.cnf}
chmod 1777 "$root/data" "$root/tmp"

import_image "$IMAGE" "$root" "$content" 'ENV PATH=/usr/bin:/usr/sbin:/bin' 'USER mysql' 'CMD ["/bin/run-mariadb"]'
