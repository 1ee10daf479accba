//go:build !unix

package sendq

import "syscall"

// writer is a worker's means of writing. Here there is none that does not block, so all is left to goroutines.
type writer struct {
	buffer  []byte
	attempt func(fd uintptr) bool
}

func (w *writer) try(syscall.RawConn) (int, error) { return 0, nil }

func (w *writer) write(uintptr) bool { return true }
