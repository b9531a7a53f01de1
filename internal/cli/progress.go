package cli

import (
	"fmt"
	"sync"
	"time"
)

const (
	// progressAfter keeps what is quick from flickering.
	progressAfter = 400 * time.Millisecond
	progressEvery = 100 * time.Millisecond
	eraseLine     = "\r\x1b[K"
)

// working shows on a terminal what takes long, with the seconds that it has
// taken, until stop is called, which takes the line away.
func (r *run) working(what string) (stop func()) {
	if !r.errTerminal {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		r.spin(what, done)
	}()
	return sync.OnceFunc(func() {
		close(done)
		<-ended
	})
}

func (r *run) spin(what string, done <-chan struct{}) {
	const frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	frame, began := 0, time.Now()
	next := time.NewTimer(progressAfter)
	defer next.Stop()
	for {
		select {
		case <-done:
			if frame > 0 {
				fmt.Fprint(r.err, eraseLine)
			}
			return
		case <-next.C:
			mark := []rune(frames)[frame%10]
			fmt.Fprintf(r.err, "%s%c %s… %s", eraseLine, mark, clean(what), span(time.Since(began)))
			frame++
			next.Reset(progressEvery)
		}
	}
}
