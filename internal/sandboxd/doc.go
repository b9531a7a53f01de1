// Package sandboxd is a host of sandboxes that speaks the E2B API and its data
// plane, with local process trees for sandboxes. It is for development, tests
// and trusted code: a process tree is no security boundary. A sandbox can see
// and kill other processes of its user, and one that listens on 0.0.0.0 listens
// on every other sandbox's address as well.
//
// Each sandbox has an envd process (package envd) that owns its commands, a home
// folder, and an address of its own out of 127.64.0.0/10, told to its commands as
// SANDBOX_IP. PORT is not set unless the sandbox or the command is given it.
//
//	POST /sandboxes ──▶ running ──pause──▶ pausing ──▶ paused
//	                      ▲  ▲                │          │
//	                      │  └── it failed ───┘          │
//	                      └──────── resuming ◀──connect──┘
//	     kill, the lifetime's end, or envd's death, from anywhere ──▶ killed
//
// At most one transition of a sandbox is under way; whoever asks for the same
// joins it, whoever asks for another waits or gets a conflict, as at E2B. A
// transition runs to its end, whether or not its caller still waits.
//
// A pause freezes the processes and nothing else (package freezer): their
// connections are kept, and go on when they are thawed. All that the host knows
// is in each sandbox's state.json, so that a host that was killed finds its
// sandboxes as they were.
package sandboxd
