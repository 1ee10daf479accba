package mysql

import (
	"net"
	"sync/atomic"
	"testing"
)

// cut tells a proxy what to do with a piece of what a client sends, and with its connection.
type cut int

const (
	pass       cut = iota // Send it on.
	cutBefore             // Close the connection without sending it.
	cutReplies            // Send it on, let the server do all of it, and close the connection without its answer.
)

// startProxy listens on an address (":0" for any) and passes what comes on to a server. Decide, if not nil, is shown
// all that clients send. It returns the address.
func startProxy(t *testing.T, address, server string, decide func(sent []byte) cut) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go proxy(client, server, decide)
		}
	}()
	return listener.Addr().String()
}

func proxy(client net.Conn, address string, decide func([]byte) cut) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	var muted atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			if muted.Load() {
				continue
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		action := pass
		if decide != nil {
			action = decide(buffer[:n])
		}
		if action == cutBefore {
			return
		}
		muted.Store(action == cutReplies)
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
		if action == cutReplies {
			// The server notices the end once it has done what it was sent, and ends the connection too.
			if err := server.(*net.TCPConn).CloseWrite(); err == nil {
				<-ended
			}
			return
		}
	}
}
