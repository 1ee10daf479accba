package transport

import (
	"time"

	"chatapp.dev/internal/platform/run"
)

// Config are the settings of connections that stay open: WebSockets, and HTTP responses that go on.
type Config struct {
	InitTimeout  time.Duration `default:"10s" help:"How long a WebSocket's client may take to say who it is."`
	IdleTimeout  time.Duration `default:"10m" help:"How long a WebSocket may have no operation under way; 0 for ever."`
	PingInterval time.Duration `default:"20s" help:"How often a WebSocket's client that says nothing is asked whether it is there, and how often other streams are kept from looking dead."`
	PongTimeout  time.Duration `default:"4s" help:"How long a client may take to answer a ping. One that is being sent something is pinged every 3 s."`
	WriteTimeout time.Duration `default:"5s" help:"How long a client may take to take the next 16 KiB of what it is sent."`

	// Operations counts queries, mutations and subscriptions alike.
	Operations   int `default:"100" help:"Operations that a connection may have under way."`
	PerUser      int `default:"100" help:"Connections that a user may have at one process; 0 for no limit."`
	MessageBytes int `default:"262144" help:"Bytes that a message from a WebSocket's client may have."`

	QueueBytes int   `default:"524288" help:"Bytes that may wait to be sent to one client, which is evicted when they are too few."`
	TotalBytes int64 `default:"134217728" help:"Bytes that may wait to be sent to all clients; the one with the most is evicted when they are too few."`
	// SendBuffer is doubled by Linux, for its own overhead. What a stalled client does not read fills it first.
	SendBuffer int `default:"32768" help:"Bytes that the kernel may keep for a client; 0 leaves it to the kernel."`

	Drain time.Duration `default:"10s" help:"Over how long to spread the closing of connections when stopping, so that their clients do not all come to the other processes at once."`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	for _, duration := range []*time.Duration{&c.InitTimeout, &c.PingInterval, &c.PongTimeout, &c.WriteTimeout} {
		if *duration < time.Second {
			return run.Invalid(duration, "must be at least 1s, but is %v", *duration)
		}
	}
	for _, duration := range []*time.Duration{&c.IdleTimeout, &c.Drain} {
		if *duration < 0 {
			return run.Invalid(duration, "must not be negative, but is %v", *duration)
		}
	}
	switch {
	case c.Operations < 1:
		return run.Invalid(&c.Operations, "must be at least 1, but is %d", c.Operations)
	case c.PerUser < 0:
		return run.Invalid(&c.PerUser, "must not be negative, but is %d", c.PerUser)
	case c.MessageBytes < 1024:
		return run.Invalid(&c.MessageBytes, "must be at least 1024, but is %d", c.MessageBytes)
	case c.QueueBytes < 16<<10:
		return run.Invalid(&c.QueueBytes, "must be at least 16384, but is %d", c.QueueBytes)
	case c.TotalBytes < int64(c.QueueBytes):
		return run.Invalid(&c.TotalBytes, "must be at least as much as one client may have, but is %d", c.TotalBytes)
	case c.SendBuffer < 0:
		return run.Invalid(&c.SendBuffer, "must not be negative, but is %d", c.SendBuffer)
	}
	return nil
}
