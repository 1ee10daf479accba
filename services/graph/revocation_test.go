package graph

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"chatapp.dev/internal/platform/errs"
)

// awaitRefusal waits until a token is not accepted any more.
func (s *server) awaitRefusal(t *testing.T, token string) {
	t.Helper()
	waitFor(t, func() bool { return s.post(t, token, `{ me { id } }`, nil).code() == "UNAUTHENTICATED" })
}

const signOut = `mutation { signOut { userErrors { code } } }`

type signedOut struct {
	SignOut struct{ UserErrors userErrors }
}

func TestSigningOutEndsTheCallersSessionAtOnceAndNoOther(t *testing.T) {
	s := start(t, func(c *Config) {
		// It is not the poll that does it.
		c.Revocation.PollInterval = 25 * time.Second
	})
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	laptop := s.token(t, ada.id, time.Hour)
	if out := ask[signedOut](t, s, ada.token, signOut, nil).SignOut; out.UserErrors == nil || len(out.UserErrors) != 0 {
		t.Errorf("got %+v", out)
	}
	for _, query := range []string{`{ me { id } }`, signOut} {
		if r := s.post(t, ada.token, query, nil); r.Status != http.StatusUnauthorized || r.code() != "UNAUTHENTICATED" {
			t.Errorf("after signing out, %s is answered with %d %s", query, r.Status, r.Raw)
		}
	}
	for _, token := range []string{laptop, bob.token} {
		ask[struct{ Me struct{ ID string } }](t, s, token, `{ me { id } }`, nil)
	}
	if in := signIn(t, s, "ada", "correct horse"); in.AccessToken == nil {
		t.Errorf("got %+v", in)
	}
}

func TestASignOutThatFailsEndsNothing(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	s.fail("SignOut", errs.New(errs.Unavailable, "accounts cannot be reached now; try again"))
	if r := s.post(t, ada.token, signOut, nil); r.code() != "UNAVAILABLE" {
		t.Errorf("got %s", r.Raw)
	}
	ask[struct{ Me struct{ ID string } }](t, s, ada.token, `{ me { id } }`, nil)
	s.fail("SignOut", nil)
	ask[signedOut](t, s, ada.token, signOut, nil)
}

func TestOpenConnectionsOfARevokedSessionEnd(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	laptop := s.token(t, ada.id, time.Hour)
	ended, live := s.connect(t, ada.token), s.connect(t, laptop)
	s.established(t, ended, "1", nil)
	stream := s.stream(t, http.MethodPost, "/graphql", ada.token, http.Header{"Accept": {"text/event-stream"}}, subscription("", nil))
	s.revoke(t, ada.token)
	if code, _ := ended.closed(); code != 4403 {
		t.Errorf("the socket was closed with %d", code)
	}
	s.awaitRefusal(t, ada.token)
	if rest := stream.until(""); !strings.Contains(rest, "UNAUTHENTICATED") {
		t.Errorf("the stream ended with %s", rest)
	}
	live.subscribe("q", `{ me { username } }`, nil)
	if m := live.receive(); m.Type != "next" || string(m.Payload) != `{"data":{"me":{"username":"ada"}}}` {
		t.Errorf("a query of another session is answered with %s %s", m.Type, m.Payload)
	}
}
