package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
)

// wire is one way in which the API carries an operation's results. Its clients here are as small as the protocols' texts
// allow, and as strict: whatever those do not allow fails the test.
type wire struct {
	name string
	// open starts an operation in the name of the client's account.
	open func(t *testing.T, c *client.Client, query string, variables map[string]any) flow
}

// flow is an operation under way.
type flow interface {
	// next waits for the next result, a GraphQL response, or returns how the operation ended.
	next(t *testing.T) (json.RawMessage, *flowEnd)
	// stop ends the operation from this side, as the protocol says.
	stop(t *testing.T)
}

// flowEnd is how an operation ended: with the errors of a last response that has no data, by completion when there are
// none, or by a breach.
type flowEnd struct {
	errors []client.ResponseError
	broken error
}

// code is the code of the first error, or says what there is instead.
func (e *flowEnd) code() string {
	switch {
	case e.broken != nil:
		return "broken: " + e.broken.Error()
	case len(e.errors) == 0:
		return "completed"
	default:
		return e.errors[0].Extensions.Code
	}
}

// multipartAccept is what Apollo's older clients ask with; later ones let the server choose the boundary.
const multipartAccept = `multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json`

// wires are all that there are. All of them must yield the same.
var wires = []wire{
	{"WebSocket", openSocket},
	{"SSE, distinct, by POST", openEvents(http.MethodPost)},
	{"SSE, distinct, by GET", openEvents(http.MethodGet)},
	{"SSE, single, token in a header", openSingle(false)},
	{"SSE, single, token in the URL", openSingle(true)},
	{"multipart", openMultipart(multipartAccept)},
	{"multipart, quoted", openMultipart(`multipart/mixed; subscriptionSpec="1.0", application/json; q=0.9`)},
}

// onEveryWire runs a test with each of them.
func onEveryWire(t *testing.T, do func(t *testing.T, w wire)) {
	t.Helper()
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			do(t, w)
		})
	}
}

// subscribe opens a newMessage subscription.
func (w wire) subscribe(t *testing.T, c *client.Client, after string) flow {
	t.Helper()
	return w.open(t, c, newMessage, map[string]any{"after": after})
}

// socketFlow is an operation on a WebSocket of its own.
type socketFlow struct{ *rawSocket }

func openSocket(t *testing.T, c *client.Client, query string, variables map[string]any) flow {
	t.Helper()
	s := dialRaw(t, c.Endpoint())
	if c.Token == "" {
		s.text(`{"type":"connection_init"}`)
	} else {
		s.init(c.Token)
	}
	m, end := s.receive()
	switch {
	case end != nil && end.code == 4403:
		return refusedFlow("UNAUTHENTICATED")
	case end != nil:
		t.Fatalf("connection_init is answered with %v", end)
	case m.Type != "connection_ack":
		t.Fatalf("connection_init is answered with %s", m.raw)
	}
	s.subscribe("1", query, variables)
	return socketFlow{s}
}

func (f socketFlow) next(t *testing.T) (json.RawMessage, *flowEnd) {
	t.Helper()
	m, end := f.receive()
	if end != nil && end.code == 4403 {
		// It is said of the whole socket. An error message would have the client give the operation up.
		return refusedFlow("UNAUTHENTICATED").next(t)
	}
	if end != nil {
		return nil, &flowEnd{broken: fmt.Errorf("the socket ends with %v", end)}
	}
	switch {
	case m.ID != "1":
		t.Fatalf("got %s", m.raw)
	case m.Type == "complete":
		return nil, &flowEnd{}
	case m.Type == "error":
		end := &flowEnd{}
		if err := json.Unmarshal(m.Payload, &end.errors); err != nil {
			t.Fatal(err)
		}
		return nil, end
	}
	return m.Payload, nil
}

func (f socketFlow) stop(*testing.T) { f.text(`{"type":"complete","id":"1"}`) }

// refusedFlow is an operation that was refused before it began.
type refusedFlow string

func (f refusedFlow) next(*testing.T) (json.RawMessage, *flowEnd) {
	refusal := client.ResponseError{}
	refusal.Extensions.Code = string(f)
	return nil, &flowEnd{errors: []client.ResponseError{refusal}}
}

func (refusedFlow) stop(*testing.T) {}

// parameters are those of GraphQL over HTTP.
type parameters struct {
	Query      string         `json:"query"`
	Variables  map[string]any `json:"variables,omitempty"`
	Extensions map[string]any `json:"extensions,omitempty"`
}

// streams are the connections of clients that read an answer while it is written.
var streams = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

// reply is an HTTP response that ends with the test at the latest.
type reply struct {
	*http.Response

	// cancel cuts the connection.
	cancel context.CancelFunc
}

