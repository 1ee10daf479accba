package users_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/services/users"
	"chatapp.dev/services/users/internal/store"
)

func TestSignUpMakesAnAccountThatIsSignedIn(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	before := time.Now()
	res := s.signUp(t, &usersv1.SignUpRequest{
		Username: "Alice", Email: "Alice" + mailDomain, DisplayName: "  Jose\u0301 👩‍🚀 ", Password: goodPassword,
	})
	if res.GetUser().GetUsername() != "alice" || res.GetUser().GetDisplayName() != "José 👩‍🚀" {
		t.Errorf("user = %v", res.GetUser())
	}
	caller := s.verify(t, res.GetAccessToken())
	if got := caller.UserID.Bytes(); string(got) != string(res.GetUser().GetId()) {
		t.Errorf("the token is for %x, want %x", got, res.GetUser().GetId())
	}
	expires := time.UnixMilli(res.GetAccessToken().GetExpiresAtMs())
	if !expires.Equal(caller.ExpiresAt) {
		t.Errorf("expires at %v, but the token says %v", expires, caller.ExpiresAt)
	}
	// The token counts whole seconds.
	if earliest := before.Add(s.cfg.TokenTTL - 2*time.Second); expires.Before(earliest) {
		t.Errorf("expires at %v, want no earlier than %v", expires, earliest)
	}
	me, err := s.users.BatchGetUsers(as(t, res.GetAccessToken()), &usersv1.BatchGetUsersRequest{
		Ids: [][]byte{res.GetUser().GetId()},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &usersv1.BatchGetUsersResponse{Users: []*usersv1.User{res.GetUser()}}
	if diff := cmp.Diff(want, me, protocmp.Transform()); diff != "" {
		t.Errorf("me (-want +got):\n%s", diff)
	}
}

func TestSignInByAnySpellingOfUsernameOrAddress(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	signedUp := s.signUp(t, signUpRequest("al.ice"))
	s.signUp(t, signUpRequest("bob"))
	sessions := map[ids.ID]bool{s.verify(t, signedUp.GetAccessToken()).SessionID: true}
	for _, login := range []string{
		"al.ice", "AL.ice", " al.ice ",
		"al.ice" + mailDomain, "Al.Ice" + strings.ToUpper(mailDomain), "al.ice" + mailDomain + "\n",
	} {
		res := s.signIn(t, login)
		if diff := cmp.Diff(signedUp.GetUser(), res.GetUser(), protocmp.Transform()); diff != "" {
			t.Errorf("sign in as %q (-want +got):\n%s", login, diff)
		}
		caller := s.verify(t, res.GetAccessToken())
		if string(caller.UserID.Bytes()) != string(signedUp.GetUser().GetId()) {
			t.Errorf("sign in as %q: the token is for %v", login, caller.UserID)
		}
		if sessions[caller.SessionID] {
			t.Errorf("sign in as %q: the session is another's", login)
		}
		sessions[caller.SessionID] = true
	}
}

func TestSignUpNamesTheFieldAndTheRule(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	type request = usersv1.SignUpRequest
	tests := map[string]struct {
		change func(*request)
		code   errs.Code
		field  string
	}{
		"no username":          {func(r *request) { r.Username = "" }, errs.Required, "username"},
		"short username":       {func(r *request) { r.Username = "ab" }, errs.TooShort, "username"},
		"long username":        {func(r *request) { r.Username = strings.Repeat("a", 33) }, errs.TooLong, "username"},
		"absurd username":      {func(r *request) { r.Username = strings.Repeat("a", 1025) }, errs.TooLong, "username"},
		"other characters":     {func(r *request) { r.Username = "al ice" }, errs.InvalidCharacters, "username"},
		"no address":           {func(r *request) { r.Email = "" }, errs.Required, "email"},
		"no such address":      {func(r *request) { r.Email = "Alice <a" + mailDomain + ">" }, errs.InvalidFormat, "email"},
		"long address":         {func(r *request) { r.Email = strings.Repeat("a", 254) + mailDomain }, errs.TooLong, "email"},
		"long display name":    {func(r *request) { r.DisplayName = strings.Repeat("é", 65) }, errs.TooLong, "display_name"},
		"control in name":      {func(r *request) { r.DisplayName = "Al\x00ice" }, errs.InvalidCharacters, "display_name"},
		"no password":          {func(r *request) { r.Password = "" }, errs.Required, "password"},
		"short password":       {func(r *request) { r.Password = "1234567" }, errs.TooShort, "password"},
		"long password":        {func(r *request) { r.Password = strings.Repeat("🔑", 129) }, errs.TooLong, "password"},
		"the first is told":    {func(r *request) { r.Email, r.Password = "", "" }, errs.Required, "email"},
		"the address is first": {func(r *request) { r.Email, r.DisplayName = "", "\x00a\x00" }, errs.Required, "email"},
	}
	for name, test := range tests {
		req := signUpRequest("alice")
		test.change(req)
		_, err := s.users.SignUp(t.Context(), req)
		t.Run(name, func(t *testing.T) { expectError(t, err, errs.Invalid, test.code, test.field) })
	}
	if got := s.everybody(t); len(got) != 0 {
		t.Errorf("accounts were made all the same: %v", got)
	}
}

func TestDisplayNameIsTheUsernameWhenNoneIsGiven(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	req := signUpRequest("Alice")
	req.DisplayName = " \u3000 "
	if got := s.signUp(t, req).GetUser().GetDisplayName(); got != "alice" {
		t.Errorf("display name = %q, want the username", got)
	}
}

func TestTakenUsernameIsToldInAnyCase(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	s.signUp(t, signUpRequest("alice"))
	for _, username := range []string{"alice", "ALICE", "aLiCe"} {
		req := signUpRequest(username)
		req.Email, req.Password = "other"+mailDomain, wrongPassword
		_, err := s.users.SignUp(t.Context(), req)
		expectError(t, err, errs.Conflict, errs.Taken, "username")
	}
	s.signIn(t, "alice")
}

func TestOfTwentyWhoSignUpWithAUsernameAtOnceOneGetsIt(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	const racers = 20
	results := make([]error, racers)
	passwordOf := func(i int) string { return fmt.Sprintf("%s of racer %d", goodPassword, i) }
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			req := signUpRequest("Alice"[:i%5] + strings.ToUpper("Alice"[i%5:]))
			req.Password = passwordOf(i)
			_, results[i] = s.users.SignUp(t.Context(), req)
		})
	}
	wg.Wait()
	winner := slices.Index(results, nil)
	if winner < 0 {
		t.Fatalf("nobody got the username: %v", results)
	}
	for i, err := range results {
		if i != winner {
			expectError(t, err, errs.Conflict, errs.Taken, "username")
		}
		_, err := s.users.SignIn(t.Context(), &usersv1.SignInRequest{Login: "alice", Password: passwordOf(i)})
		if i == winner {
			if err != nil {
				t.Errorf("the winner cannot sign in: %v", err)
			}
			continue
		}
		expectError(t, err, errs.Invalid, errs.InvalidCredentials, "")
	}
}

