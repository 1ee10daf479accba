package httpapi

import (
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/clientaddr"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/revocation"
	"chatapp.dev/services/graph/internal/transport"
)

// admission decides whether a request is answered at all: it verifies the token of one that has one, and refuses those
// of a user or an address that has asked too often. A request with a bad token counts for its address, so that nobody
// can try tokens without end. A socket brings its token later, and a header that came with its upgrade stands for nothing.
type admission struct {
	verifier *revocation.Verifier
	limiter  *ratelimit.Limiter
	proxies  clientaddr.Proxies
	plain    transport.HTTP
	log      *slog.Logger
	next     http.Handler

	warn sync.Once
}

// ServeHTTP implements http.Handler.
func (a *admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	addr, disbelieved := a.proxies.Of(r)
	if disbelieved {
		a.warn.Do(func() {
			a.log.WarnContext(r.Context(), "a request says that it was forwarded, but by no trusted proxy; "+
				"if there is a proxy, name its network with --trusted-proxies, or all its clients are limited as one")
		})
	}
	ctx := r.Context()
	caller := ratelimit.Caller{Addr: addr}
	// Verifying a token costs more than this, and may have to wait for keys.
	if wait, refused := a.limiter.Refused(ctx, caller); refused {
		a.refuse(w, r, wait)
		return
	}
	var unverified error
	if header := r.Header.Get("Authorization"); header != "" && !transport.IsUpgrade(r) {
		verified, err := transport.Authenticate(ctx, a.verifier, header)
		if err != nil {
			unverified = err
		} else {
			ctx = verified
		}
	}
	if who, ok := identity.From(ctx); ok {
		caller.User = who.UserID
	}
	// One round trip for both.
	if wait, ok := a.limiter.Allow(ctx, caller); !ok {
		a.refuse(w, r, wait)
		return
	}
	if unverified != nil {
		a.plain.Refuse(w, r, unverified)
		return
	}
	a.next.ServeHTTP(w, r.WithContext(ctx))
}

// refuse answers a request that is one too many.
func (a *admission) refuse(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(ratelimit.Seconds(wait)))
	if transport.IsUpgrade(r) {
		// Only the status tells a WebSocket client anything.
		a.plain.Reject(w, r, http.StatusTooManyRequests, ratelimit.Error(wait))
		return
	}
	a.plain.Refuse(w, r, ratelimit.Error(wait))
}
