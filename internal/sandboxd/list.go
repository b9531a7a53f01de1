package sandboxd

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

const maxPage = 100

// listQuery is a checked GET /v2/sandboxes.
type listQuery struct {
	running, paused bool
	metadata        map[string]string
	template        string
	startedAfter    time.Time
	ascending       bool
	limit           int
	after           *cursor
}

// cursor is the last sandbox of a page.
type cursor struct {
	startedAt time.Time
	id        string
}

// listRunning answers the deprecated list, which has no pages.
func (a *api) listRunning(w http.ResponseWriter, r *http.Request) {
	metadata, err := parseMetadata(r.URL.Query().Get("metadata"))
	if err != nil {
		invalid(w, err)
		return
	}
	list, _ := a.page(listQuery{running: true, metadata: metadata, limit: len(a.host.all()) + 1})
	writeJSON(w, http.StatusOK, list)
}

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	q, err := parseListQuery(r.URL.Query())
	if errors.Is(err, errToken) {
		e2b.WriteError(w, http.StatusBadRequest, "Invalid next token")
		return
	}
	if err != nil {
		invalid(w, err)
		return
	}
	list, next := a.page(q)
	if next != "" {
		w.Header().Set("X-Next-Token", next)
	}
	if q.running {
		all := q
		all.after, all.paused = nil, false
		w.Header().Set("X-Total-Running", strconv.Itoa(a.count(all)))
	}
	writeJSON(w, http.StatusOK, list)
}

var errToken = errors.New("invalid next token")

func parseListQuery(v url.Values) (listQuery, error) {
	q := listQuery{limit: maxPage, template: v.Get("template"), ascending: v.Get("order") == "asc"}
	var err error
	if q.running, q.paused, err = parseStates(v["state"]); err != nil {
		return q, err
	}
	if q.metadata, err = parseMetadata(v.Get("metadata")); err != nil {
		return q, err
	}
	if s := v.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 1 || q.limit > maxPage {
			return q, fmt.Errorf("limit must be from 1 to %d", maxPage)
		}
	}
	if s := v.Get("startedAfter"); s != "" {
		if q.startedAfter, err = time.Parse(time.RFC3339, s); err != nil {
			return q, errors.New("startedAfter is no time")
		}
	}
	if s := v.Get("order"); s != "" && s != "asc" && s != "desc" {
		return q, errors.New("order must be asc or desc")
	}
	q.after, err = parseToken(v.Get("nextToken"), q.ascending)
	return q, err
}

func parseStates(values []string) (running, paused bool, err error) {
	for s := range strings.SplitSeq(strings.Join(values, ","), ",") {
		switch s {
		case "":
		case string(e2b.StateRunning):
			running = true
		case string(e2b.StatePaused):
			paused = true
		default:
			return false, false, fmt.Errorf("unknown state %q", s)
		}
	}
	if !running && !paused {
		return true, true, nil
	}
	return running, paused, nil
}

// parseMetadata decodes the filter as E2B does: once more as a whole, and once
// more each key and value, because SDKs encode it three times.
func parseMetadata(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	s, err := url.QueryUnescape(s)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	m := map[string]string{}
	for pair := range strings.SplitSeq(s, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if k, err = url.QueryUnescape(k); err == nil {
			v, err = url.QueryUnescape(v)
		}
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		m[k] = v
	}
	return m, nil
}

// The token is E2B's: a start time and an ID, and the order if it isn't the usual.
const tokenSeparator, tokenAscending = "__", "__asc"

func parseToken(s string, ascending bool) (*cursor, error) {
	if s == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	text, isAscending := strings.CutSuffix(string(b), tokenAscending)
	at, id, ok := strings.Cut(text, tokenSeparator)
	t, timeErr := time.Parse(time.RFC3339Nano, at)
	if err != nil || !ok || timeErr != nil || !e2b.ValidID(id) || isAscending != ascending {
		return nil, errToken
	}
	return &cursor{t, id}, nil
}

func (c cursor) token(ascending bool) string {
	s := c.startedAt.Format(time.RFC3339Nano) + tokenSeparator + c.id
	if ascending {
		s += tokenAscending
	}
	return base64.URLEncoding.EncodeToString([]byte(s))
}

// page is the part of the list that was asked for, and the token of the next.
// A host of many thousands is asked for many pages: most sandboxes are neither
// copied nor sorted for one.
func (a *api) page(q listQuery) (list []e2b.ListedSandbox, next string) {
	var found []record // at most twice what is asked for
	var last *cursor   // what comes after it is not on the page
	for _, s := range a.host.all() {
		if r, ok := s.ifListed(&q, last); ok {
			found = append(found, r)
		}
		if len(found) > 2*q.limit {
			found = q.first(found, q.limit+1)
			last = found[q.limit].cursor()
		}
	}
	found = q.first(found, q.limit+1)
	if len(found) > q.limit {
		found = found[:q.limit]
		next = found[q.limit-1].cursor().token(q.ascending)
	}
	list = make([]e2b.ListedSandbox, len(found))
	now := time.Now()
	for i := range found {
		list[i] = found[i].listed(now)
	}
	return list, next
}

