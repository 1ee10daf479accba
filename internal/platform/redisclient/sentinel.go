package redisclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// watchInterval is how often Sentinel is asked whether the master has been replaced.
	watchInterval = time.Second
	// askTimeout bounds how long Sentinels are waited for.
	askTimeout = 2 * time.Second
)

// sentinelClient is a client of the master that Sentinel names.
//
// go-redis has one, too. On a failover it closes the pooled connections to the former master but not those that
// subscriptions use: where that master lives on, cut off from Sentinel but not from us, they would go on listening where
// nobody publishes, and a ping would say that all is well. It also believes the first Sentinel that answers, be it one
// that is cut off together with the former master. This one believes most of them, asks again every second, and closes
// every connection to another server than the one they name.
type sentinelClient struct {
	*redis.Client
	name      string
	tls       *tls.Config
	sentinels []*redis.SentinelClient

	stop    context.CancelFunc
	stopped chan struct{}

	mu    sync.Mutex
	conns map[*masterConn]struct{}
}

// masterConn is a connection to a server that was the master when it was dialled. It is a TCPConn to the client, which
// looks whether it is dead before it uses it.
type masterConn struct {
	*net.TCPConn
	addr string // As Sentinel names it, which may be by a host's name.

	client *sentinelClient
}

// Close closes the connection.
func (c *masterConn) Close() error {
	c.client.mu.Lock()
	delete(c.client.conns, c)
	c.client.mu.Unlock()
	return c.TCPConn.Close()
}

func connectSentinel(t target) (*sentinelClient, error) {
	ctx, stop := context.WithCancel(context.Background())
	c := &sentinelClient{
		name: t.master, tls: t.server.TLSConfig, stop: stop, stopped: make(chan struct{}), conns: make(map[*masterConn]struct{}),
	}
	for _, options := range t.sentinels {
		options.DialerRetries = 1
		options.MaxRetries = -1
		options.ContextTimeoutEnabled = true
		options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		options.Dialer = dialerOf(options.TLSConfig)
		c.sentinels = append(c.sentinels, redis.NewSentinelClient(options))
	}
	t.server.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }
	var err error
	if c.Client, err = connectServer(t.server); err != nil {
		close(c.stopped)
		return nil, errors.Join(err, c.Close())
	}
	go c.watch(ctx)
	return c, nil
}

// Close closes all connections.
func (c *sentinelClient) Close() error {
	c.stop()
	<-c.stopped
	errs := []error{c.Client.Close()}
	for _, sentinel := range c.sentinels {
		errs = append(errs, sentinel.Close())
	}
	return errors.Join(errs...)
}

// watch closes connections to a former master until ctx ends.
func (c *sentinelClient) watch(ctx context.Context) {
	defer close(c.stopped)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// While Sentinel is away nothing is known, and connections stay.
		if master, err := c.master(ctx); err == nil {
			c.leaveAllBut(master)
		}
	}
}

// leaveAllBut closes the connections to other servers than the master. Whoever uses them connects anew.
func (c *sentinelClient) leaveAllBut(master string) {
	c.mu.Lock()
	var former []*masterConn
	for conn := range c.conns {
		if conn.addr != master {
			former = append(former, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range former {
		_ = conn.Close() // It may have been closed meanwhile.
	}
}

// dial connects to the master.
func (c *sentinelClient) dial(ctx context.Context) (net.Conn, error) {
	addr, err := c.master(ctx)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	dialled, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := dialled.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("dial the master: got a %T", dialled), dialled.Close())
	}
	conn := &masterConn{TCPConn: tcp, addr: addr, client: c}
	c.mu.Lock()
	c.conns[conn] = struct{}{}
	c.mu.Unlock()
	if c.tls == nil {
		return conn, nil
	}
	config := c.tls.Clone()
	if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// master returns the address of the master: what more than half of the Sentinels say, or else most of those that answer
// in time.
func (c *sentinelClient) master(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	type answer struct {
		addr string
		err  error
	}
	answers := make(chan answer, len(c.sentinels))
	for _, sentinel := range c.sentinels {
		go func() {
			hostPort, err := sentinel.GetMasterAddrByName(ctx, c.name).Result()
			switch {
			case errors.Is(err, redis.Nil):
				answers <- answer{err: errors.New("sentinel does not know the master")}
			case err != nil:
				answers <- answer{err: fmt.Errorf("ask Sentinel: %w", err)}
			case len(hostPort) != 2:
				answers <- answer{err: errors.New("sentinel gives no address of the master")}
			default:
				answers <- answer{addr: net.JoinHostPort(hostPort[0], hostPort[1])}
			}
		}()
	}
	var (
		votes = make(map[string]int)
		best  string
		errs  []error
	)
	for range c.sentinels {
		a := <-answers
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		votes[a.addr]++
		if votes[a.addr] > votes[best] {
			best = a.addr
		}
		if votes[best] > len(c.sentinels)/2 {
			return best, nil
		}
	}
	if best == "" {
		return "", errors.Join(errs...)
	}
	return best, nil
}