func TestSignUpNeverTellsThatAnAddressHasAnAccount(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	first := s.signUp(t, signUpRequest("alice"))
	req := signUpRequest("mallory")
	req.Email = "ALICE" + mailDomain
	s.signUp(t, req)
	// By address, the oldest account is signed in to, and Mallory's password is not the one for it.
	if diff := cmp.Diff(first.GetUser(), s.signIn(t, "alice"+mailDomain).GetUser(), protocmp.Transform()); diff != "" {
		t.Errorf("sign in by address (-want +got):\n%s", diff)
	}
}

func TestUnknownAccountAndWrongPasswordAnswerAlike(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	s.signUp(t, signUpRequest("alice"))
	if _, err := s.development.CreateUsers(t.Context(), &usersv1.CreateUsersRequest{
		Users: []*usersv1.NewUser{{Username: "nopassword"}},
	}); err != nil {
		t.Fatal(err)
	}
	client := usersv1.NewUsersServiceClient(s.raw)
	type answer struct {
		Status *spb.Status
		// The order of a map in the details is random, so that the trailer that carries them is compared decoded.
		Header, Trailer metadata.MD
	}
	var first *answer
	for name, req := range map[string]*usersv1.SignInRequest{
		"wrong password":           {Login: "alice", Password: wrongPassword},
		"wrong password, address":  {Login: "alice" + mailDomain, Password: wrongPassword},
		"unknown username":         {Login: "bob", Password: goodPassword},
		"unknown address":          {Login: "bob" + mailDomain, Password: goodPassword},
		"account without password": {Login: "nopassword", Password: goodPassword},
		"no username at all":       {Login: "", Password: goodPassword},
		"no such username":         {Login: "no such \x00 username", Password: goodPassword},
		"no such address":          {Login: "@@", Password: goodPassword},
		"no password":              {Login: "alice", Password: ""},
		"neither":                  {},
	} {
		var header, trailer metadata.MD
		_, err := client.SignIn(t.Context(), req, grpc.Header(&header), grpc.Trailer(&trailer))
		trailer.Delete("grpc-status-details-bin")
		got := &answer{Status: status.Convert(err).Proto(), Header: header, Trailer: trailer}
		if first == nil {
			first = got
		}
		if diff := cmp.Diff(first, got, protocmp.Transform()); diff != "" || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s is answered by %v, unlike others (-others +this):\n%s", name, err, diff)
		}
	}
	_, err := s.users.SignIn(t.Context(), &usersv1.SignInRequest{Login: "alice", Password: wrongPassword})
	expectError(t, err, errs.Invalid, errs.InvalidCredentials, "")
}

