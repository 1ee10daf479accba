package filelock

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := TryExisting(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("TryExisting without a file: %v, want fs.ErrNotExist", err)
	}
	held, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(string) (*Lock, error){"Try": Try, "TryExisting": TryExisting} {
		if _, err := try(path); !errors.Is(err, ErrHeld) {
			t.Errorf("%s of a held lock: %v, want ErrHeld", name, err)
		}
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := TryExisting(path)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestWaitTakesTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int32 // The race detector knows nothing of flock.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := Wait(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d hold the lock", n)
			}
			inside.Add(-1)
		})
	}
	wg.Wait()
}

func TestWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Wait(ctx, path); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrHeld) {
		t.Errorf("got %v, want one that wraps context.Canceled and ErrHeld", err)
	}
}
