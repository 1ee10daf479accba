package graph

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

type userErrors []struct {
	Code    string
	Message string
	Field   []string
}

type account struct {
	User                              *struct{ ID, Username, DisplayName string }
	AccessToken, AccessTokenExpiresAt *string
	UserErrors                        userErrors
}

const accountFields = ` { user { id username displayName } accessToken accessTokenExpiresAt userErrors { code message field } }`

func signUp(t *testing.T, s *server, input map[string]any) account {
	t.Helper()
	return ask[struct{ SignUp account }](t, s, "",
		`mutation($input: SignUpInput!) { signUp(input: $input)`+accountFields+` }`, map[string]any{"input": input}).SignUp
}

func signIn(t *testing.T, s *server, username, password string) account {
	t.Helper()
	return ask[struct{ SignIn account }](t, s, "",
		`mutation($input: SignInInput!) { signIn(input: $input)`+accountFields+` }`,
		map[string]any{"input": map[string]any{"username": username, "password": password}}).SignIn
}

func TestSignUpAndSignIn(t *testing.T) {
	s := start(t, nil)
	up := signUp(t, s, map[string]any{"username": "ada", "email": "ada@example.com", "password": "correct horse", "displayName": "Ada"})
	if up.User == nil || up.User.DisplayName != "Ada" || up.AccessToken == nil || len(up.UserErrors) != 0 {
		t.Fatalf("got %+v", up)
	}
	in := signIn(t, s, "ada", "correct horse")
	if in.User == nil || in.User.ID != up.User.ID || in.AccessToken == nil {
		t.Fatalf("got %+v", in)
	}
	for _, token := range []string{*up.AccessToken, *in.AccessToken} {
		me := ask[struct{ Me struct{ ID string } }](t, s, token, `{ me { id } }`, nil).Me
		if me.ID != up.User.ID {
			t.Errorf("the token is %s's, not %s's", me.ID, up.User.ID)
		}
	}
	if !strings.HasSuffix(*in.AccessTokenExpiresAt, ".000000Z") {
		t.Errorf("the token expires at %s", *in.AccessTokenExpiresAt)
	}
}

func TestSignUpAndSignInFailures(t *testing.T) {
	s := start(t, nil)
	s.add(t, "ada")
	taken := signUp(t, s, map[string]any{"username": "ada", "email": "a@example.com", "password": "correct horse"})
	if diff := cmp.Diff(userErrors{{"TAKEN", "this username is taken", []string{"username"}}}, taken.UserErrors); diff != "" {
		t.Error(diff)
	}
	if taken.User != nil || taken.AccessToken != nil || taken.AccessTokenExpiresAt != nil {
		t.Errorf("got %+v", taken)
	}
	wrong, unknown := signIn(t, s, "ada", "wrong"), signIn(t, s, "nobody", "wrong")
	if diff := cmp.Diff(wrong, unknown); diff != "" {
		t.Errorf("a wrong password and an unknown name differ: %s", diff)
	}
	if len(wrong.UserErrors) != 1 || wrong.UserErrors[0].Code != "INVALID_CREDENTIALS" || wrong.UserErrors[0].Field != nil {
		t.Errorf("got %+v", wrong)
	}
}

type sendPayload struct {
	Message *struct {
		ID, Body, ClientID string
		Seq                int
	}
	UserErrors userErrors
}

func sendMessage(t *testing.T, s *server, token string, input map[string]any) sendPayload {
	t.Helper()
	return ask[struct{ SendMessage sendPayload }](t, s, token, `mutation($input: SendMessageInput!) { sendMessage(input: $input) {
		message { id body clientId seq } userErrors { code message field } } }`, map[string]any{"input": input}).SendMessage
}