// needsToken are the operations that only somebody who is signed in may carry out, with a request that is good; the
// others are public.
var (
	needsToken = map[string]proto.Message{
		usersv1.UsersService_BatchGetUsers_FullMethodName: &usersv1.BatchGetUsersRequest{Ids: [][]byte{ids.New().Bytes()}},
		usersv1.UsersService_SearchUsers_FullMethodName:   &usersv1.SearchUsersRequest{PageSize: 1},
		usersv1.UsersService_SignOut_FullMethodName:       &usersv1.SignOutRequest{},
	}
	public = []string{
		usersv1.UsersService_SignUp_FullMethodName,
		usersv1.UsersService_SignIn_FullMethodName,
		usersv1.UsersService_GetSigningKeys_FullMethodName,
		usersv1.UsersService_ListRevocations_FullMethodName,
	}
)

func TestNoOperationIsForgottenInTheTestsOfAccess(t *testing.T) {
	t.Parallel()
	for _, method := range usersv1.UsersService_ServiceDesc.Methods {
		name := "/" + usersv1.UsersService_ServiceDesc.ServiceName + "/" + method.MethodName
		if _, ok := needsToken[name]; !ok && !slices.Contains(public, name) {
			t.Errorf("%s is neither among those that need a token nor among those that are public", name)
		}
	}
}

func TestOperationsAreRefusedWithoutAGoodToken(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	alice := s.signUp(t, signUpRequest("alice"))
	aliceID, err := ids.FromBytes(alice.GetUser().GetId())
	if err != nil {
		t.Fatal(err)
	}
	good := alice.GetAccessToken().GetToken()
	bob := s.signUp(t, signUpRequest("bob")).GetAccessToken().GetToken()

	foreignKey := filepath.Join(t.TempDir(), "foreign.pem")
	if err := identity.GenerateKeyFile(foreignKey); err != nil {
		t.Fatal(err)
	}
	sign := func(keys users.KeysPath, ttl time.Duration) string {
		token, _, err := signer(t, keys).Sign(aliceID, ids.New(), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	part := func(token string, i int) string { return strings.Split(token, ".")[i] }
	tests := map[string][]string{
		"none":                 nil,
		"empty":                {""},
		"no bearer":            {good},
		"other scheme":         {"Basic " + good},
		"garbage":              {"Bearer garbage"},
		"forged key":           {"Bearer " + sign(users.KeysPath(foreignKey), time.Hour)},
		"expired":              {"Bearer " + sign(s.cfg.SigningKeys, -time.Hour)},
		"another's signature":  {"Bearer " + part(good, 0) + "." + part(good, 1) + "." + part(bob, 2)},
		"no signature":         {"Bearer " + part(good, 0) + "." + part(good, 1) + "."},
		"algorithm none":       {"Bearer eyJhbGciOiJub25lIn0." + part(good, 1) + "."},
		"one good and one not": {"Bearer " + good, "Bearer garbage"},
	}
	t.Run("refused", func(t *testing.T) {
		for name, values := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": values})
				for method, req := range needsToken {
					res := response(t, method)
					if err := s.raw.Invoke(ctx, method, req, res); status.Code(err) != codes.Unauthenticated {
						t.Errorf("%s: err = %v, want %v", method, err, codes.Unauthenticated)
					}
					if proto.Size(res) != 0 {
						t.Errorf("%s answers %v", method, res)
					}
				}
			})
		}
	})
	s.expectRevoked(t)
	// The same calls do work, or the refusals would prove nothing.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+good)
	for method, req := range needsToken {
		if err := s.raw.Invoke(ctx, method, req, response(t, method)); err != nil {
			t.Errorf("%s with a good token: %v", method, err)
		}
	}
}

