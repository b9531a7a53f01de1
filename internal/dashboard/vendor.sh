#!/usr/bin/env bash
# Puts the dashboard's third-party files into web/vendor, from npm, with their licences. What npm sends
# must have the checksums below. Run it after a change of a version here, and commit what it leaves.
set -euo pipefail
cd "$(dirname "$0")"

# package, version, licence, the file that is served and what it is called, sha512 of npm's archive
packages='
preact                11.2.0  MIT         dist/preact.mjs,hooks/dist/hooks.mjs  sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==
htm                   3.1.1   Apache-2.0  dist/htm.mjs                          sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==
@preact/signals       2.11.4  MIT         dist/signals.mjs                      sha512-Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==
@preact/signals-core  1.14.5  MIT         dist/signals-core.mjs                 sha512-vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==
uplot                 1.6.32  MIT         dist/uPlot.esm.js,dist/uPlot.min.css  sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==
'

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -rf web/vendor
while read -r package version licence files checksum; do
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
	printf '%s %s (%s), https://www.npmjs.com/package/%s\n' "$package" "$version" "$licence" "$package" >"web/vendor/$name/VERSION"
	for file in ${files//,/ }; do
		# Without a bundler a browser needs paths where the packages name each other; an import map would be
		# an inline script. Source maps are not served.
		sed -e 's|"preact/hooks"|"../preact/hooks.mjs"|g; s|"preact"|"../preact/preact.mjs"|g' \
			-e 's|"@preact/signals-core"|"../signals-core/signals-core.mjs"|g' \
			-e 's,//# sourceMappingURL=.*,,' "$scratch/$name/$file" >"web/vendor/$name/$(basename "$file")"
	done
done <<<"$packages"