// request sends a request in the name of the client's account.
func request(t *testing.T, c *client.Client, method, endpoint string, body any, headers ...string) *reply {
	t.Helper()
	var content io.Reader
	if body != nil {
		content = strings.NewReader(encode(t, body))
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, endpoint, content)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	// An answer that never begins would hang the test.
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	response, err := streams.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, endpoint, err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return &reply{Response: response, cancel: cancel}
}

// single returns the response of an answer that is no stream.
func single(t *testing.T, answer *reply) *flowEnd {
	t.Helper()
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || (kind != "application/json" && kind != "application/graphql-response+json") {
		t.Fatalf("the answer %s has the Content-Type %q", answer.Status, answer.Header.Get("Content-Type"))
	}
	var response struct{ Errors []client.ResponseError }
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &response); err != nil || len(response.Errors) == 0 {
		t.Fatalf("the answer %s is %s", answer.Status, body)
	}
	return &flowEnd{errors: response.Errors}
}

// ended is a flow of which nothing is left but its end.
type ended struct{ end *flowEnd }

func (f ended) next(*testing.T) (json.RawMessage, *flowEnd) { return nil, f.end }
func (ended) stop(*testing.T)                               {}

// eventStream reads an answer of server-sent events.
type eventStream struct {
	in     *bufio.Reader
	cancel context.CancelFunc
}

func newEventStream(t *testing.T, answer *reply) *eventStream {
	t.Helper()
	kind, params, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || answer.StatusCode != http.StatusOK || kind != "text/event-stream" ||
		(params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8")) {
		t.Fatalf("the stream is answered with %s and the Content-Type %q", answer.Status, answer.Header.Get("Content-Type"))
	}
	if cache := answer.Header.Get("Cache-Control"); !strings.Contains(cache, "no-cache") && !strings.Contains(cache, "no-store") {
		t.Errorf("the stream may be cached: %q", cache)
	}
	return &eventStream{in: bufio.NewReader(answer.Body), cancel: answer.cancel}
}

// event returns the next event, or io.EOF when the answer ended in good order.
func (s *eventStream) event(t *testing.T) (name, data string, err error) {
	t.Helper()
	late := time.AfterFunc(patience, s.cancel)
	defer late.Stop()
	begun := false
	var lines []string
	for {
		line, err := s.in.ReadString('\n')
		if errors.Is(err, io.EOF) && (begun || line != "") {
			return "", "", fmt.Errorf("the stream ends within an event: %q", line)
		}
		if err != nil {
			return "", "", err
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if begun {
				return name, strings.Join(lines, "\n"), nil
			}
			continue
		case field == "": // A comment.
			continue
		case field == "event":
			name = value
		case field == "data":
			lines = append(lines, value)
		default:
			t.Fatalf("the stream has the line %q", line)
		}
		begun = true
	}
}