// response returns an empty response of a method.
func response(t *testing.T, method string) proto.Message {
	t.Helper()
	switch method {
	case usersv1.UsersService_BatchGetUsers_FullMethodName:
		return &usersv1.BatchGetUsersResponse{}
	case usersv1.UsersService_SearchUsers_FullMethodName:
		return &usersv1.SearchUsersResponse{}
	case usersv1.UsersService_SignOut_FullMethodName:
		return &usersv1.SignOutResponse{}
	}
	t.Fatalf("no response for %s", method)
	return nil
}

func TestPublicOperationsIgnoreAStaleToken(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	ctx := as(t, &usersv1.AccessToken{Token: "stale"})
	if _, err := s.users.SignUp(ctx, signUpRequest("alice")); err != nil {
		t.Errorf("sign up: %v", err)
	}
	if _, err := s.users.SignIn(ctx, &usersv1.SignInRequest{Login: "alice", Password: goodPassword}); err != nil {
		t.Errorf("sign in: %v", err)
	}
	if _, err := s.users.GetSigningKeys(ctx, &usersv1.GetSigningKeysRequest{}); err != nil {
		t.Errorf("get signing keys: %v", err)
	}
	if _, err := s.users.ListRevocations(ctx, &usersv1.ListRevocationsRequest{PageSize: 1}); err != nil {
		t.Errorf("list revocations: %v", err)
	}
}

func TestBatchGetUsers(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	alice, bob := s.signUp(t, signUpRequest("alice")), s.signUp(t, signUpRequest("bob"))
	aliceID, bobID := alice.GetUser().GetId(), bob.GetUser().GetId()
	many := make([][]byte, 201)
	for i := range many {
		many[i] = ids.New().Bytes()
	}
	ctx := as(t, alice.GetAccessToken())
	good := map[string]struct {
		ids  [][]byte
		want []*usersv1.User
	}{
		"somebody else": {[][]byte{bobID}, []*usersv1.User{bob.GetUser()}},
		"repeated":      {[][]byte{bobID, aliceID, bobID}, []*usersv1.User{alice.GetUser(), bob.GetUser()}},
		"unknown":       {append([][]byte{aliceID}, many[:199]...), []*usersv1.User{alice.GetUser()}},
	}
	for name, test := range good {
		res, err := s.users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{Ids: test.ids})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		slices.SortFunc(res.GetUsers(), func(a, b *usersv1.User) int {
			return strings.Compare(a.GetUsername(), b.GetUsername())
		})
		if diff := cmp.Diff(test.want, res.GetUsers(), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, bad := range map[string][][]byte{"none": nil, "too many": many, "short id": {aliceID[:15]}, "empty id": {{}}} {
		_, err := s.users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{Ids: bad})
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: err = %v, want %v", name, err, errs.Invalid)
		}
	}
}

