// Package mariadb runs a private MariaDB server as a child process, for tests and for development on one machine.
//
// The server listens on a free port of 127.0.0.1 and on a unix socket, root has no password, no option file is read and
// nothing of an installed system service is touched. It must never hold anything but development data: every local user
// can reach it.
//
// What can be lost: with a Dir of its own and without Fast, nothing that was committed, whatever ends the process or the
// machine. With Fast, a commit survives the end of the process (Kill, Restart) but not that of the machine. A server
// without Dir is thrown away by Stop with all its data. On Linux the server is killed when this process ends in whatever
// way, and what a killed process left in the temporary folder is removed by the next one that starts a server.
package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	startTimeout = 60 * time.Second // Crash recovery of a large log on a slow disk takes its time.
	stopGrace    = 20 * time.Second
	portAttempts = 5
)

// Options says what to start. The zero value is a throw-away server with durable commits.
type Options struct {
	// Dir keeps the data across starts; it is made when absent, and only one server at a time may use it. Empty means
	// a throw-away server in the temporary folder, copied from a template in the user's cache folder.
	Dir string
	// Port to listen on; 0 means a free one.
	Port int
	// Fast gives up fsync: commits then survive the end of the process, not that of the machine.
	Fast bool
	// MaxConnections that the server accepts; 0 means 500.
	MaxConnections int
	// Log receives a line for each start and stop; nil means none. The server's own log is a file, see LogFile.
	Log *slog.Logger
}

// Server is a running mariadbd. Its methods may be called from several goroutines.
type Server struct {
	opts    Options
	program program
	port    int
	run     *child.TempDir
	dir     string         // Holds data/ and mariadbd.log.
	lock    *filelock.Lock // Held for as long as the server owns dir; nil for a throw-away one, whose run holds one.

	mu      sync.Mutex
	process *child.Process // The current process, or the last one.
	stopped bool
}

// Start starts a server and returns once it answers. ctx bounds the start only. The error is ErrNotInstalled, wrapped,
// when there is no MariaDB on this machine.
func Start(ctx context.Context, opts Options) (_ *Server, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxConnections == 0 {
		opts.MaxConnections = 500
	}
	program, err := find(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, program: program, port: opts.Port}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if s.run, err = child.NewTempDir("chatapp-mariadb-"); err != nil {
		return nil, err
	}
	if s.dir = s.run.Path; opts.Dir != "" {
		if s.dir, err = filepath.Abs(opts.Dir); err != nil {
			return nil, fmt.Errorf("data folder of MariaDB: %w", err)
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data folder of MariaDB: %w", err)
		}
		if s.lock, err = filelock.Try(filepath.Join(s.dir, "lock")); err != nil {
			return nil, fmt.Errorf("the data folder of MariaDB: %w", err)
		}
	}
	if err := program.initialise(ctx, s.dataDir(), opts.Log); err != nil {
		return nil, err
	}
	if err := s.launchFirst(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// launchFirst launches the server on the port asked for or on a free one. Between the choice of a free port and its use
// somebody else may take it.
func (s *Server) launchFirst(ctx context.Context) (err error) {
	if s.opts.Port != 0 {
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

// DSN returns a data source name of go-sql-driver/mysql for a database of this server; it holds across Restart.
func (s *Server) DSN(database string) string {
	return s.dsn("tcp", "127.0.0.1:"+strconv.Itoa(s.port), database)
}

func (s *Server) dsn(network, addr, database string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", network, addr, database
	cfg.ParseTime = true
	return cfg.FormatDSN()
}

// Port returns the TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Socket returns the path of the unix socket.
func (s *Server) Socket() string { return filepath.Join(s.run.Path, "s") }

// LogFile returns the path of the server's own log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "mariadbd.log") }

// Version returns what the program says of itself, such as 10.11.19-MariaDB.
func (s *Server) Version() string { return s.program.version }

// Pid returns the process id of the server, for a test that wants to suspend it.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Pid()
}

// Done returns a channel that is closed when the process that runs now ends, by Stop, Kill, Restart or on its own.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Done()
}

// CreateDatabase creates databases that do not exist yet, in utf8mb4.
func (s *Server) CreateDatabase(ctx context.Context, names ...string) error {
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		return fmt.Errorf("open MariaDB: %w", err)
	}
	defer db.Close()
	for _, name := range names {
		if _, err := db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS `"+name+
			"` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"); err != nil {
			return fmt.Errorf("create database %s: %w", name, err)
		}
	}
	return nil
}

