package resolver

import (
	"strings"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/gen"
)

// inputFields maps the fields of the services' requests to the paths of a mutation's input. What is not in it is
// reported without a field.
var inputFields = map[string][]string{
	"body":            {"body"},
	"client_id":       {"clientId"},
	"recipient_id":    {"recipientId"},
	"conversation_id": {"conversationId"},
	"seq":             {"seq"},
	"username":        {"username"},
	"login":           {"username"},
	"email":           {"email"},
	"display_name":    {"displayName"},
	"password":        {"password"},
}

// expected returns the userErrors for a failure of a mutation's own call that its caller can mend, and the error
// itself for any other.
func expected(err error) ([]*gen.UserError, error) {
	e, ok := errs.As(err)
	if !ok {
		return nil, err
	}
	code := gen.UserErrorCode(e.Code)
	if code == gen.UserErrorCodeInvalidCredentials {
		// Whatever kind of failure it is: a wrong password is no reason to sign somebody out.
		return []*gen.UserError{{Code: code, Message: e.Message}}, nil
	}
	fallback, ok := map[errs.Kind]gen.UserErrorCode{
		errs.Invalid:  gen.UserErrorCodeInvalidFormat,
		errs.Conflict: gen.UserErrorCodeConflict,
		errs.NotFound: gen.UserErrorCodeNotFound,
	}[e.Kind]
	if !ok {
		return nil, err
	}
	if !code.IsValid() {
		code = fallback
	}
	field := inputFields[e.Field]
	message := e.Message
	if len(field) > 0 {
		// A message names the field as the service knows it.
		message = strings.ReplaceAll(message, e.Field, field[0])
	}
	return []*gen.UserError{{Code: code, Message: message, Field: field}}, nil
}

func userError(code gen.UserErrorCode, field, message string) *gen.UserError {
	return &gen.UserError{Code: code, Message: message, Field: []string{field}}
}

// notAnID is the userError for a global id that is none, or one of something else.
func notAnID(field, what string) *gen.UserError {
	return userError(gen.UserErrorCodeInvalidFormat, field, field+" is not the id of a "+what)
}
