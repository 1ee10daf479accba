// Package redisserver runs a private redis-server as a child process, for tests and for development on one machine.
//
// It listens on a port of 127.0.0.1 without a password, reads no configuration file and stores nothing: a restart empties
// it. On Linux it is killed when this process ends in whatever way.
package redisserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"chatapp.dev/internal/platform/child"
)

// ErrNotInstalled says that this machine has no redis-server.
var ErrNotInstalled = errors.New("redis-server is not installed; install it with `apt-get install redis-server` " +
	"(Debian, Ubuntu), `dnf install redis` (Fedora) or `brew install redis` (macOS)")

const (
	startTimeout = 20 * time.Second
	stopGrace    = 5 * time.Second
	portAttempts = 5
)

// Options says what to start.
type Options struct {
	Port int          // To listen on; 0 means a free one.
	Log  *slog.Logger // Receives a line for each start and stop; nil means none.
}

// Server is a redis-server. Its methods may be called from several goroutines.
type Server struct {
	program string
	port    int
	log     *slog.Logger

	mu      sync.Mutex
	process *child.Process // The current process, or the last one.
}

// Start starts a server and returns once it answers. ctx bounds the start only. The error is ErrNotInstalled, wrapped,
// when there is no Redis on this machine.
func Start(ctx context.Context, opts Options) (*Server, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNotInstalled
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, fmt.Errorf("path of redis-server: %w", err)
	}
	s := &Server{program: program, port: opts.Port, log: opts.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.launchFirst(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// launchFirst launches the server on the port asked for or on a free one. Between the choice of a free port and its use
// somebody else may take it.
func (s *Server) launchFirst(ctx context.Context) (err error) {
	if s.port != 0 {
		return s.launch(ctx)
	}
	for range portAttempts {
		if s.port, err = child.FreePort(); err != nil {
			return err
		}
		if err = s.launch(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// Addr returns the host and port to connect to; it holds across Restart.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Stop ends the server; its data is gone. Restart brings it back. Stopping twice is harmless.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Stop(stopGrace); err != nil {
		return err
	}
	s.log.Debug("Redis stopped", "port", s.port)
	return nil
}

// Restart stops the server if it runs and starts it, empty, on the same port. It returns once the server answers.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Stop(stopGrace); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Pid returns the process id of the server, for a test that wants to suspend it.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Pid()
}

// errPortTaken marks a start that failed because another program listens on the port.
var errPortTaken = errors.New("the port is taken by another program")

func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	begun := time.Now()
	cmd := exec.Command(s.program,
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no",
		"--daemonize", "no", "--loglevel", "warning")
	cmd.Dir = "/"           // It must not keep a folder of a test from being removed.
	var output bytes.Buffer // Read only after the process has ended.
	cmd.Stdout, cmd.Stderr = &output, &output
	process, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	if err := s.awaitReady(ctx); err != nil {
		if killErr := process.Kill(); killErr != nil {
			return errors.Join(err, killErr)
		}
		if bytes.Contains(output.Bytes(), []byte("Address already in use")) {
			return fmt.Errorf("start redis-server on port %d: %w", s.port, errPortTaken)
		}
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(output.Bytes()))
	}
	s.log.Debug("Redis serves", "port", s.port, "pid", process.Pid(), "after", time.Since(begun))
	return nil
}

// awaitReady returns once our server answers on the port: it asks for the process id, since another program may have
// taken the port in the meantime.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		pid, err := s.askPid(ctx)
		if err == nil && pid == s.process.Pid() {
			return nil
		}
		select {
		case <-s.process.Done():
			return errors.New("redis-server ended while it was starting")
		case <-ctx.Done():
			return fmt.Errorf("redis-server does not answer: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (s *Server) askPid(ctx context.Context) (int, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if pid, ok := bytes.CutPrefix(lines.Bytes(), []byte("process_id:")); ok {
			return strconv.Atoi(string(pid))
		}
	}
	return 0, errors.Join(errors.New("redis-server did not tell its process id"), lines.Err())
}
