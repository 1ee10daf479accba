package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/ids"
)

// These tests hold the server to graphql-transport-ws (enisdenjo/graphql-ws, PROTOCOL.md) and to RFC 6455 below it, byte
// by byte. Where both leave something open, what the protocol's reference implementation does is what is wanted.

const newMessage = `subscription ($after: Cursor) { newMessage(after: $after) { cursor message { body } } }`

// inEachState runs a test on a socket that has said nothing yet, and on one that is acknowledged.
func inEachState(t *testing.T, c *client.Client, do func(t *testing.T, s *rawSocket)) {
	t.Helper()
	t.Run("before connection_init", func(t *testing.T) { do(t, dialRaw(t, c.Endpoint())) })
	t.Run("after connection_ack", func(t *testing.T) { do(t, connectRaw(t, c)) })
}

func TestEveryMessageThatTheProtocolDoesNotKnowClosesTheSocketWith4400(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	messages := map[string]string{
		"nothing":                    ``,
		"white space":                ` `,
		"no JSON":                    `connection_init`,
		"half of an object":          `{"type":"ping"`,
		"two objects":                `{"type":"ping"}{"type":"ping"}`,
		"something behind":           `{"type":"ping"} x`,
		"a byte order mark":          "\ufeff" + `{"type":"ping"}`,
		"a comment":                  `{"type":"ping"/**/}`,
		"a comma too much":           `{"type":"ping",}`,
		"single quotes":              `{'type':'ping'}`,
		"a control character":        "{\"type\":\"ping\",\"payload\":{\"a\":\"\n\"}}",
		"an array":                   `[{"type":"ping"}]`,
		"a string":                   `"ping"`,
		"a number":                   `1`,
		"null":                       `null`,
		"true":                       `true`,
		"an empty object":            `{}`,
		"no type":                    `{"id":"1","payload":{}}`,
		"a type that is null":        `{"type":null}`,
		"a type that is empty":       `{"type":""}`,
		"a type that is a number":    `{"type":1}`,
		"a type that is an array":    `{"type":["ping"]}`,
		"an unknown type":            `{"type":"hello"}`,
		"a type in capitals":         `{"type":"PING"}`,
		"a type with a space":        `{"type":"ping "}`,
		"a key in capitals":          `{"TYPE":"ping"}`,
		"start, of the old protocol": `{"id":"1","type":"start","payload":{"query":"{ me { id } }"}}`,
		"stop, of the old protocol":  `{"id":"1","type":"stop"}`,
		"connection_terminate, of the old protocol": `{"type":"connection_terminate"}`,
		"ka, of the old protocol":                   `{"type":"ka"}`,
		"connection_ack, which servers send":        `{"type":"connection_ack"}`,
		"next, which servers send":                  `{"id":"1","type":"next","payload":{"data":null}}`,
		"error, which servers send":                 `{"id":"1","type":"error","payload":[{"message":"no"}]}`,
		"half of a surrogate pair":                  `{"type":"ping","payload":{"a":"\ud800"}}`,
		"very deep":                                 `{"type":"ping","payload":{"a":` + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + `}}`,

		"subscribe without an id":                           `{"type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id that is null":                 `{"id":null,"type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id that is empty":                `{"id":"","type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id that is a number":             `{"id":1,"type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id that is an object":            `{"id":{},"type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id of 257 bytes":                 `{"id":"` + strings.Repeat("x", 257) + `","type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with an id of 129 Greek letters":         `{"id":"` + strings.Repeat("α", 129) + `","type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe with ID":                                 `{"ID":"1","type":"subscribe","payload":{"query":"{ me { id } }"}}`,
		"subscribe without a payload":                       `{"id":"1","type":"subscribe"}`,
		"subscribe with a payload that is null":             `{"id":"1","type":"subscribe","payload":null}`,
		"subscribe with a payload that is a string":         `{"id":"1","type":"subscribe","payload":"{ me { id } }"}`,
		"subscribe with a payload that is an array":         `{"id":"1","type":"subscribe","payload":[{"query":"{ me { id } }"}]}`,
		"subscribe with Payload":                            `{"id":"1","type":"subscribe","Payload":{"query":"{ me { id } }"}}`,
		"subscribe without a query":                         `{"id":"1","type":"subscribe","payload":{}}`,
		"subscribe with a query that is null":               `{"id":"1","type":"subscribe","payload":{"query":null}}`,
		"subscribe with a query that is a number":           `{"id":"1","type":"subscribe","payload":{"query":1}}`,
		"subscribe with a query that is an object":          `{"id":"1","type":"subscribe","payload":{"query":{}}}`,
		"subscribe with QUERY":                              `{"id":"1","type":"subscribe","payload":{"QUERY":"{ me { id } }"}}`,
		"subscribe with variables that are a string":        `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","variables":"{}"}}`,
		"subscribe with variables that are an array":        `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","variables":[]}}`,
		"subscribe with variables that are false":           `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","variables":false}}`,
		"subscribe with an operationName that is a number":  `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","operationName":1}}`,
		"subscribe with an operationName that is an object": `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","operationName":{}}}`,
		"subscribe with extensions that are a string":       `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","extensions":"{}"}}`,
		"subscribe with extensions that are an array":       `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } }","extensions":[]}}`,

		"complete without an id":               `{"type":"complete"}`,
		"complete with an id that is empty":    `{"id":"","type":"complete"}`,
		"complete with an id that is null":     `{"id":null,"type":"complete"}`,
		"complete with an id that is a number": `{"id":1,"type":"complete"}`,
		"complete with an id of 257 bytes":     `{"id":"` + strings.Repeat("x", 257) + `","type":"complete"}`,

		"ping with a payload that is a string":            `{"type":"ping","payload":"now"}`,
		"ping with a payload that is an array":            `{"type":"ping","payload":[]}`,
		"ping with a payload that is a number":            `{"type":"ping","payload":0}`,
		"pong with a payload that is a string":            `{"type":"pong","payload":"now"}`,
		"pong with a payload that is false":               `{"type":"pong","payload":false}`,
		"connection_init with a payload that is a string": `{"type":"connection_init","payload":"Bearer ` + ann.Token + `"}`,
		"connection_init with a payload that is an array": `{"type":"connection_init","payload":[]}`,
	}
	frames := map[string][]wsFrame{
		"a binary message":                        {{opcode: opBinary, payload: []byte(`{"type":"ping"}`)}},
		"an empty binary message":                 {{opcode: opBinary}},
		"a binary message in two frames":          {{opcode: opBinary, payload: []byte(`{"type":`), more: true}, {payload: []byte(`"ping"}`)}},
		"a byte that is not UTF-8":                {textFrame("{\"type\":\"ping\",\"payload\":{\"a\":\"\xff\"}}")},
		"half of a character":                     {textFrame("{\"type\":\"ping\",\"payload\":{\"a\":\"\xe2\x82\"}}")},
		"a surrogate in UTF-8":                    {textFrame("{\"type\":\"ping\",\"payload\":{\"a\":\"\xed\xa0\x80\"}}")},
		"an overlong encoding":                    {textFrame("{\"type\":\"ping\",\"payload\":{\"a\":\"\xc0\xaf\"}}")},
		"a character that UTF-8 does not have":    {textFrame("{\"type\":\"ping\",\"payload\":{\"a\":\"\xf5\x80\x80\x80\"}}")},
		"an id that is not UTF-8":                 {textFrame("{\"type\":\"complete\",\"id\":\"\xff\"}")},
		"a message that has no end, in two parts": {{opcode: opText, payload: []byte(`{"type":`), more: true}, {payload: []byte(`"ping"`)}},
	}
	for name, message := range messages {
		frames[name] = []wsFrame{textFrame(message)}
	}
	for name, sent := range frames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inEachState(t, ann, func(_ *testing.T, s *rawSocket) {
				// Nothing behind it is looked at.
				s.frames(append(sent, textFrame(`{"type":"ping"}`))...)
				s.wantClose(4400)
			})
		})
	}
}

