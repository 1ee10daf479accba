package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"chatapp.dev/internal/platform/mysqltest"
)

func TestSettingsAreReadWithAPrefix(t *testing.T) {
	t.Setenv("USERS_MYSQL_DSN", "app:secret@tcp(mysql)/app")
	t.Setenv("USERS_MYSQL_MAX_OPEN", "7")
	var cli struct {
		MySQL Config `embed:"" prefix:"mysql-"`
	}
	parser, err := kong.New(&cli, kong.DefaultEnvars("USERS"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"--mysql-connect-timeout=1m"}); err != nil {
		t.Fatal(err)
	}
	want := Config{
		DSN: "app:secret@tcp(mysql)/app", MaxOpen: 7, MaxLifetime: 5 * time.Minute, ConnectTimeout: time.Minute,
	}
	if cli.MySQL != want {
		t.Errorf("got %+v, want %+v", cli.MySQL, want)
	}
	if _, err := parser.Parse([]string{"--mysql-max-open=-1"}); err == nil {
		t.Error("a negative number of connections was taken")
	}
}

// What our code relies on must hold whatever the server and the DSN say.
func TestEverySessionHasTheSameSettings(t *testing.T) {
	dsn := mysqltest.DSN(t) + "&charset=latin1&sql_mode=''&time_zone='%2B05:00'&loc=Asia%2FTokyo&interpolateParams=false"
	db := openDB(t, Config{DSN: DSN(dsn)})
	var zone, mode, client, connection, lockWait string
	err := db.QueryRow(`SELECT @@time_zone, @@sql_mode, @@character_set_client, @@collation_connection, @@innodb_lock_wait_timeout`).
		Scan(&zone, &mode, &client, &connection, &lockWait)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{zone, client, connection, lockWait}
	if want := []string{"+00:00", "utf8mb4", "utf8mb4_unicode_ci", "10"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(mode, "STRICT_ALL_TABLES") {
		t.Errorf("the mode %s is not strict", mode)
	}

	mustExec(t, db, "CREATE TABLE things (name VARCHAR(4), made DATETIME(6), id BINARY(16))")
	id := []byte("\x00\x01'\\\"\xff0123456789")
	made := time.Date(2026, 3, 29, 1, 30, 0, 123456000, time.UTC)
	if _, err := db.Exec("INSERT INTO things VALUES (?, ?, ?)", "né🎉'", made.In(time.FixedZone("", 3600)), id); err != nil {
		t.Fatal(err)
	}
	var name string
	var gotMade time.Time
	var gotID []byte
	if err := db.QueryRow("SELECT * FROM things").Scan(&name, &gotMade, &gotID); err != nil {
		t.Fatal(err)
	}
	if name != "né🎉'" || gotMade != made || !bytes.Equal(gotID, id) {
		t.Errorf("got %q %v %x", name, gotMade, gotID)
	}
	if _, err := db.Exec("INSERT INTO things (name) VALUES ('too long')"); err == nil {
		t.Error("a value that does not fit was cut")
	}
}

func TestSeveralStatementsNeedTheProgramsConsent(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t) + "&multiStatements=true")
	if _, err := openDB(t, Config{DSN: dsn}).Exec("SELECT 1; SELECT 2"); err == nil {
		t.Error("the DSN allowed several statements")
	}
	if _, err := openDB(t, Config{DSN: dsn, MultiStatements: true}).Exec("SELECT 1; SELECT 2"); err != nil {
		t.Errorf("the program could not allow several statements: %v", err)
	}
}

func TestSilenceIsBounded(t *testing.T) {
	tests := []struct {
		name        string
		cfg         Config
		read, write time.Duration
	}{
		{"by default", Config{DSN: "/app"}, 30 * time.Second, 30 * time.Second},
		{"as the DSN says", Config{DSN: "/app?readTimeout=3s&writeTimeout=4s"}, 3 * time.Second, 4 * time.Second},
		{"not for long statements", Config{DSN: "/app?readTimeout=3s", LongStatements: true}, 0, 30 * time.Second},
	}
	for _, test := range tests {
		got, err := sessionConfig(test.cfg, discardLog)
		if err != nil {
			t.Fatal(err)
		}
		if got.ReadTimeout != test.read || got.WriteTimeout != test.write || got.Timeout != dialTimeout {
			t.Errorf("%s: read %v, write %v, dial %v", test.name, got.ReadTimeout, got.WriteTimeout, got.Timeout)
		}
	}
}