func TestSendMessageReportsWhatIsWrong(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	used := s.send(ada, bob, "used")
	conversation := conversationID(ids.ID(used.ConversationId))
	fresh := func() string { return ids.New().String() }
	type in = map[string]any
	to := userID(bob.id)
	for name, test := range map[string]struct {
		input in
		want  []string // CODE field
	}{
		"no client id":            {in{"recipientId": to, "body": "x"}, []string{"REQUIRED clientId"}},
		"null client id":          {in{"recipientId": to, "body": "x", "clientId": nil}, []string{"REQUIRED clientId"}},
		"empty client id":         {in{"recipientId": to, "body": "x", "clientId": ""}, []string{"REQUIRED clientId"}},
		"malformed client id":     {in{"recipientId": to, "body": "x", "clientId": "7"}, []string{"INVALID_FORMAT clientId"}},
		"numeric client id":       {in{"recipientId": to, "body": "x", "clientId": 7}, []string{"INVALID_FORMAT clientId"}},
		"client id used":          {in{"recipientId": to, "body": "x", "clientId": used.ClientId}, []string{"CONFLICT clientId"}},
		"blank body":              {in{"recipientId": to, "body": " \n", "clientId": fresh()}, []string{"REQUIRED body"}},
		"nobody":                  {in{"body": "x", "clientId": fresh()}, []string{"REQUIRED recipientId"}},
		"nulls":                   {in{"recipientId": nil, "conversationId": nil, "body": "x", "clientId": fresh()}, []string{"REQUIRED recipientId"}},
		"both":                    {in{"recipientId": to, "conversationId": conversation, "body": "x", "clientId": fresh()}, []string{"INVALID_FORMAT conversationId"}},
		"malformed recipient":     {in{"recipientId": "bob", "body": "x", "clientId": fresh()}, []string{"INVALID_FORMAT recipientId"}},
		"recipient of other kind": {in{"recipientId": conversation, "body": "x", "clientId": fresh()}, []string{"INVALID_FORMAT recipientId"}},
		"malformed conversation":  {in{"conversationId": "c", "body": "x", "clientId": fresh()}, []string{"INVALID_FORMAT conversationId"}},
		"unknown recipient":       {in{"recipientId": userID(ids.New()), "body": "x", "clientId": fresh()}, []string{"NOT_FOUND recipientId"}},
		"unknown conversation":    {in{"conversationId": conversationID(ids.New()), "body": "x", "clientId": fresh()}, []string{"NOT_FOUND conversationId"}},
		"all at once":             {in{"body": "x"}, []string{"REQUIRED recipientId", "REQUIRED clientId"}},
	} {
		t.Run(name, func(t *testing.T) {
			payload := sendMessage(t, s, ada.token, test.input)
			var got []string
			for _, err := range payload.UserErrors {
				got = append(got, err.Code+" "+strings.Join(err.Field, "."))
				if strings.Contains(err.Message, "_") {
					t.Errorf("the message names a field that clients do not know: %q", err.Message)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" || payload.Message != nil {
				t.Errorf("%+v: %s", payload.Message, diff)
			}
		})
	}
	if n := len(s.conversations[0].messages); n != 1 {
		t.Errorf("%d messages are stored, not 1", n)
	}
}

func TestSameClientIDSendsOnce(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	input := map[string]any{"recipientId": userID(bob.id), "body": "once", "clientId": ids.New().String()}
	var wg sync.WaitGroup
	answers := make([]string, 20)
	for i := range answers {
		wg.Go(func() { answers[i] = sendMessage(t, s, ada.token, input).Message.ID })
	}
	wg.Wait()
	for _, id := range answers {
		if id != answers[0] {
			t.Errorf("two messages: %s and %s", id, answers[0])
		}
	}
}

func TestMarkRead(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	for range 5 {
		s.send(ada, bob, "hello")
	}
	conversation := conversationID(s.conversations[0].id)
	for _, test := range []struct {
		id   string
		seq  int
		want string
	}{
		{conversation, 3, `{"markRead":{"conversation":{"readSeq":3,"unreadCount":2},"userErrors":[]}}`},
		{conversation, 2, `{"markRead":{"conversation":{"readSeq":3,"unreadCount":2},"userErrors":[]}}`},
		{conversation, 99, `{"markRead":{"conversation":{"readSeq":5,"unreadCount":0},"userErrors":[]}}`},
		{conversation, -1, `{"markRead":{"conversation":null,"userErrors":[{"code":"OUT_OF_RANGE","field":["seq"]}]}}`},
		{"x", 1, `{"markRead":{"conversation":null,"userErrors":[{"code":"INVALID_FORMAT","field":["conversationId"]}]}}`},
		{conversationID(ids.New()), 1, `{"markRead":{"conversation":null,"userErrors":[{"code":"NOT_FOUND","field":["conversationId"]}]}}`},
	} {
		r := s.post(t, bob.token, `mutation($input: MarkReadInput!) { markRead(input: $input) {
			conversation { readSeq unreadCount } userErrors { code field } } }`,
			map[string]any{"input": map[string]any{"conversationId": test.id, "seq": test.seq}})
		if string(r.Data) != test.want {
			t.Errorf("seq %d: got %s, want %s", test.seq, r.Raw, test.want)
		}
	}
}

func TestUnexpectedFailureOfAMutationIsAnError(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	for name, test := range map[string]struct {
		err  error
		code string
	}{
		"internal":     {fmt.Errorf("secret"), "INTERNAL_SERVER_ERROR"},
		"unavailable":  {errs.New(errs.Unavailable, "try again"), "UNAVAILABLE"},
		"rate limited": {errs.New(errs.RateLimited, "slow down"), "RATE_LIMITED"},
	} {
		t.Run(name, func(t *testing.T) {
			s.fail("SendMessage", test.err)
			r := s.post(t, ada.token, fmt.Sprintf(
				`mutation { sendMessage(input: {recipientId: %q, body: "x", clientId: %q}) { message { id } userErrors { code } } }`,
				userID(ada.id), ids.New()), nil)
			if r.code() != test.code || string(r.Data) != "null" || strings.Contains(r.Raw, "secret") {
				t.Errorf("got %s", r.Raw)
			}
		})
	}
}
