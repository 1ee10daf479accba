package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// poller tells which of many sockets have something to read: epoll, without Go's own layers above it. A goroutine a
// connection and Go's network poller would cost this process as much as the servers that it measures.
type poller struct {
	fd     int
	events [64]syscall.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	return &poller{fd: fd}, nil
}

// add watches a socket, which is told by its slot.
func (p *poller) add(fd, slot int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(slot)}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// wait appends the slots of sockets that have something to read, if there are any within the time.
func (p *poller) wait(slots []int, timeout time.Duration) ([]int, error) {
	n, err := syscall.EpollWait(p.fd, p.events[:], int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return nil, fmt.Errorf("wait for sockets: %w", err)
	}
	for i := range max(0, n) {
		slots = append(slots, int(p.events[i].Fd))
	}
	return slots, nil
}

func (p *poller) close() { _ = syscall.Close(p.fd) }

// dialSocket opens a connection whose reads and writes block for the timeout at most, and returns the port of this side.
func dialSocket(address string, timeout time.Duration) (fd int, port uint16, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0, 0, fmt.Errorf("dial: %w", err)
	}
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("open a socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd)
		}
	}()
	limit := syscall.NsecToTimeval(timeout.Nanoseconds())
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &limit); err != nil {
			return 0, 0, fmt.Errorf("open a socket: %w", err)
		}
	}
	if err := connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return 0, 0, fmt.Errorf("connect to %s: %w", address, err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("open a socket: %w", err)
	}
	mine, ok := local.(*syscall.SockaddrInet4)
	if !ok {
		return 0, 0, &net.AddrError{Err: "no IPv4 address", Addr: address}
	}
	return fd, uint16(mine.Port), nil
}

// connect connects, however often a signal of Go's scheduler comes between.
func connect(fd int, to syscall.Sockaddr) error {
	err := syscall.Connect(fd, to)
	for errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EALREADY) {
		err = syscall.Connect(fd, to)
	}
	if errors.Is(err, syscall.EISCONN) {
		return nil
	}
	return err
}

// raiseFiles makes sure that this process may have so many files open.
func raiseFiles(n int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur >= uint64(n) {
		return nil
	}
	limit.Cur = uint64(n)
	limit.Max = max(limit.Max, limit.Cur)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("this needs %d open files, but the limit is lower and cannot be raised (ulimit -Hn): %w", n, err)
	}
	return nil
}
