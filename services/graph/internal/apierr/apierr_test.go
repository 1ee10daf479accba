package apierr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
)

func presenter() (Presenter, *strings.Builder) {
	logs := &strings.Builder{}
	return Presenter{Log: slog.New(slog.NewTextHandler(logs, nil))}, logs
}

func TestEveryKindHasACode(t *testing.T) {
	want := map[errs.Kind]string{
		errs.Internal:        "INTERNAL_SERVER_ERROR",
		errs.Invalid:         "BAD_USER_INPUT",
		errs.Unauthenticated: "UNAUTHENTICATED",
		errs.Forbidden:       "FORBIDDEN",
		errs.NotFound:        "NOT_FOUND",
		errs.Conflict:        "CONFLICT",
		errs.RateLimited:     "RATE_LIMITED",
		errs.Unavailable:     "UNAVAILABLE",
		errs.CursorExpired:   "CURSOR_EXPIRED",
		errs.CursorInvalid:   "CURSOR_INVALID",
	}
	for _, kind := range errs.Kinds() {
		p, _ := presenter()
		presented := p.Present(t.Context(), errs.New(kind, "a message"))
		if got := presented.Extensions["code"]; got != want[kind] {
			t.Errorf("%v has the code %v, want %v", kind, got, want[kind])
		}
		if status := Status(gqlerror.List{presented}); status < 400 || status > 599 {
			t.Errorf("%v has the status %d", kind, status)
		}
	}
}

func TestPresent(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.7:3306: secret")
	for name, test := range map[string]struct {
		err           error
		code, message string
		logged        bool
	}{
		"ours":            {errs.New(errs.Forbidden, "not yours"), "FORBIDDEN", "not yours", false},
		"wrapped":         {fmt.Errorf("context: %w", errs.New(errs.Forbidden, "not yours")), "FORBIDDEN", "not yours", false},
		"in a path":       {gqlerror.WrapPath(ast.Path{ast.PathName("me")}, errs.New(errs.Forbidden, "not yours")), "FORBIDDEN", "not yours", false},
		"internal":        {errs.Wrap(errs.Internal, cause, "the database is odd"), "INTERNAL_SERVER_ERROR", internalMessage, true},
		"unavailable":     {errs.Wrap(errs.Unavailable, cause, "try again"), "UNAVAILABLE", "try again", true},
		"Go's":            {cause, "INTERNAL_SERVER_ERROR", internalMessage, true},
		"a deadline":      {context.DeadlineExceeded, "UNAVAILABLE", unavailableMessage, true},
		"Go's in a path":  {gqlerror.WrapPath(ast.Path{ast.PathName("me")}, cause), "INTERNAL_SERVER_ERROR", internalMessage, true},
		"without a code":  {gqlerror.Errorf("secret"), "INTERNAL_SERVER_ERROR", internalMessage, true},
		"parsing":         {library("GRAPHQL_PARSE_FAILED"), "GRAPHQL_PARSE_FAILED", "expected Name", false},
		"validation":      {library("GRAPHQL_VALIDATION_FAILED"), "GRAPHQL_VALIDATION_FAILED", "expected Name", false},
		"persisted":       {library("PERSISTED_QUERY_NOT_FOUND"), "PERSISTED_QUERY_NOT_FOUND", "expected Name", false},
		"a variable":      {library("GRAPHQL_VALIDATION_FAILED", ast.PathName("variable"), ast.PathName("id")), "BAD_USER_INPUT", "expected Name", false},
		"refused":         {Refuse(errs.New(errs.Unauthenticated, "sign in")), "UNAUTHENTICATED", "sign in", false},
		"refused wrapped": {Refuse(errs.Wrap(errs.Invalid, cause, "no")), "BAD_USER_INPUT", "no", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, logs := presenter()
			presented := p.Present(t.Context(), test.err)
			if presented.Extensions["code"] != test.code || presented.Message != test.message || presented.Err != nil {
				t.Errorf("got %+v", presented)
			}
			if (logs.Len() > 0) != test.logged || strings.Count(logs.String(), "\n") > 1 {
				t.Errorf("the log is %q", logs)
			}
			if test.logged && !errors.Is(test.err, context.DeadlineExceeded) && !strings.Contains(logs.String(), "secret") {
				t.Errorf("the cause is not in the log: %q", logs)
			}
		})
	}
}

func library(code string, path ...ast.PathElement) error {
	err := gqlerror.ErrorPathf(path, "expected Name")
	err.Extensions = map[string]any{"code": code}
	return err
}

func TestClientThatWentAwayIsNotLogged(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, logs := presenter()
	if code := p.Present(ctx, ctx.Err()).Extensions["code"]; code != Unavailable || logs.Len() > 0 {
		t.Errorf("%v, logged: %s", code, logs)
	}
}

func TestPanicBecomesAnInternalError(t *testing.T) {
	p, logs := presenter()
	err := p.Recover(t.Context(), "secret")
	if errs.KindOf(err) != errs.Internal || strings.Contains(err.Error(), "secret") || !strings.Contains(logs.String(), "secret") {
		t.Errorf("%v, logged: %s", err, logs)
	}
}

func TestStatus(t *testing.T) {
	for code, want := range map[string]int{
		Unauthenticated: http.StatusUnauthorized, Forbidden: http.StatusForbidden, BadUserInput: http.StatusBadRequest,
		PersistedQueryNotFound: http.StatusNotFound, PersistedQueryNotSupported: http.StatusBadRequest,
		RateLimited: http.StatusTooManyRequests, Unavailable: http.StatusServiceUnavailable,
		Internal: http.StatusInternalServerError, ParseFailed: http.StatusBadRequest, ValidationFailed: http.StatusBadRequest,
	} {
		if got := Status(gqlerror.List{{Extensions: map[string]any{"code": code}}}); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}
