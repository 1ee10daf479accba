package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chatapp.dev/internal/platform/filelock"
)

// TempDir is a temporary folder for a child's files. It does not outlive this process for long: if Remove is not called,
// because the process was killed, the next process that makes one with the same prefix removes it.
type TempDir struct {
	// Path is absolute and short enough for the path of a unix socket, which the kernel limits to about 100 bytes.
	Path string

	lock *filelock.Lock // Held on a file in the folder for as long as the folder is in use.
}

const (
	tempDirLock    = "lock"
	longestTempDir = 50
)

// NewTempDir makes a folder whose name begins with prefix, after removing those that were left behind.
func NewTempDir(prefix string) (*TempDir, error) {
	base := os.TempDir()
	if len(base) > longestTempDir {
		base = "/tmp"
	}
	return newTempDir(base, prefix)
}

func newTempDir(base, prefix string) (*TempDir, error) {
	sweep(base, prefix)
	fresh, err := os.MkdirTemp(base, "new-"+prefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	lock, err := filelock.Try(filepath.Join(fresh, tempDirLock))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock a temporary folder: %w", err), os.RemoveAll(fresh))
	}
	// It gets the name that sweep looks for only now that it is locked.
	path := filepath.Join(base, filepath.Base(fresh)[len("new-"):])
	if err := os.Rename(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("name a temporary folder: %w", err), lock.Close(), os.RemoveAll(fresh))
	}
	return &TempDir{Path: path, lock: lock}, nil
}

// Remove removes the folder with all that is in it.
func (d *TempDir) Remove() error {
	return errors.Join(os.RemoveAll(d.Path), d.lock.Close())
}

// sweep removes folders whose owner has ended. What it cannot lock or remove is somebody else's and stays.
func sweep(base, prefix string) {
	paths, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return // Only a malformed pattern.
	}
	for _, path := range paths {
		lock, err := filelock.TryExisting(filepath.Join(path, tempDirLock))
		if err != nil {
			continue
		}
		os.RemoveAll(path)
		lock.Close()
	}
}