func TestWhatTheProtocolAllowsIsTaken(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	const me = `{"data":{"me":{"username":"` // And so on.
	for name, message := range map[string]string{
		"members in another order":      `{"payload":{"query":"{ me { username } }"},"type":"subscribe","id":"1"}`,
		"white space":                   " \t\r\n{ \"type\" : \"subscribe\" , \"id\" : \"1\" , \"payload\" : { \"query\" : \"{ me { username } }\" } } \n",
		"escapes":                       `{"type":"\u0073ubscribe","id":"\u0031","payload":{"query":"{ me \u007b username } }"}}`,
		"members of a later version":    `{"type":"subscribe","id":"1","since":2030,"payload":{"query":"{ me { username } }","since":2030}}`,
		"keys that differ in case only": `{"type":"subscribe","TYPE":"ping","id":"1","ID":"2","payload":{"query":"{ me { username } }","Query":"no"},"Payload":null}`,
		"nulls":                         `{"type":"subscribe","id":"1","payload":{"query":"{ me { username } }","operationName":null,"variables":null,"extensions":null}}`,
		"all members": `{"type":"subscribe","id":"1","payload":{"query":"query A { me { id } } query B($x: Boolean!) { me { username @skip(if: false) id @include(if: $x) } }",` +
			`"operationName":"B","variables":{"x":false},"extensions":{"a":{"b":[1,2,{"c":null}]}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := connectRaw(t, ann)
			s.text(message)
			if m := s.want("next", "1"); !strings.HasPrefix(string(m.Payload), me+ann.User.Username) {
				t.Errorf("got %s", m.raw)
			}
			s.want("complete", "1")
		})
	}
	for _, id := range []string{
		strings.Repeat("x", 256), strings.Repeat("α", 128), "0", " ", "null", "__proto__", "\u0000\u001f\u2028", `"\`, "</script>", "🙂", "é",
	} {
		t.Run(fmt.Sprintf("the id %.20q", id), func(t *testing.T) {
			t.Parallel()
			s := connectRaw(t, ann)
			s.subscribe(id, "{ me { username } }", nil)
			s.want("next", id)
			s.want("complete", id)
		})
	}
	t.Run("connection_init with more than a token", func(t *testing.T) {
		t.Parallel()
		s := dialRaw(t, ann.Endpoint())
		s.text(`{"type":"connection_init","payload":{"client":"test","authorization":"Bearer ` + ann.Token + `","n":1,"o":{}}}`)
		s.want("connection_ack", "")
	})
}

