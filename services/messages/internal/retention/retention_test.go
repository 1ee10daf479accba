package retention

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/services/messages/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

func TestEverythingOlderIsDeletedInEveryLogAndNothingElse(t *testing.T) {
	t.Parallel()
	database, err := mysql.Open(t.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t)), MultiStatements: true},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := store.New(database)

	// An import's events count as published. More of them than a batch, in the logs of three users.
	me, long, short := ids.New(), ids.New(), ids.New()
	old := time.Now().UTC().Add(-48 * time.Hour)
	importMessages := func(with ids.ID, n int, at time.Time) {
		t.Helper()
		messages := make([]store.ImportedMessage, n)
		for i := range messages {
			messages[i] = store.ImportedMessage{SenderID: me, Body: "x"}
		}
		if _, err := st.Import(t.Context(), store.Pair(me, with), messages, at); err != nil {
			t.Fatal(err)
		}
	}
	importMessages(long, eventsPerBatch+10, old)
	importMessages(short, 5, old)
	importMessages(long, 3, time.Now().UTC())

	deleted, err := Delete(t.Context(), st, time.Now().Add(-24*time.Hour))
	if want := 2 * (eventsPerBatch + 15); err != nil || deleted != want {
		t.Errorf("deleted %d, %v; want %d", deleted, err, want)
	}
	for name, want := range map[string]struct {
		user        ids.ID
		head, floor int64
	}{
		"me":    {me, eventsPerBatch + 18, eventsPerBatch + 15},
		"long":  {long, eventsPerBatch + 13, eventsPerBatch + 10},
		"short": {short, 5, 5},
	} {
		state, err := st.LogState(t.Context(), want.user)
		if err != nil || state.Head != want.head || state.Floor != want.floor {
			t.Errorf("%s: the log is %+v, %v; want head %d and floor %d", name, state, err, want.head, want.floor)
		}
	}
	if again, err := Delete(t.Context(), st, time.Now().Add(-24*time.Hour)); err != nil || again != 0 {
		t.Errorf("a second round deleted %d, %v", again, err)
	}
}
