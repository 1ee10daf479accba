package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/gorilla/websocket"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/resolver"
)

// FuzzParseMessage holds that a message which is taken has what its type needs and nothing else, and says the same when
// it is written anew.
func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"type":"connection_init"}`, `{"type":"connection_init","payload":{"authorization":"Bearer x"}}`, `{"type":"ping","payload":null}`,
		`{"type":"pong","payload":{}}`, `{"type":"ping","payload":[]}`, `{"type":"complete","id":"1"}`, `{"type":"complete","id":""}`, `{"Type":"ping"}`,
		`{"type":"subscribe","id":"1","payload":{"query":"{ a }","operationName":"b","variables":{"c":1.50},"extensions":{"d":[null]}}}`,
		`{"type":"subscribe","id":"1","payload":{"query":null,"extensions":{"persistedQuery":{}}}}`, `{"type":"subscribe","id":"1","payload":{}}`,
		`{"type":"subscribe","id":1,"payload":{"query":"{ a }"}}`, `{"type":"next","id":"1"}`, `{"type":"ping","type":"pong"}`, ` {"type" : "ping" } `,
		`{"type":"ping"}{}`, `{"type":"\u0070ing"}`, `{"type":"ping","payload":{"a":"\ud800"}}`, `[]`, `null`, ``, "{\"type\":\"\xff\"}", `{"type":{}}`,
		`{"type":"subscribe","id":"` + strings.Repeat("x", 257) + `","payload":{"query":""}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseMessage(raw)
		if err != nil {
			if reason := err.Error(); !strings.HasPrefix(reason, "Invalid message received: ") || clip(reason) != reason {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		written := map[string]any{"type": m.kind}
		named := m.kind == typeSubscribe || m.kind == typeComplete
		switch {
		case !slices.Contains([]string{typeInit, typePing, typePong, typeSubscribe, typeComplete}, m.kind),
			named != (m.id != ""), len(m.id) > maxOperationID, !utf8.ValidString(m.id),
			(m.kind == typeSubscribe) != (m.operation != nil),
			m.payload != nil && (named || !json.Valid(m.payload) || !isObject(m.payload)):
			t.Fatalf("%q: %+v", raw, m)
		}
		if named {
			written["id"] = m.id
		}
		if m.payload != nil {
			written["payload"] = m.payload
		}
		if m.operation != nil {
			written["payload"] = m.operation
		}
		again, err := json.Marshal(written)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		reread, err := parseMessage(again)
		if err != nil {
			t.Fatalf("%q is read as %+v, but what is written of it (%s) is not: %v", raw, m, again, err)
		}
		// The payload is passed on as it came, which is not how it is written anew.
		if compact(m.payload) != compact(reread.payload) {
			t.Errorf("%q: the payload is %s, and %s when it is read again", raw, m.payload, reread.payload)
		}
		m.payload, reread.payload = nil, nil
		if !reflect.DeepEqual(m, reread) {
			t.Errorf("%q is read as %+v, and %+v when it is written and read again", raw, m, reread)
		}
	})
}

// compact is a JSON text without what does not matter.
func compact(raw json.RawMessage) string {
	if raw == nil {
		return ""
	}
	encoded, err := json.Marshal(raw)
	if err != nil {
		return err.Error()
	}
	return string(encoded)
}

