package e2e_test

import (
	"math/rand/v2"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// utf8 are messages of text: valid ones are echoed, others are refused as soon as they can't be right.
func (l *caseList) utf8() {
	const kosme, invalid, edited = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", "\xed\xa0\x80", "edited"
	l.begin("6.1") // nothing
	l.answered(send(frame(ws.OpText, "")), text(""))
	l.answered(send(part(ws.OpText, ""), part(ws.OpContinuation, ""), frame(ws.OpContinuation, "")), text(""))
	l.answered(send(part(ws.OpText, ""), part(ws.OpContinuation, "middle frame payload"), frame(ws.OpContinuation, "")), text("middle frame payload"))

	const valid = "Hello-µ@ßöäüàá-UTF-8!!"
	l.begin("6.2") // in fragments that cut characters
	l.answered(send(frame(ws.OpText, valid)), text(valid))
	for _, s := range []string{valid, kosme} {
		l.answered(send(part(ws.OpText, s[:8]), frame(ws.OpContinuation, s[8:])), text(s))
		l.answered(send(octets(s)...), text(s))
	}

	l.begin("6.3")
	l.refused(invalidPayload, send(frame(ws.OpText, kosme+invalid+edited)))
	l.refused(invalidPayload, send(octets(kosme + invalid)[:len(kosme+invalid)-1]...))

	l.begin("6.4") // at once, before the message or the frame has ended
	whole := frame(ws.OpText, kosme+invalid+edited)
	within := len(whole) - len(edited)
	l.refused(invalidPayload, send(part(ws.OpText, kosme), part(ws.OpContinuation, invalid)))
	l.refused(invalidPayload, send(part(ws.OpText, kosme+"\xf4"), part(ws.OpContinuation, "\x90")))
	l.refused(invalidPayload, send(whole[:within]))
	l.refused(invalidPayload, send(whole[:within-len(invalid)], whole[within-len(invalid):within-1]))

	for _, group := range textGroups {
		l.begin(group.name)
		for _, s := range group.texts {
			if utf8.ValidString(s) {
				l.answered(send(frame(ws.OpText, s)), text(s))
			} else {
				l.refused(invalidPayload, send(frame(ws.OpText, s)))
			}
		}
	}
}

// octets is a message in fragments of one byte.
func octets(s string) (frames [][]byte) {
	for i := range len(s) {
		op, make := ws.OpContinuation, part
		if i == 0 {
			op = ws.OpText
		}
		if i == len(s)-1 {
			make = frame
		}
		frames = append(frames, make(op, s[i:i+1]))
	}
	return frames
}

// textGroups are the strings of Markus Kuhn's stress test for decoders, as the suite sorts them. Which are
// valid is asked of Go.
var textGroups = []struct {
	name  string
	texts []string
}{
	{"6.5", []string{"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", "$", "¢", "€", "𤭢"}},
	{"6.6", prefixes("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5")},
	{"6.7", []string{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}},
	{"6.8", []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
	{"6.9", []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}},
	{"6.10", []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
	{"6.11", []string{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
	{"6.12", []string{
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", continuations(),
	}},
	{"6.13", []string{spaced(0xc0, 0xdf), spaced(0xe0, 0xef), spaced(0xf0, 0xf7), spaced(0xf8, 0xfb), "\xfc \xfd "}},
	{"6.14", []string{
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf",
	}},
	{"6.15", []string{"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf"}},
	{"6.16", []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
	{"6.17", []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
	{"6.18", []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
	{"6.19", []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
	{"6.20", []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}},
	{"6.21", []string{
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
		"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
	}},
	{"6.22", nonCharacters()},
	{"6.23", []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}},
}

func prefixes(s string) (all []string) {
	for i := 1; i <= len(s); i++ {
		all = append(all, s[:i])
	}
	return all
}

func continuations() string {
	var b strings.Builder
	for c := 0x80; c <= 0xbf; c++ {
		b.WriteByte(byte(c))
	}
	return b.String()
}

// spaced is each byte from first to last, with a space behind it.
func spaced(first, last byte) string {
	var b strings.Builder
	for c := first; c <= last; c++ {
		b.Write([]byte{c, ' '})
	}
	return b.String()
}

// nonCharacters are valid: the last two of each plane.
func nonCharacters() (all []string) {
	for plane := rune(0); plane <= 0x10; plane++ {
		all = append(all, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return all
}

// deflate are compressed messages, by what was negotiated.
func (l *caseList) deflate(all bool) {
	const deflate = "permessage-deflate"
	l.begin("12")
	sizes, times := []int{0, 1, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10}, 3
	if all {
		times = 1000
	}
	for _, size := range sizes {
		l.compressed(autobahnCase{offer: deflate}, size, times)
	}

	l.begin("13")
	for _, offer := range []string{
		deflate + "; " + noContextTakeover,
		deflate + "; client_max_window_bits",
		deflate + "; " + noContextTakeover + "; client_max_window_bits",
		deflate + "; server_no_context_takeover",
		deflate + "; server_max_window_bits=9",
		deflate + "; server_max_window_bits=15",
		deflate + "; server_no_context_takeover; server_max_window_bits=9",
		deflate + "; server_no_context_takeover; server_max_window_bits=15",
		deflate + "; server_no_context_takeover; server_max_window_bits=9, " + deflate + "; server_no_context_takeover, " + deflate,
		"permessage-bzip2, x-unknown; a=1, " + deflate,
	} {
		l.compressed(autobahnCase{offer: offer}, 1000, 10*times)
	}
	l.compressed(autobahnCase{offer: deflate, path: "?takeover=no"}, 1000, 10*times)
	// no message is longer than the window that the server asks for
	l.compressed(autobahnCase{offer: deflate + "; client_max_window_bits", path: "?bits=9&takeover=no"}, 500, 10*times)

	l.begin("13.9") // not of the list: what compression can have wrong
	l.add(autobahnCase{offer: deflate, steps: send(frame(ws.OpText, "plain")), want: []message{text("plain")}})
	l.add(autobahnCase{offer: deflate, steps: send(rawFrame(0xc0|byte(ws.OpPing), "compressed")), code: protocolError})
	l.add(autobahnCase{offer: deflate, steps: send(part(ws.OpText, "a"), rawFrame(0xc0, "b")), code: protocolError})
	l.add(autobahnCase{offer: deflate, steps: send(rawFrame(0xa1, "second bit")), code: protocolError})
}

// compressed adds messages of a size, each third in three frames.
func (l *caseList) compressed(c autobahnCase, size, times int) {
	random := rand.New(rand.NewPCG(uint64(size), uint64(times))) // the same text directly and through Sandman
	for i := range times {
		s := prose(random, size)
		st := step{bytes: []byte(s), compress: true}
		if i%3 == 2 && size > 0 {
			st.parts = 3
			c.want = append(c.want, pong("between"), pong("between"))
		}
		c.steps, c.want = append(c.steps, st), append(c.want, text(s))
	}
	l.add(c)
}

func prose(random *rand.Rand, size int) string {
	words := strings.Fields("Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind; Er hat den Knaben wohl in dem Arm, Er faßt ihn sicher, er hält ihn warm.")
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(words[random.IntN(len(words))])
		b.WriteByte(' ')
	}
	s := b.String()[:size]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
