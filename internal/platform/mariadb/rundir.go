package mariadb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chatapp.dev/internal/platform/filelock"
)

const runDirPrefix = "chatapp-mariadb-"

// runDir is a folder in the temporary folder that belongs to one server for as long as this process holds the lock in
// it. It holds the socket, whose path the kernel limits to about 100 bytes, and the data of a throw-away server.
type runDir struct {
	path string
	lock *filelock.Lock
}

// newRunDir makes a run folder, after removing those of processes that ended without doing so.
func newRunDir() (_ *runDir, err error) {
	base := os.TempDir()
	if len(base) > 50 {
		base = "/tmp" // TMPDIR may be long too.
	}
	sweep(base)
	fresh, err := os.MkdirTemp(base, "new-"+runDirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder for MariaDB: %w", err)
	}
	lock, err := filelock.Try(filepath.Join(fresh, "lock"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock a temporary folder for MariaDB: %w", err), os.RemoveAll(fresh))
	}
	// It gets the name that sweep looks for only now that it is locked.
	path := filepath.Join(base, filepath.Base(fresh)[len("new-"):])
	if err := os.Rename(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("name a temporary folder for MariaDB: %w", err), lock.Close(), os.RemoveAll(fresh))
	}
	return &runDir{path: path, lock: lock}, nil
}

func (r *runDir) remove() error {
	return errors.Join(os.RemoveAll(r.path), r.lock.Close())
}

// sweep removes run folders whose owner has ended. What it cannot lock or remove is somebody else's and stays.
func sweep(base string) {
	paths, err := filepath.Glob(filepath.Join(base, runDirPrefix+"*"))
	if err != nil {
		return // Only a malformed pattern.
	}
	for _, path := range paths {
		lock, err := filelock.TryExisting(filepath.Join(path, "lock"))
		if err != nil {
			continue
		}
		os.RemoveAll(path)
		lock.Close()
	}
}
