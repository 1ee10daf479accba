// Package mysqltest gives tests empty databases on a real server.
//
// A package whose tests need MySQL has this TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }
//
// The first call of DSN starts a private MariaDB that all tests of the process share, each in a database of its own, so
// that they may run in parallel. With CHATAPP_TEST_MYSQL_DSN set, the databases are made on that server instead: this is
// how the same tests run on TiDB. A test never skips: without a server it fails and says what to install.
package mysqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/mariadb"
)

// EnvDSN names the environment variable with the DSN of a server to use instead of a private one. Its user needs the
// right to create and drop databases; the database in it is not used.
const EnvDSN = "CHATAPP_TEST_MYSQL_DSN"

const (
	startTimeout = 2 * time.Minute // The very first start on a machine makes the template.
	sqlTimeout   = time.Minute
)

// Main runs the tests of a package and then stops the server that they started, if any. It returns the exit code.
func Main(m *testing.M) int {
	shared.inMain = true
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "mysqltest:", err)
		return max(code, 1)
	}
	return code
}

// DSN makes an empty database in utf8mb4 and returns its data source name for go-sql-driver/mysql, with parseTime. The
// database is dropped at the end of the test.
func DSN(t testing.TB) string {
	t.Helper()
	if !shared.inMain {
		t.Fatal("mysqltest: the package needs func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }")
	}
	admin, cfg, err := shared.open()
	if err != nil {
		t.Fatalf("mysqltest: %v", err)
	}
	name := databaseName(t.Name())
	ctx, cancel := context.WithTimeout(t.Context(), sqlTimeout)
	defer cancel()
	create := "CREATE DATABASE `" + name + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
	if _, err := admin.ExecContext(ctx, create); err != nil {
		t.Fatalf("mysqltest: create a database: %v", err)
	}
	t.Cleanup(func() {
		// The context of the test has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), sqlTimeout)
		defer cancel()
		if _, err := admin.ExecContext(ctx, "DROP DATABASE `"+name+"`"); err != nil {
			t.Errorf("mysqltest: drop the test's database: %v", err)
		}
	})
	cfg = cfg.Clone()
	cfg.DBName = name
	return cfg.FormatDSN()
}

// Server starts a MariaDB for this test alone, which may kill and restart it without disturbing others, and stops it at
// the end of the test. It has no database yet (see mariadb.Server.CreateDatabase). It is a MariaDB whatever
// CHATAPP_TEST_MYSQL_DSN says, since a server that somebody else started cannot be restarted.
func Server(t testing.TB) *mariadb.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	server, err := mariadb.Start(ctx, mariadb.Options{Fast: true})
	if err != nil {
		t.Fatalf("mysqltest: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("mysqltest: stop MariaDB: %v", err)
		}
	})
	return server
}

var shared process

// process is what the tests of this process share.
type process struct {
	inMain bool // Written before the tests run.

	once   sync.Once
	server *mariadb.Server // Nil with EnvDSN.
	admin  *sql.DB
	cfg    *mysql.Config
	err    error
}

// open returns a pool of administrative connections and how tests connect; the first call starts the server.
func (p *process) open() (*sql.DB, *mysql.Config, error) {
	p.once.Do(func() { p.err = p.start() })
	return p.admin, p.cfg, p.err
}

func (p *process) start() error {
	dsn := os.Getenv(EnvDSN)
	if dsn == "" {
		// Not the context of the test that happens to come first: the server outlives it.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		server, err := mariadb.Start(ctx, mariadb.Options{Fast: true})
		if err != nil {
			return err
		}
		p.server = server
		dsn = server.DSN("")
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return fmt.Errorf("parse %s: %w", EnvDSN, err)
	}
	cfg.DBName, cfg.ParseTime = "", true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return fmt.Errorf("%s: %w", EnvDSN, err)
	}
	p.cfg, p.admin = cfg, sql.OpenDB(connector)
	return nil
}

func (p *process) close() error {
	var errs []error
	if p.admin != nil {
		errs = append(errs, p.admin.Close())
	}
	if p.server != nil {
		errs = append(errs, p.server.Stop())
	}
	return errors.Join(errs...)
}

// databaseName makes a name that tells which test made the database, within MySQL's 64 characters, and that no other
// process on the same server makes.
func databaseName(test string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '_'
		}
	}, strings.TrimPrefix(test, "Test"))
	var unique [6]byte
	rand.Read(unique[:]) // It never fails.
	return "test_" + readable[:min(len(readable), 40)] + "_" + hex.EncodeToString(unique[:])
}
