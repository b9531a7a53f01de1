#!/usr/bin/env bash
# Installs the editors that the end-to-end tests open, and prints the folder of code-server:
#
#   test/e2e/editors/install.sh
#
# Jupyter's notebook comes from Debian. code-server comes from npm and is built without its own
# post-install step, which downloads things. Both are kept: a second run takes no time.
set -euo pipefail

version=4.100.3
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sandman-tools
dir=$tools/code-server@$version

# what the editors' own modules are compiled with, and run with
packages='build-essential python3 pkg-config libkrb5-dev libsecret-1-dev libxkbfile-dev libx11-dev ripgrep jupyter-notebook'

missing() {
	local p
	for p in $packages; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$p"
	done
}

install_packages() {
	local wanted
	wanted=$(missing)
	[ -n "$wanted" ] || return 0
	# shellcheck disable=SC2086 # one argument for each package
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $wanted ||
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $wanted; }
}

# The headers of node can't be downloaded everywhere; those of the installed one are as good.
node_prefix() { node -p 'require("path").dirname(require("path").dirname(process.execPath))'; }

build_code_server() {
	local build package lib folder
	build=$(mktemp -d "$tools/code-server.XXXXXX")
	package=$build/package
	(cd "$build" && npm pack --silent "code-server@$version" >/dev/null && tar xzf "code-server-$version.tgz" && rm "code-server-$version.tgz")
	for folder in . lib/vscode lib/vscode/extensions; do
		npm install --prefix "$package/$folder" --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error
	done
	lib=$package/lib/vscode
	mkdir -p "$lib/node_modules/@vscode/ripgrep/bin"
	ln -sf /usr/bin/rg "$lib/node_modules/@vscode/ripgrep/bin/rg"
	ln -sfn node_modules "$lib/node_modules.asar"
	ln -sfn node_modules "$lib/extensions/node_modules.asar"
	export npm_config_nodedir
	npm_config_nodedir=$(node_prefix)
	npm rebuild --prefix "$package" --build-from-source argon2 --loglevel=error
	# the last script of one of them fails after all is built: what counts is what is there
	npm rebuild --prefix "$lib" --build-from-source node-pty @vscode/spdlog native-watchdog kerberos --loglevel=silent || true
	for folder in node-pty/build/Release/pty @vscode/spdlog/build/Release/spdlog native-watchdog/build/Release/watchdog kerberos/build/Release/kerberos; do
		[ -f "$lib/node_modules/$folder.node" ] || { echo "code-server: $folder.node was not built" >&2; return 1; }
	done
	mv "$package" "$dir"
	rm -rf "$build"
}

install_packages >&2
if [ ! -d "$dir" ]; then
	mkdir -p "$tools"
	build_code_server >&2
fi
printf '%s\n' "$dir"
