package janitor

import (
	"database/sql"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/services/users/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

func newStore(t *testing.T) (*store.Store, *sql.DB) {
	t.Helper()
	database, err := mysql.Open(t.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t))}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store.New(database), database
}

func TestAllThatHasEndedIsDeletedByTwoAtOnceAndNothingElse(t *testing.T) {
	t.Parallel()
	st, database := newStore(t)
	now := time.Now().UTC().Truncate(time.Second)
	begin := func(n int, ends time.Time) []store.Session {
		t.Helper()
		sessions := make([]store.Session, n)
		for i := range sessions {
			sessions[i] = store.Session{ID: ids.New(), UserID: ids.New(), CreatedAt: now.Add(-72 * time.Hour), ExpiresAt: ends}
		}
		if err := st.CreateSessions(t.Context(), sessions); err != nil {
			t.Fatal(err)
		}
		return sessions
	}
	const ended = 2*sessionsPerBatch + 10
	begin(ended, now.Add(-2*time.Hour))
	kept := append(begin(3, now.Add(-keep/2)), begin(4, now.Add(time.Hour))...)
	if err := st.RevokeSession(t.Context(), kept[len(kept)-1]); err != nil {
		t.Fatal(err)
	}

	var deleted [2]int
	var wg sync.WaitGroup
	for i := range deleted {
		wg.Go(func() {
			var err error
			if deleted[i], err = Delete(t.Context(), st, now.Add(-keep)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if deleted[0]+deleted[1] != ended {
		t.Errorf("%v were deleted, want %d together", deleted, ended)
	}
	var left int
	if err := database.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sessions").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != len(kept) {
		t.Errorf("%d sessions are left, want %d", left, len(kept))
	}
}
