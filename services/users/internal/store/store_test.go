package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/services/users/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

// newStore returns a store on an empty schema of the test's own.
func newStore(t *testing.T) (*store.Store, *sql.DB) {
	t.Helper()
	database, err := mysql.Open(t.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t))}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Close(); err != nil {
			t.Error(err)
		}
	})
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store.New(database), database
}

// created is a time as the database keeps it; offsets from it tell the order of accounts.
var created = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

// account makes an account that is not stored yet.
func account(username string) store.NewAccount {
	return store.NewAccount{
		User:         store.User{ID: ids.New(), Username: username, DisplayName: "Name of " + username},
		Email:        username + "@example.com",
		PasswordHash: "hash of " + username,
		CreatedAt:    created,
	}
}

func create(t *testing.T, s *store.Store, accounts ...store.NewAccount) {
	t.Helper()
	for _, a := range accounts {
		if err := s.CreateAccount(t.Context(), a, session(a.ID)); err != nil {
			t.Fatalf("create %s: %v", a.Username, err)
		}
	}
}

func count(t *testing.T, database *sql.DB, query string, args ...any) int {
	t.Helper()
	var n int
	if err := database.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func exec(t *testing.T, database *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := database.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func TestAnAccountIsFoundAsItWasStored(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	alice := account("alice")
	alice.DisplayName = "Alïce 👩‍🚀 愛麗絲"
	noPassword := account("bob")
	noPassword.PasswordHash, noPassword.Email = "", ""
	create(t, s, alice, noPassword)

	want := store.Account{User: alice.User, PasswordHash: alice.PasswordHash}
	got, err := s.AccountByUsername(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by username (-want +got):\n%s", diff)
	}
	got, err = s.AccountByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by e-mail address (-want +got):\n%s", diff)
	}
	got, err = s.AccountByUsername(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.Account{User: noPassword.User}, got); diff != "" {
		t.Errorf("without a password (-want +got):\n%s", diff)
	}
	var at time.Time
	err = database.QueryRowContext(t.Context(), "SELECT created_at FROM users WHERE id = ?", alice.ID).Scan(&at)
	if err != nil || !at.Equal(created) {
		t.Errorf("created_at = %v, %v; want %v", at, err, created)
	}
}

func TestNoAccountIsFoundByWhatOnlyLooksAlike(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	create(t, s, account("alice"))
	for _, username := range []string{"", "bob", "Alice", "alicé", "alic", "alice%", "al_ce", "ａlice"} {
		if a, err := s.AccountByUsername(t.Context(), username); !errors.Is(err, store.ErrNoAccount) {
			t.Errorf("username %q: account %v, err %v; want %v", username, a.Username, err, store.ErrNoAccount)
		}
	}
	for _, email := range []string{"", "bob@example.com", "Alice@example.com", "alicé@example.com", "alice@example.co"} {
		if a, err := s.AccountByEmail(t.Context(), email); !errors.Is(err, store.ErrNoAccount) {
			t.Errorf("address %q: account %v, err %v; want %v", email, a.Username, err, store.ErrNoAccount)
		}
	}
}

func TestOfTwentyWhoTakeAUsernameAtOnceOneGetsIt(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	const racers = 20
	accounts := make([]store.NewAccount, racers)
	results := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		accounts[i] = account("alice")
		accounts[i].PasswordHash = fmt.Sprint("hash ", i)
		wg.Go(func() { results[i] = s.CreateAccount(t.Context(), accounts[i], session(accounts[i].ID)) })
	}
	wg.Wait()
	winner := slices.Index(results, nil)
	if winner < 0 {
		t.Fatalf("nobody got the username: %v", results)
	}
	for i, err := range results {
		if i != winner && !errors.Is(err, store.ErrUsernameTaken) {
			t.Errorf("racer %d: err = %v, want %v", i, err, store.ErrUsernameTaken)
		}
	}
	got, err := s.AccountByUsername(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	want := store.Account{User: accounts[winner].User, PasswordHash: accounts[winner].PasswordHash}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the account is not the winner's (-want +got):\n%s", diff)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM credentials"); n != 1 {
		t.Errorf("%d credentials are stored, want 1", n)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM sessions WHERE user_id = ?", accounts[winner].ID); n != 1 {
		t.Errorf("the winner has %d sessions, want 1", n)
	}
	if n := count(t, database, "SELECT COUNT(*) FROM sessions"); n != 1 {
		t.Errorf("%d sessions are stored, want the winner's alone", n)
	}
}

func TestTakenUsernameErrorQuotesNothing(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	create(t, s, account("alice"))
	again := account("alice")
	err := s.CreateAccount(t.Context(), again, session(again.ID))
	if !errors.Is(err, store.ErrUsernameTaken) {
		t.Fatalf("err = %v, want %v", err, store.ErrUsernameTaken)
	}
	if strings.Contains(err.Error(), "alice") {
		t.Errorf("the error quotes what was stored: %v", err)
	}
}

func TestAnAddressIsSignedInToByItsProvenOwnerElseByTheOldestClaim(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	const address = "shared@example.com"
	claim := func(username string, age time.Duration) store.NewAccount {
		a := account(username)
		a.Email, a.CreatedAt = address, created.Add(-age)
		create(t, s, a)
		return a
	}
	expect := func(when string, want store.NewAccount) {
		t.Helper()
		got, err := s.AccountByEmail(t.Context(), address)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got.Username != want.Username {
			t.Errorf("%s: the account is %s, want %s", when, got.Username, want.Username)
		}
	}
	second := claim("second", time.Hour)
	expect("one claim", second)
	third := claim("third", time.Minute)
	expect("a later claim", second)
	first := claim("first", 2*time.Hour)
	expect("an earlier claim", first)

	exec(t, database, "UPDATE users SET verified_email = ?, email_verified_at = ? WHERE id = ?", address, created, third.ID)
	expect("the newest has proven it", third)
	// The owner is about to move to another address that is not proven yet.
	exec(t, database, "UPDATE users SET email = 'next@example.com' WHERE id = ?", third.ID)
	expect("the owner's next address is not proven", third)

	_, err := database.ExecContext(t.Context(), "UPDATE users SET verified_email = ? WHERE id = ?", address, first.ID)
	if !mysql.IsDuplicate(err) {
		t.Errorf("a second owner: err = %v, want a duplicate", err)
	}
}

