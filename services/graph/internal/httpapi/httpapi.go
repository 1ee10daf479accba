// Package httpapi is the HTTP server's side of the API: what happens to a request before and around GraphQL.
//
// Guaranteed: every answer under [Path] is GraphQL JSON, whatever goes wrong; a request with a token that is not valid
// is answered before anything is executed, whatever it asks for, and so is one of a user or an address that has asked too
// often; a page of another site gets no answer that it can read unless the site is allowed. Introspection and the playground exist only in development.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/clientaddr"
	"chatapp.dev/services/graph/internal/federation"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/hub"
	"chatapp.dev/services/graph/internal/limits"
	"chatapp.dev/services/graph/internal/live"
	"chatapp.dev/services/graph/internal/persisted"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/resolver"
	"chatapp.dev/services/graph/internal/revocation"
	"chatapp.dev/services/graph/internal/transport"
)

// Path is where the API is, for HTTP and WebSocket alike.
const Path = "/graphql"

// operationTimeout bounds a query or a mutation. Its calls have shorter deadlines of their own.
const operationTimeout = 15 * time.Second

// Options are what an API is made of.
type Options struct {
	Resolver *resolver.Resolver
	Verifier *revocation.Verifier
	Limiter  *ratelimit.Limiter
	// Proxies are those whose word is taken for where a request came from.
	Proxies clientaddr.Proxies
	// Hub has the events for subscriptions, and Sockets are the settings of the connections that these need.
	Hub     *hub.Hub
	Sockets transport.Config
	// Origins are the other sites whose pages may use the API.
	Origins transport.Origins
	Limits  limits.Config
	// Persisted are the settings of documents that clients name, and Trusted the only ones that are executed; nil when
	// all are.
	Persisted persisted.Config
	Trusted   *persisted.Documents
	// Federation makes the API a subgraph of Apollo Federation.
	Federation bool
	// Development turns on introspection, suggestions in errors, and the playground at /.
	Development bool
	Log         *slog.Logger
}

// API is an http.Handler for the whole server.
type API struct {
	http.Handler
	fanout      *live.Fanout
	connections *transport.Connections
}

// New returns an API.
func New(o Options) *API {
	presenter := apierr.Presenter{Log: o.Log}
	plain := transport.HTTP{Present: presenter.Present, MaxBody: o.Limits.BodyBytes, MaxRatio: o.Limits.CompressionRatio}
	fanout := live.New(o.Hub, presenter.Present)
	connections := transport.NewConnections(o.Sockets, o.Verifier, o.Limiter, fanout)

	server := handler.New(federation.Schema(gen.Config{
		Resolvers:  o.Resolver,
		Complexity: limits.Complexity(o.Resolver.PageSize),
	}, o.Federation))
	server.AddTransport(transport.NewWebSocket(connections, o.Origins, plain))
	server.AddTransport(transport.NewStreams(connections, plain))
	server.AddTransport(plain)
	server.SetErrorPresenter(presenter.Present)
	server.SetRecoverFunc(presenter.Recover)
	server.SetQueryCache(newQueryCache())
	server.SetDisableSuggestion(!o.Development)
	if o.Development {
		server.Use(extension.Introspection{})
	}
	server.Use(resolver.Guard{Revocations: o.Resolver.Revocations})
	limits.Apply(server, o.Limits)
	if o.Federation {
		server.Use(federation.NewSubgraph())
	}
	// After all that refuses operations and before what looks at their text.
	server.Use(persisted.New(o.Persisted, o.Trusted))
	server.Use(transport.Text{})
	server.AroundOperations(traced)
	server.AroundOperations(bounded)
	server.AroundOperations(o.Resolver.CursorFirst)
	server.AroundResponses(func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
		return next(o.Resolver.Loaders(ctx))
	})

	admitted := &admission{
		verifier: o.Verifier, limiter: o.Limiter, proxies: o.Proxies, plain: plain, log: o.Log, next: server,
	}
	mux := http.NewServeMux()
	mux.Handle(Path, otelhttp.NewHandler(
		logged(o.Log, &sites{allowed: o.Origins, plain: plain, next: compressed(admitted)}),
		"graphql",
		// A span as long as a connection tells nothing and is exported too late; each operation on it has its own.
		otelhttp.WithFilter(func(r *http.Request) bool { return !transport.IsUpgrade(r) && !transport.IsStream(r) }),
	))
	if o.Development {
		mountPlayground(mux)
	}
	return &API{Handler: mux, fanout: fanout, connections: connections}
}

// Run watches the connections that stay open until ctx ends. It returns nil.
func (a *API) Run(ctx context.Context) error {
	defer a.fanout.Close()
	return a.connections.Run(ctx)
}

// EndSession ends the connections of a session that has been revoked.
func (a *API) EndSession(session ids.ID) { a.connections.Revoke(session) }

// Refuse lets in no more connections that stay open.
func (a *API) Refuse() { a.connections.Refuse() }

// Drain ends the connections that stay open, spread over the time set for it, telling their clients to connect again
// elsewhere. It returns when they are gone, or when ctx ends. Other requests go on.
func (a *API) Drain(ctx context.Context) error { return a.connections.Shutdown(ctx) }

// logged writes a line a request, for whoever looks for one. It has nothing of what was asked or answered.
func logged(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !log.Enabled(r.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		counted := &countingWriter{ResponseWriter: w, status: http.StatusOK}
		if transport.IsUpgrade(r) {
			// The connection is taken over, past any writer.
			next.ServeHTTP(w, r)
			counted.status = http.StatusSwitchingProtocols
		} else {
			next.ServeHTTP(counted, r)
		}
		log.DebugContext(r.Context(), "request",
			"method", r.Method, "path", r.URL.Path, "status", counted.status, "bytes", counted.bytes,
			"duration", time.Since(start), "remote", r.RemoteAddr)
	})
}

// countingWriter knows what was answered.
type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
