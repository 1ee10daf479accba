package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"chatapp.dev/dev/internal/client"
)

// transportWS is the one subprotocol that is spoken.
const transportWS = "graphql-transport-ws"

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// wsFrame is a frame of RFC 6455, as it is or as it should not be.
type wsFrame struct {
	opcode  byte
	payload []byte
	// more says that the message goes on in the next frame: FIN is 0.
	more bool
	// reserved are the three bits that no extension uses here.
	reserved byte
	// unmasked leaves out the mask that a client's frame must have.
	unmasked bool
}

// textFrame is a message of its own.
func textFrame(message string) wsFrame { return wsFrame{opcode: opText, payload: []byte(message)} }

// closeFrame is a close with a code.
func closeFrame(code int, reason string) wsFrame {
	return wsFrame{opcode: opClose, payload: append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}
}

// bytes are the frame as it goes over the network.
func (f wsFrame) bytes() []byte {
	return append(f.header(len(f.payload)), f.masked()...)
}

// header is what comes before so many bytes of payload.
func (f wsFrame) header(length int) []byte {
	first := f.opcode | f.reserved<<4
	if !f.more {
		first |= 0x80
	}
	var mask byte
	if !f.unmasked {
		mask = 0x80
	}
	var raw []byte
	switch {
	case length < 126:
		raw = []byte{first, mask | byte(length)}
	case length < 1<<16:
		raw = binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(length))
	default:
		raw = binary.BigEndian.AppendUint64([]byte{first, mask | 127}, uint64(length))
	}
	if !f.unmasked {
		raw = append(raw, maskKey[:]...)
	}
	return raw
}

// maskKey is no secret: masks keep proxies from being fooled, and there is none.
var maskKey = [4]byte{0x12, 0x34, 0x56, 0x78}

func (f wsFrame) masked() []byte {
	if f.unmasked {
		return f.payload
	}
	masked := make([]byte, len(f.payload))
	for i, b := range f.payload {
		masked[i] = b ^ maskKey[i%4]
	}
	return masked
}

// rawSocket is a WebSocket client that shares no code with the server and hides nothing. It sends whatever a test wants,
// and insists that everything that the server sends is what RFC 6455 and the protocol allow.
//
// Nothing is read until a test asks for it.
type rawSocket struct {
	t    *testing.T
	conn *net.TCPConn
	in   *bufio.Reader
}

// handshake asks for a WebSocket with the given headers besides those that always must be there, and returns the answer
// and, when it is 101, the socket.
func handshake(t *testing.T, endpoint string, headers ...string) (*reply, *rawSocket) {
	t.Helper()
	var key [16]byte
	_, _ = rand.Read(key[:]) // It never fails.
	encoded := base64.StdEncoding.EncodeToString(key[:])
	answer, socket := rawHandshake(t, endpoint, append([]string{
		"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + encoded,
	}, headers...)...)
	if socket == nil {
		return answer, nil
	}
	sum := sha1.Sum([]byte(encoded + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got, want := answer.Header.Get("Sec-WebSocket-Accept"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
		t.Fatalf("Sec-WebSocket-Accept is %q, want %q", got, want)
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "upgrade"} {
		if got := answer.Header.Get(name); !strings.EqualFold(got, want) {
			t.Fatalf("the handshake is answered with %s: %q", name, got)
		}
	}
	return answer, socket
}

// rawHandshake sends a GET request with nothing but the given headers.
func rawHandshake(t *testing.T, endpoint string, headers ...string) (*reply, *rawSocket) {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", target.Host, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &rawSocket{t: t, conn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	s.write(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", target.RequestURI(), target.Host,
		strings.Join(headers, "\r\n")))
	s.deadline()
	response, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatalf("the handshake is not answered: %v", err)
	}
	answer := &reply{Response: response, cancel: func() { _ = conn.Close() }}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return answer, s
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return answer, nil
}

// dialRaw opens a socket that has said nothing yet.
func dialRaw(t *testing.T, endpoint string) *rawSocket {
	t.Helper()
	answer, s := handshake(t, endpoint, "Sec-WebSocket-Protocol: "+transportWS)
	if s == nil {
		t.Fatalf("the handshake is answered with %s", answer.Status)
	}
	if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != transportWS {
		t.Fatalf("the server chose the subprotocol %q", got)
	}
	if got := answer.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Fatalf("the server chose the extensions %q, for which nobody asked", got)
	}
	return s
}

// connectRaw opens a socket and introduces somebody, at the endpoint of the client or at another one.
func connectRaw(t *testing.T, c *client.Client) *rawSocket {
	t.Helper()
	s := dialRaw(t, c.Endpoint())
	s.init(c.Token)
	if m := s.message(); m.Type != "connection_ack" {
		t.Fatalf("connection_init is answered with %s", m.raw)
	}
	return s
}

