package engine

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/child"
	"chatapp.dev/internal/platform/filelock"
)

const (
	tidbStartTimeout = 2 * time.Minute // The first start makes the system tables.
	tidbStopGrace    = 20 * time.Second
	portAttempts     = 5
)

// tidbServer is a running dev/tidb.
type tidbServer struct {
	program   string
	dir       string
	throwAway bool
	lock      *filelock.Lock
	port      int
	log       *slog.Logger

	mu      sync.Mutex
	process *child.Process // The current process, or the last one.
	stopped bool
}

// startTiDB starts the program on the data in dir, or in a temporary folder when dir is empty, and returns once it answers.
func startTiDB(ctx context.Context, program, dir string, log *slog.Logger) (_ *tidbServer, err error) {
	s := &tidbServer{program: program, dir: dir, log: log, throwAway: dir == ""}
	if s.throwAway {
		if s.dir, err = os.MkdirTemp("", "chatapp-tidb-"); err != nil {
			return nil, fmt.Errorf("make a temporary folder for TiDB: %w", err)
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder of TiDB: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	// TiDB would refuse a folder in use too, but takes long to say so.
	if s.lock, err = filelock.Try(filepath.Join(s.dir, "lock")); err != nil {
		return nil, fmt.Errorf("the data folder of TiDB: %w", err)
	}
	// Between the choice of a port and its use somebody else may take it.
	for range portAttempts {
		if s.port, err = child.FreePort(); err != nil {
			return nil, err
		}
		if err = s.launch(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DSN returns a data source name for a database; it holds across Restart.
func (s *tidbServer) DSN(database string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", s.addr(), database
	cfg.ParseTime = true
	return cfg.FormatDSN()
}

func (s *tidbServer) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Done returns a channel that is closed when the process that runs now ends.
func (s *tidbServer) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Done()
}

// Kill ends the process with SIGKILL.
func (s *tidbServer) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Kill()
}

// Restart stops the process if it runs and starts it again on its port and data.
func (s *tidbServer) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("restart TiDB: it was stopped for good")
	}
	if err := s.process.Stop(tidbStopGrace); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Stop ends the server for good and removes the data of a throw-away one.
func (s *tidbServer) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	var err error
	if s.throwAway {
		err = s.process.Kill() // Nobody will read what a clean shutdown would write.
	} else {
		err = s.process.Stop(tidbStopGrace)
	}
	s.log.Debug("TiDB stopped", "port", s.port)
	return errors.Join(err, s.release())
}

// release gives up what the server owns besides its process.
func (s *tidbServer) release() error {
	var errs []error
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.throwAway {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// errPortTaken marks a start that failed because another program listens on the port.
var errPortTaken = errors.New("the port is taken by another program")

// launch starts the process and waits until it says that it serves and answers.
func (s *tidbServer) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tidbStartTimeout)
	defer cancel()
	begun := time.Now()
	output := newOutput()
	cmd := exec.Command(s.program, "--dir", s.dir, "--port", strconv.Itoa(s.port))
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = output, output
	process, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	if err := s.awaitReady(ctx, output); err != nil {
		if killErr := process.Kill(); killErr != nil {
			return errors.Join(err, killErr)
		}
		said := output.String()
		if bytes.Contains([]byte(said), []byte("address already in use")) {
			return fmt.Errorf("start TiDB on port %d: %w", s.port, errPortTaken)
		}
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	s.log.Debug("TiDB serves", "port", s.port, "pid", process.Pid(), "after", time.Since(begun))
	return nil
}

func (s *tidbServer) awaitReady(ctx context.Context, output *output) error {
	select {
	case <-output.firstLine: // The program prints it when it serves, so the one that listens there is ours.
	case <-s.process.Done():
		return errors.New("TiDB ended while it was starting")
	case <-ctx.Done():
		return fmt.Errorf("TiDB does not start: %w", ctx.Err())
	}
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		return fmt.Errorf("open TiDB: %w", err)
	}
	defer db.Close()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("TiDB does not answer: %w", err)
	}
	return nil
}

// output keeps the beginning of what a process writes and tells when there is a whole line.
type output struct {
	firstLine chan struct{} // Closed with the first line.

	mu   sync.Mutex
	text bytes.Buffer
	once sync.Once
}

// outputKept is how much of what a process writes is kept.
const outputKept = 16 << 10

var _ io.Writer = (*output)(nil)

func newOutput() *output { return &output{firstLine: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := outputKept - o.text.Len(); room > 0 {
		o.text.Write(p[:min(room, len(p))])
	}
	if bytes.ContainsRune(o.text.Bytes(), '\n') {
		o.once.Do(func() { close(o.firstLine) })
	}
	return len(p), nil
}

// String returns what was kept.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.TrimSpace(o.text.Bytes()))
}
