package harness

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"
)

// packet is a packet of MySQL's protocol.
func packet(number byte, content string) []byte {
	return append([]byte{byte(len(content)), byte(len(content) >> 8), byte(len(content) >> 16), number}, content...)
}

func TestTapRecordsCommandsAndNotTheHandshake(t *testing.T) {
	conversation := slices.Concat(
		packet(1, "the client's half of the handshake"),
		packet(3, "an answer to a request for another authentication"),
		packet(0, "\x03SELECT 1"),
		packet(0, "\x0e"),
		packet(0, "\x03BEGIN;\nSELECT 2;\nCOMMIT"),
		packet(0, "\x03 (select 3) union (select 4)"),
		packet(0, "\x01"),
		packet(0, "\x03cut off")[:6],
	)
	tap := &Tap{}
	tap.record(bytes.NewReader(conversation))
	want := []Command{
		{ComQuery, "SELECT 1"}, {ComPing, ""}, {ComQuery, "BEGIN;\nSELECT 2;\nCOMMIT"}, {ComQuery, " (select 3) union (select 4)"},
	}
	if got := tap.Commands(); !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	tap.Reset()
	if got := tap.Commands(); len(got) != 0 {
		t.Errorf("after a reset there is %q", got)
	}
}

// greeter is a server that says its name to whoever connects, and then echoes.
func greeter(t *testing.T, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.WriteString(conn, name); err == nil {
					_, _ = io.Copy(conn, conn)
				}
			}()
		}
	}()
	return listener
}

// greet connects and returns the first byte that comes.
func greet(t *testing.T, address string) (string, net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	name := make([]byte, 1)
	if _, err := io.ReadFull(conn, name); err != nil {
		t.Fatal(err)
	}
	return string(name), conn
}

func TestBalancerTakesTurnsAndPassesOverWhoIsAway(t *testing.T) {
	a, b := greeter(t, "a"), greeter(t, "b")
	balancer, err := startBalancer([]string{a.Addr().String(), b.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer balancer.close()
	seen := map[string]int{}
	for range 6 {
		name, conn := greet(t, balancer.addr())
		seen[name]++
		if _, err := io.WriteString(conn, "ping"); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 4)
		if _, err := io.ReadFull(conn, echo); err != nil || string(echo) != "ping" {
			t.Fatalf("the echo is %q, %v", echo, err)
		}
	}
	if seen["a"] != 3 || seen["b"] != 3 {
		t.Errorf("of six connections the processes got %v", seen)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if name, _ := greet(t, balancer.addr()); name != "b" {
			t.Errorf("with a away, a connection went to %s", name)
		}
	}
}
