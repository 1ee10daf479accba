package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/mysqltest"
)

// testMigrations use every kind of done line.
var testMigrations = map[string]string{
	"0001_create_users.sql":   "-- Accounts.\n-- done: table users\nCREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(32) NOT NULL, old INT);\n",
	"0002_add_about.sql":      "-- done: column users.about\n-- done: column users.born\nALTER TABLE users ADD COLUMN about VARCHAR(100), ADD COLUMN born DATE",
	"0003_index_names.sql":    "-- done: index users.users_by_name\nCREATE INDEX users_by_name ON users (name)",
	"0004_seed.sql":           "-- done: repeatable\nINSERT INTO users (id, name) VALUES (1, 'a; b') ON DUPLICATE KEY UPDATE name = VALUES(name)",
	"0005_drop_old.sql":       "-- done: no column users.old\nALTER TABLE users DROP COLUMN old",
	"0006_create_scratch.sql": "-- done: table scratch\nCREATE TABLE scratch (id INT PRIMARY KEY)",
	"0007_drop_scratch.sql":   "-- done: no table scratch\nDROP TABLE scratch",
}

// wantSchema is what describeSchema says when all of them have been applied.
var wantSchema = []string{
	"users.about varchar(100)", "users.born date", "users.id int(11)", "users.name varchar(32)",
	"index users.PRIMARY", "index users.users_by_name",
	"user 1 a; b",
	"applied 1 create_users", "applied 2 add_about", "applied 3 index_names", "applied 4 seed", "applied 5 drop_old",
	"applied 6 create_scratch", "applied 7 drop_scratch",
}

