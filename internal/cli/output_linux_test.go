package cli_test

import (
	"io"
	"os"
	"testing"
)

func TestOutput_thatIsLostIsAnError(t *testing.T) {
	r := newRig(t)
	r.some()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	root := newRoot()
	root.SetArgs([]string{"sandbox", "list"})
	root.SetOut(full)
	root.SetErr(io.Discard)
	if err := root.ExecuteContext(t.Context()); err != exitError(1) { //nolint:errorlint // it is this very one
		t.Errorf("a list on a full disk gives %v", err)
	}
}
