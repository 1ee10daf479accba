package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrSchemaTooOld says that a database lacks migrations that the program needs.
	ErrSchemaTooOld = errors.New("the schema is too old")
	// ErrMigrationChanged says that a migration was edited after it had been applied. What it says now was never done
	// to this database: undo the edit and write another migration.
	ErrMigrationChanged = errors.New("an applied migration has been changed")
)

const (
	migrationsDir = "migrations"
	// migrationPurpose names the lock under which migrations run.
	migrationPurpose = "migrate"
	// migrationWait is how long Up waits for another process's run to end. Its context may end the wait sooner.
	migrationWait = 10 * time.Minute
	// tableWaitSeconds bounds how long a statement waits for the transactions that use its table to end. While it
	// waits, everybody else who wants the table waits behind it.
	tableWaitSeconds = 5
)

// Migrator brings a database's schema up to date from embedded files and tells whether it is.
//
// Files are named migrations/0001_create_users.sql, numbered without a gap, and hold one statement each: DDL is not
// transactional, so a file of two could stop between them. A comment before the statement tells how to see that it has
// been done, in lines of these forms:
//
//	-- done: table users
//	-- done: column users.about
//	-- done: index users.users_by_name
//	-- done: no column users.old_name    (or no table, no index)
//	-- done: repeatable                  (running it again changes nothing)
//
// All of several lines must hold. A process that dies between a statement and its record thus leaves a database on
// which the next run goes on where it stopped.
//
// A database may be ahead of the program: migrations are expanding first and contracting later, so that the version
// before keeps working, and unknown ones are left alone.
type Migrator struct {
	// Log, if set, is told what is waited for and done.
	Log *slog.Logger
	// Command, if set, is what [Migrator.Check] tells to run, such as "users migrate".
	Command string

	db         *sql.DB
	migrations []migration
	// reached, if set, is told where a run has got to. Tests stop it there.
	reached func(place string, version int)
}

// migration is one step of a schema.
type migration struct {
	version   int
	name      string // create_users
	statement string
	checksum  string // Of the whole file.
	done      []condition
}

func (m migration) String() string { return fmt.Sprintf("%04d_%s", m.version, m.name) }

// condition is something that information_schema can tell.
type condition struct {
	kind   string // "table", "column" or "index"; "repeatable" is no condition at all.
	absent bool
	table  string
	name   string // Of the column or index.
}

var (
	migrationFile = regexp.MustCompile(`^([0-9]{4})_([a-z0-9_]+)\.sql$`)
	doneTable     = regexp.MustCompile(`^(no )?table ([a-z0-9_]+)$`)
	doneMember    = regexp.MustCompile(`^(no )?(column|index) ([a-z0-9_]+)\.([A-Za-z0-9_]+)$`)
)

// NewMigrator reads the migrations in the directory "migrations" of fsys, and refuses those that could not be resumed:
// a file with more than one statement, or without a done line.
func NewMigrator(db *sql.DB, fsys fs.FS) (*Migrator, error) {
	entries, err := fs.ReadDir(fsys, migrationsDir)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	m := &Migrator{db: db}
	for _, entry := range entries {
		text, err := fs.ReadFile(fsys, path.Join(migrationsDir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the migrations: %w", err)
		}
		migration, err := parseMigration(entry.Name(), string(text))
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", entry.Name(), err)
		}
		// Entries are sorted by name, so by number.
		if want := len(m.migrations) + 1; migration.version != want {
			return nil, fmt.Errorf("migration %s: its number should be %04d", entry.Name(), want)
		}
		m.migrations = append(m.migrations, migration)
	}
	if len(m.migrations) == 0 {
		return nil, errors.New("there are no migrations")
	}
	return m, nil
}

func parseMigration(file, text string) (migration, error) {
	parts := migrationFile.FindStringSubmatch(file)
	if parts == nil {
		return migration{}, errors.New("its name is not like 0001_create_users.sql")
	}
	version, err := strconv.Atoi(parts[1])
	if err != nil {
		return migration{}, err
	}
	// A checkout with other line ends is not a change.
	text = strings.ReplaceAll(text, "\r\n", "\n")
	statements, err := splitStatements(text)
	if err != nil {
		return migration{}, err
	}
	if len(statements) != 1 {
		return migration{}, fmt.Errorf("it holds %d statements but must hold one", len(statements))
	}
	done, err := parseDone(text)
	if err != nil {
		return migration{}, err
	}
	checksum := sha256.Sum256([]byte(text))
	return migration{
		version:   version,
		name:      parts[2],
		statement: statements[0],
		checksum:  hex.EncodeToString(checksum[:]),
		done:      done,
	}, nil
}