func TestSubscribeBeforeTheAcknowledgementClosesTheSocketWith4401(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	for name, before := range map[string][]string{
		"at once":                     nil,
		"after a ping":                {`{"type":"ping"}`},
		"after a ping with a token":   {`{"type":"ping","payload":{"authorization":"Bearer ` + ann.Token + `"}}`},
		"after a pong with a token":   {`{"type":"pong","payload":{"authorization":"Bearer ` + ann.Token + `"}}`},
		"after a complete":            {`{"type":"complete","id":"1"}`},
		"after a ping and a complete": {`{"type":"ping"}`, `{"type":"complete","id":"1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dialRaw(t, ann.Endpoint())
			for _, message := range before {
				s.text(message)
				if strings.Contains(message, `"ping"`) {
					s.want("pong", "")
				}
			}
			s.subscribe("1", "{ me { id } }", nil)
			if reason := s.wantClose(4401); reason != "Unauthorized" {
				t.Errorf("the reason is %q", reason)
			}
		})
	}
}

func TestAConnectionInitWithoutAValidTokenClosesTheSocketWith4403(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	valid := ann.Token
	signature := strings.LastIndexByte(valid, '.') + 1
	for name, payload := range map[string]string{
		"no payload":                        ``,
		"a payload that is null":            `null`,
		"an empty payload":                  `{}`,
		"no token":                          `{"authorization":""}`,
		"null":                              `{"authorization":null}`,
		"a number":                          `{"authorization":1}`,
		"an object":                         `{"authorization":{"token":"` + valid + `"}}`,
		"an array":                          `{"authorization":["Bearer ` + valid + `"]}`,
		"a token without its scheme":        `{"authorization":"` + valid + `"}`,
		"a scheme without a token":          `{"authorization":"Bearer "}`,
		"another scheme":                    `{"authorization":"Basic ` + valid + `"}`,
		"another member":                    `{"token":"Bearer ` + valid + `"}`,
		"no token at all":                   `{"authorization":"Bearer token"}`,
		"a very long token":                 `{"authorization":"Bearer ` + strings.Repeat("x", 100_000) + `"}`,
		"a token with a line break":         `{"authorization":"Bearer ` + valid[:signature] + `\n` + valid[signature:] + `"}`,
		"a token without its signature":     `{"authorization":"Bearer ` + valid[:signature] + `"}`,
		"a token with a changed signature":  `{"authorization":"Bearer ` + valid[:signature] + other(valid[signature]) + valid[signature+1:] + `"}`,
		"a token signed by somebody else":   `{"authorization":"Bearer ` + forgedFor(t, ann) + `"}`,
		"a token that has expired":          `{"authorization":"Bearer ` + tokenFor(t, stack, ann, -time.Minute) + `"}`,
		"a token of the algorithm \"none\"": `{"authorization":"Bearer ` + unsigned(valid) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dialRaw(t, ann.Endpoint())
			if payload == "" {
				s.text(`{"type":"connection_init"}`)
			} else {
				s.text(`{"type":"connection_init","payload":` + payload + `}`)
			}
			s.wantClose(4403)
		})
	}
	t.Run("a token in the header of the upgrade", func(t *testing.T) {
		t.Parallel()
		answer, s := handshake(t, ann.Endpoint(), "Sec-WebSocket-Protocol: "+transportWS, "Authorization: Bearer "+valid)
		if s == nil {
			t.Fatalf("the handshake is answered with %s", answer.Status)
		}
		// A page cannot set it, so it would be what a proxy or a browser adds without being asked.
		s.text(`{"type":"connection_init"}`)
		s.wantClose(4403)
	})
	t.Run("a token that is good", func(t *testing.T) {
		t.Parallel()
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
			s := dialRaw(t, ann.Endpoint())
			s.text(`{"type":"connection_init","payload":{"authorization":"` + scheme + valid + `"}}`)
			s.want("connection_ack", "")
		}
	})
}

// unsigned is a token whose header says that it needs no signature.
func unsigned(token string) string {
	const none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0" // {"alg":"none","typ":"JWT"}
	return none + "." + strings.Split(token, ".")[1] + "."
}

func TestASecondConnectionInitClosesTheSocketWith4429(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	initialise := `{"type":"connection_init","payload":{"authorization":"Bearer ` + ann.Token + `"}}`
	wantReason := func(t *testing.T, reason string) {
		t.Helper()
		if reason != "Too many initialisation requests" {
			t.Errorf("the reason is %q", reason)
		}
	}
	t.Run("after the acknowledgement", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.text(initialise)
		wantReason(t, s.wantClose(4429))
	})
	t.Run("with another payload", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.text(`{"type":"connection_init"}`)
		wantReason(t, s.wantClose(4429))
	})
	t.Run("while operations run", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
		s.text(initialise)
		wantReason(t, s.wantClose(4429))
	})
	t.Run("before the acknowledgement", func(t *testing.T) {
		t.Parallel()
		s := dialRaw(t, ann.Endpoint())
		s.text(initialise, initialise)
		m, end := s.receive()
		if end == nil {
			if m.Type != "connection_ack" {
				t.Fatalf("got %s", m.raw)
			}
			wantReason(t, s.wantClose(4429))
			return
		}
		if end.code != 4429 {
			t.Fatalf("the socket ends with %v", end)
		}
		wantReason(t, end.reason)
	})
}

