package httpapi

import (
	"mime"
	"net/http"
	"strings"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/transport"
)

// What pages of allowed sites may do that a browser would not let them do by itself (CORS).
var (
	allowedMethods = strings.Join([]string{"GET", "HEAD", "POST", "PUT", "DELETE"}, ", ")
	allowedHeaders = strings.Join(append([]string{
		"Accept", "Authorization", "Baggage", "Content-Encoding", "Content-Type", "Traceparent", "Tracestate",
		"Apollographql-Client-Name", "Apollographql-Client-Version",
	}, preflightHeaders...), ", ")
	exposedHeaders = strings.Join([]string{"Allow", "Retry-After", "WWW-Authenticate"}, ", ")
)

// preflightHeaders make a browser ask before it sends a request with one of them from another site's page. That they are
// there proves that it has asked, or that it was no browser.
var preflightHeaders = []string{
	"Apollo-Require-Preflight", "X-Apollo-Operation-Name", "GraphQL-Require-Preflight", "X-GraphQL-Event-Stream-Token",
}

// sites keeps pages of other sites from using the API with a visitor's browser, unless the site is allowed. A foreign
// Origin is refused whatever the transport is. Where a browser sends none, as for an image, Sec-Fetch-Site tells, and in a
// browser that is too old for it, a cookie is reason enough to refuse what the browser would send without asking.
//
// A request that shows no sign of a browser passes.
type sites struct {
	allowed transport.Origins
	plain   transport.HTTP
	next    http.Handler
}

// ServeHTTP implements http.Handler.
func (s *sites) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	header := w.Header()
	header.Add("Vary", "Origin")
	if origin != "" && s.allowed.Allow(origin) {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
	switch {
	case !s.allowed.AllowRequest(r):
		s.refuse(w, r, "pages of this origin may not use the API")
	case r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "":
		header.Set("Access-Control-Allow-Methods", allowedMethods)
		header.Set("Access-Control-Allow-Headers", allowedHeaders)
		header.Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
	case origin == "" && maybeForeign(r) && !asked(r):
		s.refuse(w, r, "a page of another site may have caused this; "+
			"to show that none has, send the header Apollo-Require-Preflight with any value, or the Content-Type application/json")
	default:
		s.next.ServeHTTP(w, r)
	}
}

func (s *sites) refuse(w http.ResponseWriter, r *http.Request, reason string) {
	s.plain.Reject(w, r, http.StatusForbidden, errs.New(errs.Forbidden, reason))
}

// maybeForeign tells whether a request without an Origin may come from another site's page.
func maybeForeign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		return r.Header.Get("Cookie") != ""
	default:
		return true
	}
}

// asked tells whether no browser would have sent the request for another site's page without asking first.
func asked(r *http.Request) bool {
	for _, name := range append([]string{"Authorization"}, preflightHeaders...) {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		return true
	}
	if transport.IsUpgrade(r) {
		// A browser asks for a WebSocket only in the name of an Origin.
		return true
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && media == "application/json"
}
