// Command sandbench measures Sandman: every published figure comes from it. It
// builds the programs, starts them in a scratch folder with real sandboxes on
// this machine, prints a table, and takes all of it down again.
//
//	go run ./cmd/sandbench wake       wakes by request, and how late idle sandboxes are paused
//	go run ./cmd/sandbench cycle      pauses by hand and wakes by request, with checksums
//	go run ./cmd/sandbench proxy      requests to a running sandbox, beside Caddy's bare reverse_proxy
//	go run ./cmd/sandbench websocket  messages of a busy WebSocket, beside Caddy's bare reverse_proxy
//	go run ./cmd/sandbench lateness   how late pauses are with 10,000 sandboxes
//	go run ./cmd/sandbench memory     what a known sandbox and an open WebSocket take
//	go run ./cmd/sandbench stampede   requests that arrive together at sleeping sandboxes
//	go run ./cmd/sandbench reload     requests that reloads lose, beside Caddy's bare reverse_proxy
//	go run ./cmd/sandbench classify   what counts in recordings of editors, beside what a person did
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// bench is one measurement. It gets its own flags.
type bench struct {
	name, about string
	run         func(ctx context.Context, args []string) error
}

var benches = []bench{
	{"wake", "wakes by request, and how late idle sandboxes are paused", runWake},
	{"cycle", "pauses by hand and wakes by request, with checksums", runCycle},
	{"proxy", "requests to a running sandbox, beside Caddy's bare reverse_proxy", runProxy},
	{"websocket", "messages of a busy WebSocket, beside Caddy's bare reverse_proxy", runWebSocket},
	{"lateness", "how late pauses are with 10,000 sandboxes", runLateness},
	{"memory", "what a known sandbox and an open WebSocket take", runMemory},
	{"stampede", "requests that arrive together at sleeping sandboxes", runStampede},
	{"reload", "requests that reloads lose, beside Caddy's bare reverse_proxy", runReload},
	{"classify", "what counts in recordings of editors, beside what a person did", runClassify},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == appCommand {
		fail(runApp())
	}
	if len(os.Args) == 3 && os.Args[1] == recordsCommand {
		fail(runRecords(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, b := range benches {
		if len(os.Args) > 1 && os.Args[1] == b.name {
			err := b.run(ctx, os.Args[2:])
			stop()
			fail(err)
		}
	}
	fmt.Fprintln(os.Stderr, "usage: sandbench <measurement> [flags]; sandbench <measurement> -h lists its flags")
	for _, b := range benches {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", b.name, b.about)
	}
	os.Exit(2)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func newFlags(name string) *flag.FlagSet { return flag.NewFlagSet("sandbench "+name, flag.ExitOnError) }
