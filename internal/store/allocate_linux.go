package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate has the disk keep the first size bytes for the file, whatever the
// file's own size.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
}
