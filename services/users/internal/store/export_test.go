package store

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	"chatapp.dev/services/users/internal/store/internal/db"
)

// Query is a statement that a Recorder has seen.
type Query struct {
	SQL  string
	Args []any
}

// Recorder keeps what a store asks outside of transactions.
type Recorder struct {
	db.DBTX

	mu      sync.Mutex
	queries []Query
}

// Record returns a store on the same database, and what tells its queries.
func (s *Store) Record() (*Store, *Recorder) {
	r := &Recorder{DBTX: s.db}
	return &Store{db: s.db, q: db.New(r)}, r
}

// Take returns the queries since the last call.
func (r *Recorder) Take(t *testing.T) []Query {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	queries := r.queries
	r.queries = nil
	return queries
}

func (r *Recorder) record(query string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queries = append(r.queries, Query{SQL: query, Args: args})
}

// ExecContext implements db.DBTX.
func (r *Recorder) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	r.record(query, args)
	return r.DBTX.ExecContext(ctx, query, args...)
}

// QueryContext implements db.DBTX.
func (r *Recorder) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	r.record(query, args)
	return r.DBTX.QueryContext(ctx, query, args...)
}

// QueryRowContext implements db.DBTX.
func (r *Recorder) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	r.record(query, args)
	return r.DBTX.QueryRowContext(ctx, query, args...)
}
