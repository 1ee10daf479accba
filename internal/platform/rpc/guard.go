package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

// authorizationKey is the metadata in which a call carries its token, after bearer.
const (
	authorizationKey = "authorization"
	bearer           = "Bearer "
)

// guard stands between the network and the handlers.
type guard struct {
	verifier *identity.Verifier
	public   map[string]bool
	deadline time.Duration // Zero for none.
	log      *slog.Logger
}

// builtIn says whether a method is gRPC's own health check or reflection. They are for probes and tools, which have no
// token, and speak plain gRPC.
func builtIn(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

// unary is a grpc.UnaryServerInterceptor.
func (g *guard) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (response any, err error) {
	if builtIn(info.FullMethod) {
		return handler(ctx, request)
	}
	defer func() { err = g.answer(ctx, info.FullMethod, err, recover()) }()

	callCtx := ctx
	if g.deadline > 0 {
		var cancel context.CancelFunc
		callCtx, cancel = context.WithTimeout(ctx, g.deadline)
		defer cancel()
	}
	callCtx, err = g.authenticate(callCtx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := validateRequest(request); err != nil {
		return nil, err
	}
	return handler(callCtx, request)
}

// stream is a grpc.StreamServerInterceptor. A stream gets no deadline, since some are meant to stay.
func (g *guard) stream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	if builtIn(info.FullMethod) {
		return handler(srv, stream)
	}
	defer func() { err = g.answer(stream.Context(), info.FullMethod, err, recover()) }()

	ctx, err := g.authenticate(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, &guardedStream{ServerStream: stream, ctx: ctx})
}

// guardedStream validates what it receives.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	return validateRequest(message)
}

// authenticate returns a context that knows the caller, or refuses the call. The token of a public call is not looked
// at: signing in must work for a client that still holds a token that expired.
func (g *guard) authenticate(ctx context.Context, method string) (context.Context, error) {
	if g.public[method] {
		return ctx, nil
	}
	values := metadata.ValueFromIncomingContext(ctx, authorizationKey)
	if len(values) == 0 {
		return nil, errs.New(errs.Unauthenticated, "sign in first")
	}
	// Of two tokens, which one counts must not depend on who looks.
	if len(values) > 1 || len(values[0]) < len(bearer) || !strings.EqualFold(values[0][:len(bearer)], bearer) {
		return nil, errs.New(errs.Unauthenticated, "authorization must be one bearer token")
	}
	caller, err := g.verifier.Verify(ctx, values[0][len(bearer):])
	if err != nil {
		return nil, err
	}
	return identity.With(ctx, caller), nil
}

// answer turns the outcome of a call into the status that the client gets, and logs what the client does not get to
// know. Panicked is what recover returned: a handler that panics fails its own call and no other.
func (g *guard) answer(ctx context.Context, method string, err error, panicked any) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
	}
	if err == nil {
		return nil
	}
	e := exposed(err)
	level := slog.LevelDebug
	switch {
	case e.Kind == errs.Internal:
		level = slog.LevelError
	case e.Kind == errs.Unavailable && !errors.Is(ctx.Err(), context.Canceled):
		level = slog.LevelWarn // Unless it is only that the client went away.
	}
	g.log.LogAttrs(ctx, level, "call failed", slog.String("method", method), slog.String("kind", e.Kind.String()),
		slog.String("code", string(e.Code)), slog.String("field", e.Field), slog.String("error", err.Error()))
	return toStatus(e)
}
