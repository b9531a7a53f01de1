// Package api is how the world manages sandboxes through Sandman, in plain
// net/http: its own JSON API ([New]) and the E2B API passed on to the host
// ([NewE2B]).
//
//	/api/v1/…   token → role → validation → Reader or Actor → sandbox or problem
//	/e2b/…      key of the host?  no: forwarded as it is
//	            create            forwarded, then Created
//	            connect, resume   Use (Sandman's own WAKE), then forwarded
//	            pause             Pause (Sandman's own SLEEP by hand)
//	            kill              forwarded, then Killed
//	            anything else     forwarded
//
// The package decides nothing about sleeping and waking: it says who may ask,
// what a valid question is, and how an outcome is told. What it needs from the
// rest is declared here, in backend.go.
package api
