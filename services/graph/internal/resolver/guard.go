package resolver

import (
	"context"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/revocation"
)

// public are the root fields that need no access token. Whether introspection and a federation's _service are answered at
// all are settings.
var public = map[string]bool{
	"signUp":     true,
	"signIn":     true,
	"__typename": true,
	"__schema":   true,
	"__type":     true,
	"_service":   true,
}

// Guard refuses an operation with any other root field unless a valid token came with it, and introspection where that is
// off. It is an extension of
// gqlgen's server.
type Guard struct {
	// Revocations are the sessions whose tokens are not valid, although they were when a socket was opened.
	Revocations *revocation.List
}

var _ graphql.OperationContextMutator = Guard{}

// ExtensionName implements graphql.HandlerExtension.
func (Guard) ExtensionName() string { return "Guard" }

// Validate implements graphql.HandlerExtension.
func (Guard) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext implements graphql.OperationContextMutator.
func (g Guard) MutateOperationContext(ctx context.Context, op *graphql.OperationContext) *gqlerror.Error {
	needsToken := false
	for _, field := range graphql.CollectFields(op, op.Operation.SelectionSet, nil) {
		if op.DisableIntrospection && (field.Name == "__schema" || field.Name == "__type") {
			// The library would answer with an error of ours.
			return apierr.Refuse(errs.New(errs.Forbidden, "this server does not show its schema"))
		}
		needsToken = needsToken || !public[field.Name]
	}
	if !needsToken {
		return nil
	}
	who, ok := identity.From(ctx)
	if !ok {
		return apierr.Refuse(errs.New(errs.Unauthenticated, "this needs an access token; sign in first"))
	}
	// A socket brings its token once and may outlive it, and outlives its session for a moment.
	if !time.Now().Before(who.ExpiresAt) {
		return apierr.Refuse(errExpired())
	}
	if g.Revocations.Revoked(who.SessionID) {
		return apierr.Refuse(revocation.ErrRevoked)
	}
	return nil
}

func errExpired() *errs.Error {
	return errs.New(errs.Unauthenticated, "the access token has expired")
}
