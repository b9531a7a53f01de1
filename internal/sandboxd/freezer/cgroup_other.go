//go:build !linux

package freezer

import "context"

func detectCgroup(context.Context) (*Freezer, error)    { return nil, errNoCgroup }
func (f *Freezer) newCgroup(string, int) (Group, error) { return nil, errNoCgroup }
func openCgroup(Ref) (Group, error)                     { return nil, errNoCgroup }
