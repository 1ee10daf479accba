package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"

	"chatapp.dev/services/graph/internal/persisted"
)

// problem is why a request is none that GraphQL over HTTP knows.
type problem struct {
	status int
	reason string
}

func badRequest(format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, reason: fmt.Sprintf(format, args...)}
}

// read returns the operation that a request asks for, by POST with a JSON body or by the query string of a GET.
func (t HTTP) read(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, *problem) {
	start := graphql.Now()
	var params *graphql.RawParams
	var wrong *problem
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		params, wrong = readQuery(r.URL.RawQuery)
	case http.MethodPost:
		params, wrong = t.readBody(w, r)
	default:
		wrong = &problem{http.StatusMethodNotAllowed, "use GET or POST"}
	}
	if wrong != nil {
		return nil, wrong
	}
	if params.Query == "" && !persisted.Named(params) {
		return nil, badRequest("query is missing")
	}
	params.Headers = r.Header
	params.ReadTime = graphql.TraceTiming{Start: start, End: graphql.Now()}
	return params, nil
}

func (t HTTP) readBody(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, *problem) {
	media, options, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != mediaJSON {
		return nil, &problem{http.StatusUnsupportedMediaType, "the Content-Type must be " + mediaJSON}
	}
	if charset, ok := options["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return nil, &problem{http.StatusUnsupportedMediaType, "the charset must be utf-8"}
	}
	body, wrong := t.readAll(w, r)
	if wrong != nil {
		return nil, wrong
	}
	return decodeParams(body)
}

// readAll reads a body to its end, decompressed.
func (t HTTP) readAll(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	var body bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= int64(t.MaxBody) {
		// One more read than there are bytes, so that the end is seen without growing.
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	from := http.MaxBytesReader(w, r.Body, int64(t.MaxBody))
	switch encoding := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ", ")); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		// What was sent and what becomes of it have the same bound.
		from = http.MaxBytesReader(w, &inflater{compressed: counter{from: from}, maxRatio: int64(t.MaxRatio)}, int64(t.MaxBody))
	default:
		w.Header().Set("Accept-Encoding", "gzip")
		return nil, &problem{http.StatusUnsupportedMediaType, "the Content-Encoding must be gzip, or absent"}
	}
	_, err := body.ReadFrom(from)
	switch {
	case err == nil:
		return body.Bytes(), nil
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, &problem{
			http.StatusRequestEntityTooLarge, fmt.Sprintf("the request may have at most %d bytes", t.MaxBody),
		}
	case errors.Is(err, errRatio):
		return nil, &problem{
			http.StatusRequestEntityTooLarge, fmt.Sprintf("the request may be compressed at most %d times", t.MaxRatio),
		}
	case errors.Is(err, errNotGzip):
		return nil, badRequest("the request is not valid gzip")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{http.StatusRequestTimeout, "the request took too long to arrive"}
	default:
		return nil, badRequest("the request could not be read to its end")
	}
}

// decodeParams reads an operation from a JSON object. The names of its members are compared byte by byte, as JSON has
// them: to Go's decoder "Query" would be "query" too, and what stands before us need not agree. Members that are not known
// are passed over, and null is as good as absent.
func decodeParams(raw []byte) (*graphql.RawParams, *problem) {
	if err := checkJSON(raw); err != nil {
		return nil, badRequest("%s", err.Message)
	}
	var members map[string]json.RawMessage
	if err := decode(raw, &members); err != nil {
		return nil, badRequest("the body must be a JSON object")
	}
	if members == nil {
		return nil, badRequest("the body must be a JSON object, but is null")
	}
	var params graphql.RawParams
	var documentID string
	for _, member := range []struct {
		name string
		into any
		kind string
	}{
		{"query", &params.Query, "a string"},
		{"operationName", &params.OperationName, "a string"},
		{"variables", &params.Variables, "an object"},
		{"extensions", &params.Extensions, "an object"},
		{"documentId", &documentID, "a string"},
	} {
		value, ok := members[member.name]
		if !ok {
			continue
		}
		if err := decode(value, member.into); err != nil {
			return nil, badRequest("%s must be %s", member.name, member.kind)
		}
	}
	if documentID != "" {
		persisted.Name(&params, documentID)
	}
	return &params, nil
}

func readQuery(raw string) (*graphql.RawParams, *problem) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("the query string is malformed")
	}
	for _, name := range []string{"query", "operationName", "variables", "extensions", "documentId"} {
		if len(values[name]) > 1 {
			return nil, badRequest("%s is given more than once", name)
		}
		if !utf8.ValidString(values.Get(name)) {
			return nil, badRequest("the request is not valid UTF-8")
		}
	}
	params := &graphql.RawParams{Query: values.Get("query"), OperationName: values.Get("operationName")}
	for _, parameter := range []struct {
		name string
		into *map[string]any
	}{
		{"variables", &params.Variables},
		{"extensions", &params.Extensions},
	} {
		text := []byte(values.Get(parameter.name))
		if len(text) == 0 {
			continue
		}
		if err := checkJSON(text); err != nil {
			return nil, badRequest("%s", err.Message)
		}
		if err := decode(text, parameter.into); err != nil {
			return nil, badRequest("%s must be a JSON object", parameter.name)
		}
	}
	if id := values.Get("documentId"); id != "" {
		persisted.Name(params, id)
	}
	return params, nil
}

// decode reads one JSON value and nothing after it. Numbers keep their digits.
func decode(raw []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON value")
	}
	return nil
}
