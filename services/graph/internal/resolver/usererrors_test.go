package resolver

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/gen"
)

func TestExpectedFailures(t *testing.T) {
	one := func(code gen.UserErrorCode, message string, field ...string) []*gen.UserError {
		return []*gen.UserError{{Code: code, Message: message, Field: field}}
	}
	for name, test := range map[string]struct {
		err  error
		want []*gen.UserError // nil when the failure is no user's to mend
	}{
		"a rule": {
			errs.Field(errs.Invalid, errs.TooLong, "body", "body must have at most 4,000 characters"),
			one(gen.UserErrorCodeTooLong, "body must have at most 4,000 characters", "body"),
		},
		"a field with another name": {
			errs.Field(errs.Invalid, errs.TooShort, "display_name", "display_name is empty"),
			one(gen.UserErrorCodeTooShort, "displayName is empty", "displayName"),
		},
		"login is username": {
			errs.Field(errs.Invalid, errs.TooLong, "login", "login is too long"),
			one(gen.UserErrorCodeTooLong, "username is too long", "username"),
		},
		"a field that no input has": {
			errs.Field(errs.Invalid, errs.Required, "to", "to is required"),
			one(gen.UserErrorCodeRequired, "to is required"),
		},
		"invalid without a rule":   {errs.New(errs.Invalid, "no"), one(gen.UserErrorCodeInvalidFormat, "no")},
		"a rule that is not ours":  {errs.Field(errs.Conflict, "NEW_RULE", "", "no"), one(gen.UserErrorCodeConflict, "no")},
		"conflict without a rule":  {errs.New(errs.Conflict, "no"), one(gen.UserErrorCodeConflict, "no")},
		"not found without a rule": {errs.New(errs.NotFound, "no"), one(gen.UserErrorCodeNotFound, "no")},
		"a wrong password, however it is called": {
			errs.Field(errs.Unauthenticated, errs.InvalidCredentials, "", "no"),
			one(gen.UserErrorCodeInvalidCredentials, "no"),
		},
		"unauthenticated": {errs.New(errs.Unauthenticated, "no"), nil},
		"forbidden":       {errs.New(errs.Forbidden, "no"), nil},
		"rate limited":    {errs.New(errs.RateLimited, "no"), nil},
		"unavailable":     {errs.New(errs.Unavailable, "no"), nil},
		"internal":        {errs.New(errs.Internal, "no"), nil},
		"Go's":            {errors.New("no"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := expected(test.err)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (test.want != nil) || (err != nil && !errors.Is(err, test.err)) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestEveryRuleHasACode(t *testing.T) {
	for _, rule := range []errs.Code{
		errs.Required, errs.TooShort, errs.TooLong, errs.InvalidFormat, errs.InvalidCharacters, errs.OutOfRange,
		errs.Taken, errs.UnknownReference, errs.ClientIDReused, errs.InvalidCredentials,
	} {
		if !gen.UserErrorCode(rule).IsValid() {
			t.Errorf("the schema has no code for %s", rule)
		}
	}
}
