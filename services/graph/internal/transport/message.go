package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
)

// maxOperationID is the most bytes that a client's name for an operation may have. It is kept for as long as the
// operation is under way, and sent with each of its messages.
const maxOperationID = 256

// The types of messages that a client may send.
const (
	typeInit      = "connection_init"
	typePing      = "ping"
	typePong      = "pong"
	typeSubscribe = "subscribe"
	typeComplete  = "complete"
)

// message is what a client sends.
type message struct {
	kind string
	id   string
	// payload is that of connection_init, ping and pong: a JSON object, or nil.
	payload json.RawMessage
	// operation is that of subscribe.
	operation *graphql.RawParams
}

// malformed returns the error for a message that the protocol does not know, with the rule that it breaks.
func malformed(rule string) error { return errors.New("Invalid message received: " + rule) }

// parseMessage reads a message. Members that the protocol does not know are ignored, as its reference implementation
// does. The error's text is the reason for the close.
func parseMessage(raw []byte) (message, error) {
	if !utf8.Valid(raw) {
		return message{}, malformed("not UTF-8")
	}
	if err := checkJSON(raw); err != nil {
		return message{}, malformed("half of a surrogate pair")
	}
	fields, ok := members(raw)
	if !ok {
		return message{}, malformed("not a JSON object")
	}
	m := message{}
	if !isString(fields["type"], &m.kind) {
		return message{}, malformed("type must be a string")
	}
	switch m.kind {
	case typeInit, typePing, typePong:
		if !isNull(fields["payload"]) {
			if !isObject(fields["payload"]) {
				return message{}, malformed("payload must be an object")
			}
			m.payload = fields["payload"]
		}
		return m, nil
	case typeSubscribe, typeComplete:
		if !isString(fields["id"], &m.id) || m.id == "" {
			return message{}, malformed("id must be a string that is not empty")
		}
		if len(m.id) > maxOperationID {
			return message{}, malformed("id must have at most 256 bytes")
		}
	default:
		return message{}, malformed("no client sends this type")
	}
	if m.kind == typeComplete {
		return m, nil
	}
	var err error
	m.operation, err = parseOperation(fields["payload"])
	return m, err
}

// parseOperation reads the payload of subscribe.
func parseOperation(raw json.RawMessage) (*graphql.RawParams, error) {
	fields, ok := members(raw)
	if !ok {
		return nil, malformed("payload must be an object")
	}
	operation := &graphql.RawParams{}
	// A persisted document is asked for by extensions alone.
	if !isNull(fields["query"]) && !isString(fields["query"], &operation.Query) ||
		isNull(fields["query"]) && isNull(fields["extensions"]) {
		return nil, malformed("payload.query must be a string")
	}
	if !isNull(fields["operationName"]) && !isString(fields["operationName"], &operation.OperationName) {
		return nil, malformed("payload.operationName must be a string")
	}
	if !isNull(fields["variables"]) && (!isObject(fields["variables"]) || decode(fields["variables"], &operation.Variables) != nil) {
		return nil, malformed("payload.variables must be an object")
	}
	if !isNull(fields["extensions"]) && (!isObject(fields["extensions"]) || decode(fields["extensions"], &operation.Extensions) != nil) {
		return nil, malformed("payload.extensions must be an object")
	}
	return operation, nil
}

// members returns what a JSON object has. Unlike the fields of a struct, names that differ in case are different.
func members(raw []byte) (fields map[string]json.RawMessage, ok bool) {
	ok = isObject(raw) && json.Unmarshal(raw, &fields) == nil
	return fields, ok
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func isObject(raw []byte) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '{'
}

func isString(raw json.RawMessage, into *string) bool {
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, into) == nil
}