func TestASecondOperationOfTheSameIDClosesTheSocketWith4409ThatNamesIt(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	for _, second := range []string{newMessage, "{ me { id } }", "mutation { signIn(input: {username: \"x\", password: \"y\"}) { accessToken } }", "{ no such thing"} {
		for _, id := range []string{"1", "an id with spaces", "é🙂"} {
			t.Run(fmt.Sprintf("%.20s %s", second, id), func(t *testing.T) {
				t.Parallel()
				s := connectRaw(t, ann)
				s.subscribe(id, newMessage, map[string]any{"after": cursor(t, ann)})
				s.subscribe(id, second, nil)
				if got, want := s.wantClose(4409), "Subscriber for "+id+" already exists"; got != want {
					t.Errorf("the reason is %q, want %q", got, want)
				}
			})
		}
	}
	t.Run("for an id that does not fit into a close frame", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{strings.Repeat("x", 256), strings.Repeat("α", 128), strings.Repeat("🙂", 64), "x" + strings.Repeat("α", 127)} {
			s := connectRaw(t, ann)
			s.subscribe(id, newMessage, map[string]any{"after": cursor(t, ann)})
			s.subscribe(id, newMessage, nil)
			reason := s.wantClose(4409)
			if !utf8.ValidString(reason) || len(reason) > 123 || !strings.HasPrefix(reason, "Subscriber for "+id[:64]) {
				t.Errorf("the reason is %q", reason)
			}
		}
	})
	t.Run("both in one segment", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		variables := map[string]any{"after": cursor(t, ann)}
		message := subscribeMessage(t, "1", newMessage, variables)
		s.text(message, message)
		s.wantClose(4409)
	})
	t.Run("but not in another case, nor on another socket", func(t *testing.T) {
		t.Parallel()
		variables := map[string]any{"after": cursor(t, ann)}
		s, elsewhere := connectRaw(t, ann), connectRaw(t, ann)
		s.subscribe("a", newMessage, variables)
		s.subscribe("A", newMessage, variables)
		elsewhere.subscribe("a", newMessage, variables)
		s.quiet()
		elsewhere.quiet()
	})
}

func TestASubprotocolThatIsNotSpokenIsNotChosenAndClosesTheSocketWith4406(t *testing.T) {
	t.Parallel()
	endpoint := sharedFor(t).Endpoints()[0]
	for name, headers := range map[string][]string{
		"none":                    nil,
		"the old protocol":        {"Sec-WebSocket-Protocol: graphql-ws"},
		"another one":             {"Sec-WebSocket-Protocol: soap"},
		"an empty list":           {"Sec-WebSocket-Protocol: "},
		"ours in capitals":        {"Sec-WebSocket-Protocol: GraphQL-Transport-WS"},
		"one that begins as ours": {"Sec-WebSocket-Protocol: graphql-transport-wss"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer, s := handshake(t, endpoint, headers...)
			if s == nil {
				t.Fatalf("the handshake is answered with %s", answer.Status)
			}
			if got := answer.Header.Values("Sec-WebSocket-Protocol"); len(got) != 0 {
				t.Errorf("the server chose %q", got)
			}
			if reason := s.wantClose(4406); reason != "Subprotocol not acceptable" {
				t.Errorf("the reason is %q", reason)
			}
		})
	}
	for name, headers := range map[string][]string{
		"ours alone":          {"Sec-WebSocket-Protocol: graphql-transport-ws"},
		"ours behind another": {"Sec-WebSocket-Protocol: graphql-ws, graphql-transport-ws"},
		"ours before another": {"Sec-WebSocket-Protocol: graphql-transport-ws , graphql-ws"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer, s := handshake(t, endpoint, headers...)
			if s == nil {
				t.Fatalf("the handshake is answered with %s", answer.Status)
			}
			if got := answer.Header.Values("Sec-WebSocket-Protocol"); len(got) != 1 || got[0] != transportWS {
				t.Errorf("the server chose %q", got)
			}
		})
	}
}

// wantRefusal checks an answer that is no socket: GraphQL JSON as any other.
func wantRefusal(t *testing.T, answer *reply, status int, code string) {
	t.Helper()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var refused struct{ Errors []client.ResponseError }
	if err := json.Unmarshal(body, &refused); err != nil || answer.StatusCode != status || len(refused.Errors) != 1 ||
		refused.Errors[0].Extensions.Code != code {
		t.Errorf("the handshake is answered with %s: %s; want %d and %s", answer.Status, body, status, code)
	}
	if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/") {
		t.Errorf("the answer is %q", kind)
	}
}

