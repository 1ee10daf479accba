package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/filelock"
)

func openEngine(t *testing.T, opts Options) *Engine {
	t.Helper()
	opts.Progress = t.Output()
	e, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func openDB(t *testing.T, e *Engine, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", e.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func queryInt(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestChoose(t *testing.T) {
	folder := func(kinds ...Kind) string {
		dir := t.TempDir()
		for _, kind := range kinds {
			if err := os.MkdirAll(filepath.Join(dir, string(kind), "data"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	tests := []struct {
		name      string
		opts      Options
		installed bool
		want      Kind
	}{
		{"a DSN comes first", Options{DSN: "root@tcp(db)/", Dir: folder(MariaDB, TiDB)}, true, DSN},
		{"MariaDB when installed", Options{}, true, MariaDB},
		{"MariaDB in a new folder", Options{Dir: folder()}, true, MariaDB},
		{"TiDB when not installed", Options{Dir: folder()}, false, TiDB},
		{"TiDB stays when MariaDB is installed later", Options{Dir: folder(TiDB)}, true, TiDB},
		{"MariaDB stays when it is removed", Options{Dir: folder(MariaDB)}, false, MariaDB},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, why := choose(test.opts, test.installed); got != test.want {
				t.Errorf("chose %s (%s), want %s", got, why, test.want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		opts Options
		want string
	}{
		{Options{Kind: "oracle"}, `unknown database engine "oracle": it is one of auto, mariadb, tidb, dsn`},
		{Options{Kind: DSN}, "no DSN is given"},
		{Options{Kind: DSN, DSN: "not a DSN"}, "DSN of the database"},
	}
	for _, test := range tests {
		_, err := Open(t.Context(), test.opts)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error with %q", test.opts, err, test.want)
		}
	}
}

// TestEngines runs what must hold on every private engine.
func TestEngines(t *testing.T) {
	for _, kind := range []Kind{MariaDB, TiDB} {
		t.Run(string(kind), func(t *testing.T) {
			t.Run("throws its data away", func(t *testing.T) { testThrowAway(t, kind) })
			t.Run("keeps its data in a folder", func(t *testing.T) { testKeepsData(t, kind) })
			t.Run("keeps whole transactions when killed", func(t *testing.T) { testKilled(t, kind) })
			t.Run("counts without gaps", func(t *testing.T) { testCounts(t, kind) })
			t.Run("checks", func(t *testing.T) { testChecks(t, kind) })
		})
	}
}

func testThrowAway(t *testing.T, kind Kind) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	e := openEngine(t, Options{Kind: kind})
	if !strings.Contains(e.Name(), "thrown away") {
		t.Errorf("Name() = %q does not say that the data is thrown away", e.Name())
	}
	done := e.Done()
	closeEngine(t, e)
	<-done
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := e.Restart(t.Context()); err == nil {
		t.Error("a closed engine restarted")
	}
}

func testKeepsData(t *testing.T, kind Kind) {
	dir := t.TempDir()
	opts := Options{Kind: kind, Dir: dir, Databases: []string{"users", "messages"}}
	e := openEngine(t, opts)
	if name := e.Name(); !strings.Contains(name, "as asked for") || !strings.Contains(name, dir) {
		t.Errorf("Name() = %q does not say why and where", name)
	}
	for _, database := range opts.Databases {
		db := openDB(t, e, database)
		execute(t, db, "CREATE TABLE t (name VARCHAR(100) COLLATE utf8mb4_unicode_ci PRIMARY KEY)")
		execute(t, db, "INSERT INTO t VALUES (?)", "😀 "+database)
	}
	if _, err := Open(t.Context(), opts); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("second engine on the folder: got %v, want filelock.ErrHeld", err)
	}
	closeEngine(t, e)
	closeEngine(t, e)

	again := openEngine(t, Options{Kind: Auto, Dir: dir, Databases: opts.Databases})
	if name := again.Name(); !strings.Contains(name, "since its data is here") {
		t.Errorf("Name() = %q does not say why", name)
	}
	for _, database := range opts.Databases {
		if n := queryInt(t, openDB(t, again, database), "SELECT COUNT(*) FROM t WHERE name = ?", "😀 "+database); n != 1 {
			t.Errorf("%d rows in %s, want 1", n, database)
		}
	}
}

// testKilled kills the engine while transactions of two tables commit, some with more keys than TiDB sends in one batch
// by default, and looks for lost and for torn ones.
func testKilled(t *testing.T, kind Kind) {
	const workers, acknowledgements, rounds = 8, 60, 3
	e := openEngine(t, Options{Kind: kind, Databases: []string{"app"}})
	db := openDB(t, e, "app")
	for _, table := range bothTables {
		execute(t, db, "CREATE TABLE "+table+" (tx INT, n INT, PRIMARY KEY (tx, n))")
	}
	next := 0
	for round := range rounds {
		var mu sync.Mutex // Guards what follows, and next.
		var acknowledged []int
		enough := make(chan struct{})
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for {
					mu.Lock()
					tx := next
					next++
					mu.Unlock()
					if insertBoth(t.Context(), db, tx) != nil {
						return // The engine is dead.
					}
					mu.Lock()
					if acknowledged = append(acknowledged, tx); len(acknowledged) == acknowledgements {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		if err := e.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := e.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, table := range bothTables {
			for _, tx := range acknowledged {
				if n := queryInt(t, db, "SELECT COUNT(*) FROM "+table+" WHERE tx = ?", tx); n != rowsOf(tx) {
					t.Errorf("round %d: %d rows of %d of transaction %d, which was acknowledged, are in table %s",
						round, n, rowsOf(tx), tx, table)
				}
			}
			for tx := range next {
				if n := queryInt(t, db, "SELECT COUNT(*) FROM "+table+" WHERE tx = ?", tx); n != 0 && n != rowsOf(tx) {
					t.Errorf("round %d: %d rows of %d of transaction %d are in table %s", round, n, rowsOf(tx), tx, table)
				}
			}
		}
	}
}

var bothTables = []string{"a", "b"}

// rowsOf returns how many rows of each table a transaction has.
func rowsOf(tx int) int { return []int{1, 2, 1000}[tx%3] }

func insertBoth(ctx context.Context, db *sql.DB, id int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // It does nothing after Commit.
	for _, table := range bothTables {
		rows := make([]string, rowsOf(id))
		for n := range rows {
			rows[n] = fmt.Sprintf("(%d, %d)", id, n)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO "+table+" VALUES "+strings.Join(rows, ", ")); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// testCounts has concurrent transactions take numbers from one row, as messages take theirs from their conversation.
func testCounts(t *testing.T, kind Kind) {
	const workers, each = 8, 25
	e := openEngine(t, Options{Kind: kind, Databases: []string{"app"}})
	db := openDB(t, e, "app")
	execute(t, db, "CREATE TABLE counter (id INT PRIMARY KEY, seq INT NOT NULL)")
	execute(t, db, "CREATE TABLE taken (seq INT PRIMARY KEY)")
	execute(t, db, "INSERT INTO counter VALUES (1, 0)")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := take(t.Context(), db); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	const want = workers * each
	if seq := queryInt(t, db, "SELECT seq FROM counter"); seq != want {
		t.Errorf("counter is %d, want %d", seq, want)
	}
	if n := queryInt(t, db, "SELECT COUNT(*) FROM taken WHERE seq BETWEEN 1 AND ?", want); n != want {
		t.Errorf("%d numbers taken, want %d", n, want)
	}
}

func take(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // It does nothing after Commit.
	if _, err := tx.ExecContext(ctx, "UPDATE counter SET seq = seq + 1 WHERE id = 1"); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO taken SELECT seq FROM counter WHERE id = 1"); err != nil {
		return err
	}
	return tx.Commit()
}

// testChecks looks at what an engine enforces only when it is told to.
func testChecks(t *testing.T, kind Kind) {
	e := openEngine(t, Options{Kind: kind, Databases: []string{"app"}})
	db := openDB(t, e, "app")
	execute(t, db, "CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, CHECK (n > 0))")
	execute(t, db, "INSERT INTO t VALUES (1, 1)")
	tests := []struct {
		query   string
		numbers []uint16
	}{
		{"INSERT INTO t VALUES (1, 1)", []uint16{1062}},
		{"INSERT INTO t VALUES (2, 0)", []uint16{3819, 4025}}, // MySQL and TiDB, MariaDB.
	}
	for _, test := range tests {
		_, err := db.ExecContext(t.Context(), test.query)
		var refused *mysql.MySQLError
		if !errors.As(err, &refused) || !strings.Contains(fmt.Sprint(test.numbers), fmt.Sprint(refused.Number)) {
			t.Errorf("%s: got %v, want one of the errors %v", test.query, err, test.numbers)
		}
	}
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if n := queryInt(t, db, "SELECT GET_LOCK('migrate', 5)"); n != 1 {
		t.Errorf("GET_LOCK of a free lock: %d, want 1", n)
	}
}

func TestDSN(t *testing.T) {
	server := openEngine(t, Options{Kind: MariaDB})
	admin := openDB(t, server, "")
	execute(t, admin, "CREATE DATABASE there")
	execute(t, admin, "CREATE USER person@`127.0.0.1` IDENTIFIED BY 'secret word'")
	execute(t, admin, "GRANT SELECT ON there.* TO person@`127.0.0.1`")
	cfg, err := mysql.ParseDSN(server.DSN("ignored"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Passwd = "person", "secret word"

	opts := Options{Kind: Auto, DSN: cfg.FormatDSN(), Databases: []string{"there"}}
	e := openEngine(t, opts)
	if name := e.Name(); !strings.Contains(name, cfg.Addr) || strings.Contains(name, "secret") {
		t.Errorf("Name() = %q, want the address and no password", name)
	}
	var user string
	if err := openDB(t, e, "there").QueryRowContext(t.Context(), "SELECT CURRENT_USER()").Scan(&user); err != nil {
		t.Fatal(err)
	}
	if user != "person@127.0.0.1" {
		t.Errorf("connected as %s, want person@127.0.0.1", user)
	}
	if e.Kill() == nil || e.Restart(t.Context()) == nil {
		t.Error("a server that is not ours was killed or restarted")
	}
	closeEngine(t, e)
	if err := admin.PingContext(t.Context()); err != nil {
		t.Errorf("Close stopped a server that is not ours: %v", err)
	}

	opts.Databases = []string{"absent"} // Which this user may not create.
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "create database absent") {
		t.Errorf("got %v, want a refusal to create the database", err)
	}
}
