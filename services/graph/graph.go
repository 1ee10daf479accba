// Package graph is the public face of ChatApp: one GraphQL API over HTTP and WebSocket, in front of the services users
// and messages.
//
// It has no database and keeps nothing that outlives a connection, so any number of processes serve side by side and
// no client is bound to one. What it acknowledges is what a service has acknowledged. When it stops, or dies, the
// subscriptions of its clients are cut; each goes on at another process from the cursor of the last event that it has
// seen, without a gap or a repeat.
package graph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph/internal/clientaddr"
	"chatapp.dev/services/graph/internal/federation"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/httpapi"
	"chatapp.dev/services/graph/internal/hub"
	"chatapp.dev/services/graph/internal/limits"
	"chatapp.dev/services/graph/internal/persisted"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/resolver"
	"chatapp.dev/services/graph/internal/revocation"
	"chatapp.dev/services/graph/internal/transport"
)

// Config are the settings of the service.
type Config struct {
	run.Common

	// Listen is where the API is served, for HTTP and WebSocket alike.
	Listen run.Addr `default:":8080" help:"Address (host:port) on which the API is served, at /graphql."`

	Users    string `default:"127.0.0.1:9001" help:"Address (host:port) of the users service; every address that the host resolves to is used in turn."`
	Messages string `default:"127.0.0.1:9002" help:"Address (host:port) of the messages service; every address that the host resolves to is used in turn."`
	Redis    string `default:"redis://127.0.0.1:6379/0" help:"Redis that carries the events: redis://[user:password@]host:port/db, redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port; rediss instead of redis for TLS."`

	// AllowedOrigins are compared as a whole: there are no patterns that could allow more than was meant.
	AllowedOrigins []string `placeholder:"ORIGIN,..." help:"Other sites whose pages may use the API from a browser, such as https://chat.example.com. The server's own always may."`
	PageSize       int      `default:"15" help:"How many edges a page of a connection has when a query does not say: 1 to 100."`

	// TrustedProxies are believed where a request came from; everybody else can write what they like.
	TrustedProxies []string         `placeholder:"NETWORK,..." help:"Networks (10.0.0.0/8) of the proxies in front, whose X-Forwarded-For is believed. Without them the address of a connection is the client's."`
	Rate           ratelimit.Config `embed:"" prefix:"rate-"`

	Limit     limits.Config    `embed:"" prefix:"limit-"`
	Persisted persisted.Config `embed:""`

	// DrainDelay and ShutdownTimeout are the two halves of a stop: see Run.
	DrainDelay      time.Duration `default:"5s" help:"How long to go on serving after readiness is off, when stopping."`
	ShutdownTimeout time.Duration `default:"15s" help:"How long to wait for requests under way and for sockets to close, when stopping."`

	Hub        hub.Config        `embed:"" prefix:"hub-"`
	Sockets    transport.Config  `embed:"" prefix:"socket-"`
	Revocation revocation.Config `embed:"" prefix:"revocation-"`

	Federation  bool `help:"Be a subgraph of Apollo Federation 2: answer _entities to whoever has a token, and _service, which is the schema, to everybody. On in development."`
	Development bool `help:"Answer introspection, and serve the playground at /. Not for production."`

	// Listener serves the API instead of the listen address, when set.
	Listener net.Listener `kong:"-"`
	// AdminListener serves probes instead of the admin listen address, when set.
	AdminListener net.Listener `kong:"-"`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	for _, address := range []*string{&c.Users, &c.Messages} {
		if _, _, err := net.SplitHostPort(*address); err != nil {
			return run.Invalid(address, "must be host:port, but is %q", *address)
		}
	}
	if err := redisclient.CheckURL(c.Redis); err != nil {
		return run.Invalid(&c.Redis, "%v", err)
	}
	for _, origin := range c.AllowedOrigins {
		parsed, err := url.Parse(origin)
		if err != nil || (parsed.Scheme != "https" && parsed.Scheme != "http") || parsed.Host == "" ||
			origin != parsed.Scheme+"://"+parsed.Host {
			return run.Invalid(&c.AllowedOrigins, "must be origins such as https://chat.example.com, but has %q", origin)
		}
	}
	if _, err := clientaddr.ParseProxies(c.TrustedProxies); err != nil {
		return run.Invalid(&c.TrustedProxies, "%v", err)
	}
	if _, err := c.trusted(); err != nil {
		return run.Invalid(&c.Persisted.TrustedDocuments, "must be a file of trusted documents: %v", err)
	}
	if c.PageSize < 1 || c.PageSize > resolver.MaxPageSize {
		return run.Invalid(&c.PageSize, "must be 1 to %d, but is %d", resolver.MaxPageSize, c.PageSize)
	}
	for _, duration := range []*time.Duration{&c.DrainDelay, &c.ShutdownTimeout} {
		if *duration < 0 {
			return run.Invalid(duration, "must not be negative, but is %v", *duration)
		}
	}
	if c.Sockets.Drain > c.ShutdownTimeout {
		return run.Invalid(&c.Sockets.Drain, "must be at most the shutdown timeout (%v), but is %v", c.ShutdownTimeout, c.Sockets.Drain)
	}
	return nil
}

// federated tells whether the API is a subgraph.
func (c *Config) federated() bool { return c.Federation || c.Development }

// trusted reads the file of trusted documents. They are nil when none is set.
func (c *Config) trusted() (*persisted.Documents, error) {
	if c.Persisted.TrustedDocuments == "" {
		return nil, nil
	}
	schema := federation.Schema(gen.Config{}, c.federated()).Schema()
	return persisted.Load(c.Persisted.TrustedDocuments, schema, c.Limit.Tokens)
}

