package transport

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNegotiate(t *testing.T) {
	graphQL, plain, legacy := form{media: mediaGraphQL}, form{media: mediaJSON}, form{media: mediaJSON, legacy: true}
	none := form{}
	for _, test := range []struct {
		accept []string
		want   form
	}{
		{nil, plain},
		{[]string{""}, plain},
		{[]string{" , ,"}, plain},
		{[]string{"*/*"}, plain},
		{[]string{"application/*"}, plain},
		{[]string{"application/json"}, legacy},
		{[]string{"application/graphql-response+json"}, graphQL},
		{[]string{"application/graphql-response+json; charset=utf-8, application/json; charset=utf-8"}, graphQL},
		{[]string{"application/json, application/graphql-response+json"}, graphQL},
		{[]string{"application/graphql-response+json,application/json;q=0.9"}, graphQL},
		{[]string{"application/graphql-response+json;q=0.5", "application/json"}, legacy},
		{[]string{"application/graphql-response+json;q=0.5, application/*"}, plain},
		{[]string{"application/graphql-response+json, */*"}, graphQL},
		{[]string{"application/json, text/plain, */*"}, legacy},
		{[]string{"application/json;q=0.5, */*"}, graphQL},
		{[]string{"text/html, */*;q=0.8"}, plain},
		{[]string{"APPLICATION/JSON"}, legacy},
		{[]string{"application/json;q=0.001"}, legacy},
		{[]string{"application/json;q=1.000"}, legacy},
		{[]string{`text/plain;x="a,application/json", application/json`}, legacy},
		{[]string{"multipart/mixed;subscriptionSpec=1.0, application/json"}, legacy},
		// What is refused by name is not allowed by a wildcard, and the other way round.
		{[]string{"application/json;q=0, */*"}, graphQL},
		{[]string{"*/*, application/graphql-response+json;q=0"}, plain},
		{[]string{"application/*;q=0, */*"}, none},
		{[]string{"*/*;q=0, application/json"}, legacy},
		{[]string{"text/html"}, none},
		{[]string{`text/html;x="application/json, */*"`}, none},
		{[]string{"application/json;q=0"}, none},
		{[]string{"application/json;q=0.000"}, none},
		{[]string{"application/json; charset=latin1"}, none},
		{[]string{"application/json;q=NaN"}, none},
		{[]string{"application/json;q=1.5"}, none},
		{[]string{"application/json;q=-1"}, none},
		{[]string{"application/json;q=0.1234"}, none},
		{[]string{"application/json;q="}, none},
		{[]string{"/, ,application/json"}, legacy},
	} {
		got, ok := negotiate(test.accept)
		if got != test.want || ok != (test.want != none) {
			t.Errorf("%q: %+v, %v, want %+v", test.accept, got, ok, test.want)
		}
	}
}

// FuzzNegotiate holds that the media type is one of ours, and that no order of equals changes it.
func FuzzNegotiate(f *testing.F) {
	for _, seed := range []string{
		"", "*/*", "application/json;q=0.5, */*;q=0.1", "application/graphql-response+json, application/json;q=0.9",
		`a/b;x="c,d\"", application/*;q=1.000`, "application/json;q=0,*/*", "q=1;", `"`, `\,"\`, "application/json;charset=UTF-8",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		got, ok := negotiate([]string{accept})
		switch {
		case !ok && got != (form{}), ok && got.media != mediaGraphQL && got.media != mediaJSON, got.legacy && got.media != mediaJSON:
			t.Errorf("%q: %+v, %v", accept, got, ok)
		}
		elements := splitList(accept)
		slices.Reverse(elements)
		if reversed, _ := negotiate([]string{strings.Join(elements, ",")}); reversed != got && strings.Count(accept, `"`)%2 == 0 {
			t.Errorf("%q: %+v, but %+v the other way round", accept, got, reversed)
		}
	})
}

