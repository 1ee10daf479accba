package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkTimeout bounds every readiness check: a probe that hangs tells its caller nothing.
	checkTimeout = time.Second
	// adminStopTimeout is how long a stopping Admin waits for the answers it still owes.
	adminStopTimeout = 2 * time.Second
)

// Check tells whether something that a service needs works.
type Check func(ctx context.Context) error

// Admin serves a process's probes, for machines and operators rather than for users:
//
//   - /livez answers 200 as long as the process serves at all;
//   - /readyz answers 200 when the process wants traffic ([Admin.SetReady]) and every check passes, else 503 with a
//     line for each that fails.
//
// It does not restrict who may ask; its address must not be public.
type Admin struct {
	log    *slog.Logger
	mux    *http.ServeMux
	checks map[string]Check
	ready  atomic.Bool
}

// NewAdmin returns an Admin that is not ready yet. Checks are named, and run at the same time on each probe.
func NewAdmin(log *slog.Logger, checks map[string]Check) *Admin {
	a := &Admin{log: log, mux: http.NewServeMux(), checks: maps.Clone(checks)}
	a.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	a.mux.HandleFunc("GET /readyz", a.readyz)
	return a
}

// SetReady says whether the process wants traffic. A service sets it once it serves, and takes it back as the first
// step of stopping, long before it closes anything: whoever routes to it must see that first.
func (a *Admin) SetReady(ready bool) { a.ready.Store(ready) }

// Handle adds a handler for a pattern of net/http's ServeMux. It must not be called after Serve.
func (a *Admin) Handle(pattern string, handler http.Handler) { a.mux.Handle(pattern, handler) }

// ServeHTTP implements http.Handler.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// ListenAndServe is Serve on a listener of its own.
func (a *Admin) ListenAndServe(ctx context.Context, addr Addr) error {
	listener, err := addr.Listen()
	if err != nil {
		return fmt.Errorf("open the admin address: %w", err)
	}
	return a.Serve(ctx, listener)
}

// Serve answers on the listener, which it closes, until ctx ends; then it returns nil once the answers that are under
// way are given. A probe must be able to see that the process is no longer ready, so ctx should end last of all.
func (a *Admin) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminStopTimeout)
		defer cancel()
		err := server.Shutdown(bound)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	})
	a.log.Info("admin serves", "address", listener.Addr().String())
	err := server.Serve(listener)
	if stop() {
		// The context has not ended, so this is no orderly stop.
		return fmt.Errorf("serve the admin address: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stop the admin server: %w", err)
	}
	return nil
}

func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	if !a.ready.Load() {
		answer(w, http.StatusServiceUnavailable, "not ready: starting or stopping")
		return
	}
	if failures := a.failures(r.Context()); len(failures) > 0 {
		answer(w, http.StatusServiceUnavailable, strings.Join(failures, "\n"))
		return
	}
	answer(w, http.StatusOK, "ok")
}

// failures runs every check and returns a line for each that fails, ordered by name.
func (a *Admin) failures(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	names := slices.Sorted(maps.Keys(a.checks))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = a.checks[name](ctx) })
	}
	wg.Wait()
	var failures []string
	for i, err := range errs {
		if err != nil {
			failures = append(failures, fmt.Sprintf("%s: %v", names[i], err))
		}
	}
	return failures
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
