// Package demo is the quick start's sandbox: a small web editor whose page
// shows that memory, processes and files outlive a sandbox's sleep. It runs
// inside the sandbox and knows nothing of Sandman, as any other app would.
//
//	GET    /                          the page, and what belongs to it
//	GET    /api/state                 both counters, the process, its naps
//	POST   /api/count                 adds one to both counters
//	GET    /api/files?path=           a folder's entries
//	GET    /api/file?path=            a file, with its version as ETag
//	PUT    /api/file?path=            saves it; If-Match guards against lost changes
//	POST   /api/folder?path=          makes a folder
//	POST   /api/rename?from=&to=      renames, never over something else
//	DELETE /api/file?path=            deletes a file or a whole folder
//	GET    /api/terminal              the shell, by WebSocket (see attach.go)
//
// Paths are relative to the home folder, which no path and no symbolic link
// leads out of.
//
// It must not keep its own sandbox awake. Nothing polls: the page asks only
// after somebody did something, and neither side pings. What the server sends
// by itself (a program's output, the news of a nap) is no use of the sandbox.
package demo
