package cli

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const savingsLong = `Tells how long sandboxes ran and slept, what that cost, and what it would have
cost had they always been on, or by the host's own timeout alone. The price is
price_per_minute of the configuration, in the currency that stands there. A
time stands for its day.`

// amounts are of all, of a group, or of a day.
type amounts struct {
	Name string `json:"name"` // of a group
	Day  string `json:"day"`  // of a day

	RunningMs       int64   `json:"runningMs"`
	PausedMs        int64   `json:"pausedMs"`
	AlwaysOnMs      int64   `json:"alwaysOnMs"`
	HostTimeoutMs   int64   `json:"hostTimeoutMs"`
	Cost            float64 `json:"cost"`
	AlwaysOnCost    float64 `json:"alwaysOnCost"`
	HostTimeoutCost float64 `json:"hostTimeoutCost"`
	Saved           float64 `json:"saved"`
}

// asleep is the share of the time that was slept.
func (a amounts) asleep() float64 {
	if a.RunningMs+a.PausedMs == 0 {
		return math.NaN()
	}
	return float64(a.PausedMs) / float64(a.RunningMs+a.PausedMs)
}

type savings struct {
	From           string    `json:"from"`
	To             string    `json:"to"`
	PricePerMinute float64   `json:"pricePerMinute"`
	Currency       string    `json:"currency"`
	HostTimeout    string    `json:"hostTimeout"`
	Total          amounts   `json:"total"`
	Groups         []amounts `json:"groups"`
	Days           []amounts `json:"days"`
}

var groupings = []string{"owner", "project", "sandbox"}

func fillSavings(cmd *cobra.Command, exit Exit) {
	t := tool{exit}
	t.setUp(cmd)
	t.checkArgs(cmd, noArgs)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Example = `  sandman savings
  sandman savings --from 2026-11-01 --group project`
	f := filterFlags(cmd)
	from := cmd.Flags().String("from", "", "the first day, such as 2026-11-01; default: the last one")
	to := cmd.Flags().String("to", "", "the last day; default: today")
	group := cmd.Flags().String("group", "", "also by owner, project or sandbox")
	noFiles(cmd, "group", groupings...)
	noFiles(cmd, "from")
	noFiles(cmd, "to")
	t.does(cmd, func(r *run, _ []string) error {
		q := f.query()
		if err := errors.Join(setTime(q, "from", *from), setTime(q, "to", *to)); err != nil {
			return err
		}
		if *group != "" && !slices.Contains(groupings, *group) {
			return failf(ExitUsage, "--group is %q, and should be one of %s", *group, strings.Join(groupings, ", "))
		}
		set(q, "group", *group)
		answer, err := r.ask(request{method: http.MethodGet, path: "/savings", query: q}, "Adding up")
		if err != nil {
			return err
		}
		if r.json {
			r.printJSON(answer.body)
			return nil
		}
		var s savings
		if err := answer.decode(&s); err != nil {
			return err
		}
		r.showSavings(&s, *group)
		return nil
	})
}

func setTime(q url.Values, name, value string) error {
	if value == "" {
		return nil
	}
	_, errDay := time.Parse(time.DateOnly, value)
	if _, err := time.Parse(time.RFC3339, value); err != nil && errDay != nil {
		return failf(ExitUsage, "--%s is %q, and should be a day such as 2026-11-01 or a time such as 2026-11-01T08:00:00Z", name, value)
	}
	q.Set(name, value)
	return nil
}

func (r *run) showSavings(s *savings, group string) {
	t := s.Total
	fmt.Fprintf(r.out, "%s to %s, days of UTC\n\n", clean(s.From), clean(s.To))
	var tab table
	tab.add(cell{"  running", dim}, text(span(millis(t.RunningMs))))
	tab.add(cell{"  asleep", dim}, text(fmt.Sprintf("%s, %s of the time", span(millis(t.PausedMs)), percent(t.asleep()))))
	if s.PricePerMinute > 0 {
		tab.add(cell{"  cost", dim}, text(s.money(t.Cost)))
		tab.add(cell{"  always on", dim}, text(s.money(t.AlwaysOnCost)+" for the same use"))
		tab.add(cell{"  by host timeout", dim}, text(s.money(t.HostTimeoutCost)+" had the host ended runs"+after(s.HostTimeout)))
		tab.add(cell{"  saved", dim}, cell{s.money(t.Saved), green})
	}
	_, _ = r.out.Write(tab.render(r.colour))
	r.showDays(s)
	r.showGroups(s, group)
	if s.PricePerMinute <= 0 {
		r.note("With price_per_minute in the configuration this tells costs, too")
	}
}

// money is an amount in the currency that the configuration names, if it does.
func (s *savings) money(v float64) string {
	amount := strconv.FormatFloat(v, 'f', 2, 64)
	if math.Abs(v) < 100 {
		amount = strconv.FormatFloat(v, 'f', 4, 64)
	}
	return strings.TrimRight(amount+" "+clean(s.Currency), " ")
}

// after says after how long.
func after(timeout string) string {
	if d, err := time.ParseDuration(timeout); err == nil && d > 0 {
		return " after " + span(d)
	}
	return ""
}

const barWidth = 30

// showDays draws how much of each day was slept.
func (r *run) showDays(s *savings) {
	days := sinceFirst(s.Days)
	if len(days) == 0 {
		return
	}
	tab := table{head: []string{"DAY", "ASLEEP", "", "RUNNING"}, right: []bool{false, false, true, true}}
	if s.PricePerMinute > 0 {
		tab.head, tab.right = append(tab.head, "SAVED"), append(tab.right, true)
	}
	for _, d := range days {
		row := []cell{text(d.Day), {bar(d.asleep(), barWidth), blue}, text(percent(d.asleep())), text(span(millis(d.RunningMs)))}
		if s.PricePerMinute > 0 {
			row = append(row, text(s.money(d.Saved)))
		}
		tab.add(row...)
	}
	fmt.Fprintln(r.out)
	_, _ = r.out.Write(tab.render(r.colour))
	if len(days) < len(s.Days) {
		r.note("Nothing ran or slept before %s", clean(days[0].Day))
	}
}

// sinceFirst leaves the days out before anything counts.
func sinceFirst(days []amounts) []amounts {
	first := slices.IndexFunc(days, func(d amounts) bool { return d.RunningMs+d.PausedMs > 0 })
	if first < 0 {
		return nil
	}
	return days[first:]
}

func (r *run) showGroups(s *savings, group string) {
	if group == "" || len(s.Groups) == 0 {
		return
	}
	tab := table{head: []string{strings.ToUpper(group), "RUNNING", "ASLEEP", ""}, right: []bool{false, true, true, true}}
	if s.PricePerMinute > 0 {
		tab.head, tab.right = append(tab.head, "COST", "SAVED"), append(tab.right, true, true)
	}
	for _, g := range s.Groups {
		if g.Name == "" {
			g.Name = "(none)"
		}
		row := []cell{text(g.Name), text(span(millis(g.RunningMs))), text(span(millis(g.PausedMs))), text(percent(g.asleep()))}
		if s.PricePerMinute > 0 {
			row = append(row, text(s.money(g.Cost)), text(s.money(g.Saved)))
		}
		tab.add(row...)
	}
	fmt.Fprintln(r.out)
	_, _ = r.out.Write(tab.render(r.colour))
}