func TestSearchShowsEverybodyButTheCaller(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	tokens := map[string]*usersv1.AccessToken{}
	for _, username := range []string{"ada", "adam", "bob", "carl"} {
		req := signUpRequest(username)
		req.DisplayName = map[string]string{"bob": "Ädam Smith", "carl": "ADA"}[username]
		tokens[username] = s.signUp(t, req).GetAccessToken()
	}
	type request = usersv1.SearchUsersRequest
	tests := map[string]struct {
		caller string
		req    *request
		want   []string
		more   bool
	}{
		"everybody":       {"bob", &request{PageSize: 100}, []string{"ada", "adam", "carl"}, false},
		"both names":      {"bob", &request{PageSize: 3, Prefix: " ADA "}, []string{"ada", "adam", "carl"}, false},
		"first page":      {"bob", &request{PageSize: 2, Prefix: "ada"}, []string{"ada", "adam"}, true},
		"last page":       {"bob", &request{PageSize: 2, Prefix: "ada", AfterUsername: "adam"}, []string{"carl"}, false},
		"after the last":  {"bob", &request{PageSize: 2, Prefix: "ada", AfterUsername: "zoe"}, []string{}, false},
		"not the caller":  {"carl", &request{PageSize: 2, Prefix: "ada"}, []string{"ada", "adam"}, false},
		"only the caller": {"carl", &request{PageSize: 2, Prefix: "carl"}, []string{}, false},
		"unicode":         {"ada", &request{PageSize: 2, Prefix: "A\u0308DAM"}, []string{"bob"}, false},
		"wildcard":        {"ada", &request{PageSize: 2, Prefix: "%"}, []string{}, false},
		"address":         {"ada", &request{PageSize: 2, Prefix: "bob@"}, []string{}, false},
	}
	for name, test := range tests {
		res, err := s.users.SearchUsers(as(t, tokens[test.caller]), test.req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, usernames(res.GetUsers())); diff != "" || res.GetHasNextPage() != test.more {
			t.Errorf("%s: has_next_page = %t, want %t; users (-want +got):\n%s", name, res.GetHasNextPage(), test.more, diff)
		}
	}
	for _, size := range []int32{-1, 0, 101} {
		_, err := s.users.SearchUsers(as(t, tokens["ada"]), &usersv1.SearchUsersRequest{PageSize: size})
		expectError(t, err, errs.Invalid, errs.OutOfRange, "page_size")
	}
}

