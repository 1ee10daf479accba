// Package redisclient connects to the Redis that carries hints between services.
//
// Redis may be away at any time and loses what it was told then: nothing may be kept in it that is nowhere else.
package redisclient

import (
	"errors"
	"fmt"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// CheckURL says what is wrong with a Redis URL, without repeating it: it may hold a password.
func CheckURL(url string) error {
	if _, err := redis.ParseURL(url); err != nil {
		return errors.New("must be redis://[user:password@]host:port/db, or rediss:// for TLS")
	}
	return nil
}

// Connect returns a client for a Redis URL, with spans that hold no statements. It does not wait for Redis.
func Connect(url string) (redis.UniversalClient, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, CheckURL(url)
	}
	// Whoever uses Redis here does without it when it is away, and tries again: the client need not do so as well.
	options.DialerRetries = 1
	// A caller's deadline holds while Redis is silent, too. By default only the client's own timeouts, of seconds, do.
	options.ContextTimeoutEnabled = true
	// A feature of one vendor's servers; others would be asked about it on every connection.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(options)
	if err := redisotel.InstrumentTracing(client, redisotel.WithDBStatement(false)); err != nil {
		return nil, fmt.Errorf("instrument redis: %w", err)
	}
	if err := redisotel.InstrumentMetrics(client); err != nil {
		return nil, fmt.Errorf("instrument redis: %w", err)
	}
	return client, nil
}
