package redisclient

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/internal/platform/redistest"
)

func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return client
}

// eventually waits until a condition holds; it is a failure if that takes absurdly long.
func eventually(t *testing.T, what string, holds func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		err := holds(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it never came true that %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runID returns the name that the server has given itself which a client's commands go to.
func runID(ctx context.Context, client redis.UniversalClient) (string, error) {
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(info, "run_id:")
	id, _, _ := strings.Cut(rest, "\r")
	return id, nil
}

func runIDAt(t *testing.T, addr string) string {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	id, err := runID(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAClusterIsFollowedThroughAFailover(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	client := connect(t, cluster.URL)
	keys := []string{"{a}", "{b}", "{c}", "{d}", "{e}", "{f}"}
	for _, key := range keys {
		if err := client.Set(t.Context(), key, "before", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	cluster.Kill(cluster.Nodes()[0])
	eventually(t, "all keys can be written", func(ctx context.Context) error {
		var errs []error
		for _, key := range keys {
			errs = append(errs, client.Set(ctx, key, "after", 0).Err())
		}
		return errors.Join(errs...)
	})
}

func TestSentinelsMasterIsFollowedWhenItDies(t *testing.T) {
	t.Parallel()
	servers := redistest.StartSentinel(t)
	promoted := runIDAt(t, servers.Replica)
	client := connect(t, servers.URL)
	if id, err := runID(t.Context(), client); err != nil || id == promoted {
		t.Fatalf("before the failover: connected to %q, %v, want the master", id, err)
	}
	servers.KillMaster()
	eventually(t, "commands go to the promoted replica", func(ctx context.Context) error {
		id, err := runID(ctx, client)
		if err == nil && id != promoted {
			err = errors.New("it is another server")
		}
		return err
	})
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Error(err)
	}
}

// A former master that is cut off from Sentinel but not from us answers everything, so only Sentinel can tell.
func TestConnectionsToAFormerMasterThatLivesOnAreClosed(t *testing.T) {
	t.Parallel()
	servers := redistest.StartSentinel(t)
	promoted := runIDAt(t, servers.Replica)
	client := connect(t, servers.URL)
	subscription := client.Subscribe(t.Context(), "channel")
	defer subscription.Close()
	if _, err := subscription.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	servers.Isolate()
	if err := subscription.Ping(t.Context()); err != nil {
		t.Fatalf("the isolated master does not answer those who are connected: %v", err)
	}
	if received, err := subscription.ReceiveTimeout(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	} else if _, ok := received.(*redis.Pong); !ok {
		t.Fatalf("the isolated master sends %v", received)
	}
	if received, err := subscription.ReceiveTimeout(t.Context(), 90*time.Second); err == nil {
		t.Fatalf("the isolated master sends %v", received)
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the subscription stays at the former master")
	}
	// go-redis' PubSub connects anew by itself, and pools do.
	eventually(t, "the subscription is at the promoted replica", func(ctx context.Context) error {
		if id, err := runID(ctx, client); err != nil || id != promoted {
			return fmt.Errorf("commands go elsewhere (%w)", err)
		}
		n, err := client.Publish(ctx, "channel", "hello").Result()
		if err == nil && n != 1 {
			err = fmt.Errorf("%d subscribers", n)
		}
		return err
	})
}

func TestAMasterNobodyKnowsIsAnError(t *testing.T) {
	t.Parallel()
	servers := redistest.StartSentinel(t)
	client := connect(t, strings.TrimSuffix(servers.URL, "chatapp")+"another")
	if err := client.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "does not know the master") {
		t.Errorf("got %v", err)
	}
}

func TestSentinelAndMasterOverTLS(t *testing.T) {
	t.Parallel()
	roots, addr := startTLS(t)
	target, err := parse("rediss+sentinel://user:secret@" + addr + "/m?sentinel_password=other")
	if err != nil {
		t.Fatal(err)
	}
	// Refused as long as nobody trusts the certificate.
	for _, trusted := range []bool{false, true} {
		if trusted {
			target.server.TLSConfig.RootCAs = roots
			target.sentinels[0].TLSConfig.RootCAs = roots
		}
		client, err := connectSentinel(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Ping(t.Context()).Err(); (err == nil) != trusted {
			t.Errorf("PING with a certificate that is trusted (%v): %v", trusted, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if len(client.conns) > 0 {
			t.Errorf("%d connections are left", len(client.conns))
		}
	}
}

func TestOneServerOverTLS(t *testing.T) {
	t.Parallel()
	roots, addr := startTLS(t)
	for _, trusted := range []bool{false, true} {
		target, err := parse("rediss://user:secret@" + addr)
		if err != nil {
			t.Fatal(err)
		}
		if trusted {
			target.server.TLSConfig.RootCAs = roots
		}
		client, err := connectServer(target.server)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Ping(t.Context()).Err(); (err == nil) != trusted {
			t.Errorf("PING with a certificate that is trusted (%v): %v", trusted, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAHandshakeThatNeverEndsHoldsUpNoSubscription(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // Connections wait in its backlog.
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, scheme := range []string{"rediss://", "rediss+cluster://"} {
		client := connect(t, scheme+silent.Addr().String())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		begun := time.Now()
		subscription := client.Subscribe(ctx, "channel")
		cancel()
		if took := time.Since(begun); took > dialTimeout*4/5 {
			t.Errorf("%s: subscribing with a deadline of 20 ms took %v", scheme, took)
		}
		subscription.Close()
	}
}

// startTLS starts a server that is Sentinel and the master which that names, for as little as a client asks of either.
func startTLS(t *testing.T) (roots *x509.CertPool, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	master := fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				commands := bufio.NewReader(conn)
				for {
					command, err := readCommand(commands)
					if err != nil {
						return
					}
					answer := "-ERR unknown command\r\n" // To HELLO, too, after which a client goes on with AUTH.
					switch strings.ToLower(command) {
					case "auth":
						answer = "+OK\r\n"
					case "sentinel":
						answer = master
					case "ping":
						answer = "+PONG\r\n"
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			})
		}
	})
	return roots, listener.Addr().String()
}

// readCommand reads a command and returns its name.
func readCommand(r *bufio.Reader) (string, error) {
	var n, length int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return "", err
	}
	var name string
	for i := range n {
		if _, err := fmt.Fscanf(r, "$%d\r\n", &length); err != nil {
			return "", err
		}
		argument := make([]byte, length+2)
		if _, err := io.ReadFull(r, argument); err != nil {
			return "", err
		}
		if i == 0 {
			name = string(argument[:length])
		}
	}
	return name, nil
}
