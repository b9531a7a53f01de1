package proctree

import (
	"fmt"
	"syscall"
	"time"
)

// Usage is what a tree of processes uses, and what the machine has, in bytes.
type Usage struct {
	// CPUPercent is the mean since the tree's root was started; 100 is one CPU.
	CPUPercent          float64
	MemUsed, MemTotal   uint64
	DiskFree, DiskTotal uint64
}

// Measure reads the usage of the tree below root, and of the disk at path.
func Measure(root int, path string) (Usage, error) {
	all, err := List()
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	var cpu time.Duration
	for _, p := range Descendants(all, root) {
		u.MemUsed += p.RSS
		cpu += p.CPU
	}
	if age := age(root); age > 0 {
		u.CPUPercent = 100 * cpu.Seconds() / age.Seconds()
	}
	u.MemTotal = memTotal()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return Usage{}, fmt.Errorf("asking for the disk of %q: %w", path, err)
	}
	u.DiskTotal = fs.Blocks * uint64(fs.Bsize)
	u.DiskFree = fs.Bavail * uint64(fs.Bsize)
	return u, nil
}

// MemTotal is the machine's memory in bytes, 0 where it can't be had.
func MemTotal() uint64 { return memTotal() }
