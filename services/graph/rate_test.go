package graph

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph/internal/ratelimit"
)

// limited starts the service with bursts that nothing fills up again while a test lasts; 0 is no limit.
func limited(t *testing.T, user, address int, change func(*Config)) *server {
	t.Helper()
	return start(t, func(cfg *Config) {
		cfg.Rate = ratelimit.Config{UserBurst: user, AddressBurst: address, RedisWait: time.Minute}
		if user > 0 {
			cfg.Rate.User = 0.01
		}
		if address > 0 {
			cfg.Rate.Address = 0.01
		}
		if change != nil {
			change(cfg)
		}
	})
}

// wantTooMany checks that an answer is the refusal of one request too many.
func wantTooMany(t *testing.T, r response) {
	t.Helper()
	if r.Status != http.StatusTooManyRequests || r.code() != "RATE_LIMITED" || r.Data != nil {
		t.Errorf("%d %s", r.Status, r.Raw)
	}
	if after, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || after < 1 || after > 100 {
		t.Errorf("Retry-After: %q", r.Header.Get("Retry-After"))
	}
}

func TestAUserWhoAsksTooOftenIsRefused(t *testing.T) {
	s := limited(t, 5, 0, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	for range 5 {
		ask[any](t, s, ada.token, `{ me { id } }`, nil)
	}
	calls := s.counted(func() { wantTooMany(t, s.post(t, ada.token, `{ me { id } }`, nil)) })
	if len(calls) > 0 {
		t.Errorf("it came as far as %v", calls)
	}
	// The user counts, not the token.
	wantTooMany(t, s.post(t, s.token(t, ada.id, time.Hour), `{ __typename }`, nil))
	plain := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json"}, "Authorization": {"Bearer " + ada.token},
	}
	wantTooMany(t, s.do(t, http.MethodPost, "/graphql", plain, `{"query":"{ __typename }"}`))

	ask[any](t, s, bob.token, `{ me { id } }`, nil)
	if r := s.post(t, "", `{ __typename }`, nil); r.Status != http.StatusOK {
		t.Errorf("somebody without a token: %d %s", r.Status, r.Raw)
	}
}

func TestAnAddressThatAsksTooOftenIsRefused(t *testing.T) {
	s := limited(t, 0, 6, nil)
	ada := s.add(t, "ada")
	ask[any](t, s, ada.token, `{ me { id } }`, nil)
	// Bad tokens, sockets and what is no GraphQL count as well.
	for range 2 {
		if r := s.post(t, "garbage", `{ me { id } }`, nil); r.code() != "UNAUTHENTICATED" {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	}
	s.connect(t, ada.token)
	s.do(t, http.MethodGet, "/graphql", http.Header{}, "")
	s.post(t, "", `{ __typename }`, nil)

	for name, token := range map[string]string{"a good token": ada.token, "a bad token": "garbage", "no token": ""} {
		t.Run(name, func(t *testing.T) {
			wantTooMany(t, s.post(t, token, `{ me { id } }`, nil))
		})
	}
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, answer, err := dialer.DialContext(t.Context(), "ws://"+s.addr+"/graphql", nil)
	if err == nil {
		_ = conn.Close()
		t.Fatal("a socket was opened")
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") == "" {
		t.Errorf("a socket: %s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
	}
}

// from is a request that came through proxies.
func (s *server) from(t *testing.T, forwardedFor string) response {
	t.Helper()
	header := http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {forwardedFor}}
	return s.do(t, http.MethodPost, "/graphql", header, `{"query":"{ __typename }"}`)
}

func TestClientsBehindATrustedProxyAreToldApart(t *testing.T) {
	s := limited(t, 0, 2, func(cfg *Config) { cfg.TrustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8"} })
	for range 2 {
		s.from(t, "203.0.113.7")
	}
	wantTooMany(t, s.from(t, "203.0.113.7"))
	wantTooMany(t, s.from(t, "198.51.100.1, 203.0.113.7, 10.0.0.9"))
	if r := s.from(t, "203.0.113.8"); r.Status != http.StatusOK {
		t.Errorf("another client: %d %s", r.Status, r.Raw)
	}
	if log := s.logs.String(); strings.Contains(log, "trusted") || strings.Contains(log, "203.0.113") {
		t.Errorf("the log has:\n%s", log)
	}
}

func TestNobodyElseChoosesTheirAddress(t *testing.T) {
	s := limited(t, 0, 2, nil)
	for _, forged := range []string{"203.0.113.7", "203.0.113.8"} {
		s.from(t, forged)
	}
	wantTooMany(t, s.from(t, "203.0.113.9"))
	log := s.logs.String()
	if strings.Count(log, "--trusted-proxies") != 1 {
		t.Errorf("that a proxy may be missing from the settings is not told once:\n%s", log)
	}
	if strings.Contains(log, "203.0.113") {
		t.Errorf("the log has an address:\n%s", log)
	}
}

func TestTheDefaultLimitsLetPeopleWork(t *testing.T) {
	var defaults Config
	if err := run.Parse("graph", &defaults, nil); err != nil {
		t.Fatal(err)
	}
	if err := defaults.Validate(); err != nil {
		t.Fatal(err)
	}
	if r := defaults.Rate; r.UserBurst < 30 || r.User < 10 || r.AddressBurst < 10*r.UserBurst || r.Address < 10*r.User {
		t.Errorf("%+v is not enough for a person, or for an office", r)
	}
	s := start(t, func(cfg *Config) {
		cfg.Rate = defaults.Rate
		cfg.Rate.RedisWait = time.Minute
	})
	ada := s.add(t, "ada")
	// A screen at once, and more in a row than hands can do.
	for range 300 {
		if r := s.post(t, ada.token, `{ __typename }`, nil); r.Status != http.StatusOK {
			t.Fatalf("%d %s", r.Status, r.Raw)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