func TestKeysAreTheSameOverHTTPAndGRPC(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	res, err := s.users.GetSigningKeys(t.Context(), &usersv1.GetSigningKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	code, header, body := s.get(t, "/.well-known/jwks.json")
	if code != http.StatusOK || body != string(res.GetJwks()) {
		t.Errorf("HTTP answers %d %s, gRPC %s", code, body, res.GetJwks())
	}
	if got := header.Get("Cache-Control"); got != "public, max-age=300" {
		t.Errorf("Cache-Control = %q", got)
	}
	if got := header.Get("Content-Type"); got != "application/jwk-set+json" {
		t.Errorf("Content-Type = %q", got)
	}
	if strings.Contains(body, `"d"`) {
		t.Error("the key set has a private key")
	}
}

func TestTokensOutliveARotation(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	dir := t.TempDir()
	cfg.SigningKeys = users.KeysPath(dir)
	if err := identity.GenerateKeyFile(filepath.Join(dir, "2026-01.pem")); err != nil {
		t.Fatal(err)
	}
	s := start(t, cfg)
	old := s.signUp(t, signUpRequest("alice")).GetAccessToken()
	s.stop()
	if err := identity.GenerateKeyFile(filepath.Join(dir, "2026-02.pem")); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	s.verify(t, old)
	fresh := s.signIn(t, "alice").GetAccessToken()
	s.stop()
	// Once the first key is withdrawn, its tokens are no good any more, and the others still are.
	if err := os.Remove(filepath.Join(dir, "2026-01.pem")); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	req := &usersv1.SearchUsersRequest{PageSize: 1}
	if _, err := s.users.SearchUsers(as(t, fresh), req); err != nil {
		t.Errorf("with a token of the second key: %v", err)
	}
	_, err := s.users.SearchUsers(as(t, old), req)
	expectError(t, err, errs.Unauthenticated, "", "")
}

func TestHashIsRenewedAtSignInWhenTheSettingsHaveGrown(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	s := start(t, cfg)
	s.signUp(t, signUpRequest("alice"))
	s.signUp(t, signUpRequest("bob"))
	database := s.open(t)
	hashOf := func(username string) string {
		var hash string
		err := database.QueryRowContext(t.Context(), `SELECT c.password_hash FROM credentials c
			JOIN users u ON u.id = c.user_id WHERE u.username = ?`, username).Scan(&hash)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	before := hashOf("alice")
	s.signIn(t, "alice")
	if got := hashOf("alice"); got != before {
		t.Errorf("the hash was renewed under the same settings: %s, then %s", before, got)
	}
	s.stop()

	cfg.Password.MemoryKiB, cfg.Password.Iterations = 128, 2
	s = start(t, cfg)
	_, err := s.users.SignIn(t.Context(), &usersv1.SignInRequest{Login: "alice", Password: wrongPassword})
	expectError(t, err, errs.Invalid, errs.InvalidCredentials, "")
	if got := hashOf("alice"); got != before {
		t.Error("the hash was replaced after a wrong password")
	}
	s.signIn(t, "alice")
	if got := hashOf("alice"); !strings.Contains(got, "$m=128,t=2,p=1$") {
		t.Errorf("the hash was not renewed: %s", got)
	}
	if got := hashOf("bob"); !strings.Contains(got, "$m=64,t=1,p=1$") {
		t.Errorf("somebody else's hash has changed: %s", got)
	}
	s.signIn(t, "alice")
	s.signIn(t, "bob")
}

func TestDevelopmentCallsMakeAccountsThatAreSignedIn(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	bob := s.signUp(t, signUpRequest("bob"))
	type (
		request = usersv1.CreateUsersRequest
		newUser = usersv1.NewUser
	)
	req := &request{
		Users: []*newUser{
			{Username: "Alice", DisplayName: "Alïce"}, {Username: "bob", DisplayName: "Not Bob"}, {Username: "carol"},
		},
		Password: goodPassword,
	}
	res, err := s.development.CreateUsers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.development.CreateUsers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]string
	for i, created := range res.GetUsers() {
		got = append(got, [2]string{created.GetUser().GetUsername(), created.GetUser().GetDisplayName()})
		caller := s.verify(t, created.GetAccessToken())
		if string(caller.UserID.Bytes()) != string(created.GetUser().GetId()) {
			t.Errorf("%v has a token for %v", created.GetUser(), caller)
		}
		if diff := cmp.Diff(created.GetUser(), again.GetUsers()[i].GetUser(), protocmp.Transform()); diff != "" {
			t.Errorf("the second call has another user (-first +second):\n%s", diff)
		}
		s.verify(t, again.GetUsers()[i].GetAccessToken())
		s.signIn(t, created.GetUser().GetUsername())
	}
	want := [][2]string{{"alice", "Alïce"}, {"bob", "Name of bob"}, {"carol", "carol"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(bob.GetUser(), res.GetUsers()[1].GetUser(), protocmp.Transform()); diff != "" {
		t.Errorf("an account that exists has changed (-want +got):\n%s", diff)
	}

	for name, test := range map[string]struct {
		req   *request
		field string
	}{
		"username":     {&request{Users: []*newUser{{Username: "dora"}, {Username: "x"}}}, "username"},
		"display name": {&request{Users: []*newUser{{Username: "dora", DisplayName: "\x00x"}}}, "display_name"},
		"password":     {&request{Users: []*newUser{{Username: "dora"}}, Password: "short"}, "password"},
		"nobody":       {&request{}, "users"},
	} {
		_, err := s.development.CreateUsers(t.Context(), test.req)
		if e, ok := errs.As(err); !ok || e.Kind != errs.Invalid || e.Field != test.field {
			t.Errorf("%s: err = %v, want %v about %s", name, err, errs.Invalid, test.field)
		}
	}
	if diff := cmp.Diff([]string{"alice", "bob", "carol"}, s.everybody(t)); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestDevelopmentCallsAreNotThereWithoutTheSetting(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	cfg.Development = false
	s := start(t, cfg)
	client := usersv1.NewDevelopmentServiceClient(s.raw)
	_, err := client.CreateUsers(t.Context(), &usersv1.CreateUsersRequest{Users: []*usersv1.NewUser{{Username: "alice"}}})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("err = %v, want %v", err, codes.Unimplemented)
	}
	if got := s.everybody(t); len(got) != 0 {
		t.Errorf("accounts were made all the same: %v", got)
	}
}

func TestServiceIsNotReadyWhileMySQLIsAwayAndThenComesBack(t *testing.T) {
	t.Parallel()
	server := mysqltest.Server(t)
	if err := server.CreateDatabase(t.Context(), "users"); err != nil {
		t.Fatal(err)
	}
	cfg := newConfig(t)
	cfg.MySQL.DSN = mysql.DSN(server.DSN("users"))
	migrate(t, cfg)
	s := start(t, cfg)
	alice := s.signUp(t, signUpRequest("alice"))
	await(t, "the service is ready", func() bool {
		code, _, _ := s.get(t, "/readyz")
		return code == http.StatusOK
	})

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, _, body := s.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "mysql") {
		t.Errorf("readyz answers %d %s", code, body)
	}
	if code, _, body := s.get(t, "/livez"); code != http.StatusOK {
		t.Errorf("livez answers %d %s", code, body)
	}
	for name, call := range map[string]func(context.Context) error{
		"sign up": func(ctx context.Context) error {
			_, err := s.users.SignUp(ctx, signUpRequest("bob"))
			return err
		},
		"sign in": func(ctx context.Context) error {
			_, err := s.users.SignIn(ctx, &usersv1.SignInRequest{Login: "alice", Password: goodPassword})
			return err
		},
		"get": func(ctx context.Context) error {
			_, err := s.users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{Ids: [][]byte{alice.GetUser().GetId()}})
			return err
		},
		"search": func(ctx context.Context) error {
			_, err := s.users.SearchUsers(ctx, &usersv1.SearchUsersRequest{PageSize: 1})
			return err
		},
		"create": func(ctx context.Context) error {
			_, err := s.development.CreateUsers(ctx, &usersv1.CreateUsersRequest{
				Users: []*usersv1.NewUser{{Username: "bob"}},
			})
			return err
		},
	} {
		err := call(as(t, alice.GetAccessToken()))
		t.Run(name, func(t *testing.T) { expectError(t, err, errs.Unavailable, "", "") })
	}

	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the service is ready again", func() bool {
		code, _, _ := s.get(t, "/readyz")
		return code == http.StatusOK
	})
	s.signIn(t, "alice")
}