func TestAHandshakeThatIsNoneIsRefusedAsHTTP(t *testing.T) {
	t.Parallel()
	endpoint := sharedFor(t).Endpoints()[0]
	const key = "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="
	for name, headers := range map[string][]string{
		"no key":         {"Sec-WebSocket-Version: 13"},
		"a short key":    {"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AQID"},
		"no version":     {key},
		"an old version": {"Sec-WebSocket-Version: 8", key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer, s := rawHandshake(t, endpoint, append(headers, "Upgrade: websocket", "Connection: Upgrade",
				"Sec-WebSocket-Protocol: "+transportWS)...)
			if s != nil {
				t.Fatal("the socket is opened")
			}
			if answer.StatusCode != http.StatusBadRequest && answer.StatusCode != http.StatusUpgradeRequired {
				t.Errorf("the handshake is answered with %s", answer.Status)
			}
			wantRefusal(t, answer, answer.StatusCode, "BAD_USER_INPUT")
		})
	}
	t.Run("from a page of another site", func(t *testing.T) {
		t.Parallel()
		for _, origin := range []string{"https://evil.example", "null", "http://127.0.0.1:1"} {
			answer, s := handshake(t, endpoint, "Sec-WebSocket-Protocol: "+transportWS, "Origin: "+origin)
			if s != nil {
				t.Fatalf("a page of %s may open a socket", origin)
			}
			wantRefusal(t, answer, http.StatusForbidden, "FORBIDDEN")
		}
	})
	t.Run("from a page of our own", func(t *testing.T) {
		t.Parallel()
		own := strings.TrimSuffix(endpoint, "/graphql")
		if answer, s := handshake(t, endpoint, "Sec-WebSocket-Protocol: "+transportWS, "Origin: "+own); s == nil {
			t.Fatalf("the handshake is answered with %s", answer.Status)
		}
	})
}

func TestPingIsAnsweredWithPongInEveryStateAndAPongNobodyAskedForIsTaken(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	s := dialRaw(t, ann.Endpoint())
	pings := func(state string) {
		t.Helper()
		for _, ping := range []string{
			`{"type":"ping"}`, `{"type":"ping","payload":null}`, `{"type":"ping","payload":{}}`, `{"type":"ping","payload":{"at":[1,2.5e3,"x"]}}`,
		} {
			s.text(`{"type":"pong"}`, ping, `{"type":"pong","payload":{"at":1}}`, `{"type":"pong","payload":null}`)
			m := s.want("pong", "")
			// The reference gives a payload back.
			var sent, got struct{ Payload map[string]any }
			if err := json.Unmarshal([]byte(ping), &sent); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(m.raw, &got); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.Payload) != fmt.Sprint(sent.Payload) {
				t.Errorf("%s: %s is answered with %s", state, ping, m.raw)
			}
		}
		// Pings of RFC 6455 as well, whose payload must come back.
		s.frames(wsFrame{opcode: opPing, payload: []byte("are you there?")}, wsFrame{opcode: opPong, payload: []byte("I am")})
		f, err := s.frame()
		if err != nil || f.opcode != opPong || string(f.payload) != "are you there?" {
			t.Fatalf("%s: a ping of RFC 6455 is answered with %+v, %v", state, f, err)
		}
	}
	pings("before connection_init")
	s.init(ann.Token)
	s.want("connection_ack", "")
	pings("after connection_ack")
	s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
	pings("with a subscription")
	send(t, ann, ann, "still here")
	s.wantEvent("1", "still here")
	s.text(`{"type":"complete","id":"1"}`)
	pings("after a complete")
}

func TestQueriesAndMutationsOverASocketYieldNextAndComplete(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	s := connectRaw(t, ann)
	s.subscribe("q", "query { me { username } }", nil)
	if m := s.want("next", "q"); string(m.Payload) != `{"data":{"me":{"username":"`+ann.User.Username+`"}}}` {
		t.Errorf("the query is answered with %s", m.raw)
	}
	s.want("complete", "q")

	draft := client.Draft{RecipientID: ann.User.ID, Body: "over a socket", ClientID: ids.New().String()}
	s.subscribe("m", client.SendQuery, map[string]any{"input": draft.Input()})
	if m := s.want("next", "m"); !strings.Contains(string(m.Payload), `"over a socket"`) {
		t.Errorf("the mutation is answered with %s", m.raw)
	}
	s.want("complete", "m")
	if got := history(t, ann, conversationWith(t, ann, ann).ID); len(got) != 1 || got[0].Body != draft.Body {
		t.Errorf("the history is %+v", got)
	}

	// An error beside data is part of the result, and ends nothing before its time.
	s.subscribe("e", `{ me { username } users(first: 1000) { edges { cursor } } }`, nil)
	if m := s.want("next", "e"); !strings.Contains(string(m.Payload), `"BAD_USER_INPUT"`) {
		t.Errorf("the query is answered with %s", m.raw)
	}
	s.want("complete", "e")

	// Many at once; the answers of one do not come between those of another in the wrong order.
	var messages []string
	for i := range 50 {
		messages = append(messages, subscribeMessage(t, fmt.Sprint(i), "{ me { username } }", nil))
	}
	s.text(messages...)
	state := map[string]string{}
	for range 2 * len(messages) {
		m := s.message()
		if was := state[m.ID]; (m.Type == "next" && was != "") || (m.Type == "complete" && was != "next") || (m.Type != "next" && m.Type != "complete") {
			t.Fatalf("got %s after %q", m.raw, was)
		}
		state[m.ID] = m.Type
	}
	s.quiet()
}

