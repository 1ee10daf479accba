package live

import (
	"crypto/sha256"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/model"
)

const (
	// fieldName is the one field that a subscription can have, and afterName the argument that says where it starts.
	fieldName = "newMessage"
	afterName = "after"
)

// shapeKey is a hash of all that an answer depends on beside the event and the user.
type shapeKey [sha256.Size]byte

// shape is an operation as far as answers depend on it. Subscribers with equal ones share it, whoever they are: most
// clients are the same program, and there are few shapes in a process.
type shape struct {
	key  shapeKey
	exec graphql.GraphExecutor
	op   *graphql.OperationContext
	// users is how many subscribers have it. It is guarded by Fanout.mu.
	users int
}

// shapeOf returns the shape of an operation, for one more user. It needs f.mu.
func (f *Fanout) shapeOf(exec graphql.GraphExecutor, op *graphql.OperationContext) *shape {
	used := variablesOfAnswers(op)
	variables := make(map[string]any, len(used))
	for name, value := range op.Variables {
		if used[name] {
			variables[name] = value
		}
	}
	key := keyOf(op, variables)
	s := f.shapes[key]
	if s == nil {
		s = &shape{key: key, exec: exec, op: &graphql.OperationContext{
			RawQuery:               op.RawQuery,
			Variables:              variables,
			OperationName:          op.OperationName,
			Doc:                    op.Doc,
			Operation:              op.Operation,
			DisableIntrospection:   op.DisableIntrospection,
			RecoverFunc:            op.RecoverFunc,
			ResolverMiddleware:     op.ResolverMiddleware,
			RootResolverMiddleware: op.RootResolverMiddleware,
		}}
		f.shapes[key] = s
	}
	s.users++
	return s
}

func keyOf(op *graphql.OperationContext, variables map[string]any) shapeKey {
	// A list of three cannot be confused with another, and the variables of a map are encoded in the order of their
	// names. They came as JSON, so that they can be encoded.
	encoded, err := json.Marshal([]any{op.RawQuery, op.Operation.Name, variables})
	if err != nil {
		panic(err)
	}
	return sha256.Sum256(encoded)
}

// startOf returns the cursor that the operation starts after: empty for none.
func startOf(op *graphql.OperationContext) (string, error) {
	fields := graphql.CollectFields(op, op.Operation.SelectionSet, nil)
	if len(fields) != 1 || fields[0].Name != fieldName {
		return "", errs.New(errs.Invalid, "a subscription must select "+fieldName+", once")
	}
	after := fields[0].ArgumentMap(op.Variables)[afterName]
	if after == nil {
		return "", nil
	}
	cursor, err := model.UnmarshalCursor(after)
	if err != nil {
		return "", atField(op, err)
	}
	return cursor, nil
}

// variablesOfAnswers returns the variables that an answer can depend on: all but those which are used only to say where
// the subscription starts. Without this, no two clients that resume would have anything in common.
func variablesOfAnswers(op *graphql.OperationContext) map[string]bool {
	used := make(map[string]bool)
	var value func(v *ast.Value)
	value = func(v *ast.Value) {
		if v == nil {
			return
		}
		if v.Kind == ast.Variable {
			used[v.Raw] = true
		}
		for _, child := range v.Children {
			value(child.Value)
		}
	}
	directives := func(list ast.DirectiveList) {
		for _, directive := range list {
			for _, argument := range directive.Arguments {
				value(argument.Value)
			}
		}
	}
	var selections func(set ast.SelectionSet)
	selections = func(set ast.SelectionSet) {
		for _, selection := range set {
			switch selection := selection.(type) {
			case *ast.Field:
				start := selection.Name == fieldName && selection.ObjectDefinition != nil &&
					selection.ObjectDefinition.Name == "Subscription"
				for _, argument := range selection.Arguments {
					if !start || argument.Name != afterName {
						value(argument.Value)
					}
				}
				directives(selection.Directives)
				selections(selection.SelectionSet)
			case *ast.InlineFragment:
				directives(selection.Directives)
				selections(selection.SelectionSet)
			case *ast.FragmentSpread:
				directives(selection.Directives)
			}
		}
	}
	directives(op.Operation.Directives)
	selections(op.Operation.SelectionSet)
	// Every fragment of the document, used or not: a variable too many costs only some sharing.
	for _, fragment := range op.Doc.Fragments {
		directives(fragment.Directives)
		selections(fragment.SelectionSet)
	}
	return used
}
