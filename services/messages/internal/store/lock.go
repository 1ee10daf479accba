package store

import (
	"context"
	"database/sql"
	"fmt"
)

// Lock is a named lock that this process holds among all that use the same schema. It is as good as its connection:
// when that is lost, so is the lock.
type Lock struct {
	conn *sql.Conn
	name string
}

// TryLock takes a named lock, or returns nil when another process has it.
func (s *Store) TryLock(ctx context.Context, name string) (*Lock, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lock %s: %w", name, err)
	}
	var (
		full  string
		taken sql.NullInt64
	)
	// Names are the whole server's, so they hold a hash of the schema's.
	err = conn.QueryRowContext(ctx, "SELECT CONCAT('chatapp.', ?, '.', LEFT(SHA1(DATABASE()), 16))", name).Scan(&full)
	if err == nil {
		err = conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 0)", full).Scan(&taken)
	}
	if err != nil || taken.Int64 != 1 {
		_ = conn.Close()
		if err != nil {
			return nil, fmt.Errorf("take lock %s: %w", name, err)
		}
		return nil, nil
	}
	return &Lock{conn: conn, name: full}, nil
}

// Check returns an error when the lock's connection, and the lock with it, is lost.
func (l *Lock) Check(ctx context.Context) error {
	if err := l.conn.PingContext(ctx); err != nil {
		return fmt.Errorf("lock %s is lost: %w", l.name, err)
	}
	return nil
}

// Release gives the lock and its connection back.
func (l *Lock) Release(ctx context.Context) {
	// Should this fail, the server releases the lock when it finds the connection gone.
	_, _ = l.conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK(?)", l.name)
	_ = l.conn.Close()
}
