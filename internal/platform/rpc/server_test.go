package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/telemetry"
)

func succeed(context.Context) error { return nil }

func TestCallsNeedAToken(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{
		empty: func(ctx context.Context) error {
			_, err := identity.Must(ctx)
			return err
		},
		unary: func(ctx context.Context) error {
			if caller, ok := identity.From(ctx); ok {
				return errs.New(errs.Forbidden, "a public call knows "+caller.String())
			}
			return nil
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			_, err := identity.Must(stream.Context())
			return err
		},
	})
	ctx, caller := h.caller(t)
	good := caller.Token
	client := testpb.NewTestServiceClient(h.bare(t))
	tests := []struct {
		name   string
		values []string
		ok     bool
	}{
		{"a bearer token", []string{"Bearer " + good}, true},
		{"a bearer token, in other case", []string{"bearer " + good}, true},
		{"nothing", nil, false},
		{"empty", []string{""}, false},
		{"the token alone", []string{good}, false},
		{"another scheme", []string{"Basic " + good}, false},
		{"no token", []string{"Bearer "}, false},
		{"another's signature", []string{"Bearer " + good[:len(good)-4] + "AAAA"}, false},
		{"two tokens", []string{"Bearer " + good, "Bearer " + good}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": tt.values})
			want := codes.Unauthenticated
			if tt.ok {
				want = codes.OK
			}
			if _, err := client.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != want {
				t.Errorf("the call gave %v, want %v", err, want)
			}
			stream, err := client.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			if tt.ok && errors.Is(err, io.EOF) {
				err = nil
			}
			if status.Code(err) != want {
				t.Errorf("the stream gave %v, want %v", err, want)
			}
			if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				t.Errorf("the public call gave %v", err)
			}
		})
	}

	t.Run("passed on by Dial", func(t *testing.T) {
		if _, err := h.client(t).EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Error(err)
		}
		stream, err := h.client(t).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream gave %v, want its end", err)
		}
		stream, err = h.client(t).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("the stream of a stranger gave %v, want Unauthenticated", err)
		}
	})
	t.Run("the handler knows the caller", func(t *testing.T) {
		var got identity.Identity
		h := serveTest(t, ServerConfig{}, &testService{empty: func(ctx context.Context) (err error) {
			got, err = identity.Must(ctx)
			return err
		}})
		ctx, caller := h.caller(t)
		if _, err := h.client(t).EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		if got.UserID != caller.UserID || got.SessionID != caller.SessionID || got.Token != caller.Token {
			t.Errorf("the handler was called by %v, want %v", got, caller)
		}
	})
}

func TestAPanicFailsItsOwnCallOnly(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{
		unary:  func(context.Context) error { panic("out of cheese") },
		empty:  succeed,
		duplex: func(testpb.TestService_FullDuplexCallServer) error { panic("out of mice") },
	})
	ctx, _ := h.caller(t)
	client := h.client(t)
	internal := errs.Error{Kind: errs.Internal, Message: internalMessage}
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
	wantError(t, err, internal)
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantError(t, err, internal)
	if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil {
		t.Errorf("the call after them: %v", err)
	}
	for _, want := range []string{"out of cheese", "out of mice", "server_test.go"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, h.log)
		}
	}
}

func TestTheCauseOfAnErrorIsLoggedOnceWithItsTrace(t *testing.T) {
	const cause = "disk is on fire"
	tests := []struct {
		err   error
		level string
	}{
		{errors.New(cause), "ERROR"},
		{errs.Wrap(errs.Internal, errors.New(cause), "oh"), "ERROR"},
		{errs.Wrap(errs.Unavailable, errors.New(cause), "oh"), "WARN"},
		{errs.Wrap(errs.Conflict, errors.New(cause), "oh"), "DEBUG"},
	}
	for _, tt := range tests {
		t.Run(tt.level, func(t *testing.T) {
			out := &syncBuffer{}
			g := &guard{log: telemetry.Logger("debug", "text", out)}
			span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab, 15: 1}, SpanID: trace.SpanID{1}})
			ctx := trace.ContextWithSpanContext(t.Context(), span)
			if err := g.answer(ctx, unaryCall, tt.err, nil); err == nil {
				t.Fatal("the error is gone")
			}
			line := out.String()
			for _, want := range []string{cause, unaryCall, tt.level, span.TraceID().String()} {
				if strings.Count(line, want) != 1 {
					t.Errorf("%q is not in the log once:\n%s", want, line)
				}
			}
		})
	}

	t.Run("not a warning when the client left", func(t *testing.T) {
		out := &syncBuffer{}
		g := &guard{log: telemetry.Logger("info", "text", out)}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.answer(ctx, unaryCall, ctx.Err(), nil); status.Code(err) != codes.Unavailable {
			t.Errorf("the answer is %v, want Unavailable", err)
		}
		if out.String() != "" {
			t.Errorf("the log has %s", out)
		}
	})
}