// FuzzWants holds that a client gets a stream only if it named the stream's type, however its Accept headers are laid
// out.
func FuzzWants(f *testing.F) {
	for _, seed := range []string{
		"", "*/*", "text/event-stream", "text/event-stream;q=0", "text/event-stream;q=0.5, application/json;q=0.6", "text/*",
		`multipart/mixed;boundary="graphql";subscriptionSpec=1.0,application/json`, `multipart/mixed;subscriptionSpec="1.0"`,
		"multipart/mixed;subscriptionSpec=2.0", "multipart/mixed", "multipart/mixed;subscriptionSpec=1.0;q=0", "MULTIPART/MIXED; SubscriptionSpec=1.0",
		`multipart/mixed;x="a,b";subscriptionSpec=1.0`, `text/plain;x="multipart/mixed;subscriptionSpec=1.0"`, `multipart/mixed;subscriptionSpec=1.0;subscriptionSpec=1.0`,
		"application/json;q=0, text/event-stream;q=0", `"`, `multipart/mixed;subscriptionSpec*=utf-8''1.0`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		request := func(headers ...string) *http.Request {
			return &http.Request{Method: http.MethodPost, Header: http.Header{"Accept": headers}}
		}
		whole := request(accept)
		events, parts := wantsEvents(whole), wantsParts(whole)
		lower := strings.ToLower(accept)
		if events && !strings.Contains(lower, mediaEvents) || parts && !strings.Contains(lower, mediaParts) {
			t.Errorf("%q: %v, %v", accept, events, parts)
		}
		elements := splitList(accept)
		slices.Reverse(elements)
		// Each in a header of its own, and the other way round.
		if apart := request(elements...); wantsEvents(apart) != events || wantsParts(apart) != parts {
			t.Errorf("%q: %v, %v, but %v, %v apart", accept, events, parts, wantsEvents(apart), wantsParts(apart))
		}
	})
}

// FuzzSocket sends a WebSocket whatever there is, once as it is and once as the messages that its lines are, in the name
// of somebody. It holds that the server survives it, that all it says is of the protocol, that it ends when the client
// does, and that nothing is left of the connection.
func FuzzSocket(f *testing.F) {
	exec := executor.New(gen.NewExecutableSchema(gen.Config{Resolvers: &resolver.Resolver{}}))
	log := slog.New(slog.DiscardHandler)
	exec.SetErrorPresenter(apierr.Presenter{Log: log}.Present)
	exec.SetRecoverFunc(apierr.Presenter{Log: log}.Recover)
	exec.Use(resolver.Guard{})
	e := newEdge(f, func(c *Config) { c.Operations, c.MessageBytes = 5, 1<<10 }, exec)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	go func() { _ = e.server.Serve(listener) }()
	introduction := `{"type":"connection_init","payload":{"authorization":"` + e.bearer(ids.New(), time.Hour) + `"}}`

	for _, seed := range []string{
		`{"type":"ping"}` + "\n" + `{"type":"pong","payload":{}}` + "\n" + `{"type":"ping","payload":{"a":null}}`,
		`{"type":"subscribe","id":"1","payload":{"query":"{ __typename }"}}` + "\n" + `{"type":"complete","id":"1"}`,
		`{"type":"subscribe","id":"\"","payload":{"query":"{"}}` + "\n" + `{"type":"subscribe","id":"\"","payload":{"query":"{ me { id } }"}}`,
		`{"type":"subscribe","id":"1","payload":{"query":"query a($b: Int = 1) { __typename @skip(if: false) } query c { __typename }","operationName":"a","variables":{"b":1}}}`,
		`{"type":"subscribe","id":"2","payload":{"query":"{ __schema { types { name } } ...f } fragment f on Query { __typename ...f }"}}`,
		`{"type":"connection_init"}`, `{"type":"connection_ack"}`, `{}`, `[`, "\xff", strings.Repeat("x", 2<<10),
	} {
		f.Add([]byte(seed))
	}
	for _, frames := range [][][]byte{
		{frame(0x81, []byte(`{"type":"ping"}`)), frame(0x89, []byte("ping")), frame(0x8a, nil), frame(0x88, []byte{0x03, 0xe8})},
		{frame(0x01, []byte(`{"type":`)), frame(0x89, nil), frame(0x00, []byte(`"ping"`)), frame(0x80, []byte(`}`))},
		{frame(0x82, []byte("binary"))},
		{frame(0x88, nil)},
		{frame(0x88, []byte{1})},
		{frame(0x88, []byte{0x03, 0xed})},
		{frame(0x88, []byte("\x0f\xa0\xff"))},
		{frame(0xc1, []byte("reserved"))},
		{frame(0x83, nil)},
		{frame(0x09, nil)},
		{frame(0x80, nil)},
		{{0x81, 0x00}},
		{{0x81, 0xff, 0xff, 0xff}},
		{{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{{0x89, 0xfe, 0x00, 0x7e, 0, 0, 0, 0}},
		{frame(0x81, make([]byte, 70_000))},
	} {
		f.Add(slices.Concat(frames...))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frames := []byte(nil)
		for line := range bytes.SplitSeq(raw, []byte("\n")) {
			frames = append(frames, frame(0x81, line)...)
		}
		for _, sent := range [][]byte{raw, frames} {
			converse(t, listener.Addr().String(), append(frame(0x81, []byte(introduction)), sent...))
		}
		for deadline := time.Now().Add(patience); len(e.all()) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q: there are connections left", raw)
			}
		}
		if n := e.pool.Queued(); n != 0 {
			t.Errorf("%q: %d bytes are queued", raw, n)
		}
	})
}

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// frame is a client's frame. Its mask changes nothing, so that what is found can be read.
func frame(head byte, body []byte) []byte {
	f := []byte{head}
	switch n := len(body); {
	case n <= 125:
		f = append(f, 0x80|byte(n))
	case n <= 0xffff:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 0x80|127), uint64(n))
	}
	return append(append(f, 0, 0, 0, 0), body...)
}

