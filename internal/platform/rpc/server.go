package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/run"
)

const (
	// maxStreams bounds the calls that one connection can have under way.
	maxStreams = 1000
	// maxHeaderSize bounds the metadata of a call: a token, a trace and baggage.
	maxHeaderSize = 64 << 10
	// connectionGrace is how long the calls on a connection that grew too old may still take.
	connectionGrace = 30 * time.Second
)

// ServerConfig are the settings of a Server. A zero duration means that there is no such delay or limit, but for
// ShutdownTimeout, which then leaves the calls no time.
type ServerConfig struct {
	// Listen is for whoever opens the listener that Serve is given.
	Listen run.Addr `default:"${grpc_listen=:9090}" help:"Address (host:port) on which gRPC is served."`
	// Reflection lets tools such as grpcurl read the API's definition off the server, without a token.
	Reflection bool `help:"Serve gRPC reflection, for development."`
	// DefaultDeadline bounds every call, also one that came without a deadline or with a later one.
	DefaultDeadline time.Duration `default:"10s" help:"Longest that a call may take."`
	// DrainDelay is how long a stopping server says that it is not serving before it stops to serve, so that those
	// who route calls to it have time to notice.
	DrainDelay time.Duration `default:"5s" help:"How long to go on serving after readiness is off, when stopping."`
	// ShutdownTimeout bounds how long the calls under way may take after DrainDelay. What is left then is cut off.
	ShutdownTimeout time.Duration `default:"15s" help:"How long to wait for calls under way, when stopping."`
	// MaxConnectionAge ends connections now and then, so that clients look up the name again and find new pods.
	MaxConnectionAge time.Duration `default:"5m" help:"Age at which to end a connection, so that clients find new instances."`
}

// Validate implements kong's validation of settings.
func (c *ServerConfig) Validate() error {
	for _, d := range []*time.Duration{&c.DefaultDeadline, &c.DrainDelay, &c.ShutdownTimeout, &c.MaxConnectionAge} {
		if *d < 0 {
			return run.Invalid(d, "must not be negative, but is %v", *d)
		}
	}
	return nil
}

// Server is a gRPC server that checks every call. Services are registered on the grpc.Server in it; health checks, and
// reflection where it is wanted, are registered already and public.
type Server struct {
	*grpc.Server
	config ServerConfig
	health *health.Server
	log    *slog.Logger
}

// NewServer returns a server whose callers the verifier must know, except for the public methods, whose full names
// ("/pkg.Service/Method") are in the map.
func NewServer(config ServerConfig, verifier *identity.Verifier, public map[string]bool, log *slog.Logger) *Server {
	g := &guard{verifier: verifier, public: public, deadline: config.DefaultDeadline, log: log}
	s := &Server{
		Server: grpc.NewServer(
			grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithFilter(filters.Not(filters.HealthCheck())))),
			grpc.UnaryInterceptor(g.unary),
			grpc.StreamInterceptor(g.stream),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.MaxRecvMsgSize(maxMessageSize),
			grpc.MaxHeaderListSize(maxHeaderSize),
			grpc.KeepaliveParams(keepalive.ServerParameters{
				MaxConnectionAge:      config.MaxConnectionAge,
				MaxConnectionAgeGrace: connectionGrace,
				Time:                  pingInterval,
				Timeout:               pingTimeout,
			}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
				MinTime:             minPingInterval,
				PermitWithoutStream: true,
			}),
		),
		config: config,
		health: health.NewServer(),
		log:    log,
	}
	grpc_health_v1.RegisterHealthServer(s, s.health)
	if config.Reflection {
		reflection.Register(s)
	}
	return s
}

// Serve answers calls on the listener, which it closes, until ctx ends. Then it reports itself as not serving, goes on
// for the drain delay, refuses new calls, and waits for those under way, at most for the shutdown timeout. It returns
// nil after such a stop, also when calls had to be cut off.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	for service := range s.GetServiceInfo() {
		s.health.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Server.Serve(listener) }()
	s.log.InfoContext(ctx, "gRPC serves", "address", listener.Addr().String())

	select {
	case err := <-ended:
		return unexpected(err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.log.InfoContext(ctx, "gRPC drains", "delay", s.config.DrainDelay)
	select {
	case err := <-ended:
		return unexpected(err)
	case <-time.After(s.config.DrainDelay):
	}
	s.stop(ctx)
	// ErrServerStopped only means that the stop came before the server had begun.
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return unexpected(err)
	}
	return nil
}

// unexpected returns the error of a server that ended before it was to. It has none when something else stopped it.
func unexpected(err error) error {
	if err == nil {
		err = grpc.ErrServerStopped
	}
	return fmt.Errorf("serve gRPC: %w", err)
}

// stop ends the server, gracefully if that can be done in time.
func (s *Server) stop(ctx context.Context) {
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(s.config.ShutdownTimeout):
		s.log.WarnContext(ctx, "gRPC cuts off the calls that are still under way", "timeout", s.config.ShutdownTimeout)
		s.Stop()
	}
}
