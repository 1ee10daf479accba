package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/mysqltest"
)

func TestRetryRunsAgainWhatTheDatabaseAsksFor(t *testing.T) {
	deadlock := serverError(1213, "Deadlock found")
	other := errors.New("something else")
	tests := []struct {
		name  string
		errs  []error // Of each run; the last one repeats.
		runs  int
		isErr error
	}{
		{"success", []error{nil}, 1, nil},
		{"another error", []error{other}, 1, other},
		{"a deadlock", []error{deadlock, nil}, 2, nil},
		{"a deadlock, then another error", []error{deadlock, deadlock, other}, 3, other},
		{"nothing but deadlocks", []error{deadlock}, maxAttempts, deadlock},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runs := 0
				err := Retry(t.Context(), func() error {
					runs++
					return test.errs[min(runs, len(test.errs))-1]
				})
				if runs != test.runs || !errors.Is(err, test.isErr) {
					t.Errorf("got %v after %d runs, want %v after %d", err, runs, test.isErr, test.runs)
				}
			})
		})
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		deadlock := serverError(1213, "Deadlock found")
		runs := 0
		err := Retry(ctx, func() error {
			runs++
			cancel()
			return deadlock
		})
		if runs != 1 || !errors.Is(err, context.Canceled) || !errors.Is(err, deadlock) {
			t.Errorf("got %v after %d runs, want both reasons after one", err, runs)
		}
	})
}

// transactions runs a test with both ways to run a transaction that adds to a row of the table counters.
func transactions(t *testing.T, test func(t *testing.T, add func(ctx context.Context, db *sql.DB, id, n int) error)) {
	t.Run("InTx", func(t *testing.T) {
		test(t, func(ctx context.Context, db *sql.DB, id, n int) error {
			return InTx(ctx, db, nil, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "UPDATE counters SET n = n + ? WHERE id = ?", n, id)
				return err
			})
		})
	})
	t.Run("OneTrip", func(t *testing.T) {
		test(t, func(ctx context.Context, db *sql.DB, id, n int) error {
			return OneTrip(ctx, db, func(conn *sql.Conn) error {
				_, err := conn.ExecContext(ctx, "BEGIN; UPDATE counters SET n = n + ? WHERE id = ?; COMMIT", n, id)
				return err
			})
		})
	})
}

// openCounters opens a database with a table of two counters that cannot exceed 1000.
func openCounters(t *testing.T, cfg Config) *sql.DB {
	t.Helper()
	cfg.MultiStatements = true
	db := openDB(t, cfg)
	mustExec(t, db,
		"CREATE TABLE counters (id INT PRIMARY KEY, n INT NOT NULL CHECK (n <= 1000))",
		"INSERT INTO counters VALUES (1, 0), (2, 0)")
	return db
}

// checkNoTransactionIsOpen makes sure that what a pool of one connection writes is seen by others at once.
func checkNoTransactionIsOpen(t *testing.T, db *sql.DB, dsn DSN) {
	t.Helper()
	mustExec(t, db, "UPDATE counters SET n = 77 WHERE id = 2")
	if n := scan[int](t, openDB(t, Config{DSN: dsn}), "SELECT n FROM counters WHERE id = 2"); n != 77 {
		t.Errorf("a transaction was left open: others see %d instead of what was written", n)
	}
}

func TestTransactionsCommitOrRollBack(t *testing.T) {
	transactions(t, func(t *testing.T, add func(context.Context, *sql.DB, int, int) error) {
		// One connection only, so that one left in a bad state would be noticed.
		dsn := DSN(mysqltest.DSN(t))
		db := openCounters(t, Config{DSN: dsn, MaxOpen: 1})
		if err := add(t.Context(), db, 1, 5); err != nil {
			t.Fatal(err)
		}
		if err := add(t.Context(), db, 1, 5000); err == nil {
			t.Error("the counter exceeds its limit")
		}
		stopped, cancel := context.WithCancel(t.Context())
		cancel()
		if err := add(stopped, db, 1, 7); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
		checkNoTransactionIsOpen(t, db, dsn)
		if n := scan[int](t, db, "SELECT n FROM counters WHERE id = 1"); n != 5 {
			t.Errorf("got %d, want 5", n)
		}
	})
}

func TestATransactionThatPanicsIsRolledBack(t *testing.T) {
	db := openCounters(t, Config{MaxOpen: 1})
	runs := map[string]func(){
		"InTx": func() {
			_ = InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				mustExec(t, tx, "UPDATE counters SET n = 7")
				panic("oops")
			})
		},
		"OneTrip": func() {
			_ = OneTrip(t.Context(), db, func(conn *sql.Conn) error {
				mustExec(t, conn, "BEGIN; UPDATE counters SET n = 7")
				panic("oops")
			})
		},
	}
	for name, run := range runs {
		func() {
			defer func() {
				if recover() != "oops" {
					t.Errorf("%s swallowed the panic", name)
				}
			}()
			run()
		}()
		if n := scan[int](t, db, "SELECT n FROM counters WHERE id = 1"); n != 0 {
			t.Errorf("%s committed", name)
		}
	}
}

// A failed statement of several leaves the earlier ones' transaction open; nobody else may find it on the connection.
func TestOneTripRollsBackWhatWasDoneBeforeTheFailure(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t))
	db := openCounters(t, Config{DSN: dsn, MaxOpen: 1})
	err := OneTrip(t.Context(), db, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(t.Context(), "BEGIN; UPDATE counters SET n = 7 WHERE id = 1; UPDATE counters SET n = 5000 WHERE id = 2; COMMIT")
		return err
	})
	if err == nil || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("got %v, want a plain error", err)
	}
	checkNoTransactionIsOpen(t, db, dsn)
	if n := scan[int](t, db, "SELECT n FROM counters WHERE id = 1"); n != 0 {
		t.Errorf("got %d, want 0", n)
	}
}

