package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/users/internal/store/internal/db"
)

const (
	// RevocationOverlap is how far readers of the revocations go back behind the newest that they have seen. A
	// revocation is stamped when its statement begins and seen when it is committed, which a lock, a replica or a slow
	// disk can delay. One that was acknowledged took no longer than a call may, a fraction of this; the rest is for a
	// new primary whose clock differs.
	RevocationOverlap = 5 * time.Minute
	// tokenGrace is how much longer than its end a token may be accepted: by clocks that differ, in the first place.
	tokenGrace = time.Minute
)

// Session is what an account is used in from one sign-in to its end.
type Session struct {
	ID, UserID ids.ID
	CreatedAt  time.Time
	// ExpiresAt is when the session's last access token ends, and the session by itself.
	ExpiresAt time.Time
}

// RevokedSession is a session that was ended before it expires.
type RevokedSession struct {
	ID        ids.ID
	ExpiresAt time.Time
}

// RevocationPosition is a place in the list of revoked sessions, behind the one with this id that was revoked at this
// time by the database's clock. The zero value is the beginning.
type RevocationPosition struct {
	RevokedAt time.Time
	ID        ids.ID
}

// Revocations is a page of the list of revoked sessions.
type Revocations struct {
	// Sessions are in the order in which they were revoked.
	Sessions []RevokedSession
	// Next is where the next page begins if there are More, and where to read on later if not: RevocationOverlap
	// behind the end.
	Next RevocationPosition
	More bool
}

// CreateSession stores a session of an account that exists.
func (s *Store) CreateSession(ctx context.Context, session Session) error {
	if err := s.q.InsertSession(ctx, db.InsertSessionParams(session)); err != nil {
		return fmt.Errorf("insert session: %w", err)
	}
	return nil
}

// CreateSessions stores many sessions of accounts that exist. It serves development.
func (s *Store) CreateSessions(ctx context.Context, sessions []Session) error {
	args := make([]any, 0, 4*len(sessions))
	for _, session := range sessions {
		args = append(args, session.ID, session.UserID, session.CreatedAt, session.ExpiresAt)
	}
	_, err := s.db.ExecContext(ctx, "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES "+
		rowsOf("(?, ?, ?, ?)", len(sessions)), args...)
	if err != nil {
		return fmt.Errorf("insert sessions: %w", err)
	}
	return nil
}

// RevokeSession ends a session, which is stored if it is not: it may have begun before sessions were. The session must
// be as a token of it says; CreatedAt is only for one that has to be stored.
//
// Each time is stamped anew: had the first attempt's commit been delayed for longer than RevocationOverlap, so that
// nobody found it, the repeat that is acknowledged in the end will be found.
func (s *Store) RevokeSession(ctx context.Context, session Session) error {
	err := mysql.Retry(ctx, func() error { return s.q.RevokeSession(ctx, db.RevokeSessionParams(session)) })
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

// Revocations reads a page of the revoked sessions that have not expired. Whoever reads all pages, and from the last
// one's Next later, sees every revocation that was acknowledged, those of the last minutes repeatedly.
func (s *Store) Revocations(ctx context.Context, after RevocationPosition, limit int) (Revocations, error) {
	now := time.Now().UTC()
	from := after.RevokedAt
	if from.IsZero() {
		// A date that every server takes for one.
		from = time.UnixMicro(0).UTC()
	}
	rows, err := s.q.Revocations(ctx, db.RevocationsParams{
		RevokedAt:    sql.NullTime{Time: from, Valid: true},
		AfterID:      after.ID,
		ExpiresAfter: now.Add(-tokenGrace),
		Limit:        int32(limit) + 1, // The one more tells whether a page follows.
	})
	if err != nil {
		return Revocations{}, fmt.Errorf("list revocations: %w", err)
	}
	page := Revocations{Next: after, More: len(rows) > limit}
	if page.More {
		rows = rows[:limit]
	}
	page.Sessions = make([]RevokedSession, len(rows))
	for i, row := range rows {
		page.Sessions[i] = RevokedSession{ID: row.ID, ExpiresAt: row.ExpiresAt}
	}
	if len(rows) == 0 {
		return page, nil
	}
	last := rows[len(rows)-1]
	page.Next = RevocationPosition{RevokedAt: last.RevokedAt.Time, ID: last.ID}
	if !page.More {
		// A stamp from the future, by a clock that was set right since, must not hide what comes until then.
		end := page.Next.RevokedAt
		if end.After(now) {
			end = now
		}
		page.Next = RevocationPosition{RevokedAt: end.Add(-RevocationOverlap)}
	}
	return page, nil
}

// DeleteSessions deletes sessions that expired before a time, the oldest first, at most as many as the limit, and
// returns how many. Several may do so at once.
func (s *Store) DeleteSessions(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	err = mysql.Retry(ctx, func() error {
		n, err := s.q.DeleteSessions(ctx, db.DeleteSessionsParams{ExpiresAt: before, Limit: int32(limit)})
		deleted = int(n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete sessions: %w", err)
	}
	return deleted, nil
}
