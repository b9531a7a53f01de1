#!/usr/bin/env bash
# Runs all the tests, and installs what they need: Go modules and tools, and the SDK's npm packages.
#
#   test/run.sh                  every stage, in this order
#   test/run.sh vet unit         these stages
#
# Needs Go, git, a C compiler (for the race detector), Chromium and Debian's python3-autobahn (all three are
# installed by apt where they are missing; CHROMIUM names another one) and node 20.18.1 or newer. A failed stage doesn't stop the
# next one; a test that was skipped fails its stage.
# The last lines are the time each stage took of its limit, the processor time among it (which tells a
# busy machine from a slow stage), and the tests that passed and failed.
set -euo pipefail
cd "$(dirname "$0")/.."

golangci_lint=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
gofumpt=mvdan.cc/gofumpt@v0.12.0
gotestsum=gotest.tools/gotestsum@v1.13.0

# name and limit in seconds, generous to a cold cache on two cores, and the limit of the whole
total=1740
stages='tools:420 mod:120 format:60 vet:600 lint:420 xcaddy:300 unit:720 editors:420 e2e:1080 sdk:300'

# Tools are kept by version and outside the checkout, so that a second run builds none of them.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sandman-tools

# tool PACKAGE@VERSION prints the path of that program, and installs it first where it is missing.
tool() {
	local name dir
	name=$(basename "${1%@*}")
	dir=$tools/$name@${1#*@}
	[ -x "$dir/$name" ] || (cd / && GOFLAGS='' GOBIN=$dir go install "$1")
	printf '%s' "$dir/$name"
}

stage_tools() {
	if ! command -v cc >/dev/null; then
		apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev
	fi
	tool "$golangci_lint" >/dev/null
	tool "$gofumpt" >/dev/null
	tool "$gotestsum" >/dev/null
	node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 18) ? 0 : 1)' || {
		echo "the SDK's tests need node 20.18.1 or newer" >&2
		return 1
	}
	npm ci --prefix test/sdk --no-audit --no-fund --loglevel=error
	npm ci --prefix test/e2e/browser --no-audit --no-fund --loglevel=error
	if [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
		apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium
	fi
	/usr/bin/python3 -c 'import autobahn.asyncio.websocket' 2>/dev/null || {
		apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-autobahn
	}
}

stage_mod() {
	go mod verify
	go mod tidy -diff
}

stage_format() {
	local fumpt wrong
	fumpt=$(tool "$gofumpt")
	wrong=$("$fumpt" -l .) # passes over generated files
	[ -z "$wrong" ] || {
		printf 'not formatted by gofumpt:\n%s\n' "$wrong" >&2
		return 1
	}
}

# macOS is built for and not tested here: at least it compiles
stage_vet() {
	go vet ./...
	go run ./test/crosscheck darwin/arm64
}

stage_lint() {
	local lint
	lint=$(tool "$golangci_lint")
	"$lint" run
}

# The flags are not the script's own but those of the other stages, whose compiled packages are reused.
stage_xcaddy() {
	CGO_ENABLED=1 XCADDY_GO_BUILD_FLAGS='-ldflags=-w' ./xcaddy.sh --output "$results/sandman"
}

stage_unit() {
	local packages
	packages=$(go list ./... | grep -v -e /test/e2e -e /test/sdk)
	# shellcheck disable=SC2086 # one argument for each package
	go_test unit -race -timeout 10m $packages
}

# The editors that the end-to-end tests open: code-server is built, which takes a minute and is kept.
stage_editors() {
	test/e2e/editors/install.sh
}

stage_e2e() {
	# most of the time they wait: for idle timeouts, leases and grace periods
	go_test e2e -timeout 17m30s -parallel 5 ./test/e2e/...
}

stage_sdk() {
	go_test sdk -race -timeout 4m30s ./test/sdk/...
}

# go_test NAME ARGS… runs the tests and fails also where one was skipped: a test that doesn't run
# proves nothing, and nobody would see it.
go_test() {
	local events=$results/$1.json runner skipped
	shift
	runner=$(tool "$gotestsum")
	"$runner" --format pkgname --jsonfile "$events" -- -count=1 "$@"
	skipped=$(grep '"Action":"skip"' "$events" | grep -o '"Test":"[^"]*"' || true)
	[ -z "$skipped" ] || {
		printf 'skipped, and so not tested:\n%s\n' "$skipped" >&2
		return 1
	}
}

# limited SECONDS COMMAND… ends the command's whole process group when its time is over.
limited() {
	local seconds=$1
	shift
	if command -v timeout >/dev/null; then
		timeout -k 10 "$seconds" "$@"
	else # macOS
		"$@"
	fi
}

# count ACTION prints how many tests ended so, over all stages.
count() {
	cat "$results"/*.json 2>/dev/null | grep "\"Action\":\"$1\"" | grep -c '"Test":' || true
}

# cpu prints the seconds of processor time that this script's children have used so far. `times` has them
# in its second line, and would tell a subshell about its own children.
cpu() {
	sed -n '2{s/[ms]/ /g;p;}' "$results/times" | LC_ALL=C awk '{print int($1 * 60 + $2 + $3 * 60 + $4)}'
}

main() {
	local stage name limit left began used took verdict table='' failed=0 failures
	results=$(mktemp -d)
	export results
	trap 'rm -rf "$results"' EXIT
	for stage in $stages; do
		name=${stage%:*} limit=${stage#*:} left=$((total - SECONDS))
		case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
		if [ "$limit" -gt "$left" ]; then limit=$((left > 1 ? left : 1)); fi
		printf '\n=== %s\n' "$name"
		times >"$results/times"
		began=$SECONDS used=$(cpu) verdict=ok
		limited "$limit" bash "$0" --stage "$name" </dev/null || verdict=FAILED
		took=$((SECONDS - began))
		times >"$results/times"
		used=$(($(cpu) - used))
		if [ "$verdict" = FAILED ]; then failed=$((failed + 1)); fi
		table+=$(printf '%-8s %5ds of %4ds  %5ds cpu  %s' "$name" "$took" "$limit" "$used" "$verdict")$'\n'
	done
	printf '\n=== time\n%s%-8s %5ds\n' "$table" total "$SECONDS"
	# a stage may fail by more than its tests, or without any
	failures=$(count fail)
	if [ "$failures" -lt "$failed" ]; then failures=$failed; fi
	printf '%d passed, %d failed\n' "$(count pass)" "$failures"
	[ "$failed" -eq 0 ]
}

if [ "${1:-}" = --stage ]; then
	"stage_$2"
else
	for stage in "$@"; do
		case " $stages" in
		*" $stage:"*) ;;
		*)
			echo "test/run.sh: no stage $stage; there are (with their limits in seconds) $stages" >&2
			exit 2
			;;
		esac
	done
	main "$@"
fi
