// Package engine opens the database and the Redis of a ChatApp that runs on one machine, for development and tests:
// servers that exist already, private ones, or ones that need nothing but Go.
//
// The database is, in this order, the one whose DSN is given, a private MariaDB when it is installed, or TiDB, which is
// built on its first use. All keep what was committed, whatever ends this process; with a folder for the data it is there
// at the next start. The Redis that needs nothing is in this process and forgets everything with it.
package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/mariadb"
)

// Kind says which database to open.
type Kind string

const (
	// Auto is the DSN if one is given; else the engine that has data in the folder already; else MariaDB if it is
	// installed; else TiDB.
	Auto Kind = "auto"
	// MariaDB is a private mariadbd.
	MariaDB Kind = "mariadb"
	// TiDB is TiDB on unistore, a private process too.
	TiDB Kind = "tidb"
	// DSN is a server that runs already.
	DSN Kind = "dsn"
)

// Options says what to open. The zero value is a throw-away database of the kind Auto.
type Options struct {
	Kind Kind
	// DSN of a running server, as go-sql-driver/mysql has it. The database in it is not used.
	DSN string
	// Dir keeps the data across starts; empty means a temporary folder that Close removes.
	Dir string
	// Databases to create unless they exist.
	Databases []string
	// Progress is shown what takes long, in lines or, on a terminal, in one that changes; nil shows nothing.
	Progress io.Writer
	// Log receives starts and stops; nil means none.
	Log *slog.Logger
}

// Engine is an open database server.
type Engine struct {
	name   string
	server server
}

// server is what serves: *mariadb.Server, *tidbServer or *external.
type server interface {
	DSN(database string) string
	Kill() error
	Restart(context.Context) error
	Stop() error
	Done() <-chan struct{}
}

// Open opens a database server and creates the databases. ctx bounds the opening only; that of TiDB takes minutes when it
// must be built.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	e, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := e.createDatabases(ctx, opts.Databases); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func open(ctx context.Context, opts Options) (*Engine, error) {
	kind, why := opts.Kind, "as asked for"
	if kind == Auto || kind == "" {
		notInstalled := mariadb.Installed(ctx)
		if notInstalled != nil && !errors.Is(notInstalled, mariadb.ErrNotInstalled) {
			return nil, notInstalled
		}
		kind, why = choose(opts, notInstalled == nil)
	}
	switch kind {
	case MariaDB:
		return openMariaDB(ctx, opts, why)
	case TiDB:
		return openTiDB(ctx, opts, why)
	case DSN:
		return openDSN(opts)
	default:
		return nil, fmt.Errorf("unknown database engine %q: it is one of %s, %s, %s, %s", kind, Auto, MariaDB, TiDB, DSN)
	}
}

// choose says what Auto means here, and why.
func choose(opts Options, installed bool) (kind Kind, why string) {
	switch {
	case opts.DSN != "":
		return DSN, ""
	// Somebody who installs or removes MariaDB between two starts must not find the data gone.
	case hasData(opts.Dir, MariaDB):
		return MariaDB, "since its data is here"
	case hasData(opts.Dir, TiDB):
		return TiDB, "since its data is here"
	case installed:
		return MariaDB, "since it is installed"
	default:
		return TiDB, "since MariaDB is not installed"
	}
}

// hasData reports whether an engine has kept data in the folder.
func hasData(dir string, kind Kind) bool {
	if dir == "" {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(dir, string(kind)))
	return err == nil && slices.ContainsFunc(entries, os.DirEntry.IsDir)
}

func openMariaDB(ctx context.Context, opts Options, why string) (*Engine, error) {
	dir := subfolder(opts.Dir, MariaDB)
	s, err := mariadb.Start(ctx, mariadb.Options{Dir: dir, Log: opts.Log})
	if err != nil {
		return nil, fmt.Errorf("open a private MariaDB, %s: %w", why, err)
	}
	return &Engine{name: describe("a private MariaDB "+strings.TrimSuffix(s.Version(), "-MariaDB"), why, dir), server: s}, nil
}

