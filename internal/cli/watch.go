package cli

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (t tool) addWatch(parent *cobra.Command) {
	cmd := t.add(parent, "watch [<id>] [flags]", "Follows what becomes of sandboxes, until Ctrl+C",
		"Each change is a line; of one sandbox it is also told when its use begins and ends, and it is followed until it is gone. A lost connection is taken up again, and each sandbox that has changed meanwhile is told of once, as it is by then: its history has the steps between. With --json there is a line for each sandbox as it is at the beginning, and one whenever it has changed: the sandbox as the API shows it, or {\"sandboxID\":\"…\"} alone when it is gone.",
		`  sandman sandbox watch
  sandman sandbox watch i4iqeeqsdwjexhv2us927
  sandman sandbox watch --owner alice --json`,
		func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneID(nil, args)
		})
	f := filterFlags(cmd)
	completesIDs(cmd, false, living...)
	t.does(cmd, func(r *run, args []string) error {
		w := &watcher{run: r, known: map[string]sandbox{}, filter: f}
		if len(args) > 0 {
			if len(f.query()) > 0 {
				return failf(ExitUsage, "%w", errWatchBoth)
			}
			w.one = args[0]
		}
		return w.watch()
	})
}

var errWatchBoth = errors.New("an ID and --owner or --project can't be had together")

// watcher tells what has changed by what it has seen before.
type watcher struct {
	*run
	one    string // "": all
	filter filter
	known  map[string]sandbox
	listed bool // known has all that there is
	broken bool // no connection, and that was said
}

func (w *watcher) watch() error {
	q := w.filter.query()
	set(q, "sandbox", w.one)
	f := &follower{client: w.client, query: q, about: w.one, opened: w.opened, handle: w.handle, lost: w.lost}
	err := f.follow(w.ctx)
	switch {
	case errors.Is(err, errOver):
		return nil
	case err == nil: // Ctrl+C: nobody needs to be told so
		return &silentError{ExitInterrupted}
	}
	return err
}

// errOver ends the watching of one sandbox.
var errOver = errors.New("there is nothing more to come")

// opened lists what there is, but where a stream begins with it.
func (w *watcher) opened(fresh bool) error {
	if w.broken {
		w.note("Connected again")
		w.broken = false
	}
	switch {
	case !fresh || w.one != "":
		return nil
	default:
		return w.relist()
	}
}

func (w *watcher) lost(err error) {
	w.note("The connection to %s is lost: %s. Trying again…", w.client.base, clean(err.Error()))
	w.broken = true
}

func (w *watcher) handle(e event) error {
	switch e.kind {
	case "sandbox":
		return w.show([]byte(e.data), time.Now())
	case "gone":
		var gone sandbox
		if err := (reply{body: []byte(e.data)}).decode(&gone); err != nil {
			return err
		}
		return w.gone(gone.SandboxID)
	case "reset":
		return w.relist()
	default: // of a newer Sandman
		return nil
	}
}

// relist looks at everything anew, where changes may have been missed.
func (w *watcher) relist() error {
	first, before := !w.listed, maps.Clone(w.known)
	see := func(raw []byte, now time.Time) error {
		var sb sandbox
		if err := (reply{body: raw}).decode(&sb); err != nil {
			return err
		}
		delete(before, sb.SandboxID)
		if first && w.one == "" && !w.json { // as many as there are
			w.known[sb.SandboxID] = sb
			return nil
		}
		return w.show(raw, now)
	}
	if err := w.look(see); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if err := w.gone(id); err != nil {
			return err
		}
	}
	w.listed = true
	if first && w.one == "" {
		w.note("Watching %s%s. Ctrl+C ends it", sandboxes(len(w.known)), w.counts())
	}
	return nil
}

func (w *watcher) look(see func([]byte, time.Time) error) error {
	if w.one != "" {
		answer, err := w.get(w.one)
		if exitCode(err) == ExitNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		return see(answer.body, answer.now)
	}
	q := w.filter.query()
	q.Set("state", strings.Join(living, ","))
	_, err := w.client.list(w.run, q, 0, see)
	return err
}

// counts says how many there are in which state.
func (w *watcher) counts() string {
	n := map[string]int{}
	for _, sb := range w.known {
		n[sb.State]++
	}
	if len(n) == 0 {
		return ""
	}
	return ": " + countStates(n)
}

// show tells of a sandbox as it is now.
func (w *watcher) show(raw []byte, now time.Time) error {
	var sb sandbox
	if err := (reply{body: raw}).decode(&sb); err != nil {
		return err
	}
	before, seen := w.known[sb.SandboxID]
	if seen && changedAt(&sb).Before(changedAt(&before)) {
		return nil // told before what is known was listed
	}
	w.known[sb.SandboxID] = sb
	if w.json {
		w.printJSON(raw)
	} else {
		w.tell(&sb, before, seen, now)
	}
	if w.one != "" && sb.State == killed {
		return errOver
	}
	return nil
}

// changedAt is when it last changed. A resume that fails leaves it asleep since
// it fell asleep.
func changedAt(sb *sandbox) time.Time {
	if sb.LastError != nil && sb.LastError.At.After(sb.Since) {
		return sb.LastError.At
	}
	return sb.Since
}

// tell tells people of a change.
func (w *watcher) tell(sb *sandbox, before sandbox, seen bool, now time.Time) {
	changed := !seen || before.State != sb.State || !before.Since.Equal(sb.Since)
	failed := seen && sb.LastError != nil && (before.LastError == nil || !before.LastError.At.Equal(sb.LastError.At))
	switch {
	case failed && (!changed || sb.LastError.At.After(sb.Since)):
		w.line(sb.LastError.At, sb, w.colour.paint(red, "the "+clean(sb.LastError.Op)+" failed")+"  "+clean(sb.LastError.Message))
	case changed:
		w.line(sb.Since, sb, w.transition(before.State, sb))
	case w.one != "" && sb.State == running && (before.PauseAt == nil) != (sb.PauseAt == nil):
		w.line(now, sb, use(sb, now))
	}
	if w.one != "" && !seen && sb.State == running {
		w.line(now, sb, use(sb, now))
	}
}

func (w *watcher) transition(before string, sb *sandbox) string {
	to := w.colour.paint(styleOf(sb.State), word(sb.State))
	if before != "" && before != sb.State {
		to = w.colour.paint(dim, word(before)+" →") + " " + to
	}
	return to + "  " + clean(sb.Reason)
}

// use says whether somebody uses it.
func use(sb *sandbox, now time.Time) string {
	switch {
	case sb.PauseAt != nil:
		return "idle, sleeps " + until(*sb.PauseAt, now)
	case sb.StoreAway:
		return clean(strings.Join(sb.AwakeBecause, ", "))
	case len(sb.AwakeBecause) > 0:
		return "in use: " + clean(strings.Join(sb.AwakeBecause, ", "))
	default:
		return "in use"
	}
}

func (w *watcher) gone(id string) error {
	delete(w.known, id)
	if w.json {
		b, _ := json.Marshal(map[string]string{"sandboxID": id}) // strings only
		w.printJSON(b)
	} else {
		w.line(time.Now(), &sandbox{SandboxID: id}, w.colour.paint(dim, "gone"))
	}
	if w.one != "" {
		return errOver
	}
	return nil
}

func (w *watcher) line(at time.Time, sb *sandbox, what string) {
	w.say("%s  %s  %s", w.colour.paint(dim, at.Local().Format(time.TimeOnly)), clean(sb.SandboxID), what)
}
