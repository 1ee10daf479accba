package rpc

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"chatapp.dev/internal/platform/errs"
)

func TestOnlyListedMethodsAreRetried(t *testing.T) {
	tests := []struct {
		name     string
		retry    []string
		failures int32 // How often the method fails before it would succeed.
		kind     errs.Kind
		calls    int32
		ok       bool
	}{
		{"not listed", []string{emptyCall, cacheableCall}, 1, errs.Unavailable, 1, false},
		{"nothing listed", nil, 1, errs.Unavailable, 1, false},
		{"listed", []string{emptyCall, unaryCall}, 2, errs.Unavailable, 3, true},
		{"listed, but three are enough", []string{unaryCall}, 3, errs.Unavailable, 3, false},
		{"listed, but no passing failure", []string{unaryCall}, 1, errs.Internal, 1, false},
		{"listed, but a conflict", []string{unaryCall}, 1, errs.Conflict, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			h := serveTest(t, ServerConfig{}, &testService{unary: func(context.Context) error {
				if calls.Add(1) <= tt.failures {
					return errs.New(tt.kind, "not now")
				}
				return nil
			}})
			_, err := h.client(t, WithRetry(tt.retry...)).UnaryCall(t.Context(), &testpb.SimpleRequest{})
			if tt.ok && err != nil {
				t.Errorf("the call gave %v", err)
			}
			if !tt.ok {
				wantError(t, err, errs.Error{Kind: tt.kind, Message: "not now"})
			}
			if calls.Load() != tt.calls {
				t.Errorf("the method was called %d times, want %d", calls.Load(), tt.calls)
			}
		})
	}
}

func TestCallsGoToEveryAddressInTurn(t *testing.T) {
	var addresses []resolver.Address
	var calls [3]atomic.Int32
	for i := range calls {
		h := serveTest(t, ServerConfig{}, &testService{unary: func(context.Context) error {
			calls[i].Add(1)
			return nil
		}})
		addresses = append(addresses, resolver.Address{Addr: h.addr})
	}
	name := manual.NewBuilderWithScheme("chatapp-test")
	name.InitialState(resolver.State{Addresses: addresses})
	resolver.Register(name)
	client := testpb.NewTestServiceClient(dial(t, "chatapp-test:///users"))

	call := func() {
		t.Helper()
		if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	// Until all are connected some get more than their share.
	for calls[0].Load() == 0 || calls[1].Load() == 0 || calls[2].Load() == 0 {
		call()
	}
	var before [3]int32
	for i := range calls {
		before[i] = calls[i].Load()
	}
	for range 30 {
		call()
	}
	for i := range calls {
		if got := calls[i].Load() - before[i]; got != 10 {
			t.Errorf("server %d got %d of 30 calls, want 10", i, got)
		}
	}
}

func TestDialTarget(t *testing.T) {
	for target, want := range map[string]string{
		"users:9090":                       "dns:///users:9090",
		"[::1]:9090":                       "dns:///[::1]:9090",
		"dns:///users:9090":                "dns:///users:9090",
		"passthrough:///127.0.0.1:9090":    "passthrough:///127.0.0.1:9090",
		"dns://10.0.0.10/users.chatapp:90": "dns://10.0.0.10/users.chatapp:90",
	} {
		if got := dial(t, target).Target(); got != want {
			t.Errorf("Dial(%q) goes to %q, want %q", target, got, want)
		}
	}
	for _, target := range []string{"", "users", "users:", "::1"} {
		if _, err := Dial(target); err == nil {
			t.Errorf("Dial(%q) was taken", target)
		}
	}
}

func TestDialRefusesMethodsThatAreNone(t *testing.T) {
	for _, method := range []string{"", "/", "Send", "/Send", "pkg.Service/Method", "//Method", "/pkg.Service/"} {
		if _, err := Dial("users:9090", WithRetry(method)); err == nil {
			t.Errorf("WithRetry(%q) was taken", method)
		}
	}
}

func TestAServerThatIsNotThereIsUnavailable(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{unary: succeed})
	h.stop()
	if err := <-h.served; err != nil {
		t.Fatal(err)
	}
	_, err := h.client(t).UnaryCall(t.Context(), &testpb.SimpleRequest{})
	wantError(t, err, errs.Error{Kind: errs.Unavailable, Message: unavailableMessage})
}

func TestTransportCredentialsAreUsed(t *testing.T) {
	h := serveTest(t, ServerConfig{}, &testService{unary: succeed})
	// The server speaks plain text, so a client that insists on TLS must fail.
	client := h.client(t, WithTransportCredentials(credentials.NewTLS(nil)))
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("the call gave %v, want Unavailable", err)
	}
}
