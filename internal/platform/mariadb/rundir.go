package mariadb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const runDirPrefix = "chatapp-mariadb-"

// runDir is a folder in the temporary folder that belongs to one server for as long as this process holds the lock in
// it. It holds the socket, whose path the kernel limits to about 100 bytes, and the data of a throw-away server.
type runDir struct {
	path string
	lock *os.File
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
	lock, err := acquire(filepath.Join(fresh, "lock"))
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
		lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(path)
		}
		lock.Close()
	}
}

// acquire takes the lock of a file, which it creates, or fails at once. Closing the file, or the end of the process,
// gives the lock back.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// acquireWait is acquire, but waits for the lock until ctx ends.
func acquireWait(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := acquire(path)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
