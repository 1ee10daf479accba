package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/users/internal/store"
)

// session makes a session that is not stored yet and lasts for an hour.
func session(user ids.ID) store.Session { return sessionFor(user, time.Hour) }

func sessionFor(user ids.ID, ttl time.Duration) store.Session {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return store.Session{ID: ids.New(), UserID: user, CreatedAt: now, ExpiresAt: now.Add(ttl)}
}

// begin stores sessions of users of their own.
func begin(t *testing.T, s *store.Store, n int) []store.Session {
	t.Helper()
	all := make([]store.Session, n)
	for i := range all {
		all[i] = session(ids.New())
		if err := s.CreateSession(t.Context(), all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func revoke(t *testing.T, s *store.Store, sessions ...store.Session) {
	t.Helper()
	for _, session := range sessions {
		if err := s.RevokeSession(t.Context(), session); err != nil {
			t.Fatal(err)
		}
	}
}

// readOn reads the revocations from a place to their end, in pages, and returns the place from which to read on later.
func readOn(
	t *testing.T, s *store.Store, after store.RevocationPosition, limit int,
) (found []store.RevokedSession, next store.RevocationPosition) {
	t.Helper()
	for {
		page, err := s.Revocations(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Sessions) > limit || (page.More && len(page.Sessions) != limit) {
			t.Errorf("a page of %d has %d sessions, and more: %t", limit, len(page.Sessions), page.More)
		}
		found = append(found, page.Sessions...)
		after = page.Next
		if !page.More {
			return found, after
		}
	}
}

// revoked is how the sessions are listed.
func revoked(sessions ...store.Session) []store.RevokedSession {
	list := make([]store.RevokedSession, len(sessions))
	for i, session := range sessions {
		list[i] = store.RevokedSession{ID: session.ID, ExpiresAt: session.ExpiresAt}
	}
	return list
}

func TestARevokedSessionIsListedUntilItsTokensHaveEnded(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	if list, _ := readOn(t, s, store.RevocationPosition{}, 10); len(list) != 0 {
		t.Errorf("of no session, %v are revoked", list)
	}
	live := begin(t, s, 3)
	if list, _ := readOn(t, s, store.RevocationPosition{}, 10); len(list) != 0 {
		t.Errorf("sessions are listed that were not revoked: %v", list)
	}
	justEnded, longEnded := sessionFor(ids.New(), -30*time.Second), sessionFor(ids.New(), -2*time.Minute)
	for _, ended := range []store.Session{justEnded, longEnded} {
		if err := s.CreateSession(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
	}
	revoke(t, s, live[1], longEnded, justEnded)
	list, _ := readOn(t, s, store.RevocationPosition{}, 10)
	if diff := cmp.Diff(revoked(live[1], justEnded), list); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
}

func TestRevokingAgainChangesNothingButTheStampAndNobodyElsesSession(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	all := begin(t, s, 2)
	other := session(all[0].UserID) // Another device of the same person.
	if err := s.CreateSession(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	stamp := func() (at time.Time) {
		t.Helper()
		err := database.QueryRowContext(t.Context(), "SELECT revoked_at FROM sessions WHERE id = ?", all[0].ID).Scan(&at)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	revoke(t, s, all[0])
	first := stamp()
	again := all[0]
	again.CreatedAt = again.CreatedAt.Add(time.Minute)
	revoke(t, s, again)
	if !stamp().After(first) {
		t.Errorf("the repeat is not stamped anew: %v, then %v", first, stamp())
	}
	if n := count(t, database, "SELECT COUNT(*) FROM sessions WHERE revoked_at IS NOT NULL"); n != 1 {
		t.Errorf("%d sessions are revoked, want 1", n)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM sessions WHERE id = ? AND user_id = ? AND created_at = ? AND expires_at = ?",
		all[0].ID, all[0].UserID, all[0].CreatedAt, all[0].ExpiresAt); n != 1 {
		t.Error("revoking has changed what the session was")
	}
}

func TestASessionFromBeforeSessionsWereStoredCanBeRevoked(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	old := session(ids.New())
	revoke(t, s, old, old)
	list, _ := readOn(t, s, store.RevocationPosition{}, 10)
	if diff := cmp.Diff(revoked(old), list); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
}

func TestPagesHaveEachRevocationOnceInOrder(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	all := begin(t, s, 30)
	revoke(t, s, all...)
	// Those of one moment are told apart by their ids alone, wherever pages are cut.
	for i, session := range all {
		exec(t, database, "UPDATE sessions SET revoked_at = ? WHERE id = ?", created.Add(time.Duration(i/7)*time.Second), session.ID)
	}
	for _, limit := range []int{1, 2, 7, 10, 29, 30, 31} {
		list, next := readOn(t, s, store.RevocationPosition{}, limit)
		if diff := cmp.Diff(revoked(all...), list); diff != "" {
			t.Errorf("in pages of %d (-want +got):\n%s", limit, diff)
		}
		if want := created.Add(4*time.Second - store.RevocationOverlap); !next.RevokedAt.Equal(want) || !next.ID.IsZero() {
			t.Errorf("in pages of %d: it goes on behind %v, want %v", limit, next, want)
		}
	}
}

func TestARevocationThatIsCommittedLateIsFoundAllTheSame(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	all := begin(t, s, 2)
	late, early := all[0], all[1]
	tx, err := database.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "UPDATE sessions SET revoked_at = NOW(6) WHERE id = ?", late.ID); err != nil {
		t.Fatal(err)
	}
	revoke(t, s, early)
	list, next := readOn(t, s, store.RevocationPosition{}, 10)
	if diff := cmp.Diff(revoked(early), list); diff != "" {
		t.Errorf("before the commit (-want +got):\n%s", diff)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		list, next = readOn(t, s, next, 10)
		if diff := cmp.Diff(revoked(late, early), list); diff != "" {
			t.Errorf("after the commit (-want +got):\n%s", diff)
		}
	}
}

func TestReadingOnCostsNoMoreThanTheOverlap(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	all := begin(t, s, 3)
	revoke(t, s, all[:2]...)
	exec(t, database, "UPDATE sessions SET revoked_at = ? WHERE id = ?",
		time.Now().UTC().Add(-store.RevocationOverlap-time.Minute), all[0].ID)
	list, next := readOn(t, s, store.RevocationPosition{}, 10)
	if diff := cmp.Diff(revoked(all[:2]...), list); diff != "" {
		t.Errorf("the whole list (-want +got):\n%s", diff)
	}
	revoke(t, s, all[2])
	list, _ = readOn(t, s, next, 10)
	if diff := cmp.Diff(revoked(all[1:]...), list); diff != "" {
		t.Errorf("what came since (-want +got):\n%s", diff)
	}
}

func TestAStampFromTheFutureHidesNoLaterRevocation(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	all := begin(t, s, 2)
	revoke(t, s, all[0])
	exec(t, database, "UPDATE sessions SET revoked_at = ? WHERE id = ?", time.Now().UTC().Add(time.Hour), all[0].ID)
	_, next := readOn(t, s, store.RevocationPosition{}, 10)
	revoke(t, s, all[1])
	list, _ := readOn(t, s, next, 10)
	if diff := cmp.Diff(revoked(all[1], all[0]), list); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
}

func TestRevocationsAreReadByIndexInOneQueryAPage(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	for range 4 {
		many := make([]store.Session, 500)
		for i := range many {
			many[i] = session(ids.New())
		}
		if err := s.CreateSessions(t.Context(), many); err != nil {
			t.Fatal(err)
		}
		revoke(t, s, many[:5]...)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM sessions"); n != 2000 {
		t.Fatalf("%d sessions are stored, want 2000", n)
	}
	exec(t, database, "ANALYZE TABLE sessions")
	s, recorder := s.Record()
	list, next := readOn(t, s, store.RevocationPosition{}, 15)
	if len(list) != 20 {
		t.Errorf("%d sessions are listed, want 20", len(list))
	}
	readOn(t, s, next, 15)
	queries := recorder.Take(t)
	if len(queries) != 4 {
		t.Errorf("four pages took %d queries", len(queries))
	}
	if _, err := s.DeleteSessions(t.Context(), created, 10); err != nil {
		t.Fatal(err)
	}
	expectIndexed(t, database, append(queries, recorder.Take(t)...))
}

func TestEndedSessionsAreDeletedInBatchesBySeveralAtOnce(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	ended := make([]store.Session, 500)
	for i := range ended {
		ended[i] = sessionFor(ids.New(), -time.Duration(2+i%3)*time.Hour)
	}
	if err := s.CreateSessions(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	revoke(t, s, ended[:100]...)
	live := begin(t, s, 2)
	revoke(t, s, live[0])
	before := time.Now().UTC().Add(-time.Hour)
	if n, err := s.DeleteSessions(t.Context(), before, 50); err != nil || n != 50 {
		t.Errorf("deleted %d, %v; want a batch of 50", n, err)
	}
	var mu sync.Mutex
	total := 50
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				n, err := s.DeleteSessions(t.Context(), before, 30)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				total += n
				mu.Unlock()
				if n == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	if total != len(ended) {
		t.Errorf("%d sessions were deleted, want %d", total, len(ended))
	}
	for _, session := range live {
		if n := count(t, database, "SELECT COUNT(*) FROM sessions WHERE id = ?", session.ID); n != 1 {
			t.Errorf("session %v, which has not ended, is gone", session.ID)
		}
	}
}