func openTiDB(ctx context.Context, opts Options, why string) (*Engine, error) {
	program, err := buildTiDB(ctx, opts.Progress)
	if err != nil {
		return nil, fmt.Errorf("open a private TiDB, %s: %w", why, err)
	}
	dir := subfolder(opts.Dir, TiDB)
	s, err := startTiDB(ctx, program, dir, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("open a private TiDB, %s: %w", why, err)
	}
	return &Engine{name: describe("a private TiDB", why, dir), server: s}, nil
}

func openDSN(opts Options) (*Engine, error) {
	if opts.DSN == "" {
		return nil, errors.New("the database engine is to be the one of a DSN, but no DSN is given")
	}
	cfg, err := mysql.ParseDSN(opts.DSN)
	if err != nil {
		return nil, fmt.Errorf("DSN of the database: %w", err)
	}
	// The address only: the DSN may hold a password.
	return &Engine{name: "the MySQL server at " + cfg.Addr + ", as the DSN says", server: &external{cfg: cfg}}, nil
}

func subfolder(dir string, kind Kind) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, string(kind))
}

func describe(what, why, dir string) string {
	if dir == "" {
		return what + ", " + why + "; its data is thrown away"
	}
	return what + ", " + why + "; data in " + dir
}

// Name tells people in one line which engine serves and why.
func (e *Engine) Name() string { return e.name }

// DSN returns a data source name of go-sql-driver/mysql for a database; it holds across Restart.
func (e *Engine) DSN(database string) string { return e.server.DSN(database) }

// Done returns a channel that is closed when the process that serves now ends, by Kill, Restart, Close or on its own. For
// a server that is not ours it never is.
func (e *Engine) Done() <-chan struct{} { return e.server.Done() }

// Kill ends the server with SIGKILL, as a crash would, until Restart. A server that is not ours refuses.
func (e *Engine) Kill() error { return e.server.Kill() }

// Restart stops the server if it runs, starts it on the same port and data, and returns once it answers. A server that is
// not ours refuses.
func (e *Engine) Restart(ctx context.Context) error { return e.server.Restart(ctx) }

// Close stops the server for good, unless it is not ours. Closing twice is harmless.
func (e *Engine) Close() error { return e.server.Stop() }

// createDatabases creates what does not exist. It does not ask a server to create what exists, since the user of a DSN may
// have no right to.
func (e *Engine) createDatabases(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	db, err := sql.Open("mysql", e.DSN(""))
	if err != nil {
		return fmt.Errorf("open the database server: %w", err)
	}
	defer db.Close()
	for _, name := range names {
		var exists bool
		const query = "SELECT COUNT(*) > 0 FROM information_schema.schemata WHERE schema_name = ?"
		if err := db.QueryRowContext(ctx, query, name).Scan(&exists); err != nil {
			return fmt.Errorf("look for database %s: %w", name, err)
		}
		if exists {
			continue
		}
		create := "CREATE DATABASE IF NOT EXISTS `" + name + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
		if _, err := db.ExecContext(ctx, create); err != nil {
			return fmt.Errorf("create database %s: %w", name, err)
		}
	}
	return nil
}

// external is a server that somebody else runs.
type external struct {
	cfg *mysql.Config
}

var errNotOurs = errors.New("the database server is not ours to stop")

func (x *external) DSN(database string) string {
	cfg := x.cfg.Clone()
	cfg.DBName = database
	return cfg.FormatDSN()
}

func (x *external) Kill() error { return errNotOurs }

func (x *external) Restart(context.Context) error { return errNotOurs }

func (x *external) Stop() error { return nil }

func (x *external) Done() <-chan struct{} { return never() }

// never returns a channel that is never closed.
var never = sync.OnceValue(func() chan struct{} { return make(chan struct{}) })
