package transport

import (
	"net/http"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/live"
)

// HTTP answers queries and mutations over HTTP, as the GraphQL-over-HTTP specification says: POST with a JSON body,
// and GET for queries. docs/adr/0011-graphql-over-http.md tells which of its editions where they differ.
type HTTP struct {
	// Present presents the errors of requests that never become an operation.
	Present graphql.ErrorPresenterFunc
	// MaxBody is the most bytes that a request's body may have, and MaxRatio how many times longer than it was sent it may
	// become by decompression.
	MaxBody, MaxRatio int
}

var _ graphql.Transport = HTTP{}

// Supports implements graphql.Transport.
func (HTTP) Supports(r *http.Request) bool { return !IsUpgrade(r) }

// Do implements graphql.Transport.
func (t HTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	f, ok := negotiate(r.Header.Values("Accept"))
	if !ok {
		t.malformed(w, r, &problem{http.StatusNotAcceptable, "answers are " + mediaGraphQL + " or " + mediaJSON})
		return
	}
	params, wrong := t.read(w, r)
	if wrong != nil {
		t.malformed(w, r, wrong)
		return
	}
	operation, refused := exec.CreateOperationContext(r.Context(), params)
	t.answer(w, r, f, exec, operation, refused)
}

// execute answers by a single response a request that a transport has read.
func (t HTTP) execute(
	w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, operation *graphql.OperationContext,
	refused gqlerror.List,
) {
	t.answer(w, r, formOf(r), exec, operation, refused)
}

// answer executes an operation, unless it was refused, and writes the response.
func (t HTTP) answer(
	w http.ResponseWriter, r *http.Request, f form, exec graphql.GraphExecutor, operation *graphql.OperationContext,
	refused gqlerror.List,
) {
	ctx := r.Context()
	if refused != nil {
		write(w, f, exec.DispatchError(graphql.WithOperationContext(ctx, operation), refused))
		return
	}
	switch operation.Operation.Operation {
	case ast.Subscription:
		err := errs.New(errs.Invalid, "a subscription must be asked for by WebSocket (graphql-transport-ws), or with "+
			"Accept: "+mediaEvents+" or "+mediaParts+";subscriptionSpec=1.0")
		write(w, f, &graphql.Response{Errors: gqlerror.List{t.Present(ctx, err)}})
		return
	case ast.Mutation:
		if r.Method != http.MethodPost {
			t.malformed(w, r, &problem{http.StatusMethodNotAllowed, "a mutation must be sent with POST"})
			return
		}
	}
	responses, ctx := exec.DispatchOperation(ctx, operation)
	response := responses(ctx)
	if response == nil {
		// Only a client that went away before anything was executed leads here; it will not read this.
		response = &graphql.Response{Errors: gqlerror.List{t.Present(ctx, ctx.Err())}}
	}
	write(w, f, response)
}

// Refuse answers a request that is refused before anybody looks at what it asks for. The status says why, whatever the
// media type is.
func (t HTTP) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	presented := gqlerror.List{t.Present(r.Context(), err)}
	send(w, formOf(r), apierr.Status(presented), &graphql.Response{Errors: presented})
}

// Reject is Refuse with a status that the error does not tell.
func (t HTTP) Reject(w http.ResponseWriter, r *http.Request, status int, err error) {
	presented := gqlerror.List{t.Present(r.Context(), err)}
	send(w, formOf(r), status, &graphql.Response{Errors: presented})
}

// malformed answers what is no GraphQL-over-HTTP request.
func (t HTTP) malformed(w http.ResponseWriter, r *http.Request, wrong *problem) {
	if wrong.status == http.StatusMethodNotAllowed {
		allowed := "GET, HEAD, POST"
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			allowed = "POST"
		}
		w.Header().Set("Allow", allowed)
	}
	t.Reject(w, r, wrong.status, errs.New(errs.Invalid, wrong.reason))
}

// formOf is negotiate for an answer that has to be given anyhow.
func formOf(r *http.Request) form {
	if f, ok := negotiate(r.Header.Values("Accept")); ok {
		return f
	}
	return form{media: mediaJSON}
}

// statusPartial is the GraphQL-over-HTTP specification's own status, for data beside errors. To whoever does not know it,
// it is a 2xx like any other.
const statusPartial = 294

// statusOf returns the status of the response to a well-formed request.
func statusOf(f form, response *graphql.Response) int {
	switch {
	case f.legacy || len(response.Errors) == 0:
		return http.StatusOK
	case response.Data == nil:
		return apierr.Status(response.Errors)
	case f.media == mediaGraphQL:
		return statusPartial
	default:
		return http.StatusOK
	}
}

// write answers a well-formed request.
func write(w http.ResponseWriter, f form, response *graphql.Response) {
	send(w, f, statusOf(f, response), response)
}

// send sends a response.
func send(w http.ResponseWriter, f form, status int, response *graphql.Response) {
	body := append(live.Encode(response), '\n')
	header := w.Header()
	header.Set("Content-Type", f.media+"; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Accept")
	if status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	// A client that went away cannot be told anything.
	_, _ = w.Write(body)
}
