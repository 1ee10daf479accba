package rpc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

// The service of the tests is the one that gRPC tests itself with.
const (
	emptyCall     = "/grpc.testing.TestService/EmptyCall"
	unaryCall     = "/grpc.testing.TestService/UnaryCall"
	cacheableCall = "/grpc.testing.TestService/CacheableUnaryCall"
)

// testService does in each method what a test puts there.
type testService struct {
	testpb.UnimplementedTestServiceServer
	empty  func(context.Context) error
	unary  func(context.Context) error
	duplex func(testpb.TestService_FullDuplexCallServer) error
}

func (s *testService) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, s.empty(ctx)
}

func (s *testService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, s.unary(ctx)
}

func (s *testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.duplex(stream)
}

// harness is a running server. EmptyCall needs a token and UnaryCall is public.
type harness struct {
	server *Server
	signer *identity.Signer
	addr   string
	log    *syncBuffer
	stop   context.CancelFunc
	served chan error // What Serve returned.
}

func serve(t *testing.T, config ServerConfig, register func(*Server)) *harness {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{signer: signer, addr: listener.Addr().String(), log: &syncBuffer{}, served: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.server = NewServer(config, identity.NewVerifier(signer.Fetch), map[string]bool{unaryCall: true}, log)
	register(h.server)
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	ended := make(chan struct{})
	go func() {
		h.served <- h.server.Serve(ctx, listener)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		h.server.Stop()
		<-ended
	})
	return h
}

func serveTest(t *testing.T, config ServerConfig, service *testService) *harness {
	t.Helper()
	return serve(t, config, func(s *Server) { testpb.RegisterTestServiceServer(s, service) })
}

// client returns a client by Dial.
func (h *harness) client(t *testing.T, options ...DialOption) testpb.TestServiceClient {
	t.Helper()
	return testpb.NewTestServiceClient(dial(t, h.addr, options...))
}

// bare returns a connection that does nothing of what Dial does.
func (h *harness) bare(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, conn)
	return conn
}

// caller returns a context of somebody who is signed in.
func (h *harness) caller(t *testing.T) (context.Context, identity.Identity) {
	t.Helper()
	caller := identity.Identity{UserID: ids.New(), SessionID: ids.New()}
	var err error
	caller.Token, caller.ExpiresAt, err = h.signer.Sign(caller.UserID, caller.SessionID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return identity.With(t.Context(), caller), caller
}

func dial(t *testing.T, target string, options ...DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := Dial(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, conn)
	return conn
}

func closeLater(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
