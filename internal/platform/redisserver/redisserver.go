// Package redisserver runs private redis-servers as child processes, for tests and for development on one machine: a
// single one, a Redis Cluster, or a master and a replica that Sentinel watches.
//
// They listen on ports of 127.0.0.1 without a password and store nothing: a restart empties them. The nodes of a cluster
// and Sentinel keep only what they know of each other, in a temporary folder. On Linux all are killed when this process
// ends in whatever way.
package redisserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	args    []string // Beside those that say where to listen.
	port    int
	log     *slog.Logger

	mu      sync.Mutex
	process *child.Process // The current process, or the last one.
}

// storeNothing are the arguments of a server that keeps no data on the disk.
var storeNothing = []string{"--save", "", "--appendonly", "no"}

// Start starts a server and returns once it answers. ctx bounds the start only. The error is ErrNotInstalled, wrapped,
// when there is no Redis on this machine.
func Start(ctx context.Context, opts Options) (*Server, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{program: program, args: storeNothing, port: opts.Port, log: logOrNone(opts.Log)}
	if err := s.launchFirst(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// find returns the path of redis-server.
func find() (string, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return "", ErrNotInstalled
	}
	if program, err = filepath.Abs(program); err != nil {
		return "", fmt.Errorf("path of redis-server: %w", err)
	}
	return program, nil
}

func logOrNone(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
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
	return s.end(func(p *child.Process) error { return p.Stop(stopGrace) })
}

// Kill ends the server with SIGKILL, as the loss of its machine would.
func (s *Server) Kill() error { return s.end((*child.Process).Kill) }

func (s *Server) end(end func(*child.Process) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil // It was never started.
	}
	if err := end(s.process); err != nil {
		return err
	}
	s.log.Debug("Redis stopped", "port", s.port)
	return nil
}

// Restart stops the server if it runs and starts it, empty, on the same port. It returns once the server answers.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		if err := s.process.Stop(stopGrace); err != nil {
			return err
		}
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
	cmd := exec.Command(s.program, slices.Concat(s.args, []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--daemonize", "no", "--loglevel", "warning",
	})...)
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
	info, err := s.info(ctx, "INFO server")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info["process_id"])
}

// info asks a question that is answered with lines of the form "name:value".
func (s *Server) info(ctx context.Context, question string) (map[string]string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(question + "\r\n")); err != nil {
		return nil, err
	}
	answer := bufio.NewReader(conn)
	first, err := answer.ReadString('\n')
	if err != nil {
		return nil, err
	}
	length, ok := strings.CutPrefix(strings.TrimSpace(first), "$")
	if !ok {
		return nil, fmt.Errorf("redis-server answers %q to %s", first, question)
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("redis-server answers %q to %s", first, question)
	}
	values := make(map[string]string)
	lines := bufio.NewScanner(io.LimitReader(answer, n))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			values[name] = value
		}
	}
	return values, lines.Err()
}

// await returns once what all servers answer to a question satisfies a condition, asking again and again until ctx ends.
func await(ctx context.Context, servers []*Server, question string, satisfied func(map[string]string) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, s := range servers {
		for {
			values, err := s.info(ctx, question)
			if err == nil && satisfied(values) {
				break
			}
			select {
			case <-s.process.Done():
				return fmt.Errorf("the redis-server on port %d ended while others were starting", s.port)
			case <-ctx.Done():
				return fmt.Errorf("the redis-server on port %d answers to %s: %v: %w", s.port, question, values, errors.Join(ctx.Err(), err))
			case <-tick.C:
			}
		}
	}
	return nil
}
