// Package cli is Sandman's command line: `sandman sandbox …`, `sandman status`
// and `sandman savings`. It knows Sandman only by its JSON API, as any other
// program does, and imports nothing else of it.
//
//	command.go   the tree of commands, and what a command runs with
//	client.go    where Sandman and the token are; one request and its answer
//	failure.go   what went wrong, in words that say what to do, and the exit codes
//	events.go    GET /events: server-sent events, followed over lost connections
//	text.go, table.go, progress.go   what people see; programs get --json
//
// For people there are tables and sentences, coloured on terminals only. What
// comes from the API is cleaned of control characters before it is shown:
// reasons and refusals hold paths that strangers have asked for.
//
// With --json the API's own JSON is printed as it came. Errors go to stderr in
// both cases, and the exit code says of what kind they are.
package cli
