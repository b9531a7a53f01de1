package stream

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Options says how a Body is metered, parked and ended. The zero value forwards
// bytes and does nothing else.
type Options struct {
	// WebSocket says that both directions are WebSocket frames. Of any other
	// protocol every byte counts, and no frame can be sent.
	WebSocket bool

	// Judge says what a client's message means. It is asked about whole messages
	// of at most 4 KiB, by one goroutine at a time. Longer ones count, and those
	// that can't be read, and of a busy stream what comes within 100 ms of a
	// message that counts: before the next that it is asked about it is told once,
	// by a nil Payload, that it has missed some. Nil: each message counts.
	Judge func(Message) Verdict

	// Inflate says that compressed messages can be inflated one by one, because
	// the handshake has client_no_context_takeover. Otherwise they count unread.
	Inflate bool

	// Resends is how long after its begin a stream sends what an earlier one has
	// sent already: what Judge says counts is noise, unless the stream is parked.
	Resends time.Duration

	// Live says whether the stream counts as use right now, so that nothing can
	// be paused. While it does no byte is ever held. It must not block. Nil: always.
	Live func() bool

	// Count is called before a client's bytes that count are forwarded: those of
	// a message that was judged so, or of any once the frames can't be followed;
	// for a long message again with each further piece. It is never called by two
	// goroutines at once. It may block, and the stream with it; ctx ends when the
	// stream does. After it the stream is not parked. An error closes the stream
	// with 1013, or with whatever Count has called CloseWith with, and the message
	// is not forwarded. Nil: nothing counts, all is noise.
	Count func(ctx context.Context) error

	// CountServer is called after bytes of the server that count. It must not
	// block. Nil: the server's messages don't count.
	CountServer func()

	// ObserveServer is shown each text message of the server that is not
	// compressed and at most 4 KiB long. It must not block, nor keep the payload.
	ObserveServer func(payload []byte)

	// KeepAlive is asked for at each Park. Nil, or Every 0: none.
	KeepAlive func() KeepAlive

	// OnUpstreamEnd is called when the upstream's side of a WebSocket has ended
	// although neither side has sent a close frame, and the stream is not parked.
	// It reports whether a pause has cut it off: then the stream is parked. It may
	// block, and the client's connection stays open meanwhile; ctx ends with the
	// stream, and when Park has been called. Nil: the client sees the end.
	OnUpstreamEnd func(ctx context.Context) (paused bool)

	// Done is called once, when the connection to the upstream has been closed
	// from this side for good, by whichever goroutine did. A proxy closes it at
	// the end of each stream.
	Done func()
}

// KeepAlive is what keeps a client from giving up while its stream is parked.
type KeepAlive struct {
	Ping   string // the message that the client wants to see, at most 125 bytes
	Binary bool   // it is a binary message
	Pong   string // the text message that it answers, which the server does not see; "": none
	After  uint64 // it follows no longer message of the server, in bytes as sent; 0: any
	// Silence of the server before Park, for so long, tells that its last message
	// was whole, however long it was. 0: none does.
	Silence time.Duration
	Every   time.Duration // how often
}

// State tells what a stream does for its sandbox.
type State string

// A stream counts, does not, or is cut off from a sandbox that sleeps.
const (
	StateActive  State = "active"
	StateDormant State = "dormant"
	StateParked  State = "parked"
)

// The phases of a Body, in the order in which they can follow each other.
const (
	phaseOpen    int32 = iota
	phaseClosing       // to be closed, but the client is in the middle of a frame
	phaseEnded         // the upstream is not read any more: the close frame, then EOF
	phaseClosed        // closed by the proxy
)