// notifier is a log that tells of its lines.
type notifier struct {
	slog.Handler
	lines chan string
}

func (notifier) Enabled(context.Context, slog.Level) bool { return true }

func (n notifier) Handle(_ context.Context, r slog.Record) error {
	select {
	case n.lines <- r.Message:
	default:
	}
	return nil
}

func TestAServiceStartsWhileItsDatabaseIsAway(t *testing.T) {
	dsn := mysqltest.DSN(t)
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := reserved.Addr().String()
	reserved.Close()

	server := cfg.Addr
	cfg.Addr = address
	lines := make(chan string, 1)
	log := slog.New(notifier{slog.DiscardHandler, lines})
	type opened struct {
		db  *sql.DB
		err error
	}
	result := make(chan opened, 1)
	go func() {
		db, err := Open(t.Context(), Config{DSN: DSN(cfg.FormatDSN())}, log)
		result <- opened{db, err}
	}()
	if line := <-lines; line != "waiting for MySQL" {
		t.Errorf("the log says %q", line)
	}
	startProxy(t, address, server, nil)
	got := <-result
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.db.Close()
}

func TestOpenFailsWhenNobodyAnswers(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dsn := DSN("app:hunter2@tcp(" + silent.Addr().String() + ")/app")

	_, err = Open(t.Context(), Config{DSN: dsn, ConnectTimeout: 50 * time.Millisecond}, discardLog)
	if err == nil || !strings.Contains(err.Error(), "no answer within 50ms") || !strings.Contains(err.Error(), silent.Addr().String()) {
		t.Errorf("got %v, want what was waited for", err)
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the password: %v", err)
	}

	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(stopped, Config{DSN: dsn}, discardLog); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if _, err := Open(t.Context(), Config{DSN: "nonsense"}, discardLog); err == nil {
		t.Error("a wrong DSN was opened")
	}
}

func TestOpenDoesNotWaitForADatabaseThatRefuses(t *testing.T) {
	cfg, err := mysql.ParseDSN(mysqltest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	stranger, elsewhere := cfg.Clone(), cfg.Clone()
	stranger.User, stranger.Passwd = "stranger", "hunter2"
	elsewhere.DBName = "no_such_database"
	for number, config := range map[uint16]*mysql.Config{errAccessDenied: stranger, errUnknownDatabase: elsewhere} {
		_, err := Open(t.Context(), Config{DSN: DSN(config.FormatDSN()), ConnectTimeout: time.Hour}, discardLog)
		var failure *mysql.MySQLError
		if !errors.As(err, &failure) || failure.Number != number {
			t.Errorf("got %v, want error %d", err, number)
		}
	}
}

func TestValuesReachNeitherErrorsNorSpans(t *testing.T) {
	const canary = "canary@example.com"
	spans := tracetest.NewSpanRecorder()
	previous := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	defer otel.SetTracerProvider(previous)

	db := openDB(t, Config{MultiStatements: true})
	mustExec(t, db, "CREATE TABLE users (id INT PRIMARY KEY, email VARCHAR(100), seen DATETIME, UNIQUE KEY users_by_email (email))")
	ctx, span := otel.Tracer("test").Start(t.Context(), "request")
	if _, err := db.ExecContext(ctx, "INSERT INTO users (id, email) VALUES (?, ?)", 1, canary); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		number uint16
		do     func() error
	}{
		{"duplicate", 1062, func() error {
			_, err := db.ExecContext(ctx, "INSERT INTO users (id, email) VALUES (2, ?)", canary)
			return err
		}},
		{"duplicate in a prepared statement", 1062, func() error {
			prepared, err := db.PrepareContext(ctx, "INSERT INTO users (id, email) VALUES (2, ?)")
			if err != nil {
				return err
			}
			defer prepared.Close()
			_, err = prepared.ExecContext(ctx, canary)
			return err
		}},
		{"duplicate in a transaction", 1062, func() error {
			return InTx(ctx, db, nil, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO users (id, email) VALUES (2, ?)", canary)
				return err
			})
		}},
		{"duplicate in a later statement of several", 1062, func() error {
			rows, err := db.QueryContext(ctx, "SELECT 1; INSERT INTO users (id, email) VALUES (2, ?)", canary)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.NextResultSet() {
			}
			return rows.Err()
		}},
		{"duplicate in what is not read", 1062, func() (err error) {
			rows, err := db.QueryContext(ctx, "SELECT 1; INSERT INTO users (id, email) VALUES (2, ?)", canary)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, rows.Close()) }()
			return rows.Err()
		}},
		{"wrong value", 1292, func() error {
			_, err := db.ExecContext(ctx, "INSERT INTO users (id, seen) VALUES (2, ?)", canary)
			return err
		}},
		{"syntax", 1064, func() error {
			return db.QueryRowContext(ctx, "SELECT FROM WHERE ?", canary).Err()
		}},
		{"unknown table", errNoSuchTable, func() error {
			_, err := db.ExecContext(ctx, "INSERT INTO nowhere VALUES (?)", canary)
			return err
		}},
	}
	for _, test := range tests {
		err := test.do()
		if number(err) != test.number {
			t.Errorf("%s: got %v, want error %d", test.name, err, test.number)
			continue
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error holds the value: %v", test.name, err)
		}
		if test.number == 1062 && DuplicateKey(err) != "users_by_email" {
			t.Errorf("%s: the error lost the key: %v", test.name, err)
		}
	}
	span.End()

	loud := openDB(t, Config{ErrorValues: true})
	if _, err := loud.Exec("SELECT FROM WHERE ?", canary); err == nil || !strings.Contains(err.Error(), canary) {
		t.Errorf("with ErrorValues: got %v, want the value", err)
	}

	names := map[string]bool{}
	for _, s := range spans.Ended() {
		names[s.Name()] = true
		if s.Name() != "request" && !s.Parent().IsValid() {
			t.Errorf("the span %s has no parent", s.Name())
		}
		// All that a span holds, whatever it is called.
		if text := fmt.Sprintf("%+v", tracetest.SpanStubFromReadOnlySpan(s)); strings.Contains(text, canary) || strings.Contains(text, "INSERT") {
			t.Errorf("the span %s holds a value or a statement: %s", s.Name(), text)
		}
	}
	for _, name := range []string{"sql.conn.exec", "sql.conn.query", "sql.tx.rollback"} {
		if !names[name] {
			t.Errorf("there is no span %s among %v", name, names)
		}
	}
}