func TestDecodeParams(t *testing.T) {
	for body, want := range map[string]string{
		`{"query":"{ a }"}`: "",
		`{"query":"{ a }","operationName":null,"variables":null,"extensions":null}`: "",
		`{"query":null}`:                          "",
		`{"query":"{ a }","id":7,"Variables":7}`:  "",
		`{"query":7}`:                             "query must be a string",
		`{"query":["{ a }"]}`:                     "query must be a string",
		`{"query":"{ a }","operationName":false}`: "operationName must be a string",
		`{"query":"{ a }","variables":[]}`:        "variables must be an object",
		`{"query":"{ a }","variables":"{}"}`:      "variables must be an object",
		`{"query":"{ a }","extensions":0}`:        "extensions must be an object",
		`[{"query":"{ a }"}]`:                     "the body must be a JSON object",
		`null`:                                    "the body must be a JSON object, but is null",
		``:                                        "the body must be a JSON object",
		`{"query":"{ a }"} {}`:                    "the body must be a JSON object",
		`{"query":"{ a }"`:                        "the body must be a JSON object",
		"{\"query\":\"\xff\"}":                    "the request is not valid UTF-8",
	} {
		params, wrong := decodeParams([]byte(body))
		switch {
		case want == "" && (wrong != nil || params == nil):
			t.Errorf("%s: %+v", body, wrong)
		case want != "" && (wrong == nil || wrong.reason != want || wrong.status != http.StatusBadRequest):
			t.Errorf("%s: %+v, want %q", body, wrong, want)
		}
	}
	params, wrong := decodeParams([]byte(`{"Query":"{ b }","query":"{ a }","QUERY":"{ c }","variables":{"n":12345678901234567890}}`))
	if wrong != nil || params.Query != "{ a }" || params.Variables["n"] != json.Number("12345678901234567890") {
		t.Errorf("%+v, %+v", params, wrong)
	}
}

// FuzzDecodeParams holds that what is taken says in its JSON what was read from it.
func FuzzDecodeParams(f *testing.F) {
	for _, seed := range []string{
		`{"query":"{ a }","operationName":"b","variables":{"c":1.50},"extensions":{"d":[null]}}`, `{"Query":"{ a }"}`, `{}`, `[]`, `null`,
		`{"query":"\ud83d\ude00"}`, `{"query":"\ud83d"}`, `{"query":1}`, `{"query":"a","query":"b"}`, "{\"query\":\"\xff\"}", `{"":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		params, wrong := decodeParams(raw)
		if wrong != nil {
			if params != nil || wrong.status != http.StatusBadRequest || wrong.reason == "" {
				t.Errorf("%q: %+v, %+v", raw, params, wrong)
			}
			return
		}
		again, err := json.Marshal(params)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		reread, wrong := decodeParams(again)
		if wrong != nil || !reflect.DeepEqual(params, reread) {
			t.Errorf("%q is read as %+v, and written and read again as %+v, %+v", raw, params, reread, wrong)
		}
	})
}

// FuzzReadQuery holds that a query string is read or refused, and that no text which is not Unicode gets through.
func FuzzReadQuery(f *testing.F) {
	for _, seed := range []string{
		"query=%7Ba%7D&operationName=b&variables=%7B%22c%22:1%7D&extensions=%7B%7D", "query=%FF", "query=a&query=b", "variables=7", "variables=null",
		"a;b", "%zz", "variables=%7B%22a%22:%22%5Cud83d%22%7D", "extensions=%7B%7D%7B%7D", "query=a+b&=&&",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		params, wrong := readQuery(raw)
		switch {
		case (wrong == nil) == (params == nil):
			t.Errorf("%q: %+v, %+v", raw, params, wrong)
		case wrong != nil && (wrong.status != http.StatusBadRequest || wrong.reason == ""):
			t.Errorf("%q: %+v", raw, wrong)
		case params != nil && (!utf8.ValidString(params.Query) || !utf8.ValidString(params.OperationName)):
			t.Errorf("%q: %+v", raw, params)
		}
	})
}

// FuzzCheckJSON holds that a string which passes is decoded without a replacement that it did not ask for.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`"plain"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\\ud83d"`, `"\\\ud83d"`, `"\ud83d\\ude00"`, `"\uD83D\uDE00"`,
		`"\ud83d\ud83d\ude00"`, `"\u12"`, `"\`, "\"\xff\"", `"\ufffd"`, `"a\ud83d\u0041"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var decoded string
		if checkJSON(raw) != nil || json.Unmarshal(raw, &decoded) != nil {
			return
		}
		wanted := 0
		for i := 0; i < len(raw); i++ {
			switch {
			case raw[i] == '\\':
				if unit, ok := escapedUnit(raw[i:]); ok && unit == utf8.RuneError {
					wanted++
				}
				i++
			case i+3 <= len(raw) && string(raw[i:i+3]) == "\ufffd":
				wanted++
			}
		}
		got := 0
		for _, r := range decoded {
			if r == utf8.RuneError {
				got++
			}
		}
		if got != wanted {
			t.Errorf("%q is decoded as %q: %d replacement characters, not %d", raw, decoded, got, wanted)
		}
	})
}

