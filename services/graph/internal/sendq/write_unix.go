//go:build unix

package sendq

import (
	"errors"
	"syscall"
)

// writer is a worker's means of writing. It is kept so that a write allocates nothing.
type writer struct {
	buffer []byte
	n      int
	err    error
	// attempt is the method write, bound once.
	attempt func(fd uintptr) bool
}

// try writes as much of the buffer as the kernel takes at once, and returns how much that was.
func (w *writer) try(raw syscall.RawConn) (int, error) {
	w.n, w.err = 0, nil
	if err := raw.Write(w.attempt); err != nil {
		return w.n, err
	}
	return w.n, w.err
}

// write always returns true, which means that it is not to be called again when the connection can be written to.
func (w *writer) write(fd uintptr) bool {
	for w.n < len(w.buffer) {
		n, err := syscall.Write(int(fd), w.buffer[w.n:])
		switch {
		case err == nil && n > 0:
			w.n += n
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		default:
			w.err = err
			return true
		}
	}
	return true
}
