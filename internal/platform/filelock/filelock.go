// Package filelock makes processes on one machine take turns. A lock ends with Close or with the process that holds it,
// whatever ends that, so it never has to be cleaned up. It is the flock of Unix: two locks of one process exclude each
// other too, and a network file system may not honour it.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrHeld says that somebody else holds the lock.
var ErrHeld = errors.New("the lock is held by another process")

// pollInterval is how often Wait looks again: flock cannot be interrupted by a context.
const pollInterval = 20 * time.Millisecond

// Lock is a lock that is held.
type Lock struct {
	file *os.File
}

// Try takes the lock of a file, which is created when absent and never removed. The error is ErrHeld, wrapped, when
// somebody else holds it.
func Try(path string) (*Lock, error) { return lock(path, os.O_CREATE) }

// TryExisting is Try for a file that must exist: it does not create it.
func TryExisting(path string) (*Lock, error) { return lock(path, 0) }

// Wait is Try, but waits for whoever holds the lock until ctx ends.
func Wait(ctx context.Context, path string) (*Lock, error) {
	for {
		l, err := Try(path)
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(pollInterval):
		}
	}
}

// Close gives the lock back.
func (l *Lock) Close() error { return l.file.Close() }

func lock(path string, flag int) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrHeld
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{file: f}, nil
}