// Stop ends the server for good: with SIGTERM, then SIGKILL if it does not end. The data of a throw-away server is
// removed. Stopping twice is harmless.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	var err error
	if s.opts.Dir == "" {
		err = s.process.Kill() // Nobody will read what a clean shutdown would write.
	} else {
		err = s.process.Stop(stopGrace)
	}
	s.opts.Log.Debug("MariaDB stopped", "port", s.port)
	return errors.Join(err, s.release())
}

// Kill ends the server with SIGKILL, as a crash would. Restart brings it back.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Kill()
}

// Restart stops the server cleanly if it runs, starts it on the same port and data, and returns once it answers.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("restart MariaDB: it was stopped for good")
	}
	if err := s.process.Stop(stopGrace); err != nil {
		return err
	}
	return s.launch(ctx)
}

func (s *Server) dataDir() string { return filepath.Join(s.dir, "data") }

// release gives up what a server owns besides its process.
func (s *Server) release() error {
	var errs []error
	if s.run != nil {
		errs = append(errs, s.run.Remove())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// launch starts the process and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	begun := time.Now()
	logFile, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of MariaDB: %w", err)
	}
	defer logFile.Close()
	logStart, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open the log of MariaDB: %w", err)
	}
	cmd := exec.Command(s.program.server, s.args()...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	process, err := child.Start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	if err := s.awaitReady(ctx); err != nil {
		err = s.explain(err, logStart)
		return errors.Join(err, process.Kill())
	}
	s.opts.Log.Debug("MariaDB serves", "version", s.program.version, "port", s.port, "pid", process.Pid(),
		"after", time.Since(begun))
	return nil
}

func (s *Server) args() []string {
	args := []string{
		"--no-defaults",
		"--datadir=" + s.dataDir(),
		"--tmpdir=" + s.run.Path,
		"--socket=" + s.Socket(),
		"--pid-file=" + filepath.Join(s.run.Path, "pid"),
		"--bind-address=127.0.0.1",
		"--port=" + strconv.Itoa(s.port),
		"--skip-name-resolve",
		"--max-connections=" + strconv.Itoa(s.opts.MaxConnections),
		"--character-set-server=utf8mb4",
		"--collation-server=utf8mb4_unicode_ci",
		"--innodb-buffer-pool-size=64M",
		"--innodb-buffer-pool-load-at-startup=OFF",
		"--innodb-buffer-pool-dump-at-shutdown=OFF",
		logFileSize,
		// Rings of io_uring count against a small limit of locked memory, which several servers at once exceed.
		"--innodb-use-native-aio=OFF",
	}
	if s.opts.Fast {
		args = append(args, "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--innodb-doublewrite=OFF")
	} else {
		args = append(args, "--innodb-flush-log-at-trx-commit=1")
	}
	return append(args, asUser()...)
}

// awaitReady returns once the server answers a query on its socket. A program that took the port in the meantime cannot
// pretend to be our server there.
func (s *Server) awaitReady(ctx context.Context) error {
	db, err := sql.Open("mysql", s.dsn("unix", s.Socket(), ""))
	if err != nil {
		return fmt.Errorf("open MariaDB: %w", err)
	}
	defer db.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// Dialling before the socket exists would only make the driver log failures.
		if _, err := os.Stat(s.Socket()); err == nil && db.PingContext(ctx) == nil {
			return nil
		}
		select {
		case <-s.process.Done():
			return errors.New("MariaDB ended while it was starting")
		case <-ctx.Done():
			return fmt.Errorf("MariaDB does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// errPortTaken marks a start that failed because another program listens on the port.
var errPortTaken = errors.New("the port is taken by another program")

// explain adds to a failed start what the server wrote to its log meanwhile.
func (s *Server) explain(err error, logStart int64) error {
	written, readErr := os.ReadFile(s.LogFile())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	written = written[min(logStart, int64(len(written))):]
	if bytes.Contains(written, []byte("Address already in use")) {
		return fmt.Errorf("start MariaDB on port %d: %w", s.port, errPortTaken)
	}
	const keep = 2000
	if len(written) > keep {
		written = written[len(written)-keep:]
	}
	return fmt.Errorf("%w; its log ends with:\n%s", err, bytes.TrimSpace(written))
}
