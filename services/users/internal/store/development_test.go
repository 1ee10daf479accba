package store_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/services/users/internal/store"
)

func TestCreateAccountsPassesOverThoseThatExist(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	bob := account("bob")
	create(t, s, bob)
	alice, otherBob, carol, sameAlice := account("alice"), account("bob"), account("carol"), account("alice")
	otherBob.DisplayName = "Not Bob"
	carol.PasswordHash = ""
	got, err := s.CreateAccounts(t.Context(), []store.NewAccount{carol, alice, otherBob, sameAlice})
	if err != nil {
		t.Fatal(err)
	}
	if got[1].ID != alice.ID && got[1].ID != sameAlice.ID {
		t.Errorf("alice's id is neither of those that were given: %v", got[1].ID)
	}
	if diff := cmp.Diff([]store.User{carol.User, got[1], bob.User, got[1]}, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	wantHashes := map[string]string{"alice": "hash of alice", "bob": bob.PasswordHash, "carol": ""}
	for username, want := range wantHashes {
		a, err := s.AccountByUsername(t.Context(), username)
		if err != nil {
			t.Fatal(err)
		}
		if a.PasswordHash != want {
			t.Errorf("%s: the hash is %q, want %q", username, a.PasswordHash, want)
		}
	}
	if n := count(t, database, "SELECT COUNT(*) FROM users"); n != 3 {
		t.Errorf("%d users are stored, want 3", n)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM credentials"); n != 2 {
		t.Errorf("%d credentials are stored, want 2", n)
	}
}

func TestCreateNoAccounts(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	if got, err := s.CreateAccounts(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("users %v, err %v; want none", got, err)
	}
}

func TestThoseWhoCreateTheSameAccountsAtOnceGetTheSameUsers(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	const racers = 8
	results := make([][]store.User, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			accounts := makeCrowd(100)
			if i%2 == 1 {
				slices.Reverse(accounts)
			}
			users, err := s.CreateAccounts(t.Context(), accounts)
			if err != nil {
				t.Errorf("racer %d: %v", i, err)
			}
			sortUsers(users)
			results[i] = users
		})
	}
	wg.Wait()
	for i, users := range results[1:] {
		if diff := cmp.Diff(results[0], users); diff != "" {
			t.Errorf("racer %d got other users than racer 0:\n%s", i+1, diff)
		}
	}
	if n := count(t, database, "SELECT COUNT(*) FROM credentials"); n != 100 {
		t.Errorf("%d credentials are stored, want 100", n)
	}
}