func files(contents map[string]string) fs.FS {
	fsys := fstest.MapFS{}
	for name, text := range contents {
		fsys["migrations/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// with returns testMigrations with some files changed, added, or removed where the text is empty.
func with(changes map[string]string) map[string]string {
	contents := map[string]string{}
	for name, text := range testMigrations {
		contents[name] = text
	}
	for name, text := range changes {
		contents[name] = text
		if text == "" {
			delete(contents, name)
		}
	}
	return contents
}

func newTestMigrator(t *testing.T, db *sql.DB, contents map[string]string) *Migrator {
	t.Helper()
	m, err := NewMigrator(db, files(contents))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// describeSchema lists the columns, indexes, users and applied migrations of a database.
func describeSchema(t *testing.T, db *sql.DB) []string {
	t.Helper()
	var lines []string
	for _, query := range []string{
		`SELECT CONCAT(table_name, '.', column_name, ' ', column_type) FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name <> 'schema_migrations' ORDER BY table_name, column_name`,
		`SELECT DISTINCT CONCAT('index ', table_name, '.', index_name) FROM information_schema.statistics
		WHERE table_schema = DATABASE() AND table_name <> 'schema_migrations' ORDER BY 1`,
		`SELECT CONCAT('user ', id, ' ', name) FROM users ORDER BY id`,
		`SELECT CONCAT('applied ', version, ' ', name) FROM schema_migrations ORDER BY version`,
	} {
		lines = append(lines, column(t, db, query)...)
	}
	return lines
}

// column returns the one column that a query gives.
func column(t *testing.T, db *sql.DB, query string) (values []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

func checkSchema(t *testing.T, db *sql.DB) {
	t.Helper()
	if diff := cmp.Diff(wantSchema, describeSchema(t, db)); diff != "" {
		t.Errorf("schema (-want +got)\n%s", diff)
	}
	if err := newTestMigrator(t, db, testMigrations).Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestMigrationsRunTwiceChangeNothing(t *testing.T) {
	db := openDB(t, Config{LongStatements: true})
	for range 2 {
		if err := newTestMigrator(t, db, testMigrations).Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkSchema(t, db)
	}
}

func TestMigrationsRunByTwoAtOnceMakeOneSchema(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t))
	var wg sync.WaitGroup
	for range 4 {
		db := openDB(t, Config{DSN: dsn})
		wg.Go(func() {
			if err := newTestMigrator(t, db, testMigrations).Up(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkSchema(t, openDB(t, Config{DSN: dsn}))
}

// Some clusters keep locks on one node, so two can migrate at once after all: in the same steps, one a moment behind.
func TestMigrationsSurviveALockThatDoesNotExclude(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t))
	other := openDB(t, Config{DSN: dsn})
	for _, place := range []string{"looked", "done"} {
		mustExec(t, other, "DROP TABLE IF EXISTS users, scratch, schema_migrations")
		m := newTestMigrator(t, openDB(t, Config{DSN: dsn}), testMigrations)
		m.reached = func(at string, version int) {
			if at != place {
				return
			}
			// The other process does the same migration and is done first.
			text := newTestMigrator(t, other, testMigrations).migrations[version-1]
			if place == "looked" {
				mustExec(t, other, text.statement)
			}
			mustExec(t, other, fmt.Sprintf("INSERT INTO schema_migrations VALUES (%d, '%s', '%s', NOW())", version, text.name, text.checksum))
		}
		if err := m.Up(t.Context()); err != nil {
			t.Fatalf("%s: %v", place, err)
		}
		checkSchema(t, other)
	}
}

// places are where a process that migrates can die: between any two statements that it sends.
var places = []string{"locked", "looked", "done", "recorded"}

// migrateAndDie is the process of the test below. Its arguments come by the environment: a DSN, a place and a version.
func migrateAndDie() {
	parts := strings.SplitN(os.Getenv(asMigrator), " ", 3)
	version, err := strconv.Atoi(parts[1])
	if err != nil {
		panic(err)
	}
	db, err := Open(context.Background(), Config{DSN: DSN(parts[2])}, discardLog)
	if err != nil {
		panic(err)
	}
	m, err := NewMigrator(db, files(testMigrations))
	if err != nil {
		panic(err)
	}
	m.reached = func(place string, at int) {
		if place == parts[0] && at == version {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
	panic(fmt.Sprint("the migration ended instead of its process: ", m.Up(context.Background())))
}

func TestMigrationsKilledHalfwayAndRunAgainMakeTheSameSchema(t *testing.T) {
	for version := range len(testMigrations) + 1 {
		for _, place := range places {
			if (place == "locked") != (version == 0) {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", place, version), func(t *testing.T) {
				dsn := mysqltest.DSN(t)
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", asMigrator, place, version, dsn))
				output, err := child.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the process was not killed: %v\n%s", err, output)
				}
				db := openDB(t, Config{DSN: DSN(dsn)})
				if err := newTestMigrator(t, db, testMigrations).Up(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkSchema(t, db)
			})
		}
	}
}

func TestAnOlderSchemaIsRefusedWithWhatToDo(t *testing.T) {
	db := openDB(t, Config{})
	m := newTestMigrator(t, db, testMigrations)
	m.Command = "users migrate"
	check := func(version int) {
		t.Helper()
		err := m.Check(t.Context())
		want := fmt.Sprintf("it is at version %d, but this program needs version 7: run `users migrate`", version)
		if !errors.Is(err, ErrSchemaTooOld) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	check(0)
	older := newTestMigrator(t, db, with(map[string]string{"0006_create_scratch.sql": "", "0007_drop_scratch.sql": ""}))
	if err := older.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(5)
	m.Command = ""
	if err := m.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "run its migrate command") {
		t.Errorf("got %v", err)
	}
}

// The version before must keep working on the schema after the expand step.
func TestANewerSchemaIsAccepted(t *testing.T) {
	db := openDB(t, Config{})
	if err := newTestMigrator(t, db, testMigrations).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	older := newTestMigrator(t, db, map[string]string{"0001_create_users.sql": testMigrations["0001_create_users.sql"]})
	if err := older.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := older.Up(t.Context()); err != nil {
		t.Errorf("Up: %v", err)
	}
	checkSchema(t, db)
}

func TestAChangedMigrationIsRefused(t *testing.T) {
	db := openDB(t, Config{})
	first := map[string]string{"0001_create_users.sql": testMigrations["0001_create_users.sql"]}
	if err := newTestMigrator(t, db, first).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := newTestMigrator(t, db, with(map[string]string{
		"0001_create_users.sql": testMigrations["0001_create_users.sql"] + "-- One more comment.\n",
	}))
	for name, err := range map[string]error{"Up": changed.Up(t.Context()), "Check": changed.Check(t.Context())} {
		if !errors.Is(err, ErrMigrationChanged) || !strings.Contains(err.Error(), "0001_create_users") {
			t.Errorf("%s: got %v, want an error that names the migration", name, err)
		}
	}
	if n := scan[int](t, db, "SELECT COUNT(*) FROM schema_migrations"); n != 1 {
		t.Errorf("%d migrations are recorded, want 1", n)
	}

	windows := newTestMigrator(t, db, map[string]string{
		"0001_create_users.sql": strings.ReplaceAll(testMigrations["0001_create_users.sql"], "\n", "\r\n"),
	})
	if err := windows.Up(t.Context()); err != nil {
		t.Errorf("other line ends: %v", err)
	}
}

func TestAFailingMigrationStopsTheRun(t *testing.T) {
	tests := []struct {
		name, text string
	}{
		{"statement fails", "-- done: column users.twice\nALTER TABLE users ADD COLUMN name INT"},
		{"done lines are wrong", "-- done: column users.misspelt\nALTER TABLE users ADD COLUMN spelt INT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			db := openDB(t, Config{})
			contents := map[string]string{
				"0001_create_users.sql": testMigrations["0001_create_users.sql"],
				"0002_fail.sql":         test.text,
				"0003_never.sql":        "-- done: table never\nCREATE TABLE never (id INT)",
			}
			err := newTestMigrator(t, db, contents).Up(t.Context())
			if err == nil || !strings.Contains(err.Error(), "0002_fail") {
				t.Errorf("got %v", err)
			}
			if n := scan[int](t, db, "SELECT MAX(version) FROM schema_migrations"); n != 1 {
				t.Errorf("the schema is recorded at version %d, want 1", n)
			}
			// The lock is free again.
			lock, err := AcquireLock(t.Context(), db, migrationPurpose, 0)
			if err != nil {
				t.Fatal(err)
			}
			lock.Release(t.Context())
		})
	}
}

func TestMigrationsThatCouldNotBeResumedAreRefused(t *testing.T) {
	tests := []struct {
		name     string
		contents map[string]string
		want     string
	}{
		{"none", map[string]string{}, "read the migrations"},
		{"two statements", map[string]string{"0001_two.sql": "-- done: table a\nCREATE TABLE a (i INT); CREATE TABLE b (i INT)"}, "holds 2 statements"},
		{"no statement", map[string]string{"0001_none.sql": "-- done: table a\n"}, "holds 0 statements"},
		{"open string", map[string]string{"0001_open.sql": "-- done: table a\nSELECT 'a"}, "is not closed"},
		{"no done line", map[string]string{"0001_a.sql": "-- Makes a.\nCREATE TABLE a (i INT)"}, "lacks a line"},
		{"done line after the statement", map[string]string{"0001_a.sql": "CREATE TABLE a (i INT)\n-- done: table a\n"}, "lacks a line"},
		{"unknown done line", map[string]string{"0001_a.sql": "-- done: view a\nCREATE VIEW a AS SELECT 1"}, "does not say"},
		{"wrong name", map[string]string{"1_a.sql": "-- done: table a\nCREATE TABLE a (i INT)"}, "its name"},
		{"another file", map[string]string{"README.md": "Hello."}, "its name"},
		{"a gap", with(map[string]string{"0003_index_names.sql": ""}), "its number should be 0003"},
		{"twice the same number", with(map[string]string{"0002_again.sql": "-- done: table a\nCREATE TABLE a (i INT)"}), "its number should be 0003"},
		{"not from 1", map[string]string{"0002_a.sql": "-- done: table a\nCREATE TABLE a (i INT)"}, "its number should be 0001"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewMigrator(nil, files(test.contents))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	m := newTestMigrator(t, nil, testMigrations)
	if m.Version() != 7 || !slices.IsSortedFunc(m.migrations, func(a, b migration) int { return a.version - b.version }) {
		t.Errorf("got version %d", m.Version())
	}
}