func TestAnOperationThatIsRefusedEndsWithErrorAloneAndItsIDIsFree(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	s := connectRaw(t, ann)
	for _, tt := range []struct {
		name, query string
		variables   map[string]any
		code        string
	}{
		{"an empty document", "", nil, ""},
		{"no GraphQL", "{ me", nil, "GRAPHQL_PARSE_FAILED"},
		{"an unknown field", "subscription { nothing }", nil, "GRAPHQL_VALIDATION_FAILED"},
		{"no operation", "fragment F on User { id }", nil, "GRAPHQL_VALIDATION_FAILED"},
		{"two root fields", "subscription { newMessage { cursor } more: newMessage { cursor } }", nil, ""},
		{"a variable that is missing", "subscription ($after: Cursor!) { newMessage(after: $after) { cursor } }", nil, "BAD_USER_INPUT"},
		{"a cursor that is none", newMessage, map[string]any{"after": "none"}, "CURSOR_INVALID"},
		{"somebody else's cursor", newMessage, map[string]any{"after": cursor(t, account(t, stack, "Eve"))}, "CURSOR_INVALID"},
	} {
		s.subscribe("1", tt.query, tt.variables)
		if tt.code == "" {
			s.want("error", "1")
		} else {
			s.wantError("1", tt.code)
		}
		// No complete follows, a complete from here is ignored, and the id is free.
		s.text(`{"type":"complete","id":"1"}`)
		s.quiet()
		s.subscribe("1", "{ me { username } }", nil)
		s.want("next", "1")
		s.want("complete", "1")
	}
}

func TestAfterAClientsCompleteAnOperationIsSilentAndItsIDIsFree(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	s := connectRaw(t, ann)
	s.subscribe("stays", newMessage, map[string]any{"after": cursor(t, ann)})
	for round := range 5 {
		after := cursor(t, ann)
		s.subscribe("1", newMessage, map[string]any{"after": after})
		send(t, ann, ann, fmt.Sprint("first ", round))
		// Both get it, in either order.
		for range 2 {
			if m := s.message(); m.Type != "next" || eventBody(m.Payload) != fmt.Sprint("first ", round) {
				t.Fatalf("got %s", m.raw)
			}
		}
		s.text(`{"type":"complete","id":"1"}`)
		s.quiet()
		send(t, ann, ann, fmt.Sprint("second ", round))
		s.wantEvent("stays", fmt.Sprint("second ", round))
		s.quiet()
		// The same id again, at once and from before; this time the complete is in the same segment.
		s.text(subscribeMessage(t, "1", newMessage, map[string]any{"after": after}), `{"type":"complete","id":"1"}`, `{"type":"ping"}`)
		for {
			m := s.message()
			if m.Type == "pong" {
				break
			}
			if m.Type != "next" || m.ID != "1" {
				t.Fatalf("got %s", m.raw)
			}
		}
		s.quiet()
	}
}

func TestACompleteForAnUnknownIDIsIgnoredInEveryState(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	inEachState(t, ann, func(t *testing.T, s *rawSocket) {
		for _, id := range []string{"1", "never", strings.Repeat("x", 256), "🙂"} {
			s.text(encode(t, map[string]string{"type": "complete", "id": id}))
			s.quiet()
		}
		// Not even a payload, which nobody specified, makes it unknown.
		s.text(`{"type":"complete","id":"1","payload":null}`)
		s.quiet()
	})
}

func TestAResultThatTheClientNoLongerWantsIsNotSent(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	s := connectRaw(t, ann)
	for i := range 50 {
		// In one segment, so that the complete is there while the query runs, or even before.
		s.text(subscribeMessage(t, "1", "{ me { username } conversations { edges { cursor } } }", nil), `{"type":"complete","id":"1"}`, `{"type":"ping"}`)
		var got []string
		for {
			m := s.message()
			if m.Type == "pong" {
				break
			}
			got = append(got, m.Type)
		}
		// The query may have been faster; then it was answered whole, and before the pong.
		if text := strings.Join(got, " "); text != "" && text != "next complete" {
			t.Fatalf("round %d: got %q", i, text)
		}
		s.quiet()
	}
}

