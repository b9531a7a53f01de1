package sandboxd

import "sync"

// change is one entry for those who asked with [Host.OnChange].
type change struct {
	id    string
	state State
}

// dispatcher calls the listeners from one goroutine, so that whoever makes a
// change needs no care for what they do, and the order stays.
type dispatcher struct {
	done chan struct{} // closed when the goroutine has ended

	mu        sync.Mutex // guards the following fields
	more      *sync.Cond
	queue     []change
	listeners []func(string, State)
	closed    bool
}

func newDispatcher() *dispatcher {
	d := &dispatcher{done: make(chan struct{})}
	d.more = sync.NewCond(&d.mu)
	go d.run()
	return d
}

func (d *dispatcher) add(f func(string, State)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = append(d.listeners, f)
}

func (d *dispatcher) send(id string, s State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = append(d.queue, change{id, s})
	d.more.Signal()
}

// close waits until all that was sent has been delivered.
func (d *dispatcher) close() {
	d.mu.Lock()
	d.closed = true
	d.more.Signal()
	d.mu.Unlock()
	<-d.done
}

func (d *dispatcher) run() {
	defer close(d.done)
	for {
		batch, listeners := d.next()
		if batch == nil {
			return
		}
		for _, c := range batch {
			for _, f := range listeners {
				f(c.id, c.state)
			}
		}
	}
}

// next waits for changes; nil means closed.
func (d *dispatcher) next() ([]change, []func(string, State)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.queue) == 0 && !d.closed {
		d.more.Wait()
	}
	batch := d.queue
	d.queue = nil
	return batch, d.listeners
}
