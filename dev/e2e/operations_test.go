package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/ids"
)

// withSchema are the services that have a schema.
var withSchema = []string{"users", "messages"}

// database makes an empty database for a service, and returns the setting that names it and a connection to it.
func database(t *testing.T, service string) (setting string, db *sql.DB) {
	t.Helper()
	mysql := world.server(t)
	name := "e2e_" + service + "_" + strings.ReplaceAll(ids.New().String(), "-", "")
	if err := mysql.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", mysql.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return strings.ToUpper(service) + "_MYSQL_DSN=" + mysql.DSN(name), db
}

// schema describes a database: its columns, its indexes and which migrations are recorded.
func schema(t *testing.T, db *sql.DB) []string {
	t.Helper()
	var lines []string
	for _, query := range []string{
		`SELECT CONCAT_WS(' ', table_name, ordinal_position, column_name, column_type, is_nullable, collation_name, column_default)
			FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position`,
		`SELECT CONCAT_WS(' ', table_name, index_name, seq_in_index, column_name, non_unique)
			FROM information_schema.statistics WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index`,
		`SELECT version FROM schema_migrations ORDER BY version`,
	} {
		lines = append(lines, texts(t, db, query)...)
	}
	return lines
}

// texts returns the one column of a query.
func texts(t *testing.T, db *sql.DB, query string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// migrate runs a service's migrations to their end.
func migrate(t *testing.T, service, setting string) {
	t.Helper()
	programs, _ := world.open(t)
	if err := programs.Run(t.Context(), []string{setting}, service, "migrate"); err != nil {
		t.Fatal(err)
	}
}

// migrated returns the schema that a service's migrations make when nothing disturbs them.
func migrated(t *testing.T, service string) []string {
	t.Helper()
	setting, db := database(t, service)
	migrate(t, service, setting)
	return schema(t, db)
}

func TestMigrationsRunTwiceMakeTheSameSchema(t *testing.T) {
	t.Parallel()
	for _, service := range withSchema {
		setting, db := database(t, service)
		migrate(t, service, setting)
		once := schema(t, db)
		migrate(t, service, setting)
		if diff := cmp.Diff(once, schema(t, db)); diff != "" {
			t.Errorf("the second run of %s changes the schema:\n%s", service, diff)
		}
	}
}

func TestMigrationsRunBySeveralProcessesAtOnceMakeTheSameSchema(t *testing.T) {
	t.Parallel()
	programs, _ := world.open(t)
	for _, service := range withSchema {
		want := migrated(t, service)
		setting, db := database(t, service)
		errs := make([]error, 4)
		parallel(len(errs), func(i int) { errs[i] = programs.Run(t.Context(), []string{setting}, service, "migrate") })
		if err := errors.Join(errs...); err != nil {
			t.Errorf("of several runs at once: %v", err)
		}
		if diff := cmp.Diff(want, schema(t, db)); diff != "" {
			t.Errorf("several runs of %s at once make another schema than one:\n%s", service, diff)
		}
	}
}

func TestMigrationsKilledHalfwayAndRunAgainMakeTheSameSchema(t *testing.T) {
	t.Parallel()
	programs, _ := world.open(t)
	for _, service := range withSchema {
		want := migrated(t, service)
		setting, _ := database(t, service)
		begun := time.Now()
		migrate(t, service, setting)
		whole := time.Since(begun)
		killed, reached := 0, map[int]bool{}
		for range 12 {
			setting, db := database(t, service)
			// Several kills on one schema, each somewhere in what a whole run takes.
			for range 2 {
				cmd := programs.Command(t.Context(), []string{setting}, service, "migrate")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(rand.N(whole))
				if err := cmd.Process.Kill(); err == nil {
					killed++
				}
				_ = cmd.Wait() // It was killed, or was faster.
				reached[tables(t, db)] = true
			}
			migrate(t, service, setting)
			if diff := cmp.Diff(want, schema(t, db)); diff != "" {
				t.Fatalf("after kills, %s makes another schema:\n%s", service, diff)
			}
		}
		t.Logf("%s: %d runs killed; numbers of tables that they left: %v", service, killed, reached)
	}
}

// tables counts a database's tables.
func tables(t *testing.T, db *sql.DB) int {
	t.Helper()
	var n int
	err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAServiceStartedOnAnOlderSchemaSaysSoAndDoesNotServe(t *testing.T) {
	t.Parallel()
	programs, _ := world.open(t)
	key := filepath.Join(keptDir(t), "key.pem")
	if err := programs.Run(t.Context(), nil, "users", "keys", "generate", key); err != nil {
		t.Fatal(err)
	}
	for _, service := range withSchema {
		for _, older := range []string{"empty", "last migration missing"} {
			setting, db := database(t, service)
			if older != "empty" {
				migrate(t, service, setting)
				if _, err := db.ExecContext(t.Context(), "DELETE FROM schema_migrations ORDER BY version DESC LIMIT 1"); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			prefix := strings.ToUpper(service)
			out, err := programs.Command(ctx, []string{
				setting, prefix + "_RPC_LISTEN=127.0.0.1:0", prefix + "_ADMIN_LISTEN=127.0.0.1:0", "USERS_SIGNING_KEYS=" + key,
			}, service, "serve").CombinedOutput()
			var exit *exec.ExitError
			if ctx.Err() != nil || !errors.As(err, &exit) || exit.ExitCode() <= 0 {
				t.Errorf("%s on a schema that is %s ended with %v", service, older, err)
			}
			cancel()
			if !strings.Contains(string(out), "schema is too old") || !strings.Contains(string(out), service+" migrate") {
				t.Errorf("%s on a schema that is %s says\n%s\nwant that the schema is too old and what to run", service, older, out)
			}
			if strings.Contains(string(out), "serves") {
				t.Errorf("%s on a schema that is %s serves:\n%s", service, older, out)
			}
		}
	}
}

func TestAWrongSettingStopsTheStartInUnderASecondWithOneLineNamingIt(t *testing.T) {
	programs, mysql := world.open(t)
	key := filepath.Join(keptDir(t), "key.pem")
	if err := programs.Run(t.Context(), nil, "users", "keys", "generate", key); err != nil {
		t.Fatal(err)
	}
	good := map[string][]string{
		"users":    {"USERS_MYSQL_DSN=" + mysql.DSN("users"), "USERS_SIGNING_KEYS=" + key},
		"messages": {"MESSAGES_MYSQL_DSN=" + mysql.DSN("messages")},
		"graph":    nil,
	}
	tests := []struct{ service, setting, value, flag string }{
		{"users", "USERS_MYSQL_DSN", "mysql://root@localhost/users", "--mysql-dsn"},
		{"users", "USERS_MYSQL_DSN", "root:hunter2@tcp(localhost:3306", "--mysql-dsn"},
		{"users", "USERS_MYSQL_DSN", "", "--mysql-dsn"},
		{"users", "USERS_LOG_LEVEL", "loud", "--log-level"},
		{"users", "USERS_RPC_LISTEN", "127.0.0.1:65536", "--rpc-listen"},
		{"users", "USERS_SIGNING_KEYS", "/nowhere.pem", "--signing-keys"},
		{"users", "USERS_TOKEN_TTL", "soon", "--token-ttl"},
		{"users", "USERS_REDIS", "localhost:6379", "--redis"},
		{"messages", "MESSAGES_MYSQL_DSN", "localhost", "--mysql-dsn"},
		{"messages", "MESSAGES_LOG_LEVEL", "", "--log-level"},
		{"messages", "MESSAGES_RPC_LISTEN", "127.0.0.1:-1", "--rpc-listen"},
		{"messages", "MESSAGES_ADMIN_LISTEN", "9102", "--admin-listen"},
		{"messages", "MESSAGES_REDIS", "localhost:6379", "--redis"},
		{"messages", "MESSAGES_LOG_RETENTION", "-1h", "--log-retention"},
		{"graph", "GRAPH_LISTEN", ":99999", "--listen"},
		{"graph", "GRAPH_LOG_LEVEL", "trace", "--log-level"},
		{"graph", "GRAPH_LOG_FORMAT", "xml", "--log-format"},
		{"graph", "GRAPH_REDIS", "http://localhost", "--redis"},
		{"graph", "GRAPH_PAGE_SIZE", "many", "--page-size"},
		{"graph", "GRAPH_PAGE_SIZE", "101", "--page-size"},
		{"graph", "GRAPH_MESSAGES", "messages", "--messages"},
		{"graph", "GRAPH_REVOCATION_POLL_INTERVAL", "31s", "--revocation-poll-interval"},
	}
	for _, tt := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		begun := time.Now()
		cmd := programs.Command(ctx, append(slices.Clone(good[tt.service]), tt.setting+"="+tt.value), tt.service, "serve")
		out, err := cmd.CombinedOutput()
		took := time.Since(begun)
		cancel()
		name := fmt.Sprintf("%s with %s=%q", tt.service, tt.setting, tt.value)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%s ended with %v, want exit status 2; it said\n%s", name, err, out)
		}
		if took >= time.Second {
			t.Errorf("%s took %v to stop", name, took)
		}
		if text := string(out); strings.Count(text, "\n") != 1 || !strings.Contains(text, tt.setting) || !strings.Contains(text, tt.flag) {
			t.Errorf("%s says\n%s\nwant one line that names %s and %s", name, text, tt.setting, tt.flag)
		}
		if strings.Contains(string(out), "hunter2") {
			t.Errorf("%s shows the password: %s", name, out)
		}
	}
}
