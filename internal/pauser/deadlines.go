package pauser

import (
	"container/heap"
	"time"
)

// deadlines is a heap of sessions by the time at which something is to be done
// about them. It is not safe for concurrent use.
type deadlines struct {
	heap deadlineHeap
	byID map[string]*deadline
}

type deadline struct {
	id    string
	at    time.Time
	index int
}

func newDeadlines() *deadlines { return &deadlines{byID: make(map[string]*deadline)} }

// set moves the session's deadline to at.
func (d *deadlines) set(id string, at time.Time) {
	if e, ok := d.byID[id]; ok {
		e.at = at
		heap.Fix(&d.heap, e.index)
		return
	}
	e := &deadline{id: id, at: at}
	d.byID[id] = e
	heap.Push(&d.heap, e)
}

// remove forgets the session; it may be unknown.
func (d *deadlines) remove(id string) {
	if e, ok := d.byID[id]; ok {
		heap.Remove(&d.heap, e.index)
		delete(d.byID, id)
	}
}

// next gives the session whose deadline comes first.
func (d *deadlines) next() (id string, at time.Time, ok bool) {
	if len(d.heap) == 0 {
		return "", time.Time{}, false
	}
	return d.heap[0].id, d.heap[0].at, true
}

// deadlineHeap implements heap.Interface.
type deadlineHeap []*deadline

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *deadlineHeap) Push(x any) {
	e := x.(*deadline)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *deadlineHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
