package mysqltest

import (
	"database/sql"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestEachTestHasAnEmptyDatabaseThatIsDropped(t *testing.T) {
	names := map[string]bool{}
	for range 3 {
		t.Run("same name", func(t *testing.T) {
			dsn := DSN(t)
			cfg, err := mysql.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			names[cfg.DBName] = true
			if _, err := open(t, dsn).ExecContext(t.Context(), "CREATE TABLE t (id INT PRIMARY KEY)"); err != nil {
				t.Error(err)
			}
		})
	}
	if len(names) != 3 {
		t.Errorf("databases %v, want 3", names)
	}
	for name := range names {
		var n int
		err := open(t, DSN(t)).QueryRowContext(t.Context(),
			"SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", name).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			t.Errorf("database %s is still there", name)
		}
	}
}

func TestServerIsTheTestsOwn(t *testing.T) {
	server := Server(t)
	if err := server.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	shared, own := open(t, DSN(t)), open(t, server.DSN("app"))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := shared.PingContext(t.Context()); err != nil {
		t.Errorf("the shared server: %v", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := own.PingContext(t.Context()); err != nil {
		t.Errorf("the restarted server: %v", err)
	}
}

func TestDatabaseName(t *testing.T) {
	valid := regexp.MustCompile(`^test_[a-z0-9_]+_[0-9a-f]{12}$`)
	for _, name := range []string{"TestSend", "TestÜber/sub test#01", "Test" + strings.Repeat("Long", 40), "BenchmarkSend`; --"} {
		got := databaseName(name)
		if !valid.MatchString(got) || len(got) > 64 {
			t.Errorf("databaseName(%q) = %q", name, got)
		}
		if got == databaseName(name) {
			t.Errorf("databaseName(%q) is the same twice", name)
		}
	}
}