func TestThePoolIsMeasuredUntilItIsClosed(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	previous := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	defer otel.SetMeterProvider(previous)

	// limits returns the most open connections of each pool that is measured.
	limits := func() (values []int64) {
		var collected metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &collected); err != nil {
			t.Fatal(err)
		}
		for _, scope := range collected.ScopeMetrics {
			for _, metric := range scope.Metrics {
				if gauge, ok := metric.Data.(metricdata.Gauge[int64]); ok && metric.Name == "db.sql.connection.max_open" {
					for _, point := range gauge.DataPoints {
						values = append(values, point.Value)
					}
				}
			}
		}
		return values
	}
	db, err := Open(t.Context(), Config{DSN: DSN(mysqltest.DSN(t)), MaxOpen: 3}, discardLog)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{3}, limits()); diff != "" {
		t.Errorf("open (-want +got)\n%s", diff)
	}
	db.Close()
	if diff := cmp.Diff([]int64(nil), limits()); diff != "" {
		t.Errorf("closed (-want +got)\n%s", diff)
	}
}

func TestADatabaseThatGoesAwayIsAConnectionErrorAndComesBack(t *testing.T) {
	server := mysqltest.Server(t)
	if err := server.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, Config{DSN: DSN(server.DSN("app")), MaxOpen: 4})
	mustExec(t, db, "CREATE TABLE counters (n INT)", "INSERT INTO counters VALUES (0)")

	// Connections that are used and ones that are idle when it happens, then new ones.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := db.Exec("SELECT SLEEP(60)"); !IsConnection(err) {
				t.Errorf("a statement that was cut off: got %v, want a connection error", err)
			}
		})
	}
	for scan[int](t, openDB(t, Config{DSN: DSN(server.DSN("app"))}), "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'") < 4 {
		time.Sleep(time.Millisecond)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	err := InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE counters SET n = n + 1")
		return err
	})
	if !IsConnection(err) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("while it is away: got %v, want a connection error", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "UPDATE counters SET n = n + 1")
	if n := scan[int](t, db, "SELECT n FROM counters"); n != 1 {
		t.Errorf("got %d updates, want 1", n)
	}
}
