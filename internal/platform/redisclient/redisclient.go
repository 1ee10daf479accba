// Package redisclient connects to the Redis that carries hints between services: one server, a master that Sentinel
// watches, or a Redis Cluster, by what the URL says.
//
// Redis may be away at any time and loses what it was told then: nothing may be kept in it that is nowhere else.
//
// Connections end when they lead to where nothing is published any more. With Sentinel that is what this package adds:
// go-redis' own client for it finds the new master when it connects, but leaves subscriptions at a former master that is
// still there. See [Connect].
package redisclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Connect returns a client for a Redis URL, with spans that hold no statements. It does not wait for Redis.
//
// The client is a *redis.ClusterClient exactly for a Redis Cluster. Otherwise all its connections lead to one server:
// with Sentinel, those to a master that has been replaced are closed within a second or two, whether or not it lives on.
func Connect(url string) (redis.UniversalClient, error) {
	target, err := parse(url)
	if err != nil {
		return nil, err
	}
	switch {
	case target.cluster != nil:
		return connectCluster(target.cluster)
	case target.master != "":
		return connectSentinel(target)
	default:
		return connectServer(target.server)
	}
}

// reloadInterval is how old what a client knows of a cluster may be when it uses it. go-redis finds out by itself when a
// slot has moved, since the former primary says so, but not when that is dead: it would go on for a minute.
const reloadInterval = time.Second

// dialTimeout bounds a connection, with its TLS.
const dialTimeout = 5 * time.Second

func connectServer(options *redis.Options) (*redis.Client, error) {
	// Whoever uses Redis here does without it when it is away, and tries again: the client need not do so as well.
	options.DialerRetries = 1
	// A caller's deadline holds while Redis is silent, too. By default only the client's own timeouts, of seconds, do.
	options.ContextTimeoutEnabled = true
	// A feature of one vendor's servers; others would be asked about it on every connection.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if options.Dialer == nil {
		options.Dialer = dialerOf(options.TLSConfig)
	}
	client := redis.NewClient(options)
	return client, instrument(client)
}

func connectCluster(options *redis.ClusterOptions) (*redis.ClusterClient, error) {
	options.ClusterStateReloadInterval = reloadInterval
	// For the same reasons as those of one server.
	options.DialerRetries = 1
	options.ContextTimeoutEnabled = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.Dialer = dialerOf(options.TLSConfig)
	client := redis.NewClusterClient(options)
	return client, instrument(client)
}

// dialerOf returns what connects over TLS, or nil for go-redis' own dialler, which takes no notice of a context's end when it
// is given a TLS configuration.
func dialerOf(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if config == nil {
		return nil
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	return dialer.DialContext
}

func instrument(client redis.UniversalClient) error {
	if err := redisotel.InstrumentTracing(client, redisotel.WithDBStatement(false)); err != nil {
		return fmt.Errorf("instrument redis: %w", err)
	}
	if err := redisotel.InstrumentMetrics(client); err != nil {
		return fmt.Errorf("instrument redis: %w", err)
	}
	return nil
}
