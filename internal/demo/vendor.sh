#!/usr/bin/env bash
# Puts the terminal's third-party files into web/vendor, from npm, with their licences. What npm sends
# must have the checksums below. Run it after a change of a version here, and commit what it leaves.
set -euo pipefail
cd "$(dirname "$0")"

# package, version, sha512 of npm's archive
packages='
@xterm/xterm      6.0.0   sha512-TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==
@xterm/addon-fit  0.11.0  sha512-jYcgT6xtVYhnhgxh3QgYDnnNMYTcf8ElbxxFzX0IZo+vabQqSPAjC3c1wJrKB5E19VwQei89QCiZZP86DCPF7g==
'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -rf web/vendor
while read -r package version checksum; do
	[ -n "$package" ] || continue
	archive=$scratch/$(cd "$scratch" && npm pack --silent "$package@$version")
	[ "sha512-$(openssl dgst -sha512 -binary "$archive" | base64 -w0)" = "$checksum" ] || {
		echo "$package@$version is not what it was" >&2
		exit 1
	}
	name=${package##*/}
	mkdir -p "$scratch/$name" "web/vendor/$name"
	tar -xzf "$archive" -C "$scratch/$name" --strip-components 1
	cp "$scratch/$name/LICENSE" "web/vendor/$name/LICENSE"
	printf '%s %s (MIT), https://www.npmjs.com/package/%s\n' "$package" "$version" "$package" >"web/vendor/$name/VERSION"
	for file in "$scratch/$name"/lib/*.mjs "$scratch/$name"/css/*.css; do
		[ -e "$file" ] || continue
		# the source map is not served
		sed '/^\/\/# sourceMappingURL=/d' "$file" >"web/vendor/$name/$(basename "$file")"
	done
done <<<"$packages"
