package engine

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	program string
	dir     string
	temp    *child.TempDir // Is dir, when the data is to be thrown away, or nil.
	lock    *filelock.Lock // On dir, when it is not temp.
	port    int
	log     *slog.Logger

	mu      sync.Mutex
	process *child.Process // The current process, or the last one.
	stopped bool
}

// startTiDB starts the program on the data in dir, or in a temporary folder when dir is empty, and returns once it answers.
func startTiDB(ctx context.Context, program, dir string, log *slog.Logger) (_ *tidbServer, err error) {
	s := &tidbServer{program: program, dir: dir, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if dir == "" {
		if s.temp, err = child.NewTempDir("chatapp-tidb-"); err != nil {
			return nil, err
		}
		s.dir = s.temp.Path
	} else {
		if s.dir, err = filepath.Abs(dir); err != nil {
			return nil, fmt.Errorf("data folder of TiDB: %w", err)
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data folder of TiDB: %w", err)
		}
		// TiDB would refuse a folder in use too, but takes long to say so.
		if s.lock, err = filelock.Try(filepath.Join(s.dir, "lock")); err != nil {
			return nil, fmt.Errorf("the data folder of TiDB: %w", err)
		}
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
	if s.temp != nil {
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
	if s.temp != nil {
		errs = append(errs, s.temp.Remove())
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
	complaints, err := os.Create(filepath.Join(s.dir, "stderr.log"))
	if err != nil {
		return fmt.Errorf("make the file for what TiDB complains of: %w", err)
	}
	defer complaints.Close()
	serving := newFirstWrite()
	cmd := exec.Command(s.program, "--dir", s.dir, "--port", strconv.Itoa(s.port))
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = serving, complaints
	process, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	if err := s.awaitReady(ctx, serving); err != nil {
		if killErr := process.Kill(); killErr != nil {
			return errors.Join(err, killErr)
		}
		said, readErr := os.ReadFile(complaints.Name())
		if readErr != nil {
			return errors.Join(err, readErr)
		}
		if bytes.Contains(said, []byte("address already in use")) {
			return fmt.Errorf("start TiDB on port %d: %w", s.port, errPortTaken)
		}
		return fmt.Errorf("%w; it said: %s", err, bytes.TrimSpace(said))
	}
	s.log.Debug("TiDB serves", "port", s.port, "pid", process.Pid(), "after", time.Since(begun))
	return nil
}

func (s *tidbServer) awaitReady(ctx context.Context, serving *firstWrite) error {
	select {
	case <-serving.done: // It writes when it listens, so whoever answers on the port is ours.
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

// firstWrite is a writer that tells when something was written to it.
type firstWrite struct {
	done chan struct{} // Closed at the first write.
	once sync.Once
}

func newFirstWrite() *firstWrite { return &firstWrite{done: make(chan struct{})} }

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.done) })
	return len(p), nil
}
