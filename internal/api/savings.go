package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// SavingsReader tells what was used.
type SavingsReader interface {
	// Usage returns what all sandboxes have used from one day to another, both
	// included, also those that are gone: one Used or more for a sandbox and
	// day, which are to be added.
	Usage(ctx context.Context, from, to session.Day) ([]Used, error)
}

// Used is what a sandbox used on each of some days.
type Used struct {
	SandboxID string
	session.Days
}

func (s *server) addSavings() {
	add(s, RoleViewer, huma.Operation{
		OperationID: "savings", Method: http.MethodGet, Path: "/savings",
		Summary: "What sleeping saves",
		Description: "How long sandboxes ran and slept, by days of UTC, and what that costs; what it would have cost had they always been on; " +
			"and what it would have cost by the host's own timeout, which ends a run after a whole number of it, whether somebody is there or not. " +
			"The last 400 days are kept, also of sandboxes that are gone.",
	}, s.savings)
}

type savingsInput struct {
	From    string `query:"from" doc:"The first day. Default: the last one, or today."`
	To      string `query:"to" doc:"The last day. A time stands for its day. Default: today."`
	Group   string `query:"group" enum:"owner,project,sandbox" doc:"Also sums for each of these."`
	Owner   string `query:"owner" doc:"Only what was this owner's."`
	Project string `query:"project" doc:"Only what belonged to this project."`
}

type savingsOutput struct {
	Body savingsBody
}

type savingsBody struct {
	From           session.Day      `json:"from" doc:"The first day, in UTC."`
	To             session.Day      `json:"to" doc:"The last day, which is included."`
	PricePerMinute float64          `json:"pricePerMinute" doc:"Of a running sandbox, as configured. 0: costs are not known."`
	Currency       string           `json:"currency,omitempty" doc:"Of all costs, as configured. Absent: not known."`
	HostTimeout    session.Duration `json:"hostTimeout" doc:"The host's own timeout that is compared with, as configured."`
	Total          Savings          `json:"total"`
	Groups         []savingsGroup   `json:"groups" nullable:"false" doc:"The largest saving first. Empty without group."`
	Days           []savingsDay     `json:"days" nullable:"false" doc:"Every day of the range."`
}

// Savings are times in milliseconds and what they cost.
type Savings struct {
	RunningMs       int64   `json:"runningMs" doc:"How long sandboxes ran."`
	PausedMs        int64   `json:"pausedMs" doc:"How long they slept."`
	AlwaysOnMs      int64   `json:"alwaysOnMs" doc:"How long they would have run without sleep."`
	HostTimeoutMs   int64   `json:"hostTimeoutMs" doc:"How long they would have run by the host's own timeout."`
	Cost            float64 `json:"cost"`
	AlwaysOnCost    float64 `json:"alwaysOnCost"`
	HostTimeoutCost float64 `json:"hostTimeoutCost"`
	Saved           float64 `json:"saved" doc:"alwaysOnCost less cost."`
}

type savingsGroup struct {
	Name string `json:"name" doc:"The owner, project or sandbox. Empty: what has none."`
	Savings
}

type savingsDay struct {
	Day session.Day `json:"day"`
	Savings
}

func (s *server) savings(ctx context.Context, who Token, in *savingsInput) (*savingsOutput, error) {
	from, to, err := daysOf(in.From, in.To, time.Now())
	if err != nil {
		return nil, err
	}
	used, err := s.Reader.Usage(ctx, from, to)
	if err != nil {
		return nil, err
	}
	sums := newSums(from, to, groupKey(in.Group))
	for _, u := range used {
		if who.seesUsage(u.Usage) && (in.Owner == "" || in.Owner == u.Owner) && (in.Project == "" || in.Project == u.Project) {
			sums.add(u)
		}
	}
	return &savingsOutput{Body: sums.body(s.Config)}, nil
}

// daysOf are the days that are asked for.
func daysOf(from, to string, now time.Time) (first, last session.Day, err error) {
	asked, err := spanOf(from, to)
	if err != nil {
		return "", "", err
	}
	last = session.DayOf(now)
	if !asked.until.IsZero() {
		last = session.DayOf(asked.until.Add(-1))
	}
	first = last
	if !asked.from.IsZero() {
		first = session.DayOf(asked.from)
	}
	switch days := last.Start().Sub(first.Start()); {
	case first > last:
		return "", "", badQuery("from", "it is behind to")
	case days > session.KeepUsage:
		return "", "", badQuery("from", fmt.Sprintf("ask for at most %d days", session.KeepUsage/(24*time.Hour)))
	}
	return first, last, nil
}

// seesUsage is as sees, for what a sandbox used while it was these's.
func (t Token) seesUsage(u session.Usage) bool {
	return t.sees(Sandbox{Record: session.Record{Owner: u.Owner, Project: u.Project}})
}

func groupKey(group string) func(Used) string {
	switch group {
	case "owner":
		return func(u Used) string { return u.Owner }
	case "project":
		return func(u Used) string { return u.Project }
	case "sandbox":
		return func(u Used) string { return u.SandboxID }
	default:
		return nil
	}
}

// sums add up usage.
type sums struct {
	from, to session.Day
	key      func(Used) string // nil: no groups
	total    session.Usage
	groups   map[string]session.Usage
	days     map[session.Day]session.Usage
}

func newSums(from, to session.Day, key func(Used) string) *sums {
	return &sums{from: from, to: to, key: key, groups: map[string]session.Usage{}, days: map[session.Day]session.Usage{}}
}

func (s *sums) add(u Used) {
	for day := u.First; day <= u.Last; day = day.Next() {
		s.total = s.total.Add(u.Usage)
		s.days[day] = s.days[day].Add(u.Usage)
		if s.key != nil {
			name := s.key(u)
			s.groups[name] = s.groups[name].Add(u.Usage)
		}
	}
}

func (s *sums) body(cfg Config) savingsBody {
	price := cfg.PricePerMinute
	b := savingsBody{
		From: s.from, To: s.to, PricePerMinute: price, Currency: cfg.Currency, HostTimeout: session.Duration(cfg.HostTimeout),
		Total: savingsOf(s.total, price), Groups: []savingsGroup{}, Days: []savingsDay{},
	}
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		b.Groups = append(b.Groups, savingsGroup{name, savingsOf(s.groups[name], price)})
	}
	slices.SortStableFunc(b.Groups, func(x, y savingsGroup) int { return cmp.Compare(y.PausedMs, x.PausedMs) })
	for day := s.from; day <= s.to; day = day.Next() {
		b.Days = append(b.Days, savingsDay{day, savingsOf(s.days[day], price)})
	}
	return b
}

func savingsOf(u session.Usage, price float64) Savings {
	v := Savings{
		RunningMs: u.RunningMs, PausedMs: u.PausedMs,
		AlwaysOnMs: u.RunningMs + u.PausedMs, HostTimeoutMs: u.RunningMs + u.HostMs,
	}
	v.Cost, v.AlwaysOnCost, v.HostTimeoutCost = cost(v.RunningMs, price), cost(v.AlwaysOnMs, price), cost(v.HostTimeoutMs, price)
	v.Saved = cost(v.PausedMs, price)
	return v
}

// cost is rounded to millionths, so that sums read well.
func cost(ms int64, price float64) float64 {
	return math.Round(float64(ms)/float64(time.Minute.Milliseconds())*price*1e6) / 1e6
}
