// Package e2b is what Sandman knows of the E2B API: the wire types of its
// control plane, a client for it, its errors, and the routing and the answers
// of its data plane.
//
// Three facts about that API shape everything here:
//
//   - An error is what its JSON body says, not what its HTTP status says. The
//     official SDKs read the body's `code`, and so do [IsNotFound] and
//     [IsConflict]: a 404 page of some gateway must never pass for "this sandbox
//     is gone", because on that word a session is closed for good.
//   - Lifetimes are absolute. Traffic extends nothing; connect only ever
//     extends, timeout may shorten as well.
//   - The data plane answers 502 with a JSON body where a sandbox is unknown,
//     asleep, or not listening. Only the body tells them apart, and tells them
//     from a 502 of the sandbox's own; see [ClassifyAnswer].
//
// The package imports nothing else of Sandman.
package e2b
