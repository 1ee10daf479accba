// Package limits refuses operations that would cost more than any screen needs, before they run.
//
// A document has a bound of tokens, an operation one of depth and one of complexity: how many fields its answer can
// have at most, with the pages that it asks for. The three together bound the calls and the memory that one request can
// cause, and the time that finding this out takes.
package limits

import (
	"context"
	"fmt"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/resolver"
)

const (
	// maxTokens is what a document may have. Introspection, the longest that tools send, has under 500. Validation takes
	// time that grows with the square of it.
	maxTokens = 2_000
	// maxDepth is how deep fields may be nested. Introspection needs 15.
	maxDepth = 20
	// maxFields is how many fields an operation may have when its fragments are written out.
	maxFields = 1_000
	// maxMutations is how many root fields a mutation may have: each costs what a request costs, and some of them the
	// hashing of a password.
	maxMutations = 10
	// maxComplexity allows a page of 100 conversations with a page of 15 messages each.
	maxComplexity = 20_000
)

// Apply sets the limits on a server.
func Apply(server *handler.Server) {
	server.SetParserTokenLimit(maxTokens)
	// The shape comes first: it is found out in bounded time, which the library's complexity by itself is not.
	server.Use(shape{})
	server.Use(extension.FixedComplexityLimit(maxComplexity))
}

// Complexity returns the rule by which the fields that have many of something below them are counted. pageSize is how
// many there are when nobody says.
func Complexity(pageSize int) gen.ComplexityRoot {
	page := func(child int, sizes ...*int) int {
		many := pageSize
		for _, size := range sizes {
			if size != nil {
				many = *size
			}
		}
		// A size out of range is the resolver's to refuse, with the argument's name.
		return 1 + child*min(max(many, 1), resolver.MaxPageSize)
	}
	var root gen.ComplexityRoot
	root.Query.Users = func(child int, _ *string, first *int, _ *string) int { return page(child, first) }
	root.Query.Conversations = func(child int, first *int, _ *string) int { return page(child, first) }
	root.Conversation.Messages = func(child int, first *int, _ *string, last *int, _ *string) int {
		return page(child, first, last)
	}
	return root
}

// shape refuses operations that are too deep or too long, and those that ask for a part of the answer to be deferred,
// which no transport of ours can send.
type shape struct{}

var _ graphql.OperationContextMutator = shape{}

// ExtensionName implements graphql.HandlerExtension.
func (shape) ExtensionName() string { return "Shape" }

// Validate implements graphql.HandlerExtension.
func (shape) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext implements graphql.OperationContextMutator.
func (shape) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	left := maxFields
	if reason := walk(op.Operation.SelectionSet, 1, &left); reason != "" {
		return apierr.Refuse(errs.New(errs.Invalid, reason))
	}
	if op.Operation.Operation == ast.Mutation {
		// After the walk, which has bounded what there is to collect.
		if n := len(graphql.CollectFields(op, op.Operation.SelectionSet, nil)); n > maxMutations {
			reason := fmt.Sprintf("a mutation may have at most %d fields, but has %d", maxMutations, n)
			return apierr.Refuse(errs.New(errs.Invalid, reason))
		}
	}
	return nil
}

// walk visits every field, each time that a fragment brings it, and returns why the operation is refused. It visits
// no more than *left.
func walk(selections ast.SelectionSet, depth int, left *int) string {
	if depth > maxDepth {
		return fmt.Sprintf("fields may be nested at most %d deep", maxDepth)
	}
	for _, selection := range selections {
		if *left--; *left < 0 {
			return fmt.Sprintf("an operation may have at most %d fields", maxFields)
		}
		var reason string
		switch selection := selection.(type) {
		case *ast.Field:
			reason = walk(selection.SelectionSet, depth+1, left)
		case *ast.InlineFragment:
			if selection.Directives.ForName("defer") != nil {
				return "@defer is not supported"
			}
			reason = walk(selection.SelectionSet, depth, left)
		case *ast.FragmentSpread:
			if selection.Directives.ForName("defer") != nil {
				return "@defer is not supported"
			}
			reason = walk(selection.Definition.SelectionSet, depth, left)
		}
		if reason != "" {
			return reason
		}
	}
	return ""
}