// Run serves until ctx ends, and then stops in order: readiness, and new WebSockets and streams; after DrainDelay, in
// which those who route to it take notice, those that are open, one after the other, whose clients connect again
// elsewhere; new connections; the requests under way, all within ShutdownTimeout; the hub; the probes.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	trusted, err := cfg.trusted()
	if err != nil {
		return fmt.Errorf("read the trusted documents: %w", err)
	}
	usersConn, err := rpc.Dial(cfg.Users, rpc.WithRetry(
		usersv1.UsersService_BatchGetUsers_FullMethodName,
		usersv1.UsersService_SearchUsers_FullMethodName,
		usersv1.UsersService_GetSigningKeys_FullMethodName,
		usersv1.UsersService_SignOut_FullMethodName,
		usersv1.UsersService_ListRevocations_FullMethodName,
	))
	if err != nil {
		return fmt.Errorf("connect to users: %w", err)
	}
	defer usersConn.Close()
	messagesConn, err := rpc.Dial(cfg.Messages, rpc.WithRetry(
		messagesv1.MessagesService_BatchGetMessages_FullMethodName,
		messagesv1.MessagesService_BatchGetConversations_FullMethodName,
		messagesv1.MessagesService_GetConversationWith_FullMethodName,
		messagesv1.MessagesService_ListConversations_FullMethodName,
		messagesv1.MessagesService_BatchListMessages_FullMethodName,
		messagesv1.MessagesService_GetCursor_FullMethodName,
		messagesv1.MessagesService_ReadLog_FullMethodName,
		messagesv1.MessagesService_BatchGetLogHeads_FullMethodName,
	))
	if err != nil {
		return fmt.Errorf("connect to messages: %w", err)
	}
	defer messagesConn.Close()
	rdb, err := redisclient.Connect(cfg.Redis)
	if err != nil {
		return fmt.Errorf("connect to Redis: %w", err)
	}
	defer rdb.Close()

	proxies, err := clientaddr.ParseProxies(cfg.TrustedProxies)
	if err != nil {
		return run.Invalid(&cfg.TrustedProxies, "%v", err)
	}
	limiter := ratelimit.New(cfg.Rate, rdb, log)
	defer limiter.Close()

	users := usersv1.NewUsersServiceClient(usersConn)
	messages := messagesv1.NewMessagesServiceClient(messagesConn)
	signatures := identity.NewVerifier(func(ctx context.Context) ([]byte, error) {
		response, err := users.GetSigningKeys(ctx, &usersv1.GetSigningKeysRequest{})
		return response.GetJwks(), err
	})
	revocations := revocation.New(cfg.Revocation, rdb, users, log)
	events := hub.New(cfg.Hub, rdb, messages, log)
	api := httpapi.New(httpapi.Options{
		Resolver: &resolver.Resolver{
			Users: users, Messages: messages, Revocations: revocations, PageSize: cfg.PageSize,
		},
		Verifier:    revocation.NewVerifier(signatures, revocations),
		Limiter:     limiter,
		Proxies:     proxies,
		Hub:         events,
		Sockets:     cfg.Sockets,
		Origins:     cfg.AllowedOrigins,
		Limits:      cfg.Limit,
		Persisted:   cfg.Persisted,
		Trusted:     trusted,
		Federation:  cfg.federated(),
		Development: cfg.Development,
		Log:         log,
	})
	revocations.OnRevoke(api.EndSession)
	if cfg.Development {
		log.WarnContext(ctx, "introspection and the playground are on: not for production")
	}
	// Neither users nor messages nor Redis is a reason to be taken out of service: every other process would be as
	// badly off, and what does not need them still works.
	admin := run.NewAdmin(log, nil)

	listener, err := cfg.Listen.Open(cfg.Listener)
	if err != nil {
		return err
	}
	adminListener, err := cfg.AdminListen.Open(cfg.AdminListener)
	if err != nil {
		_ = listener.Close()
		return err
	}

	// The hub and the revocations end after the last socket, and the probes after everything.
	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer endBackground()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return admin.Serve(background, adminListener) })
	group.Go(func() error { return events.Run(background) })
	group.Go(func() error { return api.Run(background) })
	group.Go(func() error { return revocations.Run(background) })
	group.Go(func() error {
		defer endBackground()
		revocations.Load(ctx)
		admin.SetReady(true)
		stop := context.AfterFunc(ctx, func() { admin.SetReady(false) })
		defer stop()
		return serve(ctx, cfg, api, listener, log)
	})
	return group.Wait()
}

// serve serves the API until ctx ends and stops then. It closes the listener.
func serve(ctx context.Context, cfg Config, api *httpapi.API, listener net.Listener, log *slog.Logger) error {
	server := &http.Server{
		Handler:           api,
		ConnContext:       transport.WithConn,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.InfoContext(ctx, "the API serves", "address", listener.Addr().String(), "path", httpapi.Path)
	select {
	case err := <-ended:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	log.InfoContext(ctx, "the API drains", "delay", cfg.DrainDelay)
	api.Refuse()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the API: %w", err)
	case <-time.After(cfg.DrainDelay):
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.ShutdownTimeout)
	defer cancel()
	if err := errors.Join(api.Drain(bound), server.Shutdown(bound)); err != nil {
		log.WarnContext(ctx, "the API cuts off what is still under way", "timeout", cfg.ShutdownTimeout)
		_ = server.Close()
	}
	return nil
}