// parseDone reads the done lines of the comment that a file begins with.
func parseDone(text string) ([]condition, error) {
	var done []condition
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--") {
			break
		}
		what, ok := strings.CutPrefix(line, "-- done:")
		if !ok {
			continue
		}
		what = strings.TrimSpace(what)
		if what == "repeatable" {
			done = append(done, condition{kind: what})
		} else if parts := doneTable.FindStringSubmatch(what); parts != nil {
			done = append(done, condition{kind: "table", absent: parts[1] != "", table: parts[2]})
		} else if parts := doneMember.FindStringSubmatch(what); parts != nil {
			done = append(done, condition{kind: parts[2], absent: parts[1] != "", table: parts[3], name: parts[4]})
		} else {
			return nil, fmt.Errorf("%q does not say that a table t, column t.c or index t.i, or no such, is there", line)
		}
	}
	if len(done) == 0 {
		return nil, errors.New(`it lacks a line such as "-- done: table users" before its statement`)
	}
	return done, nil
}

// Version returns the schema version that the program needs.
func (m *Migrator) Version() int { return len(m.migrations) }

// Up applies the migrations that the database lacks, one after the other, under a lock that lets one process at a time
// do so. It can be run again at any time, whatever stopped it the last time. A database opened with
// [Config.LongStatements] lets its statements take as long as they need.
func (m *Migrator) Up(ctx context.Context) error {
	lock, err := m.lock(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer lock.Release(ctx)
	// Everything runs on the lock's own connection: should this process die while the server still works on a
	// statement, the next one waits for that statement and then sees what it did.
	if err := m.up(ctx, lock.Conn()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func (m *Migrator) lock(ctx context.Context) (*Lock, error) {
	lock, err := AcquireLock(ctx, m.db, migrationPurpose, 0)
	if errors.Is(err, ErrLocked) {
		m.log().Info("waiting for another process that migrates")
		lock, err = AcquireLock(ctx, m.db, migrationPurpose, migrationWait)
	}
	return lock, err
}

func (m *Migrator) up(ctx context.Context, conn *sql.Conn) error {
	m.reach("locked", 0)
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", tableWaitSeconds)); err != nil {
		return fmt.Errorf("bound the wait for tables: %w", err)
	}
	if _, err := conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version INT NOT NULL PRIMARY KEY,
		name VARCHAR(255) NOT NULL,
		checksum CHAR(64) NOT NULL,
		applied_at DATETIME(6) NOT NULL
	) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin`); err != nil {
		return fmt.Errorf("create the table schema_migrations: %w", err)
	}
	applied, err := readApplied(ctx, conn)
	if err != nil {
		return err
	}
	for _, migration := range m.migrations {
		if err := applied.verify(migration); err != nil {
			return err
		}
	}
	for _, migration := range m.migrations {
		if _, ok := applied[migration.version]; ok {
			continue
		}
		if err := m.apply(ctx, conn, migration); err != nil {
			return fmt.Errorf("%s: %w", migration, err)
		}
	}
	return nil
}

// apply does and records one migration, or only records it when a run before this one did it and died.
func (m *Migrator) apply(ctx context.Context, conn *sql.Conn, migration migration) error {
	began := time.Now()
	done, err := migration.isDone(ctx, conn)
	if err != nil {
		return err
	}
	m.reach("looked", migration.version)
	resumed := done && !migration.isRepeatable()
	if !resumed {
		if err := migration.run(ctx, conn); err != nil {
			return err
		}
	}
	m.reach("done", migration.version)
	_, err = conn.ExecContext(ctx,
		"INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
		migration.version, migration.name, migration.checksum)
	if IsDuplicate(err) {
		// Where locks are node-local another process can have been faster. It must have meant the same migration.
		applied, readErr := readApplied(ctx, conn)
		if readErr != nil {
			return readErr
		}
		return applied.verify(migration)
	}
	if err != nil {
		return fmt.Errorf("record it: %w", err)
	}
	m.reach("recorded", migration.version)
	m.log().Info("migrated", "migration", migration.String(), "found_done", resumed, "took", time.Since(began))
	return nil
}

// run executes the migration's statement and makes sure that it did what the done lines say: lines that are wrong
// should fail on a developer's machine, not after a crash.
func (m migration) run(ctx context.Context, conn *sql.Conn) error {
	execErr := Retry(ctx, func() error {
		_, err := conn.ExecContext(ctx, m.statement)
		return err
	})
	done, err := m.isDone(ctx, conn)
	switch {
	case execErr != nil && err == nil && done && !m.isRepeatable():
		// Somebody else did it after we had looked.
		return nil
	case execErr != nil:
		return execErr
	case err != nil:
		return err
	case !done:
		return errors.New("its statement succeeded, but what its done lines say is not so")
	default:
		return nil
	}
}

func (m migration) isRepeatable() bool {
	for _, c := range m.done {
		if c.kind == "repeatable" {
			return true
		}
	}
	return false
}

// isDone says whether all that the done lines say is so.
func (m migration) isDone(ctx context.Context, conn *sql.Conn) (bool, error) {
	for _, c := range m.done {
		holds, err := c.holds(ctx, conn)
		if err != nil {
			return false, fmt.Errorf("look whether it has been done: %w", err)
		}
		if !holds {
			return false, nil
		}
	}
	return true, nil
}

func (c condition) holds(ctx context.Context, conn *sql.Conn) (bool, error) {
	var query string
	args := []any{c.table}
	switch c.kind {
	case "repeatable":
		return true, nil
	case "table":
		query = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?"
	case "column":
		query = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?"
		args = append(args, c.name)
	case "index":
		query = "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ? AND index_name = ?"
		args = append(args, c.name)
	}
	var count int
	if err := conn.QueryRowContext(ctx, query, args...).Scan(&count); err != nil {
		return false, err
	}
	return (count > 0) != c.absent, nil
}

// Check returns nil when the database has every migration that the program needs, and an error that is
// [ErrSchemaTooOld] and says what to do when it has not. It changes nothing and waits for nobody.
func (m *Migrator) Check(ctx context.Context) error {
	applied, err := readApplied(ctx, m.db)
	if err != nil {
		return err
	}
	for _, migration := range m.migrations {
		if _, ok := applied[migration.version]; !ok {
			run := "run its migrate command"
			if m.Command != "" {
				run = "run `" + m.Command + "`"
			}
			return fmt.Errorf("%w: it is at version %d, but this program needs version %d: %s",
				ErrSchemaTooOld, migration.version-1, m.Version(), run)
		}
		if err := applied.verify(migration); err != nil {
			return err
		}
	}
	return nil
}

// appliedMigrations are the checksums of a database's migrations by version.
type appliedMigrations map[int]string

// verify returns an error when a migration was applied in another form than it has now.
func (a appliedMigrations) verify(m migration) error {
	if checksum, ok := a[m.version]; ok && checksum != m.checksum {
		return fmt.Errorf("%w: %s has the checksum %.12s but was applied with %.12s", ErrMigrationChanged, m, m.checksum, checksum)
	}
	return nil
}

// querier is a database or a connection to it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readApplied returns what a database records. One that was never migrated has no record.
func readApplied(ctx context.Context, db querier) (appliedMigrations, error) {
	applied := appliedMigrations{}
	rows, err := db.QueryContext(ctx, "SELECT version, checksum FROM schema_migrations")
	if number(err) == errNoSuchTable {
		return applied, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the applied migrations: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var version int
		var checksum string
		if err := rows.Scan(&version, &checksum); err != nil {
			return nil, fmt.Errorf("read the applied migrations: %w", err)
		}
		applied[version] = checksum
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the applied migrations: %w", err)
	}
	return applied, nil
}

func (m *Migrator) reach(place string, version int) {
	if m.reached != nil {
		m.reached(place, version)
	}
}

func (m *Migrator) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}
