package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/npm"
)

// valve is a network between clients and a server which a test can cut, stop, and lead elsewhere.
type valve struct {
	listener net.Listener

	mu     sync.Mutex
	target string
	conns  []*net.TCPConn
	gate   chan struct{} // Closed while what the server sends gets through.
}

func openValve(t *testing.T, target string) *valve {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: listener, target: target, gate: make(chan struct{})}
	close(v.gate)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { v.serve(accepted.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		v.resume()
		v.cut()
		serving.Wait()
	})
	return v
}

// url is where clients find the API behind the valve.
func (v *valve) url() string { return "http://" + v.listener.Addr().String() + "/graphql" }

// lead leads new connections to another server.
func (v *valve) lead(target string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.target = target
}

// cut resets every connection, on both sides.
func (v *valve) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, conn := range v.conns {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
	v.conns = nil
}

// pause lets nothing through that the server sends.
func (v *valve) pause() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gate = make(chan struct{})
}

// resume lets through what pause has kept back.
func (v *valve) resume() {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.gate:
	default:
		close(v.gate)
	}
}

func (v *valve) serve(from *net.TCPConn) {
	defer from.Close()
	v.mu.Lock()
	target := v.target
	v.mu.Unlock()
	dialed, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	to := dialed.(*net.TCPConn)
	defer to.Close()
	// Little may be on the way, so that the server sees soon when nothing gets through.
	_ = to.SetReadBuffer(8 << 10)
	v.mu.Lock()
	v.conns = append(v.conns, from, to)
	v.mu.Unlock()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	}()
	buffer := make([]byte, 4<<10)
	for {
		n, err := to.Read(buffer)
		v.mu.Lock()
		gate := v.gate
		v.mu.Unlock()
		<-gate
		if _, failed := from.Write(buffer[:n]); failed != nil || err != nil {
			break
		}
	}
	_ = from.CloseWrite()
	_ = to.Close()
	_ = from.Close()
	<-asked
}

// driven is a process of Node that subscribes with a client of other people's, see dev/clients/subscriber.mjs.
type driven struct {
	name  string
	valve *valve
	stdin io.Writer

	mu      sync.Mutex
	cursor  string
	texts   []string
	closes  []int
	failed  string
	changed chan struct{} // Closed and replaced at each change.
}

// drive starts a client for an account, by way of a valve, that tries so often in a row.
func drive(t *testing.T, name string, through *valve, token, after string, attempts int) *driven {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd, err := npm.Command(ctx, npm.Script{
		Name: "subscriber.mjs", Args: []string{name, through.url()},
		Env: []string{"TOKEN=" + token, "AFTER=" + after, fmt.Sprint("ATTEMPTS=", attempts)},
	})
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &driven{name: name, valve: through, stdin: stdin, changed: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		d.read(t, stdout)
	}()
	t.Cleanup(func() {
		// A client that does not end by itself keeps something open for ever.
		late := time.AfterFunc(patience, cancel)
		defer late.Stop()
		defer cancel()
		_ = stdin.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return d
}

func (d *driven) read(t *testing.T, from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Event *struct {
				Cursor  string
				Message struct{ Body string }
			}
			Closed int
			Failed string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Errorf("%s says %.300s: %v", d.name, lines.Bytes(), err)
			return
		}
		d.mu.Lock()
		switch {
		case line.Event != nil:
			d.cursor = line.Event.Cursor
			d.texts = append(d.texts, line.Event.Message.Body)
		case line.Failed != "":
			d.failed = line.Failed
		default:
			d.closes = append(d.closes, line.Closed)
		}
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
	}
}

// await waits until a condition holds of the client. It fails when the client gives up.
func (d *driven) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		d.mu.Lock()
		ok, failed, changed := holds(), d.failed, d.changed
		told := fmt.Sprintf("it has %d events and closes with %v", len(d.texts), d.closes)
		d.mu.Unlock()
		switch {
		case ok:
			return
		case failed != "":
			t.Fatalf("%s gives up before %s: %s; %s", d.name, what, failed, told)
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: not within %v: %s; %s", d.name, patience, what, told)
		}
	}
}

// wantTexts waits for the last of the texts, and checks that there are these and no others.
func (d *driven) wantTexts(t *testing.T, want []string) {
	t.Helper()
	d.await(t, fmt.Sprintf("%d events", len(want)), func() bool { return len(d.texts) >= len(want) })
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.texts, want) {
		for i, text := range d.texts {
			if i >= len(want) || text != want[i] {
				t.Fatalf("%s: event %d of %d is %.60q", d.name, i, len(want), text)
			}
		}
	}
}

