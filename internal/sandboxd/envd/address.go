package envd

import (
	"hash/fnv"
	"net/netip"
)

const (
	// addressBits is how much of 127.64.0.0/10 there is to draw from.
	addressBits = 22
	// addressTries is how many neighbours are tried where an address is taken.
	addressTries = 256
)

// addresses are the ones that a sandbox may have, the first by its ID's hash, so
// that it is likely to keep it after a cold start. Binding Port decides: two
// hosts on one machine know nothing of each other.
func addresses(sandboxID string) func(yield func(netip.Addr) bool) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(sandboxID))
	first := h.Sum32()
	return func(yield func(netip.Addr) bool) {
		for i := range uint32(addressTries) {
			n := (first + i) % (1 << addressBits)
			// .0 and .255 look like a network's own to some programs
			if last := n & 0xff; last == 0 || last == 255 {
				continue
			}
			a := netip.AddrFrom4([4]byte{127, byte(64 + n>>16), byte(n >> 8), byte(n)})
			if !yield(a) {
				return
			}
		}
	}
}
