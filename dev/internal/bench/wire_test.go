package bench

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestWireReadsAnswersOfEveryLength(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Header.Get("Authorization") != "Bearer token" || r.URL.Path != "/graphql" || r.Method != http.MethodPost {
			t.Errorf("the request is %s %s with %v", r.Method, r.URL, r.Header)
		}
		if bytes.HasPrefix(body, []byte("fail")) {
			w.WriteHeader(http.StatusBadRequest)
		}
		// A short answer gets its length from net/http, a long one goes in chunks.
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	w, err := dialWire(t.Context(), server.URL+"/graphql", "token")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, length := range []int{0, 1, 100, 2047, 2048, 2049, 50_000, 3} {
		want := strings.Repeat("x", length)
		got, err := w.post([]byte(want))
		if err != nil || string(got) != want {
			t.Errorf("an answer of %d bytes is read as %d bytes, %v", length, len(got), err)
		}
	}
	if got, err := w.post([]byte("fail")); err == nil || !strings.Contains(err.Error(), "fail") {
		t.Errorf("an answer that is not 200 is read as %q, %v", got, err)
	}
	if got, err := w.post([]byte("on")); err != nil || string(got) != "on" {
		t.Errorf("after a failure the answer is %q, %v", got, err)
	}
}

func TestMedianAndQuantile(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("the median is %v", got)
	}
	if got := median([]time.Duration{5}); got != 5 {
		t.Errorf("the median of one is %v", got)
	}
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i))
	}
	for _, tt := range []struct {
		share float64
		want  time.Duration
	}{{0, 0}, {0.5, 50}, {0.99, 99}, {1, 99}} {
		if got := quantile(sorted, tt.share); got != tt.want {
			t.Errorf("quantile %v is %v, want %v", tt.share, got, tt.want)
		}
	}
}

func TestReportTellsWhatIsMetAndWhatIsMissed(t *testing.T) {
	r := &Report{}
	r.Send.GraphQL, r.Send.Ratio, r.Send.WantRatio = 1, 0.5, 0.4
	r.History.GraphQL, r.History.Ratio, r.History.WantRatio = 1, 0.2, 0.3
	var out bytes.Buffer
	r.Write(&out)
	for _, line := range strings.Split(out.String(), "\n") {
		switch {
		case strings.HasPrefix(line, "send: through GraphQL") && !strings.HasSuffix(line, "met"):
			t.Errorf("a goal that is met reads %q", line)
		case strings.HasPrefix(line, "history: through GraphQL") && !strings.HasSuffix(line, "MISSED"):
			t.Errorf("a goal that is missed reads %q", line)
		}
	}
}
