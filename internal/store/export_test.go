package store

// Known is how many keys the view is made of.
func (v *View) Known() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.revs)
}
