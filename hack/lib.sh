# shellcheck shell=bash
# What the scripts in hack/ share. Sourced, never run.
#
# Convention: what a person reads goes to stderr, what a caller uses goes to stdout. Exit code 3 means "cannot be had
# here": the caller may go on without, but has to say so.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/oncelet
STATE=${XDG_STATE_HOME:-$HOME/.local/state}/oncelet-hack
export ROOT CACHE STATE

readonly NOT_HERE=3

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
	BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
	BOLD='' DIM='' RED='' YELLOW='' PLAIN=''
fi
export BOLD DIM RED YELLOW PLAIN

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }
warn() { printf '%swarning:%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }
die() {
	printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
	exit 1
}
not_here() {
	printf '%snot here:%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2
	exit "$NOT_HERE"
}
have() { command -v "$1" >/dev/null 2>&1; }

# run COMMAND...: shows a command that changes the machine, then runs it. Its output is for people.
run() {
	printf '%s$ %s%s\n' "$DIM" "$*" "$PLAIN" >&2
	"$@" >&2
}

is_root() { [[ $(id -u) -eq 0 ]]; }

# as_root COMMAND...: as root, through sudo where need be.
as_root() {
	if is_root; then
		run "$@"
	elif have sudo; then
		run sudo "$@"
	else
		die "this needs root, and there is no sudo: $*"
	fi
}

on_debian() { [[ $(uname -s) == Linux ]] && have apt-get; }

# Fetches the package lists, once per script.
apt_update() {
	[[ -z ${APT_LISTS_FRESH:-} ]] || return 0
	as_root apt-get update -qq
	APT_LISTS_FRESH=yes
}

apt_install() {
	say "installing from Debian's packages: $*"
	apt_update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# is_static PROGRAM: whether it runs without any library, so also in an empty image.
is_static() {
	local libraries
	[[ -x $1 ]] || return 1
	libraries=$(LC_ALL=C ldd "$1" 2>&1) || true
	[[ $libraries == *'not a dynamic executable'* || $libraries == *'statically linked'* ]]
}

sha256() {
	if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

# build_go MODULE PACKAGE LDFLAGS PROGRAM: builds a program from a pinned module, in the directory of PROGRAM, which is there.
build_go() {
	local building
	building=$(mktemp "$4.XXXXXX")
	# shellcheck disable=SC2064 # the name as it is now
	trap "rm -f '$building'" EXIT
	(cd "$1" && go build -trimpath -ldflags="$3" -o "$building" "$2") >&2
	chmod 755 "$building"
	# A reader finds the whole binary or none, and two builders at once do no harm.
	mv -f "$building" "$4"
}

# --- the engine -------------------------------------------------------------------------------------------------------

# engine_curl URL PATH [CURL-ARGUMENT...]: one request to a Docker-compatible engine. Fails on HTTP errors.
engine_curl() {
	local url=$1 path=$2
	shift 2
	case $url in
	unix://*) curl -fsS --unix-socket "${url#unix://}" "http://localhost$path" "$@" ;;
	tcp://*) curl -fsS "http://${url#tcp://}$path" "$@" ;;
	http://*) curl -fsS "${url%/}$path" "$@" ;;
	*) die "cannot talk to the engine at $url: use a unix://, tcp:// or http:// address" ;;
	esac
}

engine_answers() { [[ $(engine_curl "$1" /_ping --max-time 5 2>/dev/null) == OK ]]; }

# Where an engine may listen on this machine, the most ordinary place first.
engine_candidates() {
	local runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} context
	echo unix:///var/run/docker.sock
	if have docker && context=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null); then
		case $context in unix://* | tcp://*) echo "$context" ;; esac
	fi
	printf 'unix://%s\n' "$runtime/docker.sock" "$HOME/.docker/run/docker.sock" "$HOME/.colima/default/docker.sock" \
		/run/podman/podman.sock "$runtime/podman/podman.sock"
}

# engine_url: the address of the first engine that answers. A DOCKER_HOST is the user's choice, and the only candidate.
engine_url() {
	local url
	if [[ -n ${DOCKER_HOST:-} ]]; then
		engine_answers "$DOCKER_HOST" && echo "$DOCKER_HOST"
		return
	fi
	while read -r url; do
		if [[ $url != unix://* || -S ${url#unix://} ]] && engine_answers "$url"; then
			echo "$url"
			return
		fi
	done < <(engine_candidates)
	return 1
}

# stop_pid NAME PIDFILE [COMMAND...]: ends the process in PIDFILE if it still is NAME, and waits for its end. COMMAND
# (sudo) goes before kill.
stop_pid() {
	local name=$1 pidfile=$2 pid
	shift 2
	pid=$("$@" cat "$pidfile" 2>/dev/null) || return 0
	if [[ $(ps -o comm= -p "$pid" 2>/dev/null) == "$name"* ]]; then
		"$@" kill "$pid"
		for _ in {1..150}; do
			ps -p "$pid" >/dev/null 2>&1 || break
			sleep 0.2
		done
		! ps -p "$pid" >/dev/null 2>&1 || die "$name (pid $pid) did not end within 30 seconds of SIGTERM"
	fi
	"$@" rm -f "$pidfile"
}

# report_skipped TITLE [THING...]: what was left out, where nobody can miss it.
report_skipped() {
	local title=$1 thing
	shift
	(($#)) || return 0
	printf '\n%s*** %s%s\n' "$YELLOW" "$title" "$PLAIN" >&2
	for thing in "$@"; do
		printf '%s***%s %s\n' "$YELLOW" "$PLAIN" "$thing" >&2
	done
}
