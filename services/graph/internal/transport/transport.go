// Package transport carries operations and their responses: over HTTP, over WebSocket (graphql-transport-ws), and over
// HTTP responses that go on (server-sent events as graphql-sse has them, and Apollo's multipart subscriptions).
//
// Guaranteed on all of them: text that is not Unicode is refused and never mended, an error has the form and the code
// that package apierr gives it, whoever comes with a token that is not valid is refused before anything is executed, and
// a subscription yields the same events in the same order. A subscription that cannot go on says why, and never ends in
// silence. What a client has not read when its connection ends is lost with it; it resumes from its last cursor.
//
// A connection that stays open ends before its token does, at once when its session is revoked, and when its client is
// too slow for what it is sent or does not answer pings. The close codes of WebSockets are in docs/api.md.
package transport

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/revocation"
)

// IsUpgrade tells whether a request wants to become a WebSocket, and so will last for as long as that.
func IsUpgrade(r *http.Request) bool {
	for _, value := range r.Header.Values("Upgrade") {
		if strings.EqualFold(strings.TrimSpace(value), "websocket") {
			return true
		}
	}
	return false
}

// Authenticate returns a context with the caller whom an Authorization header names.
func Authenticate(ctx context.Context, verifier *revocation.Verifier, header string) (context.Context, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return ctx, errs.New(errs.Unauthenticated, `authorization must be "Bearer" and an access token`)
	}
	who, err := verifier.Verify(ctx, token)
	if err != nil {
		return ctx, err
	}
	return identity.With(ctx, who), nil
}

// Origins are the other sites whose pages may use the API from a browser: "https://chat.example.com". Only exact
// matches count.
type Origins []string

// Allow tells whether an origin is on the list.
func (o Origins) Allow(origin string) bool {
	return slices.ContainsFunc(o, func(allowed string) bool { return strings.EqualFold(allowed, origin) })
}

// AllowRequest tells whether a request may come from where it says that it does: the server's own pages, a site on the
// list, or no browser at all.
func (o Origins) AllowRequest(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	// A page cannot write Sec-Fetch-Site. It helps where a proxy has changed the host.
	if origin == "" || o.Allow(origin) || r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return true
	}
	// The scheme is not compared: TLS often ends at a proxy, and the host is what a page cannot choose.
	from, err := url.Parse(origin)
	return err == nil && from.Host != "" && strings.EqualFold(from.Host, r.Host)
}
