#!/usr/bin/env bash
# Builds ./sandman: Caddy's standard modules and this checkout's, by xcaddy.
#
#   ./xcaddy.sh                              build ./sandman
#   ./xcaddy.sh --with github.com/caddy-dns/cloudflare
#                                            the same, with further Caddy modules
#   ./xcaddy.sh run                          build, then run the quick start on localhost
#
# What follows the script's name goes to `xcaddy build` as it is. Needs Go and git, nothing else.
# Works from any folder, and on the bash 3.2 of macOS.
set -euo pipefail

caddy_version=v2.11.9
xcaddy_version=v0.4.5
go_minor=26 # Caddy's own floor is Go 1.26
module=github.com/sandman-proxy/sandman

root=$(cd "$(dirname "$0")" && pwd -P)
binary=$root/sandman

fail() {
	printf 'xcaddy.sh: %s\n' "$@" >&2
	exit 1
}

# GOTOOLCHAIN=local keeps an old Go from trying to download a new one in the middle of the check;
# whoever sets GOTOOLCHAIN gets the one they asked for.
check_go() {
	command -v git >/dev/null || fail "git is missing: install it from your system's packages, or https://git-scm.com/downloads"
	command -v go >/dev/null ||
		fail "Go is missing: install Go 1.$go_minor or newer from https://go.dev/dl/ and see that its bin folder is in PATH"
	local found minor
	found=$(cd / && GOTOOLCHAIN=${GOTOOLCHAIN:-local} go env GOVERSION) || fail "'go env GOVERSION' failed: is this Go complete?"
	minor=$(printf '%s' "$found" | sed -n 's/^go1\.\([0-9][0-9]*\).*/\1/p')
	# a development version of Go has no number, and is newer than any
	if [ -n "$minor" ] && [ "$minor" -lt "$go_minor" ]; then
		fail "this is $found ($(command -v go)), and Sandman needs Go 1.$go_minor or newer." \
			"Install it from https://go.dev/dl/ and run this again."
	fi
}

# Builds in the caller's folder, so that relative paths among the arguments mean what they say.
#
# To Go the package caddymodule could be of a module of its own, and it would ask the module proxy for
# one, which answers as it likes, or not at all. An empty module under that name spares the question.
build() {
	[ -d "$root/caddymodule" ] || fail "no folder caddymodule beside this script: is the checkout complete?"
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	echo "module $module/caddymodule" >"$scratch/go.mod"
	echo "Building $binary (Caddy $caddy_version). A first build downloads and compiles for some minutes, the next takes seconds."
	go run "github.com/caddyserver/xcaddy/cmd/xcaddy@$xcaddy_version" build "$caddy_version" \
		--output "$binary" \
		--with "$module/caddymodule@v0.0.0" \
		--replace "$module@v0.0.0=$root" \
		--replace "$module/caddymodule@v0.0.0=$scratch" \
		"$@" ||
		fail "the build failed. The first lines that say 'error' or 'go:' name the cause; without a network it needs a filled module cache."
	smoke_test "$@"
}

# an argument --output moves the binary, and one for another system can't be started here
smoke_test() {
	local output=$binary previous='' arg modules
	for arg in "$@"; do
		case $arg in --output=*) output=${arg#--output=} ;; esac
		if [ "$previous" = --output ]; then output=$arg; fi
		previous=$arg
	done
	case $output in /*) ;; *) output=$PWD/$output ;; esac
	if [ "$(go env GOOS GOARCH)" != "$(go env GOHOSTOS GOHOSTARCH)" ]; then return; fi
	modules=$("$output" list-modules) || fail "$output was built, but does not start"
	printf '%s\n' "$modules" | grep sandman || fail "$output was built without Sandman's modules"
}

# Caddy binds both loopback addresses, and a machine without IPv6 has only one of them
has_ipv6_loopback() {
	if [ -e /proc/net ]; then
		grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 2>/dev/null
	else
		ifconfig lo0 2>/dev/null | grep -q 'inet6 ::1'
	fi
}

port_is_busy() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# SANDMAN_DATA is the caller's, who may be in another folder than the checkout. The admin socket lies in
# it, and a socket's path has at most 107 bytes (103 on macOS): the system's own error names no cause.
settle_data() {
	local LC_ALL=C longest=92
	if [ -z "${SANDMAN_DATA:-}" ]; then return; fi
	case $SANDMAN_DATA in
	/*) ;;
	*) if [ ! . -ef "$root" ]; then export SANDMAN_DATA=$PWD/${SANDMAN_DATA#./}; fi ;;
	esac
	if [ ${#SANDMAN_DATA} -gt $longest ]; then
		fail "the path in SANDMAN_DATA has ${#SANDMAN_DATA} bytes, and a socket in it can be reached with $longest at most:" \
			"$SANDMAN_DATA" "Choose a shorter one, or leave it out."
	fi
}

run() {
	local port=${SANDMAN_PORT:-8080}
	if port_is_busy "$port"; then
		fail "port $port is in use by another program. End that one, or choose another port:" \
			"SANDMAN_PORT=8081 ./xcaddy.sh run"
	fi
	settle_data
	build "$@"
	if [ -z "${SANDMAN_BIND:-}" ] && ! has_ipv6_loopback; then
		export SANDMAN_BIND=127.0.0.1
	fi
	export SANDMAN_DEMO=${SANDMAN_DEMO:-1}
	rm -rf "$scratch" # exec leaves no trap
	cd "$root"        # the Caddyfile's ./.sandman is the checkout's
	exec "$binary" run --config Caddyfile
}

check_go
if [ "${1:-}" = run ]; then
	shift
	run "$@"
else
	build "$@"
fi
