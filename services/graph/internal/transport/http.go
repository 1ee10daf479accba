package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/apierr"
)

// The media types of an answer. The newer one lets the status tell how the request fared; with the older one the
// status is 200 as long as the request was well formed, since anything between here and the client may have made
// another.
const (
	mediaGraphQL = "application/graphql-response+json"
	mediaJSON    = "application/json"
)

// MaxBody is the most bytes that a request may have.
const MaxBody = 1 << 20

// HTTP answers queries and mutations over HTTP, as the GraphQL-over-HTTP specification says: POST with a JSON body,
// and GET for queries.
type HTTP struct {
	// Present presents the errors of requests that never become an operation.
	Present graphql.ErrorPresenterFunc
}

var _ graphql.Transport = HTTP{}

// Supports implements graphql.Transport.
func (HTTP) Supports(r *http.Request) bool { return !IsUpgrade(r) }

// Do implements graphql.Transport.
func (t HTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	media, ok := negotiate(r.Header.Values("Accept"))
	if !ok {
		t.malformed(w, r, http.StatusNotAcceptable, "answers are "+mediaGraphQL+" or "+mediaJSON)
		return
	}
	params, status, reason := read(w, r)
	if reason != "" {
		t.malformed(w, r, status, reason)
		return
	}
	ctx := r.Context()
	operation, refused := exec.CreateOperationContext(ctx, params)
	if refused != nil {
		response := exec.DispatchError(graphql.WithOperationContext(ctx, operation), refused)
		write(w, media, refusedStatus(media, apierr.Status(response.Errors)), response)
		return
	}
	switch operation.Operation.Operation {
	case ast.Subscription:
		t.Refuse(w, r, errs.New(errs.Invalid, "subscriptions travel over WebSocket (graphql-transport-ws)"))
		return
	case ast.Mutation:
		if r.Method == http.MethodGet {
			t.malformed(w, r, http.StatusMethodNotAllowed, "a mutation must be sent with POST")
			return
		}
	}
	responses, ctx := exec.DispatchOperation(ctx, operation)
	response := responses(ctx)
	if response == nil {
		// Only a client that went away before anything was executed leads here; it will not read this.
		response = &graphql.Response{Errors: gqlerror.List{t.Present(ctx, ctx.Err())}}
	}
	write(w, media, http.StatusOK, response)
}

// Refuse answers a request that is well formed and refused before it is looked at any closer.
func (t HTTP) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	media := mediaOf(r)
	presented := gqlerror.List{t.Present(r.Context(), err)}
	write(w, media, refusedStatus(media, apierr.Status(presented)), &graphql.Response{Errors: presented})
}

// Reject answers what is no GraphQL-over-HTTP request, with a status that says so whatever the media type is.
func (t HTTP) Reject(w http.ResponseWriter, r *http.Request, status int, err error) {
	presented := gqlerror.List{t.Present(r.Context(), err)}
	write(w, mediaOf(r), status, &graphql.Response{Errors: presented})
}

func (t HTTP) malformed(w http.ResponseWriter, r *http.Request, status int, reason string) {
	if status == http.StatusMethodNotAllowed {
		allowed := "GET, POST"
		if r.Method == http.MethodGet {
			allowed = "POST"
		}
		w.Header().Set("Allow", allowed)
	}
	t.Reject(w, r, status, errs.New(errs.Invalid, reason))
}

// mediaOf is negotiate for an answer that has to be given anyhow.
func mediaOf(r *http.Request) string {
	if media, ok := negotiate(r.Header.Values("Accept")); ok {
		return media
	}
	return mediaJSON
}

// refusedStatus is the status of a well-formed request that fails before anything is executed.
func refusedStatus(media string, status int) int {
	if media == mediaJSON {
		return http.StatusOK
	}
	return status
}

// read returns the operation that a request asks for, or the status and the reason why it is no request at all.
func read(w http.ResponseWriter, r *http.Request) (params *graphql.RawParams, status int, reason string) {
	start := graphql.Now()
	switch r.Method {
	case http.MethodGet:
		params, status, reason = readQuery(r.URL.RawQuery)
	case http.MethodPost:
		params, status, reason = readBody(w, r)
	default:
		return nil, http.StatusMethodNotAllowed, "use GET or POST"
	}
	if reason != "" {
		return nil, status, reason
	}
	if params.Query == "" {
		return nil, http.StatusBadRequest, "query is missing"
	}
	params.Headers = r.Header
	params.ReadTime = graphql.TraceTiming{Start: start, End: graphql.Now()}
	return params, 0, ""
}

