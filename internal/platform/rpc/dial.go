package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"chatapp.dev/internal/platform/identity"
)

// defaultDeadline bounds the calls of a connection that was dialed without WithDeadline.
const defaultDeadline = 5 * time.Second

// DialOption changes how Dial's connection behaves.
type DialOption func(*dialer)

// WithRetry names methods ("/pkg.Service/Method") that may be carried out more than once without harm. A call of theirs
// that fails with errs.Unavailable is repeated up to twice, within its deadline. All other methods are tried once.
func WithRetry(methods ...string) DialOption {
	return func(d *dialer) { d.retry = append(d.retry, methods...) }
}

// WithDeadline changes the longest that a call may take from five seconds. An earlier deadline of the call's context
// holds.
func WithDeadline(deadline time.Duration) DialOption {
	return func(d *dialer) { d.deadline = deadline }
}

// WithTransportCredentials makes the connection secure. Without it, it is plain text.
func WithTransportCredentials(transport credentials.TransportCredentials) DialOption {
	return func(d *dialer) { d.transport = transport }
}

// dialer is what the options change, and the client's side of every call.
type dialer struct {
	retry     []string
	deadline  time.Duration
	transport credentials.TransportCredentials
}

// Dial returns a connection to a target, "host:port" or a URL of a scheme that gRPC knows. The host is looked up in DNS,
// and the calls go to all of its addresses in turn. No address needs to be there yet: calls fail with
// errs.Unavailable until one is.
//
// The errors of its calls are of package errs.
func Dial(target string, options ...DialOption) (*grpc.ClientConn, error) {
	d := &dialer{deadline: defaultDeadline, transport: insecure.NewCredentials()}
	for _, option := range options {
		option(d)
	}
	if !strings.Contains(target, "://") {
		if _, port, err := net.SplitHostPort(target); err != nil || port == "" {
			return nil, fmt.Errorf("dial %q: want host:port", target)
		}
		target = "dns:///" + target
	}
	config, err := serviceConfig(d.retry)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", target, err)
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(d.transport),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithUnaryInterceptor(d.unary),
		grpc.WithStreamInterceptor(d.stream),
		grpc.WithDefaultServiceConfig(config),
		grpc.WithDisableServiceConfig(), // Ours holds, and no TXT record is looked up.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                pingInterval,
			Timeout:             pingTimeout,
			PermitWithoutStream: true,
		}),
		// By default a client may stay away for two minutes from a server that is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", target, err)
	}
	return conn, nil
}

// serviceConfig writes gRPC's own configuration of load balancing and retries.
func serviceConfig(retry []string) (string, error) {
	type methodName struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	type retryPolicy struct {
		MaxAttempts          int      `json:"maxAttempts"`
		InitialBackoff       string   `json:"initialBackoff"`
		MaxBackoff           string   `json:"maxBackoff"`
		BackoffMultiplier    float64  `json:"backoffMultiplier"`
		RetryableStatusCodes []string `json:"retryableStatusCodes"`
	}
	type methodConfig struct {
		Name        []methodName `json:"name"`
		RetryPolicy retryPolicy  `json:"retryPolicy"`
	}
	var config struct {
		LoadBalancing []map[string]struct{} `json:"loadBalancingConfig"`
		Methods       []methodConfig        `json:"methodConfig,omitempty"`
	}
	config.LoadBalancing = []map[string]struct{}{{"round_robin": {}}}

	var names []methodName
	for _, full := range retry {
		service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
		if !ok || service == "" || method == "" || full[0] != '/' {
			return "", fmt.Errorf("retry of %q: want /pkg.Service/Method", full)
		}
		names = append(names, methodName{Service: service, Method: method})
	}
	if len(names) > 0 {
		config.Methods = []methodConfig{{
			Name: names,
			RetryPolicy: retryPolicy{
				MaxAttempts:          3,
				InitialBackoff:       "0.05s",
				MaxBackoff:           "0.5s",
				BackoffMultiplier:    3,
				RetryableStatusCodes: []string{"UNAVAILABLE"},
			},
		}}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("encode the service config: %w", err)
	}
	return string(text), nil
}

// unary is a grpc.UnaryClientInterceptor.
func (d *dialer) unary(
	ctx context.Context, method string, request, response any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, d.deadline)
	defer cancel()
	return fromStatus(invoke(withToken(ctx), method, request, response, conn, options...))
}

// stream is a grpc.StreamClientInterceptor. A stream gets no deadline, since some are meant to stay.
func (d *dialer) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(withToken(ctx), desc, conn, method, options...)
	if err != nil {
		return nil, fromStatus(err)
	}
	return clientStream{stream}, nil
}

// clientStream translates errors.
type clientStream struct{ grpc.ClientStream }

func (s clientStream) SendMsg(message any) error {
	return fromStatus(s.ClientStream.SendMsg(message))
}

func (s clientStream) RecvMsg(message any) error {
	return fromStatus(s.ClientStream.RecvMsg(message))
}

// withToken passes the caller's token on.
func withToken(ctx context.Context) context.Context {
	caller, ok := identity.From(ctx)
	if !ok {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, authorizationKey, bearer+caller.Token)
}