func TestMessagesArriveHoweverTheyAreCutIntoFramesAndSegments(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	const ping = `{"type":"ping","payload":{"text":"größer 🙂"}}`
	pong := func(t *testing.T, s *rawSocket) {
		t.Helper()
		if m := s.want("pong", ""); !strings.Contains(string(m.raw), "größer 🙂") {
			t.Errorf("got %s", m.raw)
		}
	}
	t.Run("a frame for every byte", func(t *testing.T) {
		t.Parallel()
		// Characters are cut as well: only the whole message must be UTF-8.
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			frames := []wsFrame{{opcode: opText, more: true}}
			for _, b := range []byte(ping) {
				frames = append(frames, wsFrame{payload: []byte{b}, more: true}, wsFrame{more: true})
			}
			s.frames(append(frames, wsFrame{})...)
			pong(t, s)
		})
	})
	t.Run("control frames between the frames of a message", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			s.frames(
				wsFrame{opcode: opText, payload: []byte(ping[:10]), more: true},
				wsFrame{opcode: opPing, payload: []byte("between")},
				wsFrame{payload: []byte(ping[10:]), more: true},
				wsFrame{opcode: opPong},
				wsFrame{},
			)
			f, err := s.frame()
			if err != nil || f.opcode != opPong || string(f.payload) != "between" {
				t.Fatalf("the ping is answered with %+v, %v", f, err)
			}
			pong(t, s)
		})
	})
	t.Run("a segment for every byte", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			for _, b := range textFrame(ping).bytes() {
				s.write([]byte{b})
				time.Sleep(time.Millisecond)
			}
			pong(t, s)
		})
	})
	t.Run("many messages in one segment", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(_ *testing.T, s *rawSocket) {
			var pings []string
			for i := range 100 {
				pings = append(pings, fmt.Sprintf(`{"type":"ping","payload":{"n":%d}}`, i))
			}
			s.text(pings...)
			for i := range pings {
				if m := s.want("pong", ""); string(m.Payload) != fmt.Sprintf(`{"n":%d}`, i) {
					s.t.Fatalf("pong %d is %s", i, m.raw)
				}
			}
		})
	})
	t.Run("connection_init and a subscription behind it", func(t *testing.T) {
		t.Parallel()
		// A client must wait for the acknowledgement, so this may be refused; but nothing else.
		s := dialRaw(t, ann.Endpoint())
		s.text(`{"type":"connection_init","payload":{"authorization":"Bearer `+ann.Token+`"}}`,
			subscribeMessage(t, "1", "{ me { username } }", nil))
		m, end := s.receive()
		if end != nil {
			if end.code != 4401 {
				t.Errorf("the socket ends with %v", end)
			}
			return
		}
		if m.Type != "connection_ack" {
			t.Fatalf("got %s", m.raw)
		}
		s.want("next", "1")
		s.want("complete", "1")
	})
}

func TestFramesThatRFC6455ForbidsCloseTheSocketWith1002(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	ping := []byte(`{"type":"ping"}`)
	for name, frames := range map[string][]wsFrame{
		"a frame without a mask":                {{opcode: opText, payload: ping, unmasked: true}},
		"a control frame without a mask":        {{opcode: opPing, unmasked: true}},
		"the first reserved bit":                {{opcode: opText, payload: ping, reserved: 4}},
		"the second reserved bit":               {{opcode: opText, payload: ping, reserved: 2}},
		"the third reserved bit":                {{opcode: opText, payload: ping, reserved: 1}},
		"a reserved bit on a ping":              {{opcode: opPing, reserved: 4}},
		"opcode 3":                              {{opcode: 3, payload: ping}},
		"opcode 7":                              {{opcode: 7}},
		"opcode 11":                             {{opcode: 11}},
		"opcode 15":                             {{opcode: 15}},
		"a continuation of nothing":             {{payload: ping}},
		"a continuation of nothing, unfinished": {{payload: ping, more: true}},
		"a message within a message":            {{opcode: opText, payload: ping[:3], more: true}, {opcode: opText, payload: ping}},
		"a fragmented ping":                     {{opcode: opPing, more: true}},
		"a fragmented close":                    {{opcode: opClose, more: true}},
		"a ping of 126 bytes":                   {{opcode: opPing, payload: make([]byte, 126)}},
		"a close with code 0":                   {closeFrame(0, "")},
		"a close with code 999":                 {closeFrame(999, "")},
		"a close with code 1004":                {closeFrame(1004, "")},
		"a close with code 1005":                {closeFrame(1005, "")},
		"a close with code 1006":                {closeFrame(1006, "")},
		"a close with code 1015":                {closeFrame(1015, "")},
		"a close with code 2999":                {closeFrame(2999, "")},
		"a close with code 5000":                {closeFrame(5000, "")},
		"a close with code 65535":               {closeFrame(65535, "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inEachState(t, ann, func(_ *testing.T, s *rawSocket) {
				s.frames(append(frames, textFrame(`{"type":"ping"}`))...)
				s.wantClose(1002)
			})
		})
	}
	t.Run("a close of one byte", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			s.frames(wsFrame{opcode: opClose, payload: []byte{3}})
			// gorilla/websocket takes it for a close without a code, and answers that; the socket ends in any case.
			if _, end := s.receive(); end == nil || (end.code != 1002 && end.code != 1005) {
				t.Errorf("the socket ends with %v", end)
			}
			s.wantEOF()
		})
	})
	t.Run("a close whose reason is not UTF-8", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			s.frames(closeFrame(1000, "\xff"))
			// RFC 6455 leaves open which of the two it is.
			if _, end := s.receive(); end == nil || (end.code != 1002 && end.code != 1007) {
				t.Errorf("the socket ends with %v", end)
			}
		})
	})
}

