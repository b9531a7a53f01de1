// Package noise says which messages and requests no person sent: the
// keep-alives, acknowledgements, polls and reconnects of a page that somebody
// left open. What is noise neither keeps a sandbox awake nor wakes it.
//
//	set, err := noise.New(noise.Config{})        // all presets, no rules of one's own
//	rule, isNoise := set.Request(r)              // before a request is counted
//	s := set.Stream(r, subprotocol)              // at the 101, one for each WebSocket
//	s.Judge(noise.Message{Payload: p, Size: n})  // for each message of the client
//
// Where in doubt, it counts: a message that can't be read, that is larger than
// the part that is looked into, whose protocol looks broken or that nobody has
// named counts. A person who is taken for a page loses a running sandbox; a page
// that is taken for a person costs money.
//
// # Presets
//
// A preset is chosen by what the handshake or the request says, not by where it
// is served: editors live below any path.
//
//	vscode        chosen by  reconnectionToken and reconnection in the query
//	              messages   keep-alives and acks (swallowed), the protocol's handshake, answers without
//	                         a value, the names of vscodeNames (names.go); all others count, and so
//	                         does telemetry that reports a command which somebody gave
//	jupyter       chosen by  a path that ends /api/kernels/{id}/channels
//	              messages   kernel_info_request, comm_info_request
//	              requests   GET of kernels, sessions, kernelspecs, terminals with only a time stamp for a
//	                         query; of a folder that the same browser asked for within ten minutes
//	vite          chosen by  subprotocol vite-hmr
//	              messages   {"type":"ping"}
//	              requests   handshakes with subprotocol vite-ping, GET that accepts text/x-vite-ping
//	next          chosen by  a path that ends /_next/webpack-hmr
//	              messages   events ping, client-…, server-component-reload-page, span-end
//	webpack       needs none: its page sends no message at all
//	socket.io     chosen by  EIO and transport in the query (also engine.io, wetty)
//	              messages   3 (swallowed), 2, 5, 6, 2probe, 3probe; below /socket.io/ also 40…
//	              requests   polling: each GET, and a POST of one such packet, known by its length
//	xterm         needs none: each message is a person's, even one byte
//	shellinabox   requests   the POST to /? that waits for output, known by its length
//	browser       requests   favicons, update checks of service workers
//
// Two of them need more than a verdict. A socket.io page gives up 45 s after the
// server's last ping, and a VS Code page that waits for an acknowledgement 20 s
// after the server's last message, so who holds their streams while the server
// sleeps must send some (Stream.KeepAlive). And a VS Code page that reconnects
// sends again what was not acknowledged, whoever wrote it (Stream.Resends).
// Jupyter's asks the kernel what it is, which is noise by its name.
//
// Jupyter's auto save counts: it may be the only sign of somebody who has typed
// for minutes.
//
// # Rules
//
// An operator's Rule adds to the presets. Nothing is learned silently: Repeats
// finds what comes at one period, and words it as a rule that somebody may add.
package noise