func TestDeadlines(t *testing.T) {
	tests := []struct {
		name                   string
		server, client, caller time.Duration // Zero for none; the client then has its default.
		most                   time.Duration // What the handler may see at most.
	}{
		{"the client's default", 0, 0, 0, defaultDeadline},
		{"the client's option", 0, time.Hour, 0, time.Hour},
		{"the caller's, which is earlier", time.Hour, time.Hour, time.Minute, time.Minute},
		{"the client's, which is earlier", time.Hour, time.Minute, time.Hour, time.Minute},
		{"the server's, which is earlier", time.Minute, time.Hour, time.Hour, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var deadline time.Time
			h := serveTest(t, ServerConfig{DefaultDeadline: tt.server}, &testService{unary: func(ctx context.Context) error {
				deadline, _ = ctx.Deadline()
				return nil
			}})
			var options []DialOption
			if tt.client > 0 {
				options = append(options, WithDeadline(tt.client))
			}
			client := h.client(t, options...)
			ctx := t.Context()
			start := time.Now()
			if tt.caller > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.caller)
				defer cancel()
			}
			if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			if deadline.IsZero() || deadline.Before(start) || deadline.After(time.Now().Add(tt.most)) {
				t.Errorf("the handler's deadline is %v after the start, want at most %v", deadline.Sub(start), tt.most)
			}
		})
	}

	t.Run("a call without any", func(t *testing.T) {
		var has bool
		h := serveTest(t, ServerConfig{DefaultDeadline: time.Minute}, &testService{unary: func(ctx context.Context) error {
			_, has = ctx.Deadline()
			return nil
		}})
		if _, err := testpb.NewTestServiceClient(h.bare(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		if !has {
			t.Error("the handler has no deadline")
		}
	})
	t.Run("a handler that reaches it", func(t *testing.T) {
		h := serveTest(t, ServerConfig{DefaultDeadline: time.Millisecond}, &testService{unary: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		_, err := h.client(t).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		wantError(t, err, errs.Error{Kind: errs.Unavailable, Message: unavailableMessage})
	})
}

func TestHealthAndReflectionArePublic(t *testing.T) {
	h := serveTest(t, ServerConfig{Reflection: true}, &testService{})
	conn := h.bare(t)
	health := grpc_health_v1.NewHealthClient(conn)
	for _, service := range []string{"", "grpc.testing.TestService"} {
		answer, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v; want SERVING", service, answer, err)
		}
	}
	// A status of plain gRPC, as probes expect it.
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("health of an unknown service: %v, want NotFound", err)
	}
	if services, err := listServices(t, conn); err != nil || !strings.Contains(services, "grpc.testing.TestService") {
		t.Errorf("reflection gave %s, %v", services, err)
	}
}

func TestReflectionIsOffByDefault(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{})
	if services, err := listServices(t, h.bare(t)); status.Code(err) != codes.Unimplemented {
		t.Errorf("reflection gave %s, %v; want Unimplemented", services, err)
	}
}

func listServices(t *testing.T, conn *grpc.ClientConn) (string, error) {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	return answer.String(), err
}

func TestStoppingTurnsReadinessOffFirstAndServesOn(t *testing.T) {
	h := serveTest(t, ServerConfig{DrainDelay: time.Hour}, &testService{unary: succeed})
	conn := h.bare(t)
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if answer, err := watch.Recv(); err != nil || answer.GetStatus() != want {
			t.Fatalf("health is %v, %v; want %v", answer, err, want)
		}
	}
	wantStatus(grpc_health_v1.HealthCheckResponse_SERVING)
	h.stop()
	wantStatus(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if _, err := h.client(t).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Errorf("a call while the server drains, on a new connection: %v", err)
	}
}

