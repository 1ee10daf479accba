//go:build !linux

package transport

import "net"

// tuneStream bounds what the kernel keeps for a connection.
func tuneStream(conn net.Conn, cfg *Config) { boundBuffer(conn, cfg) }
