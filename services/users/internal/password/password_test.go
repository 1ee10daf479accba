package password_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"chatapp.dev/services/users/internal/password"
)

// cheap are settings that cost a test nothing.
var cheap = password.Config{MemoryKiB: 64, Iterations: 1, Concurrency: 4}

func newHasher(t *testing.T, cfg password.Config) *password.Hasher {
	t.Helper()
	h, err := password.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func hash(t *testing.T, h *password.Hasher, pw string) string {
	t.Helper()
	hashed, err := h.Hash(t.Context(), pw)
	if err != nil {
		t.Fatal(err)
	}
	return hashed
}

func TestCheck(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap)
	// The same words from two keyboards: é composed and decomposed, and full-width letters.
	const typed, alsoTyped = "café ＡＢＣ 123", "cafe\u0301 ABC 123"
	tests := map[string]struct {
		hash, password string
		want           bool
	}{
		"right":             {hash(t, h, typed), typed, true},
		"other spelling":    {hash(t, h, typed), alsoTyped, true},
		"other case":        {hash(t, h, typed), strings.ToUpper(typed), false},
		"wrong":             {hash(t, h, typed), "cafe ABC 123", false},
		"longer":            {hash(t, h, typed), typed + " ", false},
		"empty":             {hash(t, h, typed), "", false},
		"no account":        {"", typed, false},
		"no account, empty": {"", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			right, weak, err := h.Check(t.Context(), test.password, test.hash)
			if err != nil {
				t.Fatal(err)
			}
			if right != test.want || weak {
				t.Errorf("right = %t, weak = %t, want %t, false", right, weak, test.want)
			}
		})
	}
}

func TestHashIsSalted(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap)
	first, second := hash(t, h, "same password"), hash(t, h, "same password")
	if first == second {
		t.Error("two hashes of a password are the same")
	}
}

func TestHashIsWeakWhenTheSettingsHaveGrown(t *testing.T) {
	t.Parallel()
	stored := hash(t, newHasher(t, cheap), "a password")
	tests := map[string]struct {
		cfg  password.Config
		weak bool
	}{
		"same":            {password.Config{MemoryKiB: 64, Iterations: 1}, false},
		"more memory":     {password.Config{MemoryKiB: 65, Iterations: 1}, true},
		"more iterations": {password.Config{MemoryKiB: 64, Iterations: 2}, true},
		"less memory":     {password.Config{MemoryKiB: 32, Iterations: 1}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			right, weak, err := newHasher(t, test.cfg).Check(t.Context(), "a password", stored)
			if err != nil {
				t.Fatal(err)
			}
			if !right || weak != test.weak {
				t.Errorf("right = %t, weak = %t, want true, %t", right, weak, test.weak)
			}
		})
	}
}

func TestUnreadableHashIsAnErrorThatDoesNotQuoteIt(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap)
	for _, stored := range []string{"canary", "$argon2id$v=19$canary$canary$canary", "$2b$10$canary"} {
		right, _, err := h.Check(t.Context(), "a password", stored)
		if err == nil || right {
			t.Fatalf("Check with the hash %q: right = %t, err = %v; want an error", stored, right, err)
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error quotes the hash: %v", err)
		}
	}
}

func TestWaitingForASlotEndsWithTheContext(t *testing.T) {
	t.Parallel()
	h := newHasher(t, password.Config{MemoryKiB: 64, Iterations: 1, Concurrency: 1})
	stored := hash(t, h, "a password")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// With the only slot taken, neither call can do anything but notice that the context has ended.
	release := h.Occupy(t)
	if _, err := h.Hash(ctx, "a password"); !errors.Is(err, context.Canceled) {
		t.Errorf("Hash: err = %v, want %v", err, context.Canceled)
	}
	// An account that does not exist costs a hash as well, and waits for it like any other.
	for _, hash := range []string{stored, ""} {
		if _, _, err := h.Check(ctx, "a password", hash); !errors.Is(err, context.Canceled) {
			t.Errorf("Check with the hash %q: err = %v, want %v", hash, err, context.Canceled)
		}
	}
	release()
	if right, _, err := h.Check(t.Context(), "a password", stored); err != nil || !right {
		t.Errorf("Check after the slot came free: right = %t, err = %v", right, err)
	}
}

func TestManyAtOnceShareFewSlots(t *testing.T) {
	t.Parallel()
	h := newHasher(t, password.Config{MemoryKiB: 64, Iterations: 1, Concurrency: 2})
	stored := hash(t, h, "a password")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if right, _, err := h.Check(t.Context(), "a password", stored); err != nil || !right {
				t.Errorf("right = %t, err = %v", right, err)
			}
		})
	}
	wg.Wait()
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cfg  password.Config
		want string
	}{
		"good":          {password.Config{MemoryKiB: 19456, Iterations: 2}, ""},
		"no memory":     {password.Config{Iterations: 2}, "from 8 to 4194304 KiB, but is 0"},
		"much memory":   {password.Config{MemoryKiB: 5 << 20, Iterations: 2}, "from 8 to 4194304 KiB"},
		"no iterations": {password.Config{MemoryKiB: 64}, "from 1 to 1000, but is 0"},
		"too many":      {password.Config{MemoryKiB: 64, Iterations: 1001}, "from 1 to 1000, but is 1001"},
		"negative":      {password.Config{MemoryKiB: 64, Iterations: 1, Concurrency: -1}, "0 or more, but is -1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.cfg.Validate()
			if test.want == "" {
				if err != nil {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want one that contains %q", err, test.want)
			}
			if _, err := password.New(test.cfg); err == nil {
				t.Error("New takes the settings")
			}
		})
	}
}
