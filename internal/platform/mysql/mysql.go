// Package mysql opens MySQL, MariaDB or TiDB the way that all of our services need it, runs transactions that are
// repeated when the database asks for it, holds named locks and migrates schemas.
//
// Every session speaks utf8mb4 and UTC in strict mode, whatever the server's defaults are: a value that does not fit is
// an error, never a truncated one. No call hangs forever: what its context does not end, a timeout of the connection does.
//
// A transaction given to [InTx] or [OneTrip] has been committed when they return nil and has not been when they return
// an error, with one exception: a connection that breaks while COMMIT is under way leaves the outcome open. The error
// is then [ErrOutcomeUnknown], and only the caller can find out, by looking for what it wrote.
//
// Query text and arguments reach no span, and the values that servers quote in some of their errors reach neither
// spans nor errors (see [Config.ErrorValues]).
package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/go-sql-driver/mysql"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

const (
	defaultMaxOpen        = 32
	defaultMaxLifetime    = 5 * time.Minute
	defaultConnectTimeout = 30 * time.Second

	// dialTimeout and ioTimeout bound what a context may not: connecting, and the silence of a connection.
	dialTimeout = 5 * time.Second
	ioTimeout   = 30 * time.Second

	// lockWaitSeconds bounds how long a statement waits for another transaction's row lock. The server does not see
	// that a waiting client has gone, so the default of 50 s would let abandoned transactions hold their locks for long.
	lockWaitSeconds = "10"
)

// Config tells which database to open and how. A field with its zero value has its default.
type Config struct {
	DSN            DSN           `name:"dsn" required:"" help:"MySQL, MariaDB or TiDB database: user:password@tcp(host:port)/database, such as app:secret@tcp(mysql:3306)/app. Parameters of go-sql-driver/mysql may follow, such as ?tls=true."`
	MaxOpen        uint          `default:"32" help:"Most connections to the database open at a time."`
	MaxIdle        uint          `default:"0" help:"Most connections kept open while idle; 0 keeps all."`
	MaxLifetime    time.Duration `default:"5m" help:"Age at which a connection is replaced, so that a failover or a new replica is noticed."`
	ConnectTimeout time.Duration `default:"30s" help:"How long a start waits for the database to come up."`
	ErrorValues    bool          `help:"Keep the values of rows that the database quotes in its errors. They reach logs and traces: for development only."`

	// MultiStatements allows several statements in one query, for transactions in one round trip (see [OneTrip]). It
	// is the program's choice, not its user's: with it, a query put together from a string can run anything.
	MultiStatements bool `kong:"-"`
	// LongStatements lifts the bound on the time that a statement may take without a word from the server. It is for
	// migrations, which need it when they rebuild a large table.
	LongStatements bool `kong:"-"`
}

// Open opens a pool of connections to a database and waits until the database answers, at most for
// cfg.ConnectTimeout, so that a service can start while its database restarts. A password that the database refuses
// or a schema that it does not have fails at once.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*sql.DB, error) {
	cfg = cfg.withDefaults()
	session, err := sessionConfig(cfg, log)
	if err != nil {
		return nil, err
	}
	base, err := mysql.NewConnector(session)
	if err != nil {
		return nil, errors.New("open MySQL: the DSN cannot be used")
	}
	connector := &connector{Connector: base, keepValues: cfg.ErrorValues}
	options := telemetryOptions(session)
	db := otelsql.OpenDB(connector, options...)
	db.SetMaxOpenConns(int(cfg.MaxOpen))
	db.SetMaxIdleConns(int(cfg.MaxIdle))
	db.SetConnMaxLifetime(cfg.MaxLifetime)

	connector.stats, err = otelsql.RegisterDBStatsMetrics(db, options...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register the metrics of the connection pool: %w", err), db.Close())
	}
	if err := awaitDatabase(ctx, db, cfg.ConnectTimeout, log); err != nil {
		return nil, errors.Join(fmt.Errorf("open MySQL at %s: %w", session.Addr, err), db.Close())
	}
	return db, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.MaxOpen == 0 {
		cfg.MaxOpen = defaultMaxOpen
	}
	if cfg.MaxIdle == 0 {
		// A pool that closes connections after each burst pays for the handshakes at the next one.
		cfg.MaxIdle = cfg.MaxOpen
	}
	if cfg.MaxLifetime == 0 {
		cfg.MaxLifetime = defaultMaxLifetime
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	return cfg
}