// result reads an event of the protocol. In single connection mode, id is the operation that it must be of.
func (s *eventStream) result(t *testing.T, id string) (json.RawMessage, *flowEnd) {
	t.Helper()
	name, data, err := s.event(t)
	if err != nil {
		return nil, &flowEnd{broken: err}
	}
	payload := json.RawMessage(data)
	if id != "" {
		var of struct {
			ID      string          `json:"id"`
			Payload json.RawMessage `json:"payload"`
		}
		decoder := json.NewDecoder(strings.NewReader(data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&of); err != nil || of.ID != id || (of.Payload == nil) != (name == "complete") {
			t.Fatalf("the event %q is %s, of %s; %v", name, data, id, err)
		}
		payload = of.Payload
	}
	switch name {
	case "complete":
		// The data is there though it is empty, without which EventSource would tell nobody.
		if id == "" && data != "" {
			t.Fatalf("the complete event is %q", data)
		}
		return nil, &flowEnd{}
	case "next":
		return payload, nil
	default:
		t.Fatalf("the event %q is %s", name, data)
		return nil, nil
	}
}

// failureOf returns the errors of a response without data, which is how an operation fails on the wires that have no
// message for it.
func failureOf(t *testing.T, payload json.RawMessage) []client.ResponseError {
	t.Helper()
	var response struct {
		Data   json.RawMessage
		Errors []client.ResponseError
	}
	if err := json.Unmarshal(payload, &response); err != nil {
		t.Fatalf("the result %s: %v", payload, err)
	}
	if len(response.Data) > 0 && string(response.Data) != "null" {
		return nil
	}
	if len(response.Errors) == 0 {
		t.Fatalf("a result without data and errors: %s", payload)
	}
	return response.Errors
}

// eventsFlow is an operation whose stream is its own.
type eventsFlow struct{ *eventStream }

func openEvents(method string) func(*testing.T, *client.Client, string, map[string]any) flow {
	return func(t *testing.T, c *client.Client, query string, variables map[string]any) flow {
		t.Helper()
		endpoint, body := c.Endpoint(), any(parameters{Query: query, Variables: variables})
		if method == http.MethodGet {
			values := url.Values{"query": {query}}
			if variables != nil {
				values.Set("variables", encode(t, variables))
			}
			endpoint, body = endpoint+"?"+values.Encode(), nil
		}
		answer := request(t, c, method, endpoint, body, "Accept: text/event-stream")
		// Whatever is wrong with the operation is told by events. What is wrong with the request need not be.
		if answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusMethodNotAllowed {
			return ended{single(t, answer)}
		}
		return eventsFlow{newEventStream(t, answer)}
	}
}

func (f eventsFlow) next(t *testing.T) (json.RawMessage, *flowEnd) {
	t.Helper()
	payload, end := f.result(t, "")
	switch {
	case end == nil:
		failure := failureOf(t, payload)
		if failure == nil {
			return payload, nil
		}
		end = &flowEnd{errors: failure}
		// The operation is complete with it, and says so.
		if more, completed := f.result(t, ""); completed == nil || completed.code() != "completed" {
			t.Fatalf("behind a failure there is %s, %+v", more, completed)
		}
	case end.broken != nil:
		return nil, end
	}
	if _, data, err := f.event(t); !errors.Is(err, io.EOF) {
		t.Fatalf("behind its end the stream has %s, %v", data, err)
	}
	return nil, end
}

func (f eventsFlow) stop(*testing.T) { f.cancel() }

// singleFlow is an operation on a stream that others could share.
type singleFlow struct {
	*eventStream
	client *client.Client
	// endpoint and header hold the stream's token, one of them.
	endpoint string
	header   []string
	id       string
}

func openSingle(inURL bool) func(*testing.T, *client.Client, string, map[string]any) flow {
	return func(t *testing.T, c *client.Client, query string, variables map[string]any) flow {
		t.Helper()
		reserved := request(t, c, http.MethodPut, c.Endpoint(), nil)
		if c.Token == "" && reserved.StatusCode == http.StatusUnauthorized {
			return ended{single(t, reserved)}
		}
		token, err := io.ReadAll(reserved.Body)
		if err != nil || reserved.StatusCode != http.StatusCreated || len(token) == 0 {
			t.Fatalf("the reservation is answered with %s: %q, %v", reserved.Status, token, err)
		}
		if kind := reserved.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
			t.Errorf("the token has the Content-Type %q", kind)
		}
		f := &singleFlow{client: c, endpoint: c.Endpoint(), id: "operation 1"}
		if inURL {
			f.endpoint += "?token=" + url.QueryEscape(string(token))
		} else {
			f.header = []string{"X-GraphQL-Event-Stream-Token: " + string(token)}
		}
		listen := func() {
			// What EventSource sends, which cannot set any header.
			anybody := c.As(client.User{}, "")
			answer := request(t, anybody, http.MethodGet, f.endpoint, nil, append(f.header, "Accept: text/event-stream")...)
			f.eventStream = newEventStream(t, answer)
		}
		if !inURL {
			listen()
		}
		operation := parameters{Query: query, Variables: variables, Extensions: map[string]any{"operationId": f.id}}
		accepted := request(t, c, http.MethodPost, f.endpoint, operation, append(f.header, "Accept: application/json")...)
		switch accepted.StatusCode {
		case http.StatusAccepted:
		case http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized:
			return ended{single(t, accepted)}
		default:
			t.Fatalf("the operation is answered with %s", accepted.Status)
		}
		if inURL {
			// Results wait for a stream that is only reserved.
			listen()
		}
		return f
	}
}

func (f *singleFlow) next(t *testing.T) (json.RawMessage, *flowEnd) {
	t.Helper()
	payload, end := f.result(t, f.id)
	if end != nil {
		return nil, end
	}
	failure := failureOf(t, payload)
	if failure == nil {
		return payload, nil
	}
	if more, completed := f.result(t, f.id); completed == nil || completed.code() != "completed" {
		t.Fatalf("behind a failure there is %s, %+v", more, completed)
	}
	return nil, &flowEnd{errors: failure}
}

func (f *singleFlow) stop(t *testing.T) {
	t.Helper()
	separator := "?"
	if strings.Contains(f.endpoint, "?") {
		separator = "&"
	}
	answer := request(t, f.client, http.MethodDelete, f.endpoint+separator+"operationId="+url.QueryEscape(f.id), nil, f.header...)
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("the end of an operation is answered with %s", answer.Status)
	}
}

