package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"chatapp.dev/internal/platform/redisserver"
)

// RedisKind says which Redis to open.
type RedisKind string

const (
	// RedisAuto is the address if one is given, else RedisMemory.
	RedisAuto RedisKind = "auto"
	// RedisMemory is miniredis, in this process. It has no sharded pub/sub (SPUBLISH, SSUBSCRIBE).
	RedisMemory RedisKind = "memory"
	// RedisServer is a private redis-server.
	RedisServer RedisKind = "server"
	// RedisAddr is a server that runs already.
	RedisAddr RedisKind = "addr"
)

// expiryInterval is how late a key of RedisMemory may expire.
const expiryInterval = 100 * time.Millisecond

// RedisOptions says which Redis to open. The zero value is one in this process.
type RedisOptions struct {
	Kind RedisKind
	Addr string       // Host and port of a running server.
	Log  *slog.Logger // Receives starts and stops; nil means none.
}

// Redis is an open Redis. None of ours stores anything on disk.
type Redis struct {
	name  string
	addr  string
	close func() error
}

// OpenRedis opens a Redis. ctx bounds the opening only.
func OpenRedis(ctx context.Context, opts RedisOptions) (*Redis, error) {
	switch opts.Kind {
	case RedisAuto, "":
		if opts.Addr != "" {
			return openRedisAddr(opts)
		}
		return openRedisMemory()
	case RedisMemory:
		return openRedisMemory()
	case RedisServer:
		return openRedisServer(ctx, opts)
	case RedisAddr:
		return openRedisAddr(opts)
	default:
		return nil, fmt.Errorf("unknown kind of Redis %q: it is one of %s, %s, %s, %s", opts.Kind, RedisAuto, RedisMemory,
			RedisServer, RedisAddr)
	}
}

// Name tells people in one line which Redis serves.
func (r *Redis) Name() string { return r.name }

// Addr returns the host and port to connect to.
func (r *Redis) Addr() string { return r.addr }

// Close stops the Redis unless it is not ours. Closing twice is harmless.
func (r *Redis) Close() error { return r.close() }

func openRedisAddr(opts RedisOptions) (*Redis, error) {
	if opts.Addr == "" {
		return nil, errors.New("the Redis is to be the one at an address, but no address is given")
	}
	return &Redis{name: "the Redis at " + opts.Addr, addr: opts.Addr, close: func() error { return nil }}, nil
}

func openRedisServer(ctx context.Context, opts RedisOptions) (*Redis, error) {
	s, err := redisserver.Start(ctx, redisserver.Options{Log: opts.Log})
	if err != nil {
		return nil, err
	}
	return &Redis{name: "a private redis-server on " + s.Addr(), addr: s.Addr(), close: s.Stop}, nil
}

func openRedisMemory() (*Redis, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start Redis in this process: %w", err)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { passTime(m, stop) })
	return &Redis{
		name: "a Redis in this process",
		addr: m.Addr(),
		close: sync.OnceValue(func() error {
			close(stop)
			running.Wait()
			m.Close()
			return nil
		}),
	}, nil
}

// passTime makes keys expire: in miniredis time passes only when it is told to.
func passTime(m *miniredis.Miniredis, stop <-chan struct{}) {
	tick := time.NewTicker(expiryInterval)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			now := time.Now()
			m.FastForward(now.Sub(last))
			last = now
		}
	}
}
