// Package federation makes the API a subgraph of Apollo Federation 2, where that is wanted.
//
// Where it is not, the API has neither Query._service nor Query._entities: a document that asks for them is as invalid
// as any other that asks for what is not there, and introspection knows nothing of them.
//
// Where it is, _service tells the schema to whoever asks, as a composition needs, whether introspection is on or not;
// _entities needs a token as every other field does, and gives its caller exactly what Query.node would. What a router
// may ask for at once is bounded, and a representation that cannot be one is refused before anything is read.
package federation

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/model"
	"chatapp.dev/services/graph/schema"
)

const (
	// maxRepresentations is how many entities an operation may ask for: what the services take in one call.
	maxRepresentations = 200
	// maxFields is how many fields a representation may have. A router sends __typename and the key.
	maxFields = 16
	// maxID is how long an id may be, in bytes. Ours have less than 40.
	maxID = 128
)

// The root fields that federation adds.
const (
	service  = "_service"
	entities = "_entities"
)

// Schema returns the executable schema, with or without federation.
func Schema(cfg gen.Config, on bool) graphql.ExecutableSchema {
	if !on {
		cfg.Schema = schema.Public()
		return gen.NewExecutableSchema(cfg)
	}
	// What the generator adds for itself alone is nobody's to see. Nothing refers to it.
	federated := *gen.NewExecutableSchema(cfg).Schema()
	federated.Types = maps.Clone(federated.Types)
	maps.DeleteFunc(federated.Types, func(name string, t *ast.Definition) bool {
		return strings.HasSuffix(t.Position.Src.Name, "federation/entity.graphql") && !strings.HasPrefix(name, "_")
	})
	cfg.Schema = &federated
	return counted{gen.NewExecutableSchema(cfg)}
}

// counted counts each entity that is asked for, where the generated code takes all of them for one.
type counted struct{ graphql.ExecutableSchema }

// Complexity implements graphql.ExecutableSchema.
func (s counted) Complexity(
	ctx context.Context, typeName, field string, child int, args map[string]any,
) (complexity int, known bool) {
	if typeName == "Query" && field == entities {
		// More than are allowed are refused anyhow.
		return 1 + child*min(max(len(representations(args)), 1), maxRepresentations), true
	}
	return s.ExecutableSchema.Complexity(ctx, typeName, field, child, args)
}

func representations(args map[string]any) []any { return graphql.CoerceList(args["representations"]) }

// Subgraph answers _service, and looks at what a router asks of _entities before it is executed. It is an extension of
// gqlgen's server, for a schema with federation.
type Subgraph struct {
	sdl string
}

var (
	_ graphql.OperationContextMutator = Subgraph{}
	_ graphql.RootFieldInterceptor    = Subgraph{}
)

// NewSubgraph returns the extension.
func NewSubgraph() Subgraph { return Subgraph{sdl: schema.Subgraph()} }

// ExtensionName implements graphql.HandlerExtension.
func (Subgraph) ExtensionName() string { return "Subgraph" }

// Validate implements graphql.HandlerExtension.
func (Subgraph) Validate(graphql.ExecutableSchema) error { return nil }

// InterceptRootField implements graphql.RootFieldInterceptor. The generated _service would be of no use: it gives the
// files as they are, of which a composition reads less, and nothing when introspection is off.
func (s Subgraph) InterceptRootField(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
	root := graphql.GetRootFieldContext(ctx)
	if root.Field.Name != service {
		return next(ctx)
	}
	fields := graphql.CollectFields(graphql.GetOperationContext(ctx), root.Field.Selections, nil)
	answer := graphql.NewFieldSet(fields)
	for i, field := range fields {
		switch field.Name {
		case "sdl":
			answer.Values[i] = graphql.MarshalString(s.sdl)
		case "__typename":
			answer.Values[i] = graphql.MarshalString("_Service")
		}
	}
	return answer
}

// MutateOperationContext implements graphql.OperationContextMutator.
func (Subgraph) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	left := maxRepresentations
	for _, field := range graphql.CollectFields(op, op.Operation.SelectionSet, nil) {
		if field.Name != entities {
			continue
		}
		given := representations(field.ArgumentMap(op.Variables))
		if left -= len(given); left < 0 {
			return refuse(errs.TooLong, fmt.Sprintf("an operation may have at most %d representations", maxRepresentations))
		}
		for i, representation := range given {
			if reason := check(representation); reason != "" {
				return refuse(errs.InvalidFormat, fmt.Sprintf("representations[%d]%s", i, reason))
			}
		}
	}
	return nil
}

// check returns why something cannot be the representation of an entity; it reads on from the thing's name.
func check(representation any) string {
	fields, ok := representation.(map[string]any)
	switch {
	case !ok:
		return " must be an object with __typename and id"
	case len(fields) > maxFields:
		return fmt.Sprintf(" may have at most %d fields", maxFields)
	}
	switch fields["__typename"] {
	case "User", "Conversation", "Message":
	default:
		return ".__typename must be User, Conversation or Message"
	}
	id, err := model.UnmarshalID(fields["id"])
	switch {
	case err != nil:
		return ".id must be an ID"
	case len(id) > maxID:
		return fmt.Sprintf(".id may have at most %d bytes", maxID)
	}
	return ""
}

func refuse(rule errs.Code, reason string) *gqlerror.Error {
	return apierr.Refuse(errs.Field(errs.Invalid, rule, "representations", reason))
}
