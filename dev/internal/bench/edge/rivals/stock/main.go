// Command stock is a GraphQL server as gqlgen's documentation and the usual tutorials put it together: the stock WebSocket
// transport, and for each subscription a goroutine and a Redis subscription of its own. It is what ChatApp's edge is
// measured beside, and nothing else: whoever connects is who they say they are.
//
// It takes the address of Redis as its argument, and writes the address on which it serves to its standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/redis/go-redis/v9"

	"chatapp.dev/dev/internal/bench/edge/rivals/stock/gen"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stock:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("want the address of Redis, but have %q", os.Args[1:])
	}
	rdb := redis.NewClient(&redis.Options{Addr: os.Args[1]})
	defer rdb.Close()
	server := handler.New(gen.NewExecutableSchema(gen.Config{Resolvers: resolver{rdb}}))
	server.AddTransport(transport.Websocket{
		// The transport of handler.NewDefaultServer, told who the client is.
		KeepAlivePingInterval: 10 * time.Second,
		InitFunc: func(
			ctx context.Context, payload transport.InitPayload,
		) (context.Context, *transport.InitPayload, error) {
			return context.WithValue(ctx, userKey{}, strings.TrimPrefix(payload.Authorization(), "Bearer ")), nil, nil
		},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	http.Handle("/graphql", server)
	fmt.Println(listener.Addr())
	return (&http.Server{ReadHeaderTimeout: time.Minute}).Serve(listener)
}

// userKey is the context's key of the client's user.
type userKey struct{}

// resolver implements gen.ResolverRoot and the resolvers that it asks for.
type resolver struct{ redis *redis.Client }

// Query implements gen.ResolverRoot.
func (r resolver) Query() gen.QueryResolver { return r }

// Subscription implements gen.ResolverRoot.
func (r resolver) Subscription() gen.SubscriptionResolver { return r }

// Me implements gen.QueryResolver.
func (resolver) Me(ctx context.Context) (*gen.User, error) {
	user, _ := ctx.Value(userKey{}).(string)
	return &gen.User{ID: user}, nil
}

// NewMessage implements gen.SubscriptionResolver.
func (r resolver) NewMessage(ctx context.Context, _ *string) (<-chan *gen.NewMessageEvent, error) {
	user, _ := ctx.Value(userKey{}).(string)
	subscription := r.redis.Subscribe(ctx, "stock:"+user)
	if _, err := subscription.Receive(ctx); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	events := make(chan *gen.NewMessageEvent, 1)
	go func() {
		defer close(events)
		defer subscription.Close()
		received := subscription.Channel()
		for {
			select {
			case <-ctx.Done():
				return
			case message, open := <-received:
				if !open {
					return
				}
				event := &gen.NewMessageEvent{}
				if err := json.Unmarshal([]byte(message.Payload), event); err != nil {
					return
				}
				select {
				case <-ctx.Done():
					return
				case events <- event:
				}
			}
		}
	}()
	return events, nil
}
