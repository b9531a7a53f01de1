package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// table prints rows of durations: how many, median and spread.
type table struct{ w *tabwriter.Writer }

func newTable(what string) table {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tn\tmin\tp50\tp90\tp99\tmax\t\n", what)
	return table{w}
}

func (t table) row(name string, d []time.Duration) {
	slices.Sort(d)
	fmt.Fprintf(t.w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", name, len(d), short(at(d, 0)), short(at(d, 50)), short(at(d, 90)), short(at(d, 99)), short(at(d, 100)))
}

func (t table) print() { _ = t.w.Flush() }

// at gives a percentile of sorted durations, 0 of none.
func at(d []time.Duration, percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(len(d)-1, len(d)*percent/100)]
}

// short keeps three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

// printSides compares two sides by their medians, and by the median of what each
// pair of neighbouring rounds gave, which bears changing load better.
func printSides(bare, ours *side) {
	rates, cpu := make([]float64, 0, len(ours.rates)), make([]float64, 0, len(ours.rates))
	for i := range ours.rates {
		rates = append(rates, ours.rates[i]/bare.rates[i])
		cpu = append(cpu, float64(bare.cpu[i])/float64(ours.cpu[i]))
	}
	slices.Sort(rates)
	slices.Sort(cpu)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\trounds\trequests/s, min\tp50\tmax\tCPU/request, min\tp50\tmax\t")
	for _, s := range []*side{bare, ours} {
		slices.Sort(s.rates)
		slices.Sort(s.cpu)
		n := len(s.rates)
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%.0f\t%s\t%s\t%s\t\n", s.name, n, s.rates[0], s.rates[n/2], s.rates[n-1], s.cpu[0], s.cpu[n/2], s.cpu[n-1])
	}
	_ = w.Flush()
	n := len(ours.rates)
	fmt.Printf("of bare Caddy: %.3f by requests/s, %.3f by CPU time\n",
		ours.rates[n/2]/bare.rates[n/2], float64(bare.cpu[n/2])/float64(ours.cpu[n/2]))
	fmt.Printf("round by round: %.3f (%.3f to %.3f) by requests/s, %.3f (%.3f to %.3f) by CPU time\n",
		rates[n/2], rates[0], rates[n-1], cpu[n/2], cpu[0], cpu[n-1])
}

func progress(format string, args ...any) {
	_, _ = io.WriteString(os.Stderr, fmt.Sprintf(format, args...)+"\n")
}