// Body stands for the body of a 101 answer, between a proxy and the upstream.
// Write and ReadFrom take the client's bytes, Read and WriteTo give the
// upstream's; a proxy that copies uses ReadFrom and WriteTo. One goroutine may
// read while another writes; all other methods are safe at any time.
type Body struct {
	upstream io.ReadWriteCloser
	opts     Options
	began    time.Time
	ctx      context.Context // ends with the stream
	cancel   context.CancelFunc
	over     atomic.Bool // the stream was shut
	hangUp   sync.Once   // guards the closing of upstream

	writing   sync.Mutex // held by Write; guards the following fields
	client    messages
	pace      pace
	kept      kept
	sentPart  bool // of the client's message under way the upstream has the beginning
	counted   bool // something has counted in this Write
	discarded int

	waiting      atomic.Bool  // kept holds something
	lastCounted  atomic.Int64 // in ns since began, and one; 0: nothing has counted
	unanswered   atomic.Int32 // keep-alives that the client has not answered
	missed       atomic.Bool  // a message that counts was lost to an upstream that had ended
	clientClosed atomic.Bool  // the client has sent a close frame
	unwritable   atomic.Bool  // the upstream refused bytes; its end will be read

	phase   atomic.Int32 // changed under mu
	parked  atomic.Bool  // changed under mu
	severed atomic.Bool  // parked, and the upstream has gone; changed under mu

	out chan struct{} // full while somebody writes to the client; taken before mu
	to  io.Writer     // the client, nil once nothing can be sent; guarded by out

	mu      sync.Mutex         // guards the following fields
	server  messages           // changed by WriteTo only
	tail    []byte             // what the client still gets in phaseEnded
	silent  bool               // parked since the server's last byte
	heard   time.Duration      // from began to the server's last bytes; kept where there are keep-alives
	settled bool               // parked, and the server has said nothing since, nor for alive.Silence before
	unparks int                // counts what has ended a Park
	asking  context.CancelFunc // ends OnUpstreamEnd
	source  deadliner          // the client's connection, while ReadFrom reads it
	pings   []*ping
	alive   KeepAlive
	beat    *time.Timer // of alive

	pull pull // what Read reads from
}

// NewBody returns a Body over upstream, which is from then on the Body's to
// close. The contexts of opts' functions derive from ctx, but its end does not
// close the Body. If upstream has a SetReadDeadline it must work during a Read
// and be used by nobody else.
func NewBody(ctx context.Context, upstream io.ReadWriteCloser, opts Options) *Body {
	ctx, cancel := context.WithCancel(ctx)
	b := &Body{
		upstream: upstream,
		opts:     opts,
		began:    time.Now(),
		ctx:      ctx,
		cancel:   cancel,
		out:      make(chan struct{}, 1),
		client:   messages{scanner: scanner{masked: true, lost: !opts.WebSocket}, inflate: opts.Inflate},
		server:   messages{scanner: scanner{lost: !opts.WebSocket}},
	}
	if opts.Judge != nil {
		b.client.judge = b.judge
	}
	if opts.ObserveServer != nil {
		b.server.judge = b.observe
	}
	return b
}

// State tells what the stream does now. One that has ended keeps its last state.
func (b *Body) State() State {
	switch b.mode() {
	case modeParked:
		return StateParked
	case modeDormant:
		return StateDormant
	default:
		return StateActive
	}
}

// LastCounted is when Count or CountServer was last called with success, the
// zero time if never.
func (b *Body) LastCounted() time.Time {
	if at := b.lastCounted.Load(); at != 0 {
		return b.began.Add(time.Duration(at - 1))
	}
	return time.Time{}
}

// mode is what may be done with a client's bytes.
type mode uint8

const (
	modeLive    mode = iota // they are forwarded as they come
	modeDormant             // those of a message are held until it was judged
	modeParked              // nothing is forwarded
)

func (b *Body) mode() mode {
	switch {
	case b.parked.Load():
		return modeParked
	case b.opts.Live == nil || b.opts.Count == nil || b.opts.Live():
		return modeLive
	default:
		return modeDormant
	}
}

// judge asks the owner about a client's message.
func (b *Body) judge(m Message) Verdict {
	if m.Payload == nil {
		return b.opts.Judge(m)
	}
	parked := b.parked.Load()
	if parked && !m.Binary && b.unanswered.Load() > 0 && string(m.Payload) == b.keepAlive().Pong {
		b.unanswered.Add(-1)
		return Swallow
	}
	v := b.opts.Judge(m)
	if v == Counts && b.opts.Resends > 0 && !parked && time.Since(b.began) < b.opts.Resends {
		return Noise
	}
	return v
}

func (b *Body) observe(m Message) Verdict {
	if !m.Binary && m.Payload != nil {
		b.opts.ObserveServer(m.Payload)
	}
	return Noise
}
