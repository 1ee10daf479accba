package graph

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return compressed.String()
}

func TestLongAnswersAreCompressed(t *testing.T) {
	s := start(t, func(c *Config) { c.Development = true })
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	for name, test := range map[string]struct {
		query, accept, encoding string
	}{
		"long":            {"{ __schema { types { name description fields { name description } } } }", "gzip", "gzip"},
		"long again":      {"{ __schema { types { name description fields { name description } } } }", "br, gzip;q=0.5", "gzip"},
		"refused":         {"{ __schema { types { name description fields { name description } } } }", "gzip;q=0", ""},
		"not asked for":   {"{ __schema { types { name description fields { name description } } } }", "", ""},
		"of another kind": {"{ __schema { types { name description fields { name description } } } }", "zstd, br", ""},
		"short":           {"{ __typename }", "gzip", ""},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/graphql", strings.NewReader(`{"query":"`+test.query+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {graphQLJSON}}
			if test.accept != "" {
				request.Header.Set("Accept-Encoding", test.accept)
			}
			answer, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			sent, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got := answer.Header.Get("Content-Encoding"); got != test.encoding {
				t.Errorf("the encoding is %q", got)
			}
			if vary := strings.Join(answer.Header.Values("Vary"), ", "); !strings.Contains(vary, "Accept-Encoding") {
				t.Errorf("Vary is %s", vary)
			}
			plain := sent
			if test.encoding == "gzip" {
				unzip, err := gzip.NewReader(bytes.NewReader(sent))
				if err != nil {
					t.Fatal(err)
				}
				if plain, err = io.ReadAll(unzip); err != nil {
					t.Fatal(err)
				}
				if len(sent) > len(plain)/2 {
					t.Errorf("%d bytes became %d", len(plain), len(sent))
				}
			}
			if !json.Valid(plain) {
				t.Errorf("no JSON: %.100q", plain)
			}
		})
	}
}

func TestStreamsAreNotCompressed(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	for _, accept := range []string{"text/event-stream", "multipart/mixed;subscriptionSpec=1.0, application/json"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/graphql",
			strings.NewReader(`{"query":"subscription { newMessage { cursor } }"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{
			"Content-Type": {"application/json"}, "Accept": {accept}, "Accept-Encoding": {"gzip"}, "Authorization": {"Bearer " + ada.token},
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		// The first bytes come though no event has happened.
		first := make([]byte, 3)
		if _, err := io.ReadFull(answer.Body, first); err != nil {
			t.Errorf("%s: %v", accept, err)
		}
		_ = answer.Body.Close()
		if encoding := answer.Header.Get("Content-Encoding"); answer.StatusCode != http.StatusOK || encoding != "" {
			t.Errorf("%s: %d, Content-Encoding %q", accept, answer.StatusCode, encoding)
		}
	}
}

func TestCompressedRequests(t *testing.T) {
	s := start(t, func(c *Config) { c.Limit.BodyBytes, c.Limit.CompressionRatio = 512<<10, 20 })
	padded := func(n int) string { return `{"query":"{ __typename }` + strings.Repeat(" ", n) + `"}` }
	valid := gzipped(t, padded(0))
	for name, test := range map[string]struct {
		encoding, body string
		status         int
		message        string
	}{
		"gzip":                            {"gzip", valid, 200, ""},
		"gzip by another name":            {"X-GZIP", valid, 200, ""},
		"in two members":                  {"gzip", gzipped(t, padded(0)[:9]) + gzipped(t, padded(0)[9:]), 200, ""},
		"nothing special":                 {"identity", padded(0), 200, ""},
		"a short one, however repetitive": {"gzip", gzipped(t, padded(60<<10)), 200, ""},
		"too repetitive":                  {"gzip", gzipped(t, padded(100<<10)), 413, "the request may be compressed at most 20 times"},
		"too large":                       {"gzip", gzipped(t, padded(600<<10)), 413, ""},
		"not compressed":                  {"gzip", padded(0), 400, "the request is not valid gzip"},
		"nothing":                         {"gzip", "", 400, "the request is not valid gzip"},
		"cut off":                         {"gzip", valid[:len(valid)-4], 400, "the request is not valid gzip"},
		"a wrong checksum":                {"gzip", valid[:len(valid)-8] + "12345678", 400, "the request is not valid gzip"},
		"garbage behind it":               {"gzip", valid + "garbage", 400, "the request is not valid gzip"},
		"garbage in it":                   {"gzip", valid[:12] + "\xff\xff\xff\xff" + valid[16:], 400, "the request is not valid gzip"},
		"not JSON":                        {"gzip", gzipped(t, "{"), 400, "the body must be a JSON object"},
		"another encoding":                {"br", valid, 415, "the Content-Encoding must be gzip, or absent"},
		"compressed twice":                {"gzip, gzip", gzipped(t, valid), 415, "the Content-Encoding must be gzip, or absent"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.do(t, http.MethodPost, "/graphql", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {test.encoding}}, test.body)
			if r.Status != test.status || (test.message != "" && r.Errors[0].Message != test.message) {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
			if (r.Status == http.StatusUnsupportedMediaType) != (r.Header.Get("Accept-Encoding") == "gzip") {
				t.Errorf("Accept-Encoding is %q", r.Header.Get("Accept-Encoding"))
			}
		})
	}
	// The bound of bytes holds whatever the ratio is: this hardly shrinks.
	random := strings.NewReplacer(`"`, "", `\`, "").Replace(string(incompressible(600 << 10)))
	r := s.do(t, http.MethodPost, "/graphql", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, gzipped(t, `{"a":"`+random+`"}`))
	if r.Status != http.StatusRequestEntityTooLarge || r.Errors[0].Message != "the request may have at most 524288 bytes" {
		t.Errorf("%d %s", r.Status, r.Raw)
	}
}

// incompressible returns printable bytes without a pattern.
func incompressible(n int) []byte {
	text := make([]byte, n)
	state := uint32(1)
	for i := range text {
		state = state*1664525 + 1013904223
		text[i] = ' ' + byte(state>>24)%95
	}
	return text
}
