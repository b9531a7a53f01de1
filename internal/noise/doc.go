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
//	preset       chosen by                                        noise messages                                       noise requests
//	vscode       reconnectionToken and reconnection in the query  keep-alives, acks, answers to the server, and the    -
//	                                                              names of vscodeNames (names.go)
//	jupyter      /api/kernels/{id}/channels                       kernel_info_request, comm_info_request               GET of kernels, sessions, kernelspecs, terminals and
//	                                                                                                                   of a folder, with a time stamp for a query
//	vite         subprotocol vite-hmr                             {"type":"ping"}                                      handshakes with subprotocol vite-ping, GET for
//	                                                                                                                   text/x-vite-ping
//	next         /_next/webpack-hmr                               ping, client-*, server-component-reload-page,        -
//	                                                              span-end
//	socket.io    EIO and transport in the query                   2 3 5 6 2probe 3probe, below /socket.io/ also 40…    polling GETs, POSTs of one packet of those (by length)
//	shellinabox  POST to /? of a form without keys, by script     -                                                    that POST
//	browser      the headers that browsers add                    -                                                    favicons, update checks of service workers
//	webpack      needs none: its page sends no message at all
//	xterm        needs none: each message is a person's, even one byte
//
// Two of them need more than a verdict. A socket.io page gives up 45 s after the
// server's last ping, so who holds its stream while the server sleeps must send
// them (Stream.KeepAlive). And a VS Code page that reconnects sends again what
// was not acknowledged, whoever wrote it (Stream.Resends).
//
// Jupyter's auto save counts: it may be the only sign of somebody who has typed
// for minutes.
//
// # Rules
//
// An operator's Rule adds to the presets. Nothing is learned silently: Repeats
// finds what comes at one period, and words it as a rule that somebody may add.
package noise
