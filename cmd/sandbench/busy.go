package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/gobwas/ws"
)

// runWebSocket compares Sandman with Caddy's bare reverse_proxy on one busy
// WebSocket, in alternating rounds, by messages per second and by the CPU time
// that the proxy's process takes for a message.
func runWebSocket(ctx context.Context, args []string) error {
	flags := newFlags("websocket")
	rounds := flags.Int("rounds", 10, "rounds of each")
	span := flags.Duration("span", 500*time.Millisecond, "length of a round")
	only := flags.String("only", "", "measure those whose name has this in it, such as \"64 B\"")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx, "SANDMAN_HOST=local")
	if err != nil {
		return err
	}
	defer r.close()
	id, bare, base, err := r.besideBare(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = bare.Process.Kill(); _ = bare.Wait() }()
	ends := [2]end{
		{pid: bare.Process.Pid, address: strings.TrimPrefix(base, "http://"), url: base + framesPath},
		{pid: r.sandman.Process.Pid, address: strings.TrimPrefix(r.base, "http://"), url: r.url(id) + framesPath[1:]},
	}
	for i := range ends {
		if err := ends[i].rest(ctx); err != nil {
			return err
		}
	}
	progress("without any message: bare %.1f ms CPU time a second, ours %.1f ms", 1000*ends[0].idle, 1000*ends[1].idle)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	var rates, cpus []float64
	fmt.Fprintln(w, "messages\tbare/s\tours/s\tpart\tbare CPU\tours CPU\tpart\t")
	for _, f := range floods() {
		if !strings.Contains(f.String(), *only) {
			continue
		}
		p, err := compare(ctx, ends, f, *rounds, *span)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		p.print(w, f.String())
		rate, cpu := p.ratios()
		rates, cpus = append(rates, rate), append(cpus, cpu)
		progress("%s: %.3f by messages/s, %.3f by CPU time", f, rate, cpu)
	}
	if len(rates) > 0 {
		fmt.Fprintf(w, "median of all\t\t\t%.3f\t\t\t%.3f\t\n", median(rates), median(cpus))
	}
	return w.Flush()
}

func floods() (all []flood) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		for _, deflate := range []bool{false, true} {
			for _, way := range []string{up, down, fro} {
				all = append(all, flood{size, deflate, way})
			}
		}
	}
	return all
}

// end is one of the two proxies.
type end struct {
	pid          int
	address, url string
	idle         float64 // how much of a core it takes without any message
}

// rest measures idle: Sandman's process has an etcd in it.
func (e *end) rest(ctx context.Context) error {
	before, err := cpuTime(e.pid)
	if err != nil {
		return err
	}
	const span = 3 * time.Second
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(span):
	}
	after, err := cpuTime(e.pid)
	e.idle = (after - before).Seconds() / span.Seconds()
	return err
}

// pair is what two ends have done with the same messages, each at its index.
type pair struct {
	rates [2][]float64 // messages per second
	cpu   [2][]float64 // µs for a message
}

func compare(ctx context.Context, ends [2]end, f flood, rounds int, span time.Duration) (p pair, err error) {
	for i := range 2 * rounds {
		which := (i + i/2) % 2 // ABBA, so that neither always comes after the other
		before, err := cpuTime(ends[which].pid)
		if err != nil {
			return p, err
		}
		n, took, err := ends[which].round(ctx, f, span)
		if err != nil {
			return p, err
		}
		after, err := cpuTime(ends[which].pid)
		if err != nil {
			return p, err
		}
		p.rates[which] = append(p.rates[which], float64(n)/took.Seconds())
		used := (after - before).Seconds() - ends[which].idle*took.Seconds()
		p.cpu[which] = append(p.cpu[which], 1e6*used/float64(n))
	}
	return p, nil
}

// round returns how many messages have come through, and in what time.
func (e end) round(ctx context.Context, f flood, span time.Duration) (n int, took time.Duration, err error) {
	conn, err := dialWebSocket(ctx, e.address, e.url+f.query(), f.header())
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(span + 30*time.Second))
	if err := sendAndReceive(conn); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	n, farewell, err := f.drive(conn, span)
	took = time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	if _, told := ws.ParseCloseFrameData(farewell); told != strconv.Itoa(n) || n == 0 {
		return 0, 0, fmt.Errorf("%d messages at this end, %q at the other", n, told)
	}
	return n, took, ctx.Err()
}

// drive is the client's side for the span: how many messages it has sent or got,
// and what the server's close frame holds.
func (f flood) drive(conn net.Conn, span time.Duration) (n int, farewell []byte, err error) {
	var over atomic.Bool
	timer := time.AfterFunc(span, func() {
		over.Store(true)
		if f.way == down {
			_ = sayGoodbye(conn)
		}
	})
	defer timer.Stop()
	switch f.way {
	case up:
		n, err = f.send(conn, true, over.Load)
		if err = cmp.Or(err, sayGoodbye(conn)); err == nil {
			_, farewell, err = countFrames(conn, nil)
		}
		return n, farewell, err
	case down:
		return countFrames(conn, nil)
	}
	frame, err := f.frame(true)
	if err != nil {
		return 0, nil, err
	}
	next := func() error {
		if over.Load() {
			return sayGoodbye(conn)
		}
		_, err := conn.Write(frame)
		return err
	}
	if err := next(); err != nil {
		return 0, nil, err
	}
	return countFrames(conn, next)
}

func sayGoodbye(conn net.Conn) error {
	return ws.WriteFrame(conn, ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
}

// ratio is the median of a round's part of the other's that was its neighbour:
// load beside that comes and goes hits both of them.
func ratio(of, part []float64) float64 {
	all := make([]float64, len(of))
	for i := range all {
		all[i] = part[i] / of[i]
	}
	return median(all)
}

// ratios are ours of bare Caddy's; more is better.
func (p pair) ratios() (rate, cpu float64) {
	return ratio(p.rates[0], p.rates[1]), ratio(p.cpu[1], p.cpu[0])
}

func (p pair) print(w *tabwriter.Writer, name string) {
	rate, cpu := p.ratios()
	fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.3f\t%.2f µs\t%.2f µs\t%.3f\t\n", name,
		median(p.rates[0]), median(p.rates[1]), rate, median(p.cpu[0]), median(p.cpu[1]), cpu)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
