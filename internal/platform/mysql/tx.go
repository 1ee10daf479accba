package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxAttempts bounds how often a transaction is run. Rows contended this hard need another design, not patience.
	maxAttempts = 8
	firstPause  = 2 * time.Millisecond
	longestWait = 200 * time.Millisecond

	// rollbackTimeout bounds the rollback of a transaction whose own context may have ended.
	rollbackTimeout = 2 * time.Second
)

// Retry runs f, and runs it again, after a pause that grows, while its error is one that [IsRetryable] knows. F must
// leave nothing of a failed run behind: an open transaction is [InTx]'s and [OneTrip]'s to end. It gives up after a few
// attempts, or when ctx ends.
func Retry(ctx context.Context, f func() error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || !IsRetryable(err) {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("gave up after %d attempts: %w", attempt, err)
		}
		trace.SpanFromContext(ctx).AddEvent("transaction run again", trace.WithAttributes(
			attribute.Int("attempt", attempt), attribute.Int("db.response.status_code", int(number(err)))))

		// The whole pause is random: those who collided would otherwise do so again.
		timer := time.NewTimer(rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w after %d attempts: %w", ctx.Err(), attempt, err)
		case <-timer.C:
		}
		pause = min(2*pause, longestWait)
	}
}

// InTx runs f in a transaction and commits it. After any error, f's own included, it rolls back; after one that
// [IsRetryable] knows, it runs all of it again, so f must start from nothing each time. Opts may be nil.
//
// An error that is [ErrOutcomeUnknown] leaves open whether the transaction was committed; after any other it was not.
func InTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, f func(*sql.Tx) error) error {
	return Retry(ctx, func() error { return inTxOnce(ctx, db, opts, f) })
}

func inTxOnce(ctx context.Context, db *sql.DB, opts *sql.TxOptions, f func(*sql.Tx) error) (err error) {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin the transaction: %w", err)
	}
	// After a commit this does nothing. After anything else, a panic included, the connection must not go back to the
	// pool with a transaction open; when it cannot be rolled back, database/sql closes it, and the server rolls back.
	defer func() {
		if rollbackErr := tx.Rollback(); rollbackErr != nil && !errors.Is(rollbackErr, sql.ErrTxDone) && !IsConnection(rollbackErr) {
			err = errors.Join(err, fmt.Errorf("roll back: %w", rollbackErr))
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	switch err := tx.Commit(); {
	case err == nil:
		return nil
	case isUnknown(err):
		return fmt.Errorf("commit: %w: %w", ErrOutcomeUnknown, err)
	default:
		return fmt.Errorf("commit: %w", err)
	}
}

// OneTrip runs f with a connection of its own, for a transaction that is sent as one query of several statements,
// BEGIN and COMMIT included (see [Config.MultiStatements]): the whole of it then costs one round trip. The server stops
// at the first statement that fails and leaves the transaction open, so OneTrip rolls back after any error, and runs f
// again after one that [IsRetryable] knows. F must have closed its rows when it returns.
//
// An error that is [ErrOutcomeUnknown] leaves open whether f's transaction was committed: its connection broke, or ctx
// ended, before the server's answer was in. After any other error the transaction was not committed, if COMMIT is the
// last statement that f sends.
func OneTrip(ctx context.Context, db *sql.DB, f func(*sql.Conn) error) error {
	return Retry(ctx, func() error { return oneTripOnce(ctx, db, f) })
}

func oneTripOnce(ctx context.Context, db *sql.DB, f func(*sql.Conn) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("take a connection: %w", err)
	}
	clean := false
	defer func() {
		if !clean {
			discard(conn)
		}
		conn.Close()
	}()
	err = f(conn)
	if err == nil {
		clean = true
		return nil
	}
	// The context may have ended, but the connection is worth saving.
	rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, rollbackErr := conn.ExecContext(rollback, "ROLLBACK")
	clean = rollbackErr == nil
	if isUnknown(err) || (ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// isUnknown says whether a commit that ended in err may have reached the server.
func isUnknown(err error) bool {
	// The driver's ErrBadConn promises that nothing of the query was sent, or that it was refused.
	return IsConnection(err) && !errors.Is(err, driver.ErrBadConn)
}

// discard makes sure that a connection is closed rather than put back into the pool, with whatever it holds: an open
// transaction, a lock, changed session variables.
func discard(conn *sql.Conn) {
	// database/sql drops a connection that is reported to be bad. The error is the one given, or that it was bad already.
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}
