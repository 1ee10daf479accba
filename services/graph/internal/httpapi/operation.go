package httpapi

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/vektah/gqlparser/v2/ast"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

var tracer = otel.Tracer("chatapp.dev/services/graph")

// traced gives each operation a span. That of a subscription ends once it is established: what follows may take days.
func traced(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx)
	kind := string(operation.Operation.Operation)
	// The client chooses the name, so it is no part of the span's, which would then have no end of values.
	ctx, span := tracer.Start(ctx, kind, trace.WithAttributes(
		attribute.String("graphql.operation.type", kind),
		attribute.String("graphql.operation.name", operation.OperationName),
	))
	responses := next(ctx)
	if operation.Operation.Operation == ast.Subscription {
		span.End()
		return responses
	}
	return func(ctx context.Context) *graphql.Response {
		defer span.End()
		response := responses(ctx)
		if response != nil && len(response.Errors) > 0 {
			span.SetStatus(codes.Error, "the response has errors")
		}
		return response
	}
}

// bounded gives a query or a mutation a deadline.
func bounded(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	if graphql.GetOperationContext(ctx).Operation.Operation == ast.Subscription {
		return next(ctx)
	}
	responses := next(ctx)
	return func(ctx context.Context) *graphql.Response {
		ctx, cancel := context.WithTimeout(ctx, operationTimeout)
		defer cancel()
		return responses(ctx)
	}
}

const (
	// cachedQueries is far above the number of different operations that a client's program has.
	cachedQueries = 250
	// cachedQueryBytes keeps a few callers from filling the memory with documents that nobody sends twice.
	cachedQueryBytes = 4 << 10
)

// queryCache keeps parsed documents.
type queryCache struct {
	graphql.Cache[*ast.QueryDocument]
}

func newQueryCache() queryCache {
	return queryCache{Cache: lru.New[*ast.QueryDocument](cachedQueries)}
}

// Add implements graphql.Cache.
func (c queryCache) Add(ctx context.Context, query string, document *ast.QueryDocument) {
	if len(query) <= cachedQueryBytes {
		c.Cache.Add(ctx, query, document)
	}
}