// failing is a body that ends with an error.
type failing struct {
	*strings.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	if f.Len() > 0 {
		return f.Reader.Read(p)
	}
	return 0, f.err
}

func TestWhyABodyWasNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		err      error
		encoding string
		status   int
	}{
		"too late":                 {fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "", http.StatusRequestTimeout},
		"too late, and compressed": {fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "gzip", http.StatusRequestTimeout},
		"cut off":                  {io.ErrUnexpectedEOF, "", http.StatusBadRequest},
		"cut off, and compressed":  {io.ErrUnexpectedEOF, "gzip", http.StatusBadRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, "/graphql", failing{strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), test.err})
		if test.encoding != "" {
			r.Header.Set("Content-Encoding", test.encoding)
		}
		if _, wrong := (HTTP{MaxBody: 1 << 20, MaxRatio: 10}).readAll(httptest.NewRecorder(), r); wrong == nil || wrong.status != test.status {
			t.Errorf("%s: %+v", name, wrong)
		}
	}
}

// FuzzReadCompressed holds that no body becomes longer than it may, and that one which was compressed comes out as it was.
func FuzzReadCompressed(f *testing.F) {
	for _, seed := range []string{"", "{}", "\x1f\x8b", strings.Repeat("a", 70<<10), "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x00\x00\xff\xff"} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	t := HTTP{MaxBody: 100 << 10, MaxRatio: 10}
	f.Fuzz(func(tt *testing.T, raw []byte, compress bool) {
		body := raw
		if compress {
			var compressed bytes.Buffer
			w := gzip.NewWriter(&compressed)
			_, _ = w.Write(raw)
			_ = w.Close()
			body = compressed.Bytes()
		}
		r := httptest.NewRequest(http.MethodPost, "/graphql", bytes.NewReader(body))
		r.Header.Set("Content-Encoding", "gzip")
		got, wrong := t.readAll(httptest.NewRecorder(), r)
		switch {
		case wrong != nil && (got != nil || wrong.status < 400 || wrong.reason == ""):
			tt.Errorf("%d bytes and %+v", len(got), wrong)
		case len(got) > t.MaxBody, len(got) > freeBytes && len(got) > t.MaxRatio*len(body):
			tt.Errorf("%d bytes became %d", len(body), len(got))
		case compress && len(raw) <= freeBytes && !bytes.Equal(got, raw):
			tt.Errorf("%q became %q, %+v", raw, got, wrong)
		}
	})
}

func TestLiterals(t *testing.T) {
	for query, want := range map[string]bool{
		`{ a(b: "\ud83d\ude00") }`:         false,
		`{ a(b: "\ud83d") }`:               true,
		`{ a(b: "😀 \ud83d") }`:             true,
		`{ a(b: "\ude00\ud83d") }`:         true,
		`{ a(b: "\\ud83d") }`:              false,
		`{ a(b: """\ud83d""") }`:           false,
		"{ a } # \\ud83d":                  false,
		`{ a(b: "\u{1F600}") }`:            false,
		`{ a(b: "x" c: "\ud83dx" d: "y")}`: true,
		`{ a(b: "\ud83d`:                   false,
	} {
		if got := hasLoneSurrogateLiteral(query); got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}

// FuzzLiterals holds that a document in which every escape is whole passes, and that one with half a pair does not.
func FuzzLiterals(f *testing.F) {
	for _, seed := range []string{"", "x", `\\\n`, "😀", `\u00e9`, "\u0000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		escaped, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		// What Go writes of any text has no surrogates.
		document := "{ a(b: " + string(escaped) + ") }"
		if hasLoneSurrogateLiteral(document) {
			t.Errorf("%q is refused", document)
		}
		if half := strings.Replace(document, `"`, `"\ud83d`, 1); !hasLoneSurrogateLiteral(half) && !strings.HasPrefix(string(escaped), `"\ude`) {
			t.Errorf("%q is not refused", half)
		}
	})
}
