// Package limits refuses operations that would cost more than any screen needs, before they run.
//
// A document has a bound of tokens, an operation bounds of depth, of fields, of aliases, of root fields and of complexity:
// how many fields its answer can have at most, with the pages that it asks for. Together they bound the calls and the
// memory that one request can cause, and the time that finding this out takes. Whoever is refused is told the rule and the
// limit.
package limits

import (
	"context"
	"fmt"

	"github.com/99designs/gqlgen/complexity"
	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/resolver"
)

// Config are the limits of one request.
type Config struct {
	// BodyBytes and CompressionRatio are of HTTP alone; a WebSocket has a limit of its own for a message.
	BodyBytes        int `default:"1048576" help:"Bytes that the body of a request may have, when it is decompressed."`
	CompressionRatio int `default:"100" help:"How many times longer than it was sent the body of a request may become by decompression; the first 64 KiB count for nothing."`

	// Tokens bounds validation, which takes time that grows with the square of it. Introspection, the longest that tools
	// send, has under 500.
	Tokens int `default:"2000" help:"Tokens that a document may have."`
	// Depth must leave room for introspection, which needs 15.
	Depth int `default:"20" help:"How deep fields may be nested."`
	// Fields, Aliases and the rest count what a fragment brings each time that it is used.
	Fields     int `default:"1000" help:"Fields that an operation may have."`
	Aliases    int `default:"50" help:"Fields of an operation that may have an alias."`
	RootFields int `default:"20" help:"Fields that a query may have at its root."`
	// Mutations is lower: each costs what a request costs, and some the hashing of a password.
	Mutations int `default:"10" help:"Fields that a mutation may have at its root."`
	// Complexity allows a page of 100 conversations with a page of 15 messages each.
	Complexity int `default:"20000" help:"Fields that the answer to an operation may have, if every page that it asks for is full."`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	for _, limit := range []struct {
		value *int
		least int
	}{
		{&c.BodyBytes, 1 << 10},
		{&c.CompressionRatio, 1},
		{&c.Tokens, 1},
		{&c.Depth, 1},
		{&c.Fields, 1},
		{&c.Aliases, 0},
		{&c.RootFields, 1},
		{&c.Mutations, 1},
		{&c.Complexity, 1},
	} {
		if *limit.value < limit.least {
			return run.Invalid(limit.value, "must be at least %d, but is %d", limit.least, *limit.value)
		}
	}
	return nil
}

// The rules that an operation can break, as extensions.rule of the error tells them.
const (
	tooDeep           errs.Code = "TOO_DEEP"
	tooManyFields     errs.Code = "TOO_MANY_FIELDS"
	tooManyAliases    errs.Code = "TOO_MANY_ALIASES"
	tooManyRootFields errs.Code = "TOO_MANY_ROOT_FIELDS"
	tooComplex        errs.Code = "TOO_COMPLEX"
	deferred          errs.Code = "DEFER_NOT_SUPPORTED"
)

// Apply sets the limits on a server of the schema.
func Apply(server *handler.Server, cfg Config) {
	server.SetParserTokenLimit(cfg.Tokens)
	server.Use(&shape{limits: cfg})
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

// shape refuses operations that break a limit, and those that ask for a part of the answer to be deferred, which no
// transport of ours can send.
type shape struct {
	limits Config
	schema graphql.ExecutableSchema
}

var _ graphql.OperationContextMutator = (*shape)(nil)

// ExtensionName implements graphql.HandlerExtension.
func (*shape) ExtensionName() string { return "Shape" }

// Validate implements graphql.HandlerExtension.
func (s *shape) Validate(schema graphql.ExecutableSchema) error {
	s.schema = schema
	return nil
}

// MutateOperationContext implements graphql.OperationContextMutator. It changes nothing. The walk comes first: it takes
// bounded time, which what follows by itself does not.
func (s *shape) MutateOperationContext(ctx context.Context, op *graphql.OperationContext) *gqlerror.Error {
	w := walk{limits: s.limits}
	if err := w.visit(op.Operation.SelectionSet, 1); err != nil {
		return apierr.Refuse(err)
	}
	kind, most := "a query", s.limits.RootFields
	if op.Operation.Operation == ast.Mutation {
		kind, most = "a mutation", s.limits.Mutations
	}
	if n := len(graphql.CollectFields(op, op.Operation.SelectionSet, nil)); n > most {
		return apierr.Refuse(broken(tooManyRootFields, "%s may have at most %d fields at its root, but has %d", kind, most, n))
	}
	if n := complexity.Calculate(ctx, s.schema, op.Operation, op.Variables); n > s.limits.Complexity {
		return apierr.Refuse(broken(tooComplex,
			"the answer to an operation may have at most %d fields, and this one's could have %d", s.limits.Complexity, n))
	}
	return nil
}

// broken says which limit an operation breaks.
func broken(rule errs.Code, format string, args ...any) *errs.Error {
	return &errs.Error{Kind: errs.Invalid, Code: rule, Message: fmt.Sprintf(format, args...)}
}

// walk counts what an operation has, and ends at the first limit that it breaks.
type walk struct {
	limits  Config
	fields  int
	aliases int
}

// visit counts every field, each time that a fragment brings it.
func (w *walk) visit(selections ast.SelectionSet, depth int) *errs.Error {
	if len(selections) > 0 && depth > w.limits.Depth {
		return broken(tooDeep, "fields may be nested at most %d deep", w.limits.Depth)
	}
	for _, selection := range selections {
		// Fragments count too, since they take time.
		if w.fields++; w.fields > w.limits.Fields {
			return broken(tooManyFields, "an operation may have at most %d fields", w.limits.Fields)
		}
		var err *errs.Error
		switch selection := selection.(type) {
		case *ast.Field:
			err = w.field(selection, depth)
		case *ast.InlineFragment:
			err = w.fragment(selection.Directives, selection.SelectionSet, depth)
		case *ast.FragmentSpread:
			err = w.fragment(selection.Directives, selection.Definition.SelectionSet, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) field(field *ast.Field, depth int) *errs.Error {
	// The parser gives a field without an alias its own name as one.
	if field.Alias != field.Name {
		if w.aliases++; w.aliases > w.limits.Aliases {
			return broken(tooManyAliases, "at most %d fields of an operation may have an alias", w.limits.Aliases)
		}
	}
	return w.visit(field.SelectionSet, depth+1)
}

func (w *walk) fragment(directives ast.DirectiveList, selections ast.SelectionSet, depth int) *errs.Error {
	if directives.ForName("defer") != nil {
		return broken(deferred, "@defer is not supported")
	}
	return w.visit(selections, depth)
}