// converse opens a socket, sends it something and no more after that, and reads what it answers until it ends.
func converse(t *testing.T, address string, sent []byte) {
	var conn net.Conn
	dialer := websocket.Dialer{
		Subprotocols: []string{subprotocol},
		NetDialContext: func(ctx context.Context, network, _ string) (_ net.Conn, err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return conn, err
		},
	}
	socket, answer, err := dialer.DialContext(t.Context(), "ws://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	defer socket.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	// A server that closes in the midst of it does not read the rest.
	_, _ = conn.Write(sent)
	_ = conn.(*net.TCPConn).CloseWrite()
	for {
		_, message, err := socket.ReadMessage()
		if err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // The library does not wrap it.
				t.Fatalf("%q: the connection does not end", sent)
			}
			return
		}
		var m struct {
			Type    string
			ID      *string
			Payload json.RawMessage
		}
		if err := json.Unmarshal(message, &m); err != nil || !utf8.Valid(message) {
			t.Fatalf("%q is answered with %q: %v", sent, message, err)
		}
		if want, ok := map[string]bool{"connection_ack": false, "pong": false, "next": true, "error": true, "complete": true}[m.Type]; !ok ||
			want != (m.ID != nil) {
			t.Fatalf("%q is answered with %q", sent, message)
		}
	}
}

// TestStreamsGetNoNonsense sends requests for streams that are cut off at each byte.
func TestStreamsGetNoNonsense(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *edge) {
		body := `{"query":"x","variables":{}}`
		whole := fmt.Sprintf("POST /?token=x HTTP/1.1\r\nHost: edge\r\nAuthorization: %s\r\nAccept: text/event-stream\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", e.bearer(ids.New(), time.Hour), len(body), body)
		for end := range len(whole) {
			conn := e.pipe()
			if _, err := io.WriteString(conn, whole[:end]); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		conn := e.pipe()
		defer conn.Close()
		if _, err := io.WriteString(conn, strings.Replace(whole, "?token=x", "", 1)); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		raw, err := io.ReadAll(answer.Body)
		want := ":\n\nevent: next\ndata: {\"data\":{\"asked\":\"x\"}}\n\nevent: complete\ndata:\n\n"
		if err != nil || string(raw) != want {
			t.Errorf("%q, %v, want %q", raw, err, want)
		}
		if n := e.count(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}
