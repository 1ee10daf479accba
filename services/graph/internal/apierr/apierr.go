// Package apierr turns failures into the errors that a client of the API sees: the one place where a kind of failure
// gets its code, and where what is internal stops.
//
// It is guaranteed that an error's code is from the closed list below, that its message was written for a client, and
// that extensions.traceId names the trace in whose logs the cause is found. What a client may not see is logged, once,
// where the error is presented.
package apierr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/errcode"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"go.opentelemetry.io/otel/trace"

	"chatapp.dev/internal/platform/errs"
)

// The codes that extensions.code can have. The last four are Apollo's names.
const (
	Unauthenticated  = "UNAUTHENTICATED"
	Forbidden        = "FORBIDDEN"
	NotFound         = "NOT_FOUND"
	BadUserInput     = "BAD_USER_INPUT"
	Conflict         = "CONFLICT"
	RateLimited      = "RATE_LIMITED"
	Unavailable      = "UNAVAILABLE"
	CursorExpired    = "CURSOR_EXPIRED"
	CursorInvalid    = "CURSOR_INVALID"
	Internal         = "INTERNAL_SERVER_ERROR"
	ParseFailed      = errcode.ParseFailed
	ValidationFailed = errcode.ValidationFailed

	PersistedQueryNotFound     = "PERSISTED_QUERY_NOT_FOUND"
	PersistedQueryNotSupported = "PERSISTED_QUERY_NOT_SUPPORTED"
)

const (
	internalMessage    = "something went wrong on our side"
	unavailableMessage = "the request took too long or was given up; it may be tried again"
)

// kinds maps each kind of failure to its code, and to the HTTP status of a request that is refused for it as a whole.
var kinds = map[errs.Kind]struct {
	code   string
	status int
}{
	errs.Internal:        {Internal, http.StatusInternalServerError},
	errs.Invalid:         {BadUserInput, http.StatusBadRequest},
	errs.Unauthenticated: {Unauthenticated, http.StatusUnauthorized},
	errs.Forbidden:       {Forbidden, http.StatusForbidden},
	errs.NotFound:        {NotFound, http.StatusNotFound},
	errs.Conflict:        {Conflict, http.StatusConflict},
	errs.RateLimited:     {RateLimited, http.StatusTooManyRequests},
	errs.Unavailable:     {Unavailable, http.StatusServiceUnavailable},
	errs.CursorExpired:   {CursorExpired, http.StatusGone},
	errs.CursorInvalid:   {CursorInvalid, http.StatusBadRequest},
}

func init() {
	// An operation that is refused before it runs ends with an error message on a socket, not with a result.
	for _, kind := range kinds {
		errcode.RegisterErrorType(kind.code, errcode.KindProtocol)
	}
	errcode.RegisterErrorType(PersistedQueryNotFound, errcode.KindProtocol)
	errcode.RegisterErrorType(PersistedQueryNotSupported, errcode.KindProtocol)
}

// Refuse returns the error with which an extension refuses an operation before it runs.
func Refuse(err *errs.Error) *gqlerror.Error {
	refusal := gqlerror.Wrap(err)
	errcode.Set(refusal, kinds[err.Kind].code)
	return refusal
}

// Status returns the HTTP status of a request that is refused as a whole with these presented errors.
func Status(list gqlerror.List) int {
	for _, err := range list {
		if err.Extensions["code"] == PersistedQueryNotFound {
			return http.StatusNotFound
		}
		for _, kind := range kinds {
			if err.Extensions["code"] == kind.code {
				return kind.status
			}
		}
	}
	return http.StatusBadRequest
}

// Presenter presents errors to clients.
type Presenter struct {
	Log *slog.Logger
}

// Present returns the error as a client sees it. It is a graphql.ErrorPresenterFunc.
func (p Presenter) Present(ctx context.Context, err error) *gqlerror.Error {
	var from *gqlerror.Error
	if !errors.As(err, &from) {
		from = &gqlerror.Error{Path: graphql.GetPath(ctx)}
	}
	presented := &gqlerror.Error{
		Path:       from.Path,
		Locations:  from.Locations,
		Extensions: map[string]any{},
	}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		presented.Extensions["traceId"] = span.TraceID().String()
	}
	known, isKnown := errs.As(err)
	library, isLibrary := libraryCode(from)
	kind := errs.KindOf(err)
	switch {
	case isKnown:
		presented.Message = known.Message
		if known.Field != "" {
			presented.Extensions["argument"] = known.Field
		}
		if known.Code != "" {
			presented.Extensions["rule"] = string(known.Code)
		}
	case isLibrary:
		presented.Message = from.Message
		presented.Extensions["code"] = library
		return presented
	case kind == errs.Unavailable:
		presented.Message = unavailableMessage
	}
	presented.Extensions["code"] = kinds[kind].code
	switch kind {
	case errs.Internal:
		presented.Message = internalMessage
		p.log(ctx, slog.LevelError, from.Path, err)
	case errs.Unavailable:
		// A client that went away is no news.
		if ctx.Err() == nil {
			p.log(ctx, slog.LevelWarn, from.Path, err)
		}
	}
	return presented
}

// Recover makes an error of a panic. It is a graphql.RecoverFunc.
func (p Presenter) Recover(ctx context.Context, panicked any) error {
	p.Log.ErrorContext(ctx, "panic", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
	return errs.New(errs.Internal, internalMessage)
}

func (p Presenter) log(ctx context.Context, level slog.Level, path ast.Path, err error) {
	operation := ""
	if graphql.HasOperationContext(ctx) {
		operation = graphql.GetOperationContext(ctx).OperationName
	}
	var from *gqlerror.Error
	if errors.As(err, &from) && from.Err != nil {
		// Without the library's prefix, which repeats the path.
		err = from.Err
	}
	p.Log.Log(ctx, level, "operation failed", "err", err, "operation", operation, "path", path.String())
}

// libraryCode returns the code of an error that gqlgen made of what the client sent, if it is one. Such an error wraps
// nothing; an error of ours or of Go does.
func libraryCode(err *gqlerror.Error) (string, bool) {
	if err.Err != nil {
		return "", false
	}
	code, ok := err.Extensions["code"].(string)
	switch {
	case !ok:
		return "", false
	case len(err.Path) > 0 && err.Path[0] == ast.PathName("variable"):
		// A variable whose value does not fit its type: the operation is valid, what came with it is not.
		return BadUserInput, true
	default:
		return code, true
	}
}
