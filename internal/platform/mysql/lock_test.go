package mysql

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"chatapp.dev/internal/platform/mysqltest"
)

func TestALockIsHeldByOne(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t))
	one, two := openDB(t, Config{DSN: dsn}), openDB(t, Config{DSN: dsn})
	lock, err := AcquireLock(t.Context(), one, "sweep", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Check(t.Context()); err != nil {
		t.Errorf("a lock just taken: %v", err)
	}
	for name, db := range map[string]*sql.DB{"another process": two, "the same process": one} {
		if _, err := AcquireLock(t.Context(), db, "sweep", 0); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: got %v, want ErrLocked", name, err)
		}
	}
	for purpose, db := range map[string]*sql.DB{"another purpose": two, "sweep": openDB(t, Config{})} {
		other, err := AcquireLock(t.Context(), db, purpose, 0)
		if err != nil {
			t.Errorf("%s in another database or for another purpose: %v", purpose, err)
			continue
		}
		other.Release(t.Context())
	}

	waiting := make(chan error, 1)
	go func() {
		lock, err := AcquireLock(t.Context(), two, "sweep", time.Hour)
		if err == nil {
			lock.Release(t.Context())
		}
		waiting <- err
	}()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	lock.Release(ended)
	if err := <-waiting; err != nil {
		t.Errorf("the one that waited: %v", err)
	}
	if err := lock.Check(t.Context()); err == nil {
		t.Error("a lock was released but says that it is held")
	}
}

func TestAskingForALockThatIsHeldCostsNoConnection(t *testing.T) {
	dsn := DSN(mysqltest.DSN(t))
	one, two := openDB(t, Config{DSN: dsn}), openDB(t, Config{DSN: dsn, MaxOpen: 1})
	lock, err := AcquireLock(t.Context(), one, "sweep", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release(t.Context())
	connection := func() (id int) {
		if err := two.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := connection()
	if _, err := AcquireLock(t.Context(), two, "sweep", 0); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	if after := connection(); after != before {
		t.Errorf("the pool's connection was %d and is %d", before, after)
	}
}

func TestALockIsLostWithItsConnection(t *testing.T) {
	db := openDB(t, Config{})
	lock, err := AcquireLock(t.Context(), db, "sweep", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release(t.Context())
	var id int
	if err := lock.Conn().QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("KILL ?", id); err != nil {
		t.Fatal(err)
	}
	other, err := AcquireLock(t.Context(), db, "sweep", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release(t.Context())
	for range 2 {
		if err := lock.Check(t.Context()); !IsConnection(err) {
			t.Errorf("got %v, want a connection error for good", err)
		}
	}
}

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	db := openDB(t, Config{})
	lock, err := AcquireLock(t.Context(), db, "sweep", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := AcquireLock(ctx, db, "sweep", time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Names are the server's, not the database's, and MySQL refuses more than 64 characters.
func TestLockNamesTellDatabasesApartAndAreShort(t *testing.T) {
	a, b := lockName("migrate", "users"), lockName("migrate", "messages")
	if a == b || a != lockName("migrate", "users") || len(a) > 64 {
		t.Errorf("got %q and %q", a, b)
	}
}