// await polls until something is so; the test's own deadline bounds it.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for !so() {
		select {
		case <-t.Context().Done():
			t.Fatalf("waiting until %s: %v", what, t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestServiceRefusesToStartOnAnOlderSchema(t *testing.T) {
	t.Parallel()
	first, err := store.Migrations.ReadFile("migrations/0001_users.sql")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]fstest.MapFS{
		"empty":    nil,
		"half way": {"migrations/0001_users.sql": {Data: first}},
	}
	for name, applied := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := newConfig(t)
			cfg.MySQL.DSN = mysql.DSN(mysqltest.DSN(t))
			if applied != nil {
				applyOnly(t, cfg.MySQL, applied)
			}
			cfg.Listener, cfg.AdminListener = listen(t), listen(t)
			err := users.Run(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if !errors.Is(err, mysql.ErrSchemaTooOld) || !strings.Contains(err.Error(), "users migrate") {
				t.Errorf("err = %v, want one that says to run users migrate", err)
			}
			migrate(t, cfg)
			s := start(t, cfg)
			s.signUp(t, signUpRequest("alice"))
		})
	}
}

// applyOnly applies some of the migrations.
func applyOnly(t *testing.T, cfg mysql.Config, files fstest.MapFS) {
	t.Helper()
	database, err := mysql.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func(database *sql.DB) { _ = database.Close() }(database)
	migrator, err := mysql.NewMigrator(database, files)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}