// init sends a connection_init with a token.
func (s *rawSocket) init(token string) {
	s.t.Helper()
	s.text(`{"type":"connection_init","payload":{"authorization":"Bearer ` + token + `"}}`)
}

// write sends bytes. That the server has closed the connection is for the reader to find.
func (s *rawSocket) write(raw []byte) {
	s.t.Helper()
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.conn.Write(raw); err != nil && errors.Is(err, net.ErrClosed) {
		s.t.Fatal(err)
	}
}

// frames sends frames in one write, so that they are likely to arrive as one segment.
func (s *rawSocket) frames(frames ...wsFrame) {
	s.t.Helper()
	var raw []byte
	for _, f := range frames {
		raw = append(raw, f.bytes()...)
	}
	s.write(raw)
}

// text sends messages in one write.
func (s *rawSocket) text(messages ...string) {
	s.t.Helper()
	frames := make([]wsFrame, len(messages))
	for i, message := range messages {
		frames[i] = textFrame(message)
	}
	s.frames(frames...)
}

// subscribe starts an operation.
func (s *rawSocket) subscribe(id, query string, variables map[string]any) {
	s.t.Helper()
	s.text(subscribeMessage(s.t, id, query, variables))
}

// subscribeMessage is the text of a subscribe message.
func subscribeMessage(t *testing.T, id, query string, variables map[string]any) string {
	t.Helper()
	return encode(t, map[string]any{
		"id": id, "type": "subscribe", "payload": map[string]any{"query": query, "variables": variables},
	})
}

func encode(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (s *rawSocket) deadline() { _ = s.conn.SetReadDeadline(time.Now().Add(patience)) }

// frame reads the next frame, and fails the test if no server may send it.
func (s *rawSocket) frame() (wsFrame, error) {
	s.t.Helper()
	s.deadline()
	f, err := readFrame(s.in)
	var breach frameError
	if errors.As(err, &breach) {
		s.t.Fatal(err)
	}
	return f, err
}

// frameError is how a server's frame breaks RFC 6455.
type frameError string

func (e frameError) Error() string { return "the server sends a frame " + string(e) }

// readFrame reads a frame of a server. The error is a frameError if no server may send it.
func readFrame(in io.Reader) (wsFrame, error) {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return wsFrame{}, err
	}
	f := wsFrame{opcode: head[0] & 0xf, more: head[0]&0x80 == 0, reserved: head[0] >> 4 & 7, unmasked: head[1]&0x80 == 0}
	length := uint64(head[1] & 0x7f)
	var err error
	switch length {
	case 126:
		var short uint16
		err = binary.Read(in, binary.BigEndian, &short)
		length = uint64(short)
	case 127:
		err = binary.Read(in, binary.BigEndian, &length)
	}
	control := f.opcode >= opClose
	switch {
	case err != nil:
		return wsFrame{}, err
	case !f.unmasked:
		return wsFrame{}, frameError(fmt.Sprintf("that is masked: % x", head))
	case f.reserved != 0:
		return wsFrame{}, frameError(fmt.Sprintf("with reserved bits: % x", head))
	case !slices.Contains([]byte{opContinuation, opText, opClose, opPing, opPong}, f.opcode):
		return wsFrame{}, frameError(fmt.Sprintf("with opcode %#x", f.opcode))
	case control && (f.more || length > 125):
		return wsFrame{}, frameError(fmt.Sprintf("of control that is fragmented or has %d bytes", length))
	case length > 1<<24:
		return wsFrame{}, frameError(fmt.Sprintf("of %d bytes", length))
	}
	f.payload = make([]byte, length)
	_, err = io.ReadFull(in, f.payload)
	return f, err
}

