// Package child runs server programs (a database, a broker, a service under test) as children of this process.
//
// A child gets a process group of its own, so that Ctrl-C at a terminal reaches this process only and the child is
// stopped in the order that this process chooses. On Linux a child is killed by the kernel when this process ends in
// whatever way, SIGKILL included; elsewhere a child outlives a parent that was killed.
package child

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Process is a started child. Its methods may be called from several goroutines.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // What Wait returned; written before done is closed.
}

// Start starts cmd, which must not have been started, and sets its SysProcAttr.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = attributes()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Linux sends the parent-death signal when the thread that forked ends, not the process: the Go runtime may
		// end a thread at any time, except one that a goroutine holds.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed once the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end and returns nil for exit status 0, else what exec.Cmd.Wait returned.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal. A process that has ended is not an error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s (pid %d): %w", sig, p.cmd.Path, p.Pid(), err)
	}
	return nil
}

// Stop asks the process to end with SIGTERM, kills it when grace has passed, and returns once it has ended.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return p.Kill()
	}
}

// Kill ends the process with SIGKILL and returns once it has ended.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// FreePort returns a TCP port on 127.0.0.1 that nobody listens on. Nothing reserves it: the caller must be ready to
// find it taken.
//
// The port lies below the ranges from which Linux and macOS give ports to outgoing connections. A server that restarts
// on its port while clients keep dialling it would otherwise meet a client that was given this very port as its own
// and, TCP being symmetric, connected to itself: the port is then taken until that client lets go.
func FreePort() (int, error) {
	const low, high, attempts = 20000, 32000, 100
	var last error
	for range attempts {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("close probe of port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d in %d attempts: %w", low, high, attempts, last)
}
