package cli

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// readable is the longest line that people like to read.
const readable = 100

func (t tool) addWhy(parent *cobra.Command) {
	cmd := t.add(parent, "why <id> [flags]", "Explains why a sandbox is awake or asleep",
		"What keeps it awake, when it will sleep, why it was paused and woken last, what was refused and what would change that.",
		"  sandman sandbox why i4iqeeqsdwjexhv2us927", oneID)
	completesIDs(cmd, false, append(slices.Clone(living), killed)...)
	t.does(cmd, func(r *run, args []string) error {
		answer, err := r.ask(request{method: http.MethodGet, path: sandboxPath(args[0], "why"), sandbox: args[0]}, "")
		if err != nil {
			return err
		}
		if r.json {
			r.printJSON(answer.body)
			return nil
		}
		var why struct {
			Words []string  `json:"words"`
			State string    `json:"state"`
			Since time.Time `json:"since"`
		}
		if err := answer.decode(&why); err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s  %s for %s\n\n", r.colour.paint(bold, args[0]),
			r.colour.paint(styleOf(why.State), word(why.State)), span(answer.now.Sub(why.Since)))
		for _, w := range why.Words {
			fmt.Fprintln(r.out, wrap(clean(w), min(r.width, readable), "  "))
		}
		return nil
	})
}