// multipartFlow is an operation whose answer has parts.
type multipartFlow struct {
	in       *bufio.Reader
	boundary string
	cancel   context.CancelFunc
	begun    bool // Set by the first delimiter.
}

func openMultipart(accept string) func(*testing.T, *client.Client, string, map[string]any) flow {
	return func(t *testing.T, c *client.Client, query string, variables map[string]any) flow {
		t.Helper()
		answer := request(t, c, http.MethodPost, c.Endpoint(), parameters{Query: query, Variables: variables}, "Accept: "+accept)
		kind, params, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
		if err == nil && strings.HasPrefix(kind, "application/") {
			// Nothing began, or the whole result is there, and the client takes JSON as well.
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			if failure := failureOf(t, body); failure != nil {
				return ended{&flowEnd{errors: failure}}
			}
			return &resultFlow{result: bytes.TrimSpace(body)}
		}
		if err != nil || answer.StatusCode != http.StatusOK || kind != "multipart/mixed" || params["boundary"] == "" {
			t.Fatalf("the operation is answered with %s and the Content-Type %q", answer.Status, answer.Header.Get("Content-Type"))
		}
		return &multipartFlow{in: bufio.NewReader(answer.Body), boundary: params["boundary"], cancel: answer.cancel}
	}
}

// resultFlow is one result, and completion.
type resultFlow struct{ result json.RawMessage }

func (f *resultFlow) next(*testing.T) (json.RawMessage, *flowEnd) {
	if result := f.result; result != nil {
		f.result = nil
		return result, nil
	}
	return nil, &flowEnd{}
}

func (*resultFlow) stop(*testing.T) {}

// errOver says that the last delimiter was the end.
var errOver = errors.New("the parts are over")

// part returns what is before the next delimiter, or errOver. Like Apollo Client, it takes a
// part for whole when the delimiter behind it is there, so a server that wrote that with the next part would keep each
// event back.
func (f *multipartFlow) part(t *testing.T) (content []byte, err error) {
	t.Helper()
	late := time.AfterFunc(patience, f.cancel)
	defer late.Stop()
	delimiter := []byte("\r\n--" + f.boundary)
	for {
		chunk, err := f.in.ReadBytes(f.boundary[len(f.boundary)-1])
		content = append(content, chunk...)
		if errors.Is(err, io.EOF) && f.begun && string(bytes.TrimRight(content, "\r\n")) == "--" {
			return nil, errOver
		}
		if err != nil {
			return nil, fmt.Errorf("the answer ends within a part: %q, %w", content, err)
		}
		if before, ok := bytes.CutSuffix(content, delimiter); ok {
			f.begun = true
			return before, nil
		}
		// The very first delimiter has nothing before it.
		if !f.begun && bytes.Equal(content, delimiter[2:]) {
			f.begun = true
			return nil, nil
		}
	}
}

func (f *multipartFlow) next(t *testing.T) (json.RawMessage, *flowEnd) {
	t.Helper()
	for {
		content, err := f.part(t)
		switch {
		case errors.Is(err, errOver):
			return nil, &flowEnd{}
		case err != nil:
			return nil, &flowEnd{broken: err}
		}
		payload, failure := f.read(t, content)
		if failure != nil {
			if more, err := f.part(t); !errors.Is(err, errOver) {
				t.Fatalf("behind a failure there is %q, %v", more, err)
			}
			return nil, &flowEnd{errors: failure}
		}
		if payload != nil {
			return payload, nil
		}
	}
}

// read reads a part, which is a result, a failure, or neither when it is a heartbeat.
func (f *multipartFlow) read(t *testing.T, content []byte) (payload json.RawMessage, failure []client.ResponseError) {
	t.Helper()
	if len(content) == 0 {
		return nil, nil
	}
	// The rest of the line of the delimiter comes first.
	header, body, ok := bytes.Cut(content, []byte("\r\n\r\n"))
	if !ok || !strings.Contains(strings.ToLower(string(header)), "\r\ncontent-type: application/json") {
		t.Fatalf("a part is %q", content)
	}
	var part map[string]json.RawMessage
	if err := json.Unmarshal(body, &part); err != nil {
		t.Fatalf("a part is %q: %v", content, err)
	}
	if len(part) == 0 {
		return nil, nil
	}
	payload, ok = part["payload"]
	if !ok {
		t.Fatalf("a part is %s", body)
	}
	if part["errors"] != nil {
		if string(payload) != "null" || json.Unmarshal(part["errors"], &failure) != nil || len(failure) == 0 {
			t.Fatalf("a part is %s", body)
		}
		return nil, failure
	}
	if string(payload) == "null" {
		// Apollo Client takes it for the end.
		return nil, nil
	}
	return payload, failureOf(t, payload)
}

func (f *multipartFlow) stop(*testing.T) { f.cancel() }
