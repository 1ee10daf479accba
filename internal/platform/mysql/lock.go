package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// ErrLocked says that somebody else held a lock for as long as was waited for it.
var ErrLocked = errors.New("the lock is held by another session")

// longestLockWait is how long one call asks the server to wait, so that no bound on a silent connection strikes.
const longestLockWait = 5 * time.Second

// Lock is a named lock that the server holds for one session, on a connection of its own. It is lost with that
// connection, which is not replaced: [Lock.Check] then fails for good.
//
// Some clusters keep such locks on the node that granted them, so two holders on two nodes are possible. What a lock
// protects must at worst be wasteful when that happens, never wrong.
type Lock struct {
	conn *sql.Conn
	name string
}

// AcquireLock takes the lock for a purpose in the database that db is connected to, waiting for it at most as long as
// said; zero asks once. It returns [ErrLocked] when another session has it.
func AcquireLock(ctx context.Context, db *sql.DB, purpose string, wait time.Duration) (*Lock, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a connection for the lock %q: %w", purpose, err)
	}
	lock := &Lock{conn: conn}
	if err := lock.acquire(ctx, purpose, wait); err != nil {
		if errors.Is(err, ErrLocked) {
			// Nothing is held on the connection. Those who ask again and again shall not cost the pool one each time.
			conn.Close()
		} else {
			lock.drop()
		}
		return nil, fmt.Errorf("take the lock %q: %w", purpose, err)
	}
	return lock, nil
}

func (l *Lock) acquire(ctx context.Context, purpose string, wait time.Duration) error {
	var database string
	if err := l.conn.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&database); err != nil {
		return err
	}
	l.name = lockName(purpose, database)
	deadline := time.Now().Add(wait)
	for {
		ask := min(time.Until(deadline), longestLockWait)
		seconds := max(0, int64((ask+time.Second-1)/time.Second)) // Servers know whole seconds only.
		var got sql.NullInt64
		if err := l.conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", l.name, seconds).Scan(&got); err != nil {
			return err
		}
		switch {
		case !got.Valid:
			return errors.New("the server could not wait for it")
		case got.Int64 == 1:
			return nil
		case !time.Now().Before(deadline):
			return ErrLocked
		}
	}
}

// lockName returns the server's name for a lock. Names are shared by all databases of a server, and some servers take
// no more than 64 characters.
func lockName(purpose, database string) string {
	hash := sha256.Sum256([]byte(database))
	return purpose + ":" + hex.EncodeToString(hash[:16])
}

// Conn returns the connection that holds the lock. What runs on it runs under the lock for certain: even when this
// process dies, the server keeps the lock until the connection's last statement has ended.
func (l *Lock) Conn() *sql.Conn { return l.conn }

// Check returns an error when the lock has been lost, or may have been.
func (l *Lock) Check(ctx context.Context) error {
	if err := l.conn.PingContext(ctx); err != nil {
		return fmt.Errorf("the connection that holds a lock: %w", err)
	}
	return nil
}

// Release gives the lock back and closes its connection. It does so even when ctx has ended.
func (l *Lock) Release(ctx context.Context) {
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	// Closing the connection releases the lock as well, but later: the server has to notice.
	_, _ = l.conn.ExecContext(bound, "DO RELEASE_LOCK(?)", l.name)
	l.drop()
}

// drop closes the connection for good.
func (l *Lock) drop() {
	discard(l.conn)
	l.conn.Close()
}
