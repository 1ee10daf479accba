package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// balancer is what a Service of Kubernetes is: one address that leads each new connection to the next process that
// takes it.
type balancer struct {
	proxy
	addresses []string

	mu   sync.Mutex
	next int
}

func startBalancer(addresses []string) (*balancer, error) {
	b := &balancer{addresses: addresses}
	return b, b.listen(b.serve)
}

func (b *balancer) addr() string { return b.listener.Addr().String() }

func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	for range b.addresses {
		server, err := net.Dial("tcp", b.turn())
		if err != nil {
			continue
		}
		b.track(server)
		pipe(client, server)
		return
	}
}

// turn returns the address whose turn it is.
func (b *balancer) turn() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.addresses[b.next%len(b.addresses)]
}

// pipe copies both ways until either side ends, and ends the other.
func pipe(a, b net.Conn) {
	done := make(chan struct{}, 2)
	forward := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go forward(a, b)
	go forward(b, a)
	<-done
	_ = a.Close()
	_ = b.Close()
	<-done
}

// proxy accepts connections, and ends them all when it is closed.
type proxy struct {
	listener net.Listener

	tracking sync.Mutex
	conns    []net.Conn // Nil once closed.
	closed   bool
	serving  sync.WaitGroup
}

func (p *proxy) listen(serve func(net.Conn)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open a proxy: %w", err)
	}
	p.listener = listener
	p.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // Such as one that was reset while it waited.
			}
			if p.track(conn) {
				p.serving.Go(func() { serve(conn) })
			}
		}
	})
	return nil
}

// track notes a connection for close, and closes it at once when that has been.
func (p *proxy) track(conn net.Conn) bool {
	p.tracking.Lock()
	defer p.tracking.Unlock()
	if p.closed {
		_ = conn.Close()
		return false
	}
	p.conns = append(p.conns, conn)
	return true
}

func (p *proxy) close() {
	p.tracking.Lock()
	p.closed = true
	conns := p.conns
	p.conns = nil
	p.tracking.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	p.serving.Wait()
}