// count tells how many sandboxes a list without pages would have.
func (a *api) count(q listQuery) (n int) {
	for _, s := range a.host.all() {
		if s.isListed(&q) {
			n++
		}
	}
	return n
}

func (s *sandbox) isListed(q *listQuery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return q.matches(&s.rec)
}

// ifListed gives a copy of the record, if it is asked for and comes before last.
func (s *sandbox) ifListed(q *listQuery, last *cursor) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !q.matches(&s.rec) || (last != nil && q.order(*s.rec.cursor(), *last) > 0) {
		return record{}, false
	}
	return s.rec, true
}

// first gives the first n of the records, in order.
func (q *listQuery) first(records []record, n int) []record {
	slices.SortFunc(records, func(x, y record) int { return q.order(*x.cursor(), *y.cursor()) })
	return records[:min(n, len(records))]
}

// cursor goes by the wall clock alone, as its token does: where that has been
// set, the monotonic one would tell another order.
func (r *record) cursor() *cursor { return &cursor{r.StartedAt.Round(0).UTC(), r.ID} }

func (q *listQuery) matches(r *record) bool {
	running := r.listedState() == e2b.StateRunning
	if r.State == StateKilling || r.State == StateKilled || (running && !q.running) || (!running && !q.paused) {
		return false
	}
	for k, v := range q.metadata {
		if got, ok := r.Metadata[k]; !ok || got != v {
			return false
		}
	}
	return (q.template == "" || q.template == r.TemplateID) &&
		!r.StartedAt.Before(q.startedAfter) &&
		(q.after == nil || q.order(*r.cursor(), *q.after) > 0)
}

func (q *listQuery) order(x, y cursor) int {
	n := cmp.Or(x.startedAt.Compare(y.startedAt), cmp.Compare(x.id, y.id))
	if q.ascending {
		return n
	}
	return -n
}

// listed is the sandbox in lists, as of now. Its machine is this one.
func (r *record) listed(now time.Time) e2b.ListedSandbox {
	end := r.EndAt
	if r.State == StateRunning {
		end = shownEnd(end, now, end.Sub(now))
	}
	return e2b.ListedSandbox{
		TemplateID: r.TemplateID, SandboxID: r.ID, ClientID: clientID,
		StartedAt: r.StartedAt.UTC(), EndAt: end.UTC(),
		CPUCount: int32(runtime.NumCPU()), MemoryMB: int32(proctree.MemTotal() >> 20),
		State: r.listedState(), EnvdVersion: envd.Version, Metadata: r.Metadata,
	}
}

func (a *api) get(w http.ResponseWriter, _ *http.Request, s *sandbox) {
	r := s.snapshot()
	if r.State == StateKilling || r.State == StateKilled {
		notFound(w, s.id)
		return
	}
	onTimeout := "kill"
	if r.AutoPause {
		onTimeout = "pause"
	}
	now := time.Now()
	// Who subtracts this from endAt learns how long it runs, also where the clock
	// is set before the answer is written.
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	writeJSON(w, http.StatusOK, e2b.SandboxDetail{
		ListedSandbox: r.listed(now), EnvdAccessToken: r.AccessToken,
		AllowInternetAccess: r.AllowInternet, Network: r.Network,
		Lifecycle: &e2b.Lifecycle{AutoResume: r.AutoResume, OnTimeout: onTimeout},
	})
}

// sample is one entry of a sandbox's metrics.
type sample struct {
	Timestamp     time.Time `json:"timestamp"`
	TimestampUnix int64     `json:"timestampUnix"`
	CPUCount      int       `json:"cpuCount"`
	CPUUsedPct    float64   `json:"cpuUsedPct"`
	MemUsed       uint64    `json:"memUsed"`
	MemTotal      uint64    `json:"memTotal"`
	DiskUsed      uint64    `json:"diskUsed"`
	DiskTotal     uint64    `json:"diskTotal"`
}

// metrics answers with the present; nothing is kept of the past.
func (a *api) metrics(w http.ResponseWriter, _ *http.Request, s *sandbox) {
	r := s.snapshot()
	if r.Process == nil {
		writeJSON(w, http.StatusOK, []sample{})
		return
	}
	u, err := proctree.Measure(r.Process.PID, filepath.Join(s.dir, homeFolder))
	if err != nil {
		fail(w, s.id, err, "Error reading metrics")
		return
	}
	now := time.Now()
	writeJSON(w, http.StatusOK, []sample{{
		Timestamp: now.UTC(), TimestampUnix: now.Unix(),
		CPUCount: runtime.NumCPU(), CPUUsedPct: u.CPUPercent, MemUsed: u.MemUsed, MemTotal: u.MemTotal,
		DiskUsed: u.DiskTotal - u.DiskFree, DiskTotal: u.DiskTotal,
	}})
}
