package run

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

var discard = slog.New(slog.DiscardHandler)

// probe asks the handler for a path and returns the status and the text of its answer.
func probe(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestReadinessFollowsTheServiceAndItsChecks(t *testing.T) {
	var database error
	admin := NewAdmin(discard, map[string]Check{
		"redis": func(context.Context) error { return nil },
		"mysql": func(context.Context) error { return database },
		"alpha": func(context.Context) error { return database },
	})
	steps := []struct {
		name     string
		ready    bool
		database error
		status   int
		text     string
	}{
		{"before it serves", false, nil, 503, "not ready: starting or stopping\n"},
		{"serving", true, nil, 200, "ok\n"},
		{"database away", true, errors.New("gone"), 503, "alpha: gone\nmysql: gone\n"},
		{"database back", true, nil, 200, "ok\n"},
		{"stopping", false, nil, 503, "not ready: starting or stopping\n"},
	}
	for _, step := range steps {
		admin.SetReady(step.ready)
		database = step.database
		if status, text := probe(t, admin, "/readyz"); status != step.status || text != step.text {
			t.Errorf("%s: got %d %q, want %d %q", step.name, status, text, step.status, step.text)
		}
		if status, text := probe(t, admin, "/livez"); status != 200 || text != "ok\n" {
			t.Errorf("%s: /livez: got %d %q", step.name, status, text)
		}
	}
}

func TestACheckThatHangsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := NewAdmin(discard, map[string]Check{
			"mysql": func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
		})
		admin.SetReady(true)
		if status, text := probe(t, admin, "/readyz"); status != 503 || text != "mysql: context deadline exceeded\n" {
			t.Errorf("got %d %q", status, text)
		}
	})
}

func TestAdminAnswersWhatIsUnderWayBeforeItStops(t *testing.T) {
	listener, err := Addr("127.0.0.1:0").Listen()
	if err != nil {
		t.Fatal(err)
	}
	admin := NewAdmin(discard, nil)
	asked, release := make(chan struct{}), make(chan struct{})
	admin.Handle("GET /slow", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		io.WriteString(w, "done")
	}))
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx, listener) }()

	answered := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + listener.Addr().String() + "/slow")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-asked
	cancel()
	close(release)
	if got := <-answered; got != "done" {
		t.Errorf("got %q", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestAdminReportsAListenerThatFails(t *testing.T) {
	listener, err := Addr("127.0.0.1:0").Listen()
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := NewAdmin(discard, nil).Serve(context.Background(), listener); err == nil {
		t.Error("Serve succeeded on a closed listener")
	}
	err = NewAdmin(discard, nil).ListenAndServe(context.Background(), "")
	if err == nil || !strings.Contains(err.Error(), "admin") {
		t.Errorf("ListenAndServe without an address: %v", err)
	}
}
