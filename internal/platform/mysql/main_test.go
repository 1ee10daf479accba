package mysql

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"testing"

	"chatapp.dev/internal/platform/mysqltest"
)

// asMigrator makes this test binary be a process that migrates and dies on the way (see migrate_test.go).
const asMigrator = "MYSQL_TEST_AS_MIGRATOR"

func TestMain(m *testing.M) {
	if os.Getenv(asMigrator) != "" {
		migrateAndDie()
	}
	os.Exit(mysqltest.Main(m))
}

var discardLog = slog.New(slog.DiscardHandler)

// openDB opens an empty database of the test's own with the settings, and closes it with the test.
func openDB(t *testing.T, cfg Config) *sql.DB {
	t.Helper()
	if cfg.DSN == "" {
		cfg.DSN = DSN(mysqltest.DSN(t))
	}
	db, err := Open(t.Context(), cfg, discardLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// execer is a database, a connection to it or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// mustExec runs statements one by one.
func mustExec(t *testing.T, db execer, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// scan returns the one value that a query gives.
func scan[T any](t *testing.T, db *sql.DB, query string, args ...any) T {
	t.Helper()
	var value T
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}