// sessionConfig returns what the driver needs to know. It overrides whatever of the DSN our code relies on.
func sessionConfig(cfg Config, log *slog.Logger) (*mysql.Config, error) {
	session, err := cfg.DSN.parse()
	if err != nil {
		return nil, fmt.Errorf("open MySQL: the DSN %w", err)
	}
	if err := session.Apply(mysql.Charset("utf8mb4", "utf8mb4_unicode_ci")); err != nil {
		return nil, fmt.Errorf("open MySQL: %w", err)
	}
	session.ParseTime = true
	session.Loc = time.UTC
	session.InterpolateParams = true
	session.MultiStatements = cfg.MultiStatements
	// A primary that has been demoted in a failover lives on as a replica: leave it instead of failing on it forever.
	session.RejectReadOnly = true
	session.CheckConnLiveness = true
	session.Logger = driverLogger{log}

	if session.Timeout == 0 {
		session.Timeout = dialTimeout
	}
	if session.WriteTimeout == 0 {
		session.WriteTimeout = ioTimeout
	}
	switch {
	case cfg.LongStatements:
		session.ReadTimeout = 0
	case session.ReadTimeout == 0:
		session.ReadTimeout = ioTimeout
	}

	if session.Params == nil {
		session.Params = map[string]string{}
	}
	session.Params["time_zone"] = "'+00:00'"
	session.Params["sql_mode"] = "'TRADITIONAL'"
	if session.Params["innodb_lock_wait_timeout"] == "" {
		session.Params["innodb_lock_wait_timeout"] = lockWaitSeconds
	}
	return session, nil
}

// telemetryOptions are what spans and metrics say about a database, which never includes a statement or an argument.
func telemetryOptions(session *mysql.Config) []otelsql.Option {
	return []otelsql.Option{
		otelsql.WithAttributes(
			attribute.String("db.system.name", "mysql"),
			attribute.String("db.namespace", session.DBName),
		),
		otelsql.WithSpanOptions(otelsql.SpanOptions{
			DisableQuery:         true,
			DisableErrSkip:       true,
			OmitConnResetSession: true,
			OmitRows:             true,
			// Without a parent there is no request to explain, only the hum of pings and sweepers.
			SpanFilter: func(ctx context.Context, _ otelsql.Method, _ string, _ []driver.NamedValue) bool {
				return trace.SpanContextFromContext(ctx).IsValid()
			},
		}),
	}
}

// awaitDatabase returns once the database answers, and an error when it has not within the timeout.
func awaitDatabase(ctx context.Context, db *sql.DB, timeout time.Duration, log *slog.Logger) error {
	const (
		firstPause  = 50 * time.Millisecond
		longestWait = time.Second
		pingTimeout = 2 * time.Second
		logInterval = 5 * time.Second
	)
	bound, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var lastLog time.Time
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		ping, done := context.WithTimeout(bound, pingTimeout)
		err := db.PingContext(ping)
		done()
		if err == nil {
			return nil
		}
		if isRefusal(err) {
			return err
		}
		if ctx.Err() == nil && time.Since(lastLog) >= logInterval {
			log.Warn("waiting for MySQL", "err", err)
			lastLog = time.Now()
		}
		select {
		case <-bound.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("%w while waiting for it: %w", ctx.Err(), err)
			}
			return fmt.Errorf("no answer within %s: %w", timeout, err)
		case <-time.After(pause):
		}
	}
}

// driverLogger takes what the driver tells. It tells nothing that its caller does not get as an error as well.
type driverLogger struct{ log *slog.Logger }

// Print implements mysql.Logger.
func (l driverLogger) Print(v ...any) { l.log.Debug("MySQL driver", "said", fmt.Sprint(v...)) }

// connector ends the pool's metrics with the pool: database/sql closes a connector that can be closed.
type connector struct {
	driver.Connector
	keepValues bool
	stats      metric.Registration
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil || c.keepValues {
		return conn, err
	}
	return withhold(conn)
}

// Close implements io.Closer.
func (c *connector) Close() error {
	if c.stats == nil {
		return nil
	}
	return c.stats.Unregister()
}
