//go:build !linux

package store

// allocate does nothing: what is free must do.
func allocate(string, int64) error { return nil }