func TestAHashIsReplacedOnlyWhileItIsTheOldOne(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	alice, bob := account("alice"), account("bob")
	create(t, s, alice, bob)
	tests := []struct{ old, next, want string }{
		{alice.PasswordHash, "better", "better"},
		{alice.PasswordHash, "late", "better"},
		{"BETTER", "other case", "better"},
	}
	for _, test := range tests {
		if err := s.ReplacePasswordHash(t.Context(), alice.ID, test.old, test.next); err != nil {
			t.Fatal(err)
		}
		got, err := s.AccountByUsername(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if got.PasswordHash != test.want {
			t.Errorf("replace %q by %q: the hash is %q, want %q", test.old, test.next, got.PasswordHash, test.want)
		}
	}
	got, err := s.AccountByUsername(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if got.PasswordHash != bob.PasswordHash {
		t.Errorf("somebody else's hash has changed to %q", got.PasswordHash)
	}
}

func TestUsersAreReadInOneQuery(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	alice, bob, carol := account("alice"), account("bob"), account("carol")
	create(t, s, alice, bob, carol)
	s, recorder := s.Record()
	tests := map[string]struct {
		ids  []ids.ID
		want []store.User
	}{
		"none":     {nil, []store.User{}},
		"one":      {[]ids.ID{bob.ID}, []store.User{bob.User}},
		"repeated": {[]ids.ID{bob.ID, alice.ID, bob.ID}, []store.User{alice.User, bob.User}},
		"unknown":  {[]ids.ID{ids.New(), carol.ID, {}}, []store.User{carol.User}},
	}
	for name, test := range tests {
		got, err := s.Users(t.Context(), test.ids)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sortUsers(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if queries := recorder.Take(t); len(queries) != 1 {
			t.Errorf("%s: %d queries, want 1", name, len(queries))
		}
	}

	crowd(t, s, database, 1000)
	users, _, err := s.SearchUsers(t.Context(), store.Search{Limit: 20})
	if err != nil {
		t.Fatal(err)
	}
	page := make([]ids.ID, len(users))
	for i, user := range users {
		page[i] = user.ID
	}
	recorder.Take(t)
	if _, err := s.Users(t.Context(), page); err != nil {
		t.Fatal(err)
	}
	expectIndexed(t, database, recorder.Take(t))
}

func sortUsers(users []store.User) {
	slices.SortFunc(users, func(a, b store.User) int { return strings.Compare(a.Username, b.Username) })
}

func TestSigningInReadsByIndex(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	crowd(t, s, database, 1000)
	s, recorder := s.Record()
	if _, err := s.AccountByUsername(t.Context(), "crowd0500"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AccountByEmail(t.Context(), "crowd0500@example.com"); err != nil {
		t.Fatal(err)
	}
	queries := recorder.Take(t)
	if len(queries) != 2 {
		t.Errorf("%d queries, want one for each", len(queries))
	}
	expectIndexed(t, database, queries)
}

// crowd stores many accounts, and makes the engine count them for its plans.
func crowd(t *testing.T, s *store.Store, database *sql.DB, size int) {
	t.Helper()
	for chunk := range slices.Chunk(makeCrowd(size), 500) {
		if _, err := s.CreateAccounts(t.Context(), chunk); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, database, "ANALYZE TABLE users")
	exec(t, database, "ANALYZE TABLE credentials")
}

func makeCrowd(size int) []store.NewAccount {
	accounts := make([]store.NewAccount, size)
	for i := range accounts {
		accounts[i] = account(fmt.Sprintf("crowd%04d", i))
		accounts[i].DisplayName = fmt.Sprintf("%c%c Crowd", 'A'+i%26, 'a'+i/26%26)
	}
	return accounts
}

// expectIndexed fails when a query's plan reads a whole table or a whole index.
func expectIndexed(t *testing.T, database *sql.DB, queries []store.Query) {
	t.Helper()
	for _, query := range queries {
		plan := explain(t, database, query)
		for _, row := range plan {
			// MariaDB and MySQL name the access in "type"; a table in angle brackets is the result of another step.
			// TiDB names the operator in "id".
			whole := (row["type"] == "ALL" || row["type"] == "index") && !strings.HasPrefix(row["table"], "<")
			if whole || strings.Contains(row["id"], "FullScan") {
				t.Errorf("%s\nreads everything at %v\nin the plan %v", query.SQL, row, plan)
			}
		}
	}
}

// explain returns the rows of a query's plan by the names of their columns.
func explain(t *testing.T, database *sql.DB, query store.Query) []map[string]string {
	t.Helper()
	rows, err := database.QueryContext(t.Context(), "EXPLAIN "+query.SQL, query.Args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan []map[string]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		pointers := make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := rows.Scan(pointers...); err != nil {
			t.Fatal(err)
		}
		row := make(map[string]string, len(columns))
		for i, column := range columns {
			row[column] = values[i].String
		}
		plan = append(plan, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(plan) == 0 {
		t.Fatalf("no plan for %s", query.SQL)
	}
	return plan
}
