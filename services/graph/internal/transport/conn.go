package transport

import (
	"context"
	"net"
)

type connKey struct{}

// WithConn returns a context for the requests of a connection, from which a response that goes on learns what it is
// sent over. It is for http.Server.ConnContext.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// boundBuffer bounds what the kernel keeps of what a client does not read. A failure leaves it as it is, which costs
// memory and nothing else.
func boundBuffer(conn net.Conn, cfg *Config) {
	if tcp, ok := conn.(*net.TCPConn); ok && cfg.SendBuffer > 0 {
		_ = tcp.SetWriteBuffer(cfg.SendBuffer)
	}
}