func TestStoppingWaitsForCallsUnderWay(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	h := serveTest(t, ServerConfig{ShutdownTimeout: time.Hour}, &testService{unary: func(context.Context) error {
		if calls.Add(1) == 1 {
			close(started)
			<-finish
		}
		return nil
	}})
	called := make(chan error, 1)
	client := h.client(t, WithDeadline(time.Hour))
	go func() {
		_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		called <- err
	}()
	<-started
	h.stop()
	// The server is past its draining when it takes no new call.
	for {
		if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			break
		}
	}
	close(finish)
	if err := <-called; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-h.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestConnectionsEndByAgeWithoutLosingACall(t *testing.T) {
	var mu sync.Mutex
	connections := map[string]bool{}
	service := &testService{unary: func(ctx context.Context) error {
		from, _ := peer.FromContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		connections[from.Addr.String()] = true
		return nil
	}}
	client := serveTest(t, ServerConfig{MaxConnectionAge: 10 * time.Millisecond}, service).client(t)
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(connections)
	}
	for count() < 3 {
		if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoppingCutsOffCallsThatTakeTooLong(t *testing.T) {
	started := make(chan struct{})
	h := serveTest(t, ServerConfig{ShutdownTimeout: time.Millisecond}, &testService{unary: func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}})
	called := make(chan error, 1)
	client := h.client(t, WithDeadline(time.Hour))
	go func() {
		_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		called <- err
	}()
	<-started
	h.stop()
	if err := <-called; errs.KindOf(err) != errs.Unavailable {
		t.Errorf("the call was cut off with %v, want Unavailable", err)
	}
	if err := <-h.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeReportsAnEndThatNobodyAskedFor(t *testing.T) {
	t.Run("the listener fails", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		server := NewServer(ServerConfig{}, nil, nil, slog.New(slog.DiscardHandler))
		if err := server.Serve(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve gave %v, want net.ErrClosed", err)
		}
	})
	t.Run("somebody stops the server", func(t *testing.T) {
		h := serveTest(t, ServerConfig{}, &testService{})
		h.server.Stop()
		if err := <-h.served; !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve gave %v, want grpc.ErrServerStopped", err)
		}
	})
}

func TestMessagesAboveTheLimitAreRefused(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{unary: succeed})
	request := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, maxMessageSize+1)}}
	if _, err := h.client(t).UnaryCall(t.Context(), request); errs.KindOf(err) != errs.Internal {
		t.Errorf("the call gave %v, want Internal", err)
	}
	request.Payload.Body = request.Payload.Body[:maxMessageSize/2]
	if _, err := h.client(t).UnaryCall(t.Context(), request); err != nil {
		t.Errorf("a message below the limit: %v", err)
	}
}

func TestServerConfig(t *testing.T) {
	parse := func(vars kong.Vars, args ...string) (ServerConfig, error) {
		t.Helper()
		var cli struct {
			GRPC ServerConfig `embed:"" prefix:"grpc-"`
		}
		k, err := kong.New(&cli, vars)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Parse(args)
		return cli.GRPC, err
	}
	got, err := parse(nil)
	want := ServerConfig{
		Listen: ":9090", DefaultDeadline: 10 * time.Second, DrainDelay: 5 * time.Second, ShutdownTimeout: 15 * time.Second,
		MaxConnectionAge: 5 * time.Minute,
	}
	if err != nil || got != want {
		t.Errorf("the default is %+v, %v; want %+v", got, err, want)
	}
	if got, err := parse(kong.Vars{"grpc_listen": ":9091"}); err != nil || got.Listen != ":9091" {
		t.Errorf("a program's own default address became %q, %v", got.Listen, err)
	}
	for _, flag := range []string{"default-deadline", "drain-delay", "shutdown-timeout", "max-connection-age"} {
		if _, err := parse(nil, "--grpc-"+flag+"=-1s"); err == nil || !strings.Contains(err.Error(), "must not be negative") {
			t.Errorf("a negative --grpc-%s gave %v", flag, err)
		}
	}
}
