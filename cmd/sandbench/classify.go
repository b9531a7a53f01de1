package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
	"github.com/sandman-proxy/sandman/internal/noise/recording"
)

// runClassify judges recordings with all presets, and fails where a page that
// is left alone would not go dormant, or a person would be taken for noise.
func runClassify(_ context.Context, args []string) error {
	flags := newFlags("classify")
	idle := flags.Duration("idle", time.Minute, "the idle timeout; times without a person of less than twice this are too short to tell")
	verbose := flags.Bool("v", false, "list what counts with nobody there, and the inputs that were missed")
	_ = flags.Parse(args) // it exits by itself
	if flags.NArg() == 0 {
		return errors.New("usage: sandbench classify [-idle 1m] [-v] FILE… (JSON lines, also compressed by gzip)")
	}
	set, err := noise.New(noise.Config{})
	if err != nil {
		return err
	}
	var results []*recording.Result
	for _, name := range flags.Args() {
		rec, err := recording.Open(name)
		if err != nil {
			return err
		}
		results = append(results, recording.Classify(rec, set, *idle))
	}
	printResults(results, *idle)
	if *verbose {
		listFindings(results)
	}
	return goal(results, *idle)
}

func printResults(results []*recording.Result, idle time.Duration) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmin alone\tmessages\tunclear\trequests\treconnects\tsilence\tdormant\tinputs\tdoubtful\tmissed\t")
	sum := recording.Result{Name: "all"}
	assessed, dormant := 0, 0
	for _, r := range results {
		verdict := "-"
		if r.Assessed {
			assessed++
			verdict = "no"
			if r.Dormant {
				dormant++
				verdict = "yes"
			}
			if r.Dormant && !r.Proved {
				verdict = "yes?"
			}
		}
		row(w, r, verdict)
		addUp(&sum, r)
	}
	row(w, &sum, fmt.Sprintf("%d/%d", dormant, assessed))
	_ = w.Flush()
	fmt.Printf("\nmin alone: minutes with nobody there; messages, requests, reconnects: what counts in them; unclear: messages of which the recording\n"+
		"shows too little to tell; dormant: after %v of silence, and for good (yes?: if what is unclear is noise); inputs: keys, clicks,\n"+
		"wheels and commands after which something counts / all; doubtful: of these, by what is unclear; missed: those that sent\n"+
		"something which is taken for noise.\n", idle)
}

func row(w *tabwriter.Writer, r *recording.Result, verdict string) {
	fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%d\t%d\t%.0fs\t%s\t%d/%d\t%d\t%d\t\n", r.Name, r.Alone.Minutes(), len(r.Counted), r.Unclear,
		len(r.Requests), len(r.Reconnects), r.Silence.Seconds(), verdict, r.Found, r.Inputs, r.Doubtful, len(r.Missed))
}

func addUp(sum, r *recording.Result) {
	sum.Alone += r.Alone
	sum.Counted = append(sum.Counted, r.Counted...)
	sum.Unclear += r.Unclear
	sum.Requests = append(sum.Requests, r.Requests...)
	sum.Reconnects = append(sum.Reconnects, r.Reconnects...)
	sum.Silence = max(sum.Silence, r.Silence)
	sum.Inputs += r.Inputs
	sum.Found += r.Found
	sum.Doubtful += r.Doubtful
	sum.Missed = append(sum.Missed, r.Missed...)
}

func listFindings(results []*recording.Result) {
	for _, r := range results {
		for _, part := range []struct {
			title string
			list  []recording.Finding
		}{
			{"counts with nobody there", r.Counted},
			{"counts with nobody there", r.Requests},
			{"reconnects with nobody there", r.Reconnects},
			{"a person is taken for noise", r.Missed},
		} {
			for _, f := range part.list {
				fmt.Printf("%s: %s: %s\n", r.Name, part.title, f)
			}
		}
	}
}

func goal(results []*recording.Result, idle time.Duration) error {
	var errs []error
	for _, r := range results {
		if !r.Good(idle) {
			errs = append(errs, fmt.Errorf("%s: dormant for good: %t, longest silence %.0fs of %.0fs, inputs taken for noise: %d",
				r.Name, r.Dormant, r.Silence.Seconds(), idle.Seconds(), len(r.Missed)))
		}
	}
	return errors.Join(errs...)
}