func TestDeadlocksAreResolvedByRunningAgain(t *testing.T) {
	db := openCounters(t, Config{})
	runs := map[string]func(first, second int, met func()) error{
		"InTx": func(first, second int, met func()) error {
			return InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				if _, err := tx.ExecContext(t.Context(), "UPDATE counters SET n = n + 1 WHERE id = ?", first); err != nil {
					return err
				}
				met()
				_, err := tx.ExecContext(t.Context(), "UPDATE counters SET n = n + 1 WHERE id = ?", second)
				return err
			})
		},
		"OneTrip": func(first, second int, met func()) error {
			return OneTrip(t.Context(), db, func(conn *sql.Conn) error {
				if _, err := conn.ExecContext(t.Context(), "BEGIN; UPDATE counters SET n = n + 1 WHERE id = ?", first); err != nil {
					return err
				}
				met()
				_, err := conn.ExecContext(t.Context(), "UPDATE counters SET n = n + 1 WHERE id = ?; COMMIT", second)
				return err
			})
		},
	}
	for name, run := range runs {
		mustExec(t, db, "UPDATE counters SET n = 0")
		var attempts atomic.Int32
		var first, done sync.WaitGroup
		first.Add(2)
		// Both have locked their first row before either asks for its second.
		meet := func() func() {
			var once sync.Once
			return func() {
				attempts.Add(1)
				once.Do(func() { first.Done(); first.Wait() })
			}
		}
		for _, order := range [][2]int{{1, 2}, {2, 1}} {
			met := meet()
			done.Go(func() {
				if err := run(order[0], order[1], met); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		done.Wait()
		if attempts.Load() < 3 {
			t.Errorf("%s: there was no deadlock in %d attempts", name, attempts.Load())
		}
		for id := range 2 {
			if n := scan[int](t, db, "SELECT n FROM counters WHERE id = ?", id+1); n != 2 {
				t.Errorf("%s: counter %d is %d, want 2", name, id+1, n)
			}
		}
	}
}

func TestConcurrentTransactionsLoseNothing(t *testing.T) {
	transactions(t, func(t *testing.T, add func(context.Context, *sql.DB, int, int) error) {
		db := openCounters(t, Config{MaxOpen: 8})
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for range 25 {
					if err := add(t.Context(), db, worker%2+1, 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for id := range 2 {
			if n := scan[int](t, db, "SELECT n FROM counters WHERE id = ?", id+1); n != 100 {
				t.Errorf("counter %d is %d, want 100", id+1, n)
			}
		}
	})
}

// A connection that breaks while the commit is under way is the one case in which nobody knows what happened.
func TestABrokenCommitSaysThatItsOutcomeIsUnknown(t *testing.T) {
	transactions(t, func(t *testing.T, add func(context.Context, *sql.DB, int, int) error) {
		for action, want := range map[cut]int{cutBefore: 0, cutReplies: 5} {
			direct, err := mysql.ParseDSN(mysqltest.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			straight := openCounters(t, Config{DSN: DSN(direct.FormatDSN())})
			direct.Addr = startProxy(t, "127.0.0.1:0", direct.Addr, func(sent []byte) cut {
				if bytes.Contains(sent, []byte("COMMIT")) {
					return action
				}
				return pass
			})
			broken := openDB(t, Config{DSN: DSN(direct.FormatDSN()), MultiStatements: true})
			if err := add(t.Context(), broken, 1, 5); !errors.Is(err, ErrOutcomeUnknown) || !IsConnection(err) {
				t.Errorf("got %v, want an unknown outcome", err)
			}
			if n := scan[int](t, straight, "SELECT n FROM counters WHERE id = 1"); n != want {
				t.Errorf("action %d: got %d, want %d", action, n, want)
			}
		}
	})
}

func TestAConnectionThatBreaksBeforeTheCommitLeavesNoDoubt(t *testing.T) {
	direct, err := mysql.ParseDSN(mysqltest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	openCounters(t, Config{DSN: DSN(direct.FormatDSN())})
	direct.Addr = startProxy(t, "127.0.0.1:0", direct.Addr, func(sent []byte) cut {
		if bytes.Contains(sent, []byte("UPDATE")) {
			return cutBefore
		}
		return pass
	})
	db := openDB(t, Config{DSN: DSN(direct.FormatDSN())})
	err = InTx(t.Context(), db, nil, func(tx *sql.Tx) error {
		if _, err := tx.Exec("UPDATE counters SET n = 7"); err != nil {
			return fmt.Errorf("update: %w", err)
		}
		return nil
	})
	if !IsConnection(err) || errors.Is(err, ErrOutcomeUnknown) || !strings.HasPrefix(err.Error(), "update: ") {
		t.Errorf("got %v, want a connection error and nothing else", err)
	}
}

func TestOneTripSaysThatAnEndedContextLeavesTheOutcomeUnknown(t *testing.T) {
	db := openCounters(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	err := OneTrip(ctx, db, func(conn *sql.Conn) error {
		cancel()
		_, err := conn.ExecContext(ctx, "BEGIN; UPDATE counters SET n = 7; COMMIT")
		return err
	})
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
