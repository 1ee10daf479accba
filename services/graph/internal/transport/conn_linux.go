package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tuneStream makes the kernel give up a connection whose other end no longer confirms what it is sent, and bounds what
// it keeps for it. A failure leaves things as they are.
func tuneStream(conn net.Conn, cfg *Config) {
	if raw, ok := conn.(syscall.Conn); ok {
		if control, err := raw.SyscallConn(); err == nil {
			patience := (cfg.PingInterval + cfg.PongTimeout) / time.Millisecond
			_ = control.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience))
			})
		}
	}
	boundBuffer(conn, cfg)
}