func TestTheClientsCloseIsEchoedAndTheConnectionEnded(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	for name, f := range map[string]wsFrame{
		"normally":               closeFrame(1000, "done"),
		"going away":             closeFrame(1001, ""),
		"with a protocol error":  closeFrame(1002, ""),
		"with bad data":          closeFrame(1007, ""),
		"with a code of its own": closeFrame(4999, strings.Repeat("x", 123)),
		"of a library":           closeFrame(3000, ""),
		"without a code":         {opcode: opClose},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := 1005
			if len(f.payload) > 0 {
				want = int(f.payload[0])<<8 | int(f.payload[1])
			}
			inEachState(t, ann, func(t *testing.T, s *rawSocket) {
				s.frames(f)
				_, end := s.receive()
				if end == nil || end.code != want {
					t.Errorf("the close is answered with %v, want %d", end, want)
				}
				s.wantEOF()
			})
		})
	}
	t.Run("with a subscription", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
		s.quiet()
		// What is behind a close is not looked at: this would be 4409.
		s.frames(closeFrame(1000, ""), textFrame(subscribeMessage(t, "1", newMessage, nil)))
		if _, end := s.receive(); end == nil || end.code != 1000 {
			t.Errorf("the close is answered with %v", end)
		}
		s.wantEOF()
	})
}

// The most bytes that a message may have, by default.
const maxMessage = 256 << 10

func TestAMessageAboveTheLimitClosesTheSocketWith1009(t *testing.T) {
	t.Parallel()
	ann := account(t, sharedFor(t), "Ann")
	ping := func(size int) []byte {
		const frame = `{"type":"ping","payload":{"a":""}}`
		return fmt.Appendf(nil, `{"type":"ping","payload":{"a":"%s"}}`, strings.Repeat("x", size-len(frame)))
	}
	inEachState(t, ann, func(t *testing.T, s *rawSocket) {
		s.frames(wsFrame{opcode: opText, payload: ping(maxMessage)})
		s.want("pong", "")
	})
	for name, raw := range map[string][]byte{
		"one byte too much":      wsFrame{opcode: opText, payload: ping(maxMessage + 1)}.bytes(),
		"the header of 10 MB":    wsFrame{opcode: opText}.header(10 << 20),
		"the header of 4 GB":     wsFrame{opcode: opText}.header(1 << 32),
		"the header of 8 EB":     wsFrame{opcode: opBinary}.header(1<<63 - 1),
		"the beginning of 10 MB": append(wsFrame{opcode: opText}.header(10<<20), make([]byte, maxMessage+1)...),
		"two frames that are too much together": append(
			wsFrame{opcode: opText, payload: ping(maxMessage), more: true}.bytes(), wsFrame{payload: []byte("x")}.bytes()...),
		"many frames that are too much together": append(
			wsFrame{opcode: opText, payload: []byte(" "), more: true}.bytes(),
			strings.Repeat(string(wsFrame{payload: make([]byte, 1000), more: true}.bytes()), 300)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inEachState(t, ann, func(t *testing.T, s *rawSocket) {
				s.write(raw)
				m, end := s.receive()
				if end == nil {
					t.Fatalf("got %s", m.raw)
				}
				if end.code != 1009 {
					t.Errorf("the socket ends with %v", end)
				}
			})
		})
	}
	t.Run("a length with its highest bit", func(t *testing.T) {
		t.Parallel()
		inEachState(t, ann, func(t *testing.T, s *rawSocket) {
			header := wsFrame{opcode: opText}.header(1 << 32)
			header[2] = 0x80
			s.write(header)
			// No length has it. gorilla/websocket ends such a connection without a close, which RFC 6455 allows.
			if _, end := s.receive(); end == nil || (end.code != 1009 && end.code != 1002 && end.err == nil) {
				t.Errorf("the socket ends with %v", end)
			}
		})
	})
}

func TestATokenInAPingKeepsTheSocketPastTheOldTokensExpiry(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	const ttl = 6 * time.Second
	signed := time.Now()
	short := ann.As(ann.User, tokenFor(t, stack, ann, ttl))
	kept, left := connectRaw(t, short), connectRaw(t, short)
	for _, s := range []*rawSocket{kept, left} {
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
		s.quiet()
	}
	kept.text(`{"type":"ping","payload":{"authorization":"Bearer ` + ann.Token + `","other":1}}`)
	kept.want("pong", "")
	send(t, bob, ann, "before the expiry")
	kept.wantEvent("1", "before the expiry")
	left.wantEvent("1", "before the expiry")
	left.wantClose(4403)
	if open := time.Since(signed); open < ttl-2*time.Second {
		t.Errorf("the socket was closed after %v, though its token was good for %v", open, ttl)
	}
	send(t, bob, ann, "after the expiry")
	kept.wantEvent("1", "after the expiry")
	kept.subscribe("2", "{ me { username } }", nil)
	kept.want("next", "2")
	kept.want("complete", "2")
}

func TestAPingWithATokenThatIsNotTheUsersOwnAndGoodClosesTheSocketWith4403(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, eve := account(t, stack, "Ann"), account(t, stack, "Eve")
	for name, authorization := range map[string]string{
		"somebody else's":            `"Bearer ` + eve.Token + `"`,
		"one that has expired":       `"Bearer ` + tokenFor(t, stack, ann, -time.Minute) + `"`,
		"one that was forged":        `"Bearer ` + forgedFor(t, ann) + `"`,
		"none":                       `"Bearer "`,
		"a token without its scheme": `"` + ann.Token + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := connectRaw(t, ann)
			s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
			s.quiet()
			s.text(`{"type":"ping","payload":{"authorization":` + authorization + `}}`)
			s.wantClose(4403)
		})
	}
}