func readBody(w http.ResponseWriter, r *http.Request) (params *graphql.RawParams, status int, reason string) {
	media, options, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != mediaJSON {
		return nil, http.StatusUnsupportedMediaType, "the Content-Type must be " + mediaJSON
	}
	if charset, ok := options["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return nil, http.StatusUnsupportedMediaType, "the charset must be utf-8"
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, MaxBody), r.ContentLength)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, http.StatusRequestEntityTooLarge, "the request is larger than " + strconv.Itoa(MaxBody) + " bytes"
		}
		return nil, http.StatusBadRequest, "the request could not be read to its end"
	}
	if err := checkJSON(body); err != nil {
		return nil, http.StatusBadRequest, err.Message
	}
	params = &graphql.RawParams{}
	if err := decode(body, params); err != nil {
		return nil, http.StatusBadRequest,
			"the body must be a JSON object with query and, as far as needed, operationName, variables and extensions"
	}
	return params, 0, ""
}

// readAll reads a body whose length is known in advance without growing a buffer step by step.
func readAll(from io.Reader, length int64) ([]byte, error) {
	var body bytes.Buffer
	if length > 0 && length <= MaxBody {
		// One more byte than there are, so that the end is seen without growing.
		body.Grow(int(length) + bytes.MinRead)
	}
	_, err := body.ReadFrom(from)
	return body.Bytes(), err
}

func readQuery(raw string) (params *graphql.RawParams, status int, reason string) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, http.StatusBadRequest, "the query string is malformed"
	}
	for _, name := range []string{"query", "operationName", "variables", "extensions"} {
		if !utf8.ValidString(values.Get(name)) {
			return nil, http.StatusBadRequest, "the request is not valid UTF-8"
		}
	}
	params = &graphql.RawParams{Query: values.Get("query"), OperationName: values.Get("operationName")}
	for name, target := range map[string]*map[string]any{
		"variables":  &params.Variables,
		"extensions": &params.Extensions,
	} {
		text := []byte(values.Get(name))
		if len(text) == 0 {
			continue
		}
		if err := checkJSON(text); err != nil {
			return nil, http.StatusBadRequest, err.Message
		}
		if err := decode(text, target); err != nil {
			return nil, http.StatusBadRequest, name + " must be a JSON object"
		}
	}
	return params, 0, ""
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

// negotiate returns the media type of the answer: of those that the client accepts the one that it prefers. Between
// equals the newer one wins, and one that is named over one that a wildcard allows.
func negotiate(accept []string) (media string, ok bool) {
	if len(accept) == 0 {
		return mediaGraphQL, true
	}
	const (
		wildcard = iota
		named
		newer
	)
	bestQuality, bestRank := 0.0, 0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		accepted, options, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		if charset, ok := options["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
			continue
		}
		quality := 1.0
		if q, ok := options["q"]; ok {
			if quality, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		var rank int
		switch accepted {
		case mediaGraphQL:
			rank = newer
		case mediaJSON:
			rank = named
		case "*/*", "application/*":
			accepted, rank = mediaGraphQL, wildcard
		default:
			continue
		}
		if quality > bestQuality || (quality == bestQuality && quality > 0 && rank > bestRank) {
			media, bestQuality, bestRank = accepted, quality, rank
		}
	}
	return media, bestQuality > 0
}

// write sends a response. What gqlgen made of the data is written as it is: to encode it once more would cost as much
// as making it, and would escape what needs no escape.
func write(w http.ResponseWriter, media string, status int, response *graphql.Response) {
	var body bytes.Buffer
	body.Grow(len(response.Data) + 64)
	body.WriteByte('{')
	if len(response.Errors) > 0 {
		body.WriteString(`"errors":`)
		body.Write(mustMarshal(response.Errors))
	}
	if response.Data != nil {
		if len(response.Errors) > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`"data":`)
		body.Write(response.Data)
	}
	if len(response.Extensions) > 0 {
		body.WriteString(`,"extensions":`)
		body.Write(mustMarshal(response.Extensions))
	}
	body.WriteString("}\n")
	header := w.Header()
	header.Set("Content-Type", media+"; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	header.Set("Cache-Control", "no-store")
	if status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	// A client that went away cannot be told anything.
	_, _ = w.Write(body.Bytes())
}

// mustMarshal encodes errors and extensions, which hold nothing that JSON has not.
func mustMarshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
