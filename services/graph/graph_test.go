package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/redistest"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/internal/platform/telemetry"
	"chatapp.dev/services/graph/internal/model"
	"chatapp.dev/services/graph/internal/ratelimit"
)

func TestMain(m *testing.M) {
	flush, err := telemetry.Setup(context.Background(), "graph-test", slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(int) { _ = flush(context.Background()) }))
}

// server is a running graph in front of a world.
type server struct {
	*world
	addr string
	logs *buffer
	stop func()
}

// start runs the service until the test ends.
func start(t *testing.T, change func(*Config)) *server {
	t.Helper()
	w, usersAddr, messagesAddr := newWorld(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaults(t)
	cfg.Listener, cfg.AdminListener = listener, admin
	cfg.Users, cfg.Messages = usersAddr, messagesAddr
	cfg.Redis = "redis://" + redistest.Start(t).Addr + "/0"
	cfg.Rate = ratelimit.Config{}
	cfg.DrainDelay, cfg.Sockets.Drain, cfg.ShutdownTimeout = 0, 0, 5*time.Second
	cfg.Hub.HeadInterval = 20 * time.Millisecond
	cfg.Revocation.PollInterval = 20 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	logs := &buffer{}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- Run(ctx, cfg, telemetry.Logger("debug", "json", logs)) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return &server{world: w, addr: listener.Addr().String(), logs: logs, stop: stop}
}

// defaults are the settings of a service of which nothing is set.
func defaults(t *testing.T) Config {
	t.Helper()
	var cfg Config
	if err := run.Parse("graph", &cfg, nil); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// response is an answer of the API.
type response struct {
	Status int             `json:"-"`
	Header http.Header     `json:"-"`
	Raw    string          `json:"-"`
	Data   json.RawMessage `json:"data"`
	Errors []apiError      `json:"errors"`
}

type apiError struct {
	Message    string         `json:"message"`
	Path       []any          `json:"path"`
	Extensions map[string]any `json:"extensions"`
}

func (r response) code() string {
	if len(r.Errors) == 0 {
		return ""
	}
	code, _ := r.Errors[0].Extensions["code"].(string)
	return code
}

// post sends an operation and fails the test unless the answer is GraphQL JSON.
func (s *server) post(t *testing.T, token, query string, variables map[string]any) response {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return s.do(t, http.MethodPost, "/graphql", header, string(body))
}

func (s *server) do(t *testing.T, method, path string, header http.Header, body string) response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := response{Status: answer.StatusCode, Header: answer.Header, Raw: string(raw)}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatalf("%s %s answered %d with what is no JSON: %q", method, path, answer.StatusCode, raw)
	}
	return r
}

// ask is post for operations that must succeed; it decodes the data.
func ask[T any](t *testing.T, s *server, token, query string, variables map[string]any) T {
	t.Helper()
	r := s.post(t, token, query, variables)
	if len(r.Errors) > 0 {
		t.Fatalf("%s: %s", query, r.Raw)
	}
	var data T
	if err := json.Unmarshal(r.Data, &data); err != nil {
		t.Fatalf("%s: %v in %s", query, err, r.Raw)
	}
	return data
}

func userID(id ids.ID) string { return model.GlobalID{Kind: model.KindUser, UUID: id}.String() }

func conversationID(id ids.ID) string {
	return model.GlobalID{Kind: model.KindConversation, UUID: id}.String()
}

func messageID(id ids.ID, seq int64) string {
	return model.GlobalID{Kind: model.KindMessage, UUID: id, Seq: seq}.String()
}
