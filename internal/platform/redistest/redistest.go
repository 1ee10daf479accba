// Package redistest gives each test a real Redis of its own, which the test may stop and restart. A test never skips:
// without redis-server it fails and says what to install.
package redistest

import (
	"context"
	"testing"
	"time"

	"chatapp.dev/internal/platform/redisserver"
)

const startTimeout = time.Minute

// Server is a redis-server that stores nothing and ends with the test.
type Server struct {
	// Addr is the host and port to connect to; it stays the same across Restart.
	Addr string

	t      testing.TB
	server *redisserver.Server
}

// Start starts a server on a free port and returns once it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := &Server{Addr: server.Addr(), t: t, server: server}
	t.Cleanup(s.Stop)
	return s
}

// Stop ends the server: connections break and new ones are refused until Restart. Its data is gone.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.server.Stop(); err != nil {
		s.t.Errorf("redistest: stop Redis: %v", err)
	}
}

// Restart starts the server on its port again, empty, after stopping it if it runs, and returns once it answers.
func (s *Server) Restart() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.server.Restart(ctx); err != nil {
		s.t.Errorf("redistest: restart Redis: %v", err)
	}
}
