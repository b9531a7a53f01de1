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

func progress(format string, args ...any) {
	_, _ = io.WriteString(os.Stderr, fmt.Sprintf(format, args...)+"\n")
}
