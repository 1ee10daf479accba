package resolver

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
)

// CursorFirst makes a query that asks for the cursor and for more read the cursor before anything else. The fields of a
// query are resolved at the same time otherwise, and a cursor that is read after a list makes its reader miss what was
// sent in between: it is neither in the list nor after the cursor. It is operation middleware of gqlgen's server.
func (r *Resolver) CursorFirst(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	responses := next(ctx)
	op := graphql.GetOperationContext(ctx)
	if op.Operation.Operation != ast.Query {
		return responses
	}
	fields := graphql.CollectFields(op, op.Operation.SelectionSet, nil)
	isCursor := func(f graphql.CollectedField) bool { return f.Name == "cursor" }
	if len(fields) == 1 || !slices.ContainsFunc(fields, isCursor) {
		return responses
	}
	return func(ctx context.Context) *graphql.Response {
		return responses(context.WithValue(ctx, cursorKey{}, r.readCursor(ctx)))
	}
}

type cursorKey struct{}

// cursorRead is what reading the caller's cursor gave.
type cursorRead struct {
	cursor string
	err    error
}

func (r *Resolver) readCursor(ctx context.Context) cursorRead {
	response, err := r.Messages.GetCursor(ctx, &messagesv1.GetCursorRequest{})
	return cursorRead{cursor: response.GetCursor(), err: err}
}