// failure waits until the client gives up, and returns what it says.
func (d *driven) failure(t *testing.T) string {
	t.Helper()
	d.await(t, "it gives up", func() bool { return d.failed != "" })
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// npmClients are the names of those whom subscriber.mjs knows.
var npmClients = []string{
	"graphql-ws", "graphql-sse", "graphql-sse, single connection", "@apollo/client, WebSocket", "@apollo/client, multipart",
}

// onWebSocket tells whether a client learns with which code it is closed.
func onWebSocket(name string) bool {
	return name == "graphql-ws" || strings.HasSuffix(name, "WebSocket")
}

func TestTheClientsOfNPMGetEverythingOnceWhateverEndsTheirConnections(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{
		Graphs: 2, Env: []string{"GRAPH_SOCKET_QUEUE_BYTES=65536", "GRAPH_SOCKET_DRAIN=1s"},
	}))
	rdb := redisOf(t, stack)
	first, second := stack.Graphs[0], stack.Graphs[1]
	bob := account(t, stack, "Bob").At(stack.Endpoints()[1])
	people := make([]*client.Client, len(npmClients))
	clients := make([]*driven, len(npmClients))
	sent := make([][]string, len(npmClients))
	talk := func(i int, text string) {
		t.Helper()
		send(t, bob, people[i], text)
		sent[i] = append(sent[i], text)
	}
	for i, name := range npmClients {
		people[i] = account(t, stack, "Ann").At(stack.Endpoints()[1])
		clients[i] = drive(t, name, openValve(t, first.Addr()), people[i].Token, cursor(t, people[i]), 1000)
	}
	// Each step is for all of them, one after the other.
	step := func(do func(i int, d *driven)) {
		t.Helper()
		for i, d := range clients {
			do(i, d)
		}
		for i, d := range clients {
			d.wantTexts(t, sent[i])
		}
	}
	step(func(i int, _ *driven) {
		for n := range 5 {
			talk(i, fmt.Sprint("live ", n))
		}
	})
	step(func(i int, d *driven) { // The network breaks, and comes back with another process behind it.
		d.valve.lead(second.Addr())
		d.valve.cut()
		for n := range 5 {
			talk(i, fmt.Sprint("meanwhile ", n))
		}
	})
	step(func(i int, d *driven) { // Nothing gets through until the server gives the client up.
		d.await(t, "it is live again", func() bool { return len(d.texts) == len(sent[i]) })
		user, _ := claimsOf(t, people[i].Token)
		d.valve.pause()
		var talking sync.WaitGroup
		talking.Go(func() {
			for n := range 40 {
				talk(i, fmt.Sprint(n)+large[:len(large)-16])
			}
		})
		eventually(t, "the server gives "+d.name+" up", func(ctx context.Context) (bool, error) {
			n, err := subscribers(ctx, rdb, user)
			return n == 0, err
		})
		d.valve.resume()
		if onWebSocket(d.name) {
			d.await(t, "it is told why", func() bool { return slices.Contains(d.closes, 1013) })
		}
		talking.Wait()
	})
	for _, d := range clients {
		d.valve.lead(first.Addr())
	}
	if err := second.Stop(); err != nil { // The process is replaced.
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	step(func(i int, d *driven) {
		if onWebSocket(d.name) {
			d.await(t, "it is told why", func() bool { return slices.Contains(d.closes, 1012) })
		}
		talk(i, "after a restart")
	})
	for _, d := range clients {
		d.valve.lead(second.Addr())
	}
	if err := first.Kill(); err != nil { // The process dies.
		t.Fatal(err)
	}
	step(func(i int, _ *driven) { talk(i, "after a death") })
}

func TestTheClientsOfNPMGoOnWithAFreshTokenWhenTheirsExpires(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	bob := account(t, stack, "Bob")
	people := make([]*client.Client, len(npmClients))
	clients := make([]*driven, len(npmClients))
	for i := range npmClients {
		people[i] = account(t, stack, "Ann")
	}
	for i, name := range npmClients {
		after := cursor(t, people[i])
		clients[i] = drive(t, name, openValve(t, stack.Graphs[0].Addr()), tokenFor(t, stack, people[i], 10*time.Second), after, 1000)
	}
	var sent []string
	talk := func(text string) {
		t.Helper()
		sent = append(sent, text)
		for i, d := range clients {
			send(t, bob, people[i], text)
			d.wantTexts(t, sent)
		}
	}
	talk("with the first token")
	for i, d := range clients {
		if _, err := fmt.Fprintln(d.stdin, tokenFor(t, stack, people[i], time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range clients {
		if onWebSocket(d.name) {
			d.await(t, "the first token expires", func() bool { return slices.Contains(d.closes, 4403) })
		}
	}
	time.Sleep(time.Second) // The others are not told of an end.
	talk("with the second token")
}

func TestTheClientsOfNPMGiveUpWhenTheyAreRefused(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	through := openValve(t, stack.Graphs[0].Addr())
	after := cursor(t, ann)
	refused := map[string]map[string]string{
		"a token that was forged": {
			"graphql-ws": "4403", "graphql-sse": "401", "graphql-sse, single connection": "401",
			"@apollo/client, WebSocket": "4403", "@apollo/client, multipart": "UNAUTHENTICATED",
		},
		"a cursor that is none": {
			"graphql-ws": "CURSOR_INVALID", "graphql-sse": "CURSOR_INVALID", "graphql-sse, single connection": "CURSOR_INVALID",
			"@apollo/client, WebSocket": "CURSOR_INVALID", "@apollo/client, multipart": "CURSOR_INVALID",
		},
	}
	for _, name := range npmClients {
		forged := drive(t, name, through, forgedFor(t, ann), after, 1)
		lost := drive(t, name, through, ann.Token, "none", 1)
		for what, d := range map[string]*driven{"a token that was forged": forged, "a cursor that is none": lost} {
			if got, want := d.failure(t), refused[what][name]; !strings.Contains(got, want) {
				t.Errorf("%s is told of %s: %s, want %s", name, what, got, want)
			}
		}
	}
}
