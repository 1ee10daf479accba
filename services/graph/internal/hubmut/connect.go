package hub

import (
	"errors"
	"fmt"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
)

// CheckURL says what is wrong with a Redis URL, without repeating it: it may hold a password.
func CheckURL(url string) error {
	if _, err := redis.ParseURL(url); err != nil {
		return errors.New("must be redis://[user:password@]host:port/db, or rediss:// for TLS")
	}
	return nil
}

// Connect returns a client for a Redis URL. It does not wait for Redis, which may be away at any time.
func Connect(url string) (redis.UniversalClient, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, CheckURL(url)
	}
	client := redis.NewClient(options)
	if err := redisotel.InstrumentTracing(client, redisotel.WithDBStatement(false)); err != nil {
		return nil, fmt.Errorf("instrument redis: %w", err)
	}
	if err := redisotel.InstrumentMetrics(client); err != nil {
		return nil, fmt.Errorf("instrument redis: %w", err)
	}
	return client, nil
}
