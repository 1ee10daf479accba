package mariadb

import (
	"database/sql"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"chatapp.dev/internal/platform/filelock"
)

func start(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// open returns a pool on a new database "app" of the server.
func open(t *testing.T, s *Server) *sql.DB {
	t.Helper()
	if err := s.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", s.DSN("app"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCommittedRowsSurviveKillAndRestart(t *testing.T) {
	for _, fast := range []bool{false, true} {
		t.Run("fast="+strconv.FormatBool(fast), func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{Fast: fast})
			db := open(t, s)
			execute(t, db, "CREATE TABLE t (id INT PRIMARY KEY)")
			for i := range 50 {
				execute(t, db, "INSERT INTO t VALUES (?)", i)
			}
			dsn, done := s.DSN("app"), s.Done()
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			<-done
			if err := db.PingContext(t.Context()); err == nil {
				t.Error("a killed server answers")
			}
			for range 2 { // After a crash, then after a clean stop.
				if err := s.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s.DSN("app") != dsn {
					t.Errorf("DSN changed from %s to %s", dsn, s.DSN("app"))
				}
				if got := count(t, db); got != 50 {
					t.Errorf("%d rows, want 50", got)
				}
			}
		})
	}
}

func TestDirKeepsDataAndIsLocked(t *testing.T) {
	// The path is longer than that of a unix socket may be, in both places that could hold one.
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "data folder")
	temp := filepath.Join(t.TempDir(), strings.Repeat("tmp", 40))
	if err := os.MkdirAll(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)

	s := start(t, Options{Dir: long})
	db := open(t, s)
	execute(t, db, "CREATE TABLE t (id INT PRIMARY KEY)")
	execute(t, db, "INSERT INTO t VALUES (1)")
	if _, err := Start(t.Context(), Options{Dir: long}); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("second server on the folder: got %v, want filelock.ErrHeld", err)
	}
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a server that was stopped for good restarted")
	}

	if got := count(t, open(t, start(t, Options{Dir: long}))); got != 1 {
		t.Errorf("%d rows after stop and start, want 1", got)
	}
}

func TestThrowAwayServerLeavesNothing(t *testing.T) {
	s := start(t, Options{Fast: true})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", s.dir, err)
	}
}

func TestServerSettings(t *testing.T) {
	tests := []struct {
		opts Options
		want map[string]string
	}{
		{Options{}, map[string]string{"innodb_flush_log_at_trx_commit": "1", "max_connections": "500"}},
		{Options{Fast: true, MaxConnections: 20}, map[string]string{
			"innodb_flush_log_at_trx_commit": "2", "max_connections": "20", "bind_address": "127.0.0.1",
			"character_set_server": "utf8mb4", "collation_server": "utf8mb4_unicode_ci",
		}},
	}
	for _, test := range tests {
		db := open(t, start(t, test.opts))
		for name, want := range test.want {
			var got string
			if err := db.QueryRowContext(t.Context(), "SELECT @@"+name).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%+v: %s is %s, want %s", test.opts, name, got, want)
			}
		}
	}
}

func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = Start(t.Context(), Options{Fast: true, Port: port})
	if !errors.Is(err, errPortTaken) || !strings.Contains(err.Error(), strconv.Itoa(port)) {
		t.Errorf("got %v, want an error that names port %d as taken", err, port)
	}
}

func TestFailedStartShowsTheLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "ibdata1"), []byte("not a tablespace"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "[ERROR]") {
		t.Errorf("got %v, want the errors in the log of MariaDB", err)
	}
}

func TestTemplateIsMadeOnceByManyAtOnce(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache) // For systems that derive the cache folder from it.
	p, err := find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	template, err := p.templatePath()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(template, cache) {
		t.Fatalf("template is %s, outside the cache folder %s", template, cache)
	}
	// What a process leaves that is killed while it makes the template.
	if err := os.MkdirAll(filepath.Join(template+".unfinished", "mysql"), 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := Start(t.Context(), Options{Fast: true})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	made, err := os.Stat(template)
	if err != nil {
		t.Fatal(err)
	}
	start(t, Options{Fast: true})
	if again, err := os.Stat(template); err != nil || !os.SameFile(made, again) {
		t.Errorf("the template was made again (%v)", err)
	}
	if _, err := os.Stat(template + ".unfinished"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unfinished template is left (%v)", err)
	}
}

func TestNotInstalled(t *testing.T) {
	defer func(dirs []string) { packageDirs = dirs }(packageDirs)
	packageDirs = nil
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err := Start(t.Context(), Options{})
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "apt-get install mariadb-server") {
		t.Errorf("nothing installed: got %v", err)
	}
	mysqld := "#!/bin/sh\necho 'mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)'\n"
	if err := os.WriteFile(filepath.Join(dir, "mysqld"), []byte(mysqld), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Options{})
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "MySQL Community Server") {
		t.Errorf("MySQL installed: got %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	tests := []struct {
		out, version string
		ok           bool
	}{
		{"mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", "10.11.19-MariaDB", true},
		{"/usr/sbin/mysqld  Ver 11.4.2-MariaDB for Linux on aarch64 (Source)", "11.4.2-MariaDB", true},
		{"mysqld  Ver 10.6.18-MariaDB-0ubuntu0.22.04.1 for debian-linux-gnu on x86_64 (Ubuntu 22.04)", "10.6.18-MariaDB", false},
		{"/usr/sbin/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", "", false},
		{"", "", false},
	}
	for _, test := range tests {
		if version, ok := parseVersion(test.out); version != test.version || ok != test.ok {
			t.Errorf("parseVersion(%q) = %q, %v; want %q, %v", test.out, version, ok, test.version, test.ok)
		}
	}
}