// wsMessage is a message of the protocol.
type wsMessage struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`

	raw []byte
}

// socketEnd is how a socket ended.
type socketEnd struct {
	// code is 0 when there was no close frame, and 1005 when it had no code.
	code   int
	reason string
	err    error
}

func (e *socketEnd) String() string {
	if e == nil {
		return "no end"
	}
	return fmt.Sprintf("%d %q %v", e.code, e.reason, e.err)
}

// receive returns the next message, or how the socket ended. It answers pings of both kinds, as every client must.
func (s *rawSocket) receive() (wsMessage, *socketEnd) {
	s.t.Helper()
	var whole []byte
	begun := false
	for {
		f, err := s.frame()
		if err != nil {
			return wsMessage{}, &socketEnd{err: err}
		}
		switch f.opcode {
		case opPing:
			s.frames(wsFrame{opcode: opPong, payload: f.payload})
			continue
		case opPong:
			continue
		case opClose:
			return wsMessage{}, s.readClose(f.payload)
		case opText:
			if begun {
				s.t.Fatal("the server begins a message within another")
			}
			begun = true
		case opContinuation:
			if !begun {
				s.t.Fatal("the server continues a message that it did not begin")
			}
		}
		whole = append(whole, f.payload...)
		if f.more {
			continue
		}
		m := s.decode(whole)
		if m.Type != "ping" {
			return m, nil
		}
		s.text(`{"type":"pong"}`)
		whole, begun = nil, false
	}
}

func (s *rawSocket) readClose(payload []byte) *socketEnd {
	s.t.Helper()
	if len(payload) == 0 {
		return &socketEnd{code: 1005}
	}
	if len(payload) == 1 || !utf8.Valid(payload[2:]) {
		s.t.Fatalf("the server closes with % x", payload)
	}
	return &socketEnd{code: int(binary.BigEndian.Uint16(payload)), reason: string(payload[2:])}
}

// decode reads a message, and fails the test if it is none that a server may send.
func (s *rawSocket) decode(raw []byte) wsMessage {
	s.t.Helper()
	if !utf8.Valid(raw) {
		s.t.Fatalf("the server sends text that is not UTF-8: %q", raw)
	}
	m := wsMessage{raw: raw}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		s.t.Fatalf("the server sends %s: %v", raw, err)
	}
	var payload any
	if len(m.Payload) > 0 {
		if err := json.Unmarshal(m.Payload, &payload); err != nil {
			s.t.Fatal(err)
		}
	}
	object, isObject := payload.(map[string]any)
	ok := false
	switch m.Type {
	case "connection_ack", "ping", "pong":
		ok = m.ID == "" && (payload == nil || isObject)
	case "next":
		_, hasData := object["data"]
		ok = m.ID != "" && hasData
	case "error":
		var list []client.ResponseError
		ok = m.ID != "" && json.Unmarshal(m.Payload, &list) == nil && len(list) > 0 &&
			!slices.ContainsFunc(list, func(e client.ResponseError) bool { return e.Message == "" || e.Extensions.Code == "" })
	case "complete":
		ok = m.ID != "" && m.Payload == nil
	}
	if !ok {
		s.t.Fatalf("the server sends %s", raw)
	}
	return m
}

// message returns the next message.
func (s *rawSocket) message() wsMessage {
	s.t.Helper()
	m, end := s.receive()
	if end != nil {
		s.t.Fatalf("instead of a message the socket ends with %v", end)
	}
	return m
}

// want receives a message of a type and for an operation, which is "" for those that are for none.
func (s *rawSocket) want(kind, id string) wsMessage {
	s.t.Helper()
	m := s.message()
	if m.Type != kind || m.ID != id {
		s.t.Fatalf("got %s, want %s of %q", m.raw, kind, id)
	}
	return m
}

// wantEvent receives an event of a newMessage subscription.
func (s *rawSocket) wantEvent(id, body string) {
	s.t.Helper()
	m := s.want("next", id)
	if got := eventBody(m.Payload); got != body {
		s.t.Fatalf("got the event %s, want %q", m.raw, body)
	}
}

// eventBody is the text of the message in an event, or a description of what it is instead.
func eventBody(payload json.RawMessage) string {
	var event struct {
		Data struct {
			NewMessage *struct{ Message struct{ Body string } }
		}
		Errors json.RawMessage
	}
	if err := json.Unmarshal(payload, &event); err != nil || event.Errors != nil || event.Data.NewMessage == nil {
		return "no event: " + string(payload)
	}
	return event.Data.NewMessage.Message.Body
}

// wantError receives the error that ends an operation.
func (s *rawSocket) wantError(id, code string) {
	s.t.Helper()
	m := s.want("error", id)
	var list []client.ResponseError
	if err := json.Unmarshal(m.Payload, &list); err != nil {
		s.t.Fatal(err)
	}
	if got := list[0].Extensions.Code; got != code {
		s.t.Fatalf("got %s, want %s", m.raw, code)
	}
}

// quiet makes sure that the server has said everything that it had to say about what it got so far: it answers messages
// in order, so the next thing that comes is the answer to a ping.
func (s *rawSocket) quiet() {
	s.t.Helper()
	s.text(`{"type":"ping"}`)
	s.want("pong", "")
}

// wantClose waits for the server to close the socket, without another message, and closes it on this side as well.
// Then the server must end the connection. It returns the reason.
func (s *rawSocket) wantClose(code int) (reason string) {
	s.t.Helper()
	m, end := s.receive()
	switch {
	case end == nil:
		s.t.Fatalf("got %s, want a close with %d", m.raw, code)
	case end.code != code:
		s.t.Fatalf("the socket ends with %v, want a close with %d", end, code)
	case end.reason == "" && code >= 4000:
		s.t.Fatalf("the close with %d has no reason", code)
	}
	s.frames(closeFrame(code, ""))
	s.wantEOF()
	return end.reason
}

// wantEOF makes sure that the server ends the connection and says nothing more.
func (s *rawSocket) wantEOF() {
	s.t.Helper()
	s.deadline()
	rest, err := io.ReadAll(s.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		s.t.Fatalf("the server does not end the connection")
	}
	if len(rest) > 0 {
		s.t.Fatalf("behind its close the server sends % x", rest)
	}
}
