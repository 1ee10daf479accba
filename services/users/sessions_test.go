package users_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/redistest"
)

// revocations reads the whole list, as a service does that has no token.
func (s *system) revocations(t *testing.T, pageSize int32) []*usersv1.RevokedSession {
	t.Helper()
	var list []*usersv1.RevokedSession
	req := &usersv1.ListRevocationsRequest{PageSize: pageSize}
	for {
		res, err := s.users.ListRevocations(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, res.GetSessions()...)
		if !res.GetHasNextPage() {
			return list
		}
		req.After = res.GetNext()
	}
}

func (s *system) signOut(t *testing.T, token *usersv1.AccessToken) {
	t.Helper()
	if _, err := s.users.SignOut(as(t, token), &usersv1.SignOutRequest{}); err != nil {
		t.Fatalf("sign out: %v", err)
	}
}

func (s *system) expectRevoked(t *testing.T, tokens ...*usersv1.AccessToken) {
	t.Helper()
	want := []*usersv1.RevokedSession{}
	for _, token := range tokens {
		want = append(want, &usersv1.RevokedSession{
			Id: s.verify(t, token).SessionID.Bytes(), TokensEndAtMs: token.GetExpiresAtMs(),
		})
	}
	if diff := cmp.Diff(want, append([]*usersv1.RevokedSession{}, s.revocations(t, 2)...), protocmp.Transform()); diff != "" {
		t.Errorf("revoked sessions (-want +got):\n%s", diff)
	}
}

func TestEverySignInStoresASessionThatEndsWithItsToken(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	up := s.signUp(t, signUpRequest("alice"))
	made, err := s.development.CreateUsers(t.Context(), &usersv1.CreateUsersRequest{
		Users: []*usersv1.NewUser{{Username: "alice"}, {Username: "bob"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tokens := []*usersv1.AccessToken{
		up.GetAccessToken(), s.signIn(t, "alice").GetAccessToken(),
		made.GetUsers()[0].GetAccessToken(), made.GetUsers()[1].GetAccessToken(),
	}
	database := s.open(t)
	for i, token := range tokens {
		who := s.verify(t, token)
		var n int
		err := database.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM sessions WHERE id = ? AND user_id = ?
			AND expires_at = ? AND created_at BETWEEN ? AND ? AND revoked_at IS NULL`,
			who.SessionID, who.UserID, who.ExpiresAt.UTC(),
			time.Now().UTC().Add(-time.Minute), time.Now().UTC().Add(time.Minute)).Scan(&n)
		if err != nil || n != 1 {
			t.Errorf("token %d has %d sessions, %v; want 1", i, n, err)
		}
	}
	var n int
	if err := database.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sessions").Scan(&n); err != nil || n != len(tokens) {
		t.Errorf("%d sessions are stored, %v; want %d", n, err, len(tokens))
	}
	// Who is refused gets none.
	_, err = s.users.SignIn(t.Context(), &usersv1.SignInRequest{Login: "alice", Password: wrongPassword})
	expectError(t, err, errs.Invalid, errs.InvalidCredentials, "")
	_, err = s.users.SignUp(t.Context(), signUpRequest("alice"))
	expectError(t, err, errs.Conflict, errs.Taken, "username")
	if err := database.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sessions").Scan(&n); err != nil || n != len(tokens) {
		t.Errorf("%d sessions are stored after refusals, %v; want %d", n, err, len(tokens))
	}
}

func TestSigningOutRevokesTheCallersSessionAndNoOther(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	phone := s.signUp(t, signUpRequest("alice")).GetAccessToken()
	laptop := s.signIn(t, "alice").GetAccessToken()
	s.signUp(t, signUpRequest("bob"))
	s.expectRevoked(t)
	s.signOut(t, phone)
	s.expectRevoked(t, phone)
	// A client that has missed the answer asks again.
	s.signOut(t, phone)
	s.expectRevoked(t, phone)
	s.signOut(t, laptop)
	again := s.signIn(t, "alice").GetAccessToken()
	s.signOut(t, again)
	s.expectRevoked(t, phone, laptop, again)
}

func TestATokenFromBeforeSessionsWereStoredCanSignOut(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	token, expires, err := signer(t, s.cfg.SigningKeys).Sign(ids.New(), ids.New(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	old := &usersv1.AccessToken{Token: token, ExpiresAtMs: expires.UnixMilli()}
	s.signOut(t, old)
	s.expectRevoked(t, old)
}

func TestTheListOfRevocationsTellsNothingAboutAnybody(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	alice := s.signUp(t, signUpRequest("alice"))
	s.signOut(t, alice.GetAccessToken())
	res, err := s.users.ListRevocations(t.Context(), &usersv1.ListRevocationsRequest{PageSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.GetSessions()) != 1 || bytes.Contains(raw, alice.GetUser().GetId()) || bytes.Contains(raw, []byte("alice")) {
		t.Errorf("the list tells whose session it was: %v", res)
	}
	// And what it tells opens nothing.
	ctx := as(t, &usersv1.AccessToken{Token: s.verify(t, alice.GetAccessToken()).SessionID.String()})
	_, err = s.users.SearchUsers(ctx, &usersv1.SearchUsersRequest{PageSize: 1})
	expectError(t, err, errs.Unauthenticated, "", "")
}

func TestListingRevocationsNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	id := ids.New().Bytes()
	for name, test := range map[string]struct {
		req   *usersv1.ListRevocationsRequest
		field string
	}{
		"no page size":    {&usersv1.ListRevocationsRequest{}, "page_size"},
		"large page":      {&usersv1.ListRevocationsRequest{PageSize: 10_001}, "page_size"},
		"no id":           {&usersv1.ListRevocationsRequest{PageSize: 1, After: &usersv1.RevocationPosition{}}, "after.id"},
		"short id":        {&usersv1.ListRevocationsRequest{PageSize: 1, After: &usersv1.RevocationPosition{Id: id[:15]}}, "after.id"},
		"before the time": {&usersv1.ListRevocationsRequest{PageSize: 1, After: &usersv1.RevocationPosition{Id: id, RevokedAtUs: -1}}, "after.revoked_at_us"},
		"after all time":  {&usersv1.ListRevocationsRequest{PageSize: 1, After: &usersv1.RevocationPosition{Id: id, RevokedAtUs: 1 << 62}}, "after.revoked_at_us"},
	} {
		_, err := s.users.ListRevocations(t.Context(), test.req)
		got, ok := errs.As(err)
		if !ok || got.Kind != errs.Invalid || got.Field != test.field {
			t.Errorf("%s: err = %v, want one about %s", name, err, test.field)
		}
	}
	_, err := s.users.ListRevocations(t.Context(), &usersv1.ListRevocationsRequest{
		PageSize: 10_000, After: &usersv1.RevocationPosition{Id: id, RevokedAtUs: 253402300799999999},
	})
	if err != nil {
		t.Errorf("at the end of time: %v", err)
	}
}

func TestSigningOutWaitsForNoRedis(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	redis := redistest.Start(t)
	cfg.Redis = "redis://" + redis.Addr + "/0"
	s := start(t, cfg)
	token := s.signUp(t, signUpRequest("alice")).GetAccessToken()
	redis.Stop()
	s.signOut(t, token)
	s.expectRevoked(t, token)
}
