//go:build !linux

package freezer

import (
	"context"
	"errors"
)

var errNoCgroup = errors.New("no cgroup freezer on this machine")

func detectCgroup(context.Context) (*Freezer, error)    { return nil, errNoCgroup }
func (f *Freezer) newCgroup(string, int) (Group, error) { return nil, errNoCgroup }
func openCgroup(Ref) (Group, error)                     { return nil, errNoCgroup }
