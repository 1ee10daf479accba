package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// The tests here count goroutines, bytes and seconds, so the services are built as they are for production, and nothing
// else runs beside them.

// plainStack starts a stack for one test as ownStack does, of services without the race detector.
func plainStack(t *testing.T, opts harness.Options) *harness.Stack {
	t.Helper()
	opts.Programs = world.plain.build(t, harness.Flavour{})
	return startStack(t, onSharedMySQL(t, opts))
}

// lightSocket is a WebSocket client of which there can be thousands. Unlike a rawSocket it can be used by any goroutine.
type lightSocket struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialLight opens a socket and introduces somebody, within the patience of a test.
func dialLight(ctx context.Context, endpoint, token string) (*lightSocket, error) {
	s, err := dialRude(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	if err := s.introduce(token); err != nil {
		_ = s.conn.Close()
		return nil, err
	}
	return s, nil
}

// dialRude sends the handshake and does not wait for its answer.
func dialRude(ctx context.Context, endpoint string) (*lightSocket, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return nil, err
	}
	s := &lightSocket{conn: conn, in: bufio.NewReaderSize(conn, 512)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		target.Path, target.Host, transportWS)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// introduce awaits the answer to the handshake, and does that of the protocol.
func (s *lightSocket) introduce(token string) error {
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the handshake is answered with %s", answer.Status)
	}
	if err := s.send(textFrame(`{"type":"connection_init","payload":{"authorization":"Bearer ` + token + `"}}`)); err != nil {
		return err
	}
	f, err := s.receive()
	if err != nil {
		return err
	}
	if !bytes.Contains(f.payload, []byte("connection_ack")) {
		return fmt.Errorf("connection_init is answered with %q", f.payload)
	}
	return nil
}

func (s *lightSocket) send(frames ...wsFrame) error {
	var raw []byte
	for _, f := range frames {
		raw = append(raw, f.bytes()...)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := s.conn.Write(raw)
	return err
}

// closedError is a server's close.
type closedError struct {
	code   int
	reason string
}

func (e *closedError) Error() string { return fmt.Sprintf("closed with %d %q", e.code, e.reason) }

// receive returns the next message, having answered the pings before it. A close is answered as well.
func (s *lightSocket) receive() (wsFrame, error) {
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(patience))
		f, err := readFrame(s.in)
		switch {
		case err != nil:
			return f, err
		case f.opcode == opPing:
			if err := s.send(wsFrame{opcode: opPong, payload: f.payload}); err != nil {
				return f, err
			}
		case f.opcode == opClose:
			_ = s.send(wsFrame{opcode: opClose, payload: f.payload[:min(len(f.payload), 2)]})
			closed := &closedError{code: 1005}
			if len(f.payload) >= 2 {
				closed.code, closed.reason = int(f.payload[0])<<8|int(f.payload[1]), string(f.payload[2:])
			}
			return f, closed
		case f.opcode == opText:
			return f, nil
		}
	}
}

// subscribe starts a newMessage subscription.
func (s *lightSocket) subscribe(after string) error {
	return s.send(textFrame(`{"id":"1","type":"subscribe","payload":{"query":` + strconv.Quote(newMessage) +
		`,"variables":{"after":"` + after + `"}}}`))
}

// leave closes the socket as a client does that has the time.
func (s *lightSocket) leave() {
	_ = s.send(closeFrame(1000, ""))
	for {
		if _, err := s.receive(); err != nil {
			break
		}
	}
	_ = s.conn.Close()
}

// cut closes the connection with a reset.
func (s *lightSocket) cut() {
	_ = s.conn.(*net.TCPConn).SetLinger(0)
	_ = s.conn.Close()
}

// between returns what is between two texts, or "".
func between(raw []byte, before, after string) string {
	_, rest, ok := bytes.Cut(raw, []byte(before))
	if !ok {
		return ""
	}
	text, _, _ := bytes.Cut(rest, []byte(after))
	return string(text)
}

// Metrics of a process.
const (
	goroutines    = "go_goroutines"
	heap          = "go_memstats_heap_alloc_bytes"
	resident      = "process_resident_memory_bytes"
	files         = "process_open_fds"
	open          = "chatapp.connection.open"
	subscriptions = "chatapp.hub.subscriptions"
	queued        = "chatapp.connection.queued"
)

// gauges are the values of metrics, each summed over its attributes.
type gauges map[string]float64

// meter is the collector to which a process tells its metrics.
type meter struct {
	server *httptest.Server

	mu   sync.Mutex
	last gauges
	most gauges // The highest value of each.
	told chan struct{}
}

// startMeasured starts one more graph process, and a collector for its metrics.
func startMeasured(t *testing.T, stack *harness.Stack, env ...string) (*harness.Process, *meter) {
	t.Helper()
	m := &meter{most: gauges{}, told: make(chan struct{})}
	m.server = httptest.NewServer(http.HandlerFunc(m.collect))
	t.Cleanup(m.server.Close)
	p, err := stack.StartGraph(t.Context(), append(env,
		"OTEL_METRICS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_TRACES_EXPORTER=none",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+m.server.URL, "OTEL_METRIC_EXPORT_INTERVAL=200",
		// It adds what the process and Go's runtime measure.
		"OTEL_METRICS_PRODUCERS=prometheus")...)
	if err != nil {
		t.Fatal(err)
	}
	return p, m
}

// collect is OpenTelemetry's protocol for metrics.
func (m *meter) collect(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var export collectorpb.ExportMetricsServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &export)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	values := gauges{}
	for _, of := range export.GetResourceMetrics() {
		for _, scope := range of.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				for _, point := range append(metric.GetGauge().GetDataPoints(), metric.GetSum().GetDataPoints()...) {
					values[metric.GetName()] += point.GetAsDouble() + float64(point.GetAsInt())
				}
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = values
	for name, value := range values {
		m.most[name] = max(m.most[name], value)
	}
	close(m.told)
	m.told = make(chan struct{})
}

// now returns what is true at the moment: the second of the next two tellings, since the first may be on its way.
func (m *meter) now(ctx context.Context) (gauges, error) {
	for range 2 {
		m.mu.Lock()
		told := m.told
		m.mu.Unlock()
		select {
		case <-told:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range []string{goroutines, heap, resident, files, open, subscriptions, queued} {
		if _, ok := m.last[name]; !ok {
			return nil, fmt.Errorf("there is no metric %s", name)
		}
	}
	return m.last, nil
}

// highest returns the highest value that a metric has had.
func (m *meter) highest(name string) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.most[name]
}

// listeners counts the users' channels of Redis that somebody listens to.
func listeners(ctx context.Context, rdb *redis.Client) (int, error) {
	channels, err := rdb.PubSubChannels(ctx, "chatapp:user:*").Result()
	return len(channels), err
}

// visit is how a client comes and goes.
type visit func(ctx context.Context, endpoint string, who *client.Client, after string) error

// polite and rude are all the ways to come and go that the crowd knows.
var polite, rude = []visit{
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		defer s.leave()
		if err := s.subscribe(after); err != nil {
			return err
		}
		return s.send(textFrame(`{"type":"complete","id":"1"}`))
	},
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		defer s.leave()
		return s.subscribe(after)
	},
	func(ctx context.Context, endpoint string, who *client.Client, _ string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		s.leave()
		return nil
	},
	func(ctx context.Context, endpoint string, _ *client.Client, _ string) error {
		s, err := dialLight(ctx, endpoint, "no token")
		if err == nil {
			_ = s.conn.Close()
			return errors.New("somebody without a token is let in")
		}
		var closed *closedError
		if errors.As(err, &closed) && closed.code == 4403 {
			return nil
		}
		return err
	},
}, []visit{
	// A reset before the handshake is answered.
	func(ctx context.Context, endpoint string, _ *client.Client, _ string) error {
		s, err := dialRude(ctx, endpoint)
		if err != nil {
			return err
		}
		s.cut()
		return nil
	},
	// A reset with a subscription, which may or may not have begun.
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		defer s.cut()
		return s.subscribe(after)
	},
	// An end of the connection without a close.
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		defer s.conn.Close()
		return s.subscribe(after)
	},
	// A reset within a message.
	func(ctx context.Context, endpoint string, who *client.Client, _ string) error {
		s, err := dialLight(ctx, endpoint, who.Token)
		if err != nil {
			return err
		}
		defer s.cut()
		_, err = s.conn.Write(wsFrame{opcode: opText}.header(100_000))
		return err
	},
	// Server-sent events, cut.
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		return cutStream(ctx, endpoint, who, after, "text/event-stream")
	},
	// Parts, cut.
	func(ctx context.Context, endpoint string, who *client.Client, after string) error {
		return cutStream(ctx, endpoint, who, after, multipartAccept)
	},
}

// cutStream begins a subscription by an HTTP response, and resets the connection once that has begun.
func cutStream(ctx context.Context, endpoint string, who *client.Client, after, accept string) error {
	target, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.SetDeadline(time.Now().Add(patience))
	body := `{"query":` + strconv.Quote(newMessage) + `,"variables":{"after":"` + after + `"}}`
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nContent-Type: application/json\r\n"+
		"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", target.Path, target.Host, accept, who.Token, len(body), body); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.Close() // Before the body, which would be read to its end.
		_ = answer.Body.Close()
	}()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the subscription is answered with %s", answer.Status)
	}
	return nil
}

func TestTenThousandConnectionsHalfOfThemRudeLeaveNothingBehind(t *testing.T) {
	stack := plainStack(t, harness.Options{})
	rdb := redisOf(t, stack)
	// A low GOGC makes what the heap has a measure of what is kept.
	graph, meter := startMeasured(t, stack, "GRAPH_SOCKET_PER_USER=0", "GOGC=10")
	endpoint := "http://" + graph.Addr() + "/graphql"
	people := make([]*client.Client, 20)
	cursors := make([]string, len(people))
	for i := range people {
		people[i] = account(t, stack, "Guest").At(endpoint)
		cursors[i] = cursor(t, people[i])
		people[i].CloseIdle()
	}
	storm := func(visits int) {
		t.Helper()
		var next atomic.Int64
		parallel(50, func(int) {
			for n := int(next.Add(1)); n <= visits && !t.Failed(); n = int(next.Add(1)) {
				manners := polite
				if n%2 == 0 {
					manners = rude
				}
				who := rand.IntN(len(people))
				if err := manners[n/2%len(manners)](t.Context(), endpoint, people[who], cursors[who]); err != nil {
					t.Errorf("visit %d: %v", n, err)
				}
			}
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	rest := func(rested func(gauges) bool) (values gauges) {
		t.Helper()
		eventually(t, "the process is at rest", func(ctx context.Context) (bool, error) {
			channels, err := listeners(ctx, rdb)
			if err != nil || channels > 0 {
				return false, err
			}
			values, err = meter.now(ctx)
			return values[open] == 0 && values[subscriptions] == 0 && values[queued] == 0 && rested(values), err
		})
		return values
	}
	// The first visitors fill pools and caches.
	storm(1000)
	var last float64
	before := rest(func(values gauges) bool {
		resting := values[goroutines] == last
		last = values[goroutines]
		return resting
	})
	storm(10_000)
	const slack = 8 << 20 // Less than a kilobyte for each of them.
	after := rest(func(values gauges) bool {
		return values[goroutines] <= before[goroutines]+5 && values[files] <= before[files]+5 && values[heap] <= before[heap]+slack
	})
	for _, name := range []string{goroutines, files, heap, resident} {
		t.Logf("%s: %.0f before, %.0f after", name, before[name], after[name])
	}
	if after[resident] > before[resident]+4*slack {
		t.Errorf("%.0f bytes are resident, and were %.0f", after[resident], before[resident])
	}
	// It serves as before.
	s := connectRaw(t, people[0])
	s.subscribe("1", newMessage, map[string]any{"after": cursors[0]})
	send(t, people[0], people[0], "still here")
	s.wantEvent("1", "still here")
}

// healthy reads a subscription as a client should, and keeps a digest of what came. It resumes when the server asks it to.
type healthy struct {
	client *client.Client
	// endpoints are where it connects, one after the other.
	endpoints []string

	mu     sync.Mutex
	cursor string
	got    int
	digest [sha256.Size]byte
	closes []time.Time // When it was told to go elsewhere.
	err    error
}

// run reads until ctx ends.
func (h *healthy) run(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := h.once(ctx, h.endpoints[attempt%len(h.endpoints)])
		if ctx.Err() != nil {
			return
		}
		var closed *closedError
		h.mu.Lock()
		if errors.As(err, &closed) && closed.code == 1012 {
			h.closes = append(h.closes, time.Now())
		} else {
			h.err = errors.Join(h.err, err)
		}
		h.mu.Unlock()
	}
}

func (h *healthy) once(ctx context.Context, endpoint string) error {
	s, err := dialLight(ctx, endpoint, h.client.Token)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	h.mu.Lock()
	after := h.cursor
	h.mu.Unlock()
	if err := s.subscribe(after); err != nil {
		return err
	}
	for {
		f, err := s.receive()
		if err != nil {
			return err
		}
		cursor, body := between(f.payload, `"cursor":"`, `"`), between(f.payload, `"body":"`, `"`)
		if cursor == "" || body == "" {
			return fmt.Errorf("got %.200q", f.payload)
		}
		h.mu.Lock()
		h.cursor, h.got, h.digest = cursor, h.got+1, chain(h.digest, body)
		h.mu.Unlock()
	}
}

// chain extends the digest of a sequence of texts.
func chain(digest [sha256.Size]byte, body string) [sha256.Size]byte {
	return sha256.Sum256(append(digest[:], body...))
}

func (h *healthy) state() (got int, digest [sha256.Size]byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got, h.digest, h.err
}

// sentAway returns when the client was told to go elsewhere.
func (h *healthy) sentAway() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.closes)
}

// crowd is many healthy clients.
type crowd struct {
	clients []*healthy
	stop    func()
}

// gather starts clients, some of each account, and returns when all of them are subscribed at the first endpoint.
func gather(t *testing.T, m *meter, people []*client.Client, each int, endpoints ...string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{}
	var running sync.WaitGroup
	c.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(c.stop)
	for _, who := range people {
		after := cursor(t, who)
		for range each {
			c.clients = append(c.clients, &healthy{client: who, endpoints: endpoints, cursor: after})
		}
	}
	for _, h := range c.clients {
		running.Go(func() { h.run(ctx) })
	}
	eventually(t, "all of the crowd are subscribed", func(ctx context.Context) (bool, error) {
		for _, h := range c.clients {
			if _, _, err := h.state(); err != nil {
				return false, err
			}
		}
		values, err := m.now(ctx)
		return values[subscriptions] == float64(len(c.clients)), err
	})
	return c
}

// wantAll waits until each client has exactly the texts that its account was sent.
func (c *crowd) wantAll(t *testing.T, sent map[*client.Client][]string) {
	t.Helper()
	digests := map[*client.Client][sha256.Size]byte{}
	for who, texts := range sent {
		var digest [sha256.Size]byte
		for _, text := range texts {
			digest = chain(digest, text)
		}
		digests[who] = digest
	}
	for _, h := range c.clients {
		want := len(sent[h.client])
		eventually(t, "every healthy client has everything", func(context.Context) (bool, error) {
			got, _, err := h.state()
			if got > want {
				err = errors.Join(err, fmt.Errorf("a client of %s has %d events, more than the %d that there are", h.client.User.Username, got, want))
			}
			return got == want, err
		})
		if _, digest, _ := h.state(); digest != digests[h.client] {
			t.Fatalf("a client of %s has %d events, and they are not those that were sent", h.client.User.Username, want)
		}
	}
}

func TestHealthyClientsGetEverythingInOrderAmong310HostileOnesWithinTheSetMemory(t *testing.T) {
	const (
		hostile = 100
		bound   = 24 << 20
		texts   = 120
	)
	stack := plainStack(t, harness.Options{})
	graph, meter := startMeasured(t, stack, "GRAPH_SOCKET_PER_USER=0", "GRAPH_SOCKET_QUEUE_BYTES=393216",
		"GRAPH_SOCKET_TOTAL_BYTES="+strconv.Itoa(bound))
	endpoint := "http://" + graph.Addr() + "/graphql"
	bob := account(t, stack, "Bob")
	people := make([]*client.Client, 5)
	for i := range people {
		people[i] = account(t, stack, "Ann").At(endpoint)
	}
	ann := people[0]
	well := gather(t, meter, people, 20, endpoint)
	alone, err := meter.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var crowded sync.WaitGroup
	defer crowded.Wait()
	defer cancel()
	pause := func() {
		select {
		case <-ctx.Done():
		case <-time.After(250*time.Millisecond + rand.N(500*time.Millisecond)):
		}
	}
	misbehave := func(n int, do func() error) {
		for range n {
			crowded.Go(func() {
				for ctx.Err() == nil {
					// How it ends is the server's business, as long as it does not hurt the others.
					_ = do()
					pause()
				}
			})
		}
	}
	after := cursor(t, ann)
	// Those who stall are given up one after the other, and do not come back.
	stalled := make([]*lightSocket, hostile)
	for i := range stalled {
		s, err := dialLight(ctx, endpoint, ann.Token)
		if err != nil {
			t.Fatal(err)
		}
		defer s.conn.Close()
		_ = s.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		if err := s.subscribe(after); err != nil {
			t.Fatal(err)
		}
		stalled[i] = s
	}
	misbehave(hostile, func() error { return talkGarbage(ctx, endpoint, ann.Token) })
	misbehave(hostile, func() error { return polite[rand.IntN(3)](ctx, endpoint, ann, after) })
	misbehave(10, func() error { return sendMegabytes(ctx, endpoint, ann.Token) })

	sent := map[*client.Client][]string{}
	for i := range texts {
		to := people[i%len(people)]
		if i%2 == 0 {
			to = ann // Whose stalled clients get the most.
		}
		text := fmt.Sprint(i) + large[:len(large)-16]
		send(t, bob, to, text)
		sent[to] = append(sent[to], text)
		time.Sleep(100 * time.Millisecond)
	}
	well.wantAll(t, sent)
	most, fullest := meter.highest(resident), meter.highest(queued)
	t.Logf("alone %.0f bytes were resident, among the others at most %.0f; at most %.0f were queued", alone[resident], most, fullest)
	// A frame is let in whatever its size, by each worker.
	if fullest > bound+1<<20 {
		t.Errorf("%.0f bytes were queued, and %d may", fullest, bound)
	}
	// Beside the queues there is what is being read, and garbage: up to 16 MB, or half of what is kept.
	if most > alone[resident]+2*bound+16<<20 {
		t.Errorf("%.0f bytes were resident, and %.0f were without the others", most, alone[resident])
	}
	cancel()
	crowded.Wait()
	// Those who stalled have not said a word, so it is the server that has given them up.
	eventually(t, "only the healthy are left", func(ctx context.Context) (bool, error) {
		values, err := meter.now(ctx)
		return values[open] == float64(len(well.clients)) && values[subscriptions] == values[open], err
	})
	for _, h := range well.clients {
		if len(h.sentAway()) > 0 {
			t.Fatal("a healthy client was told to go elsewhere")
		}
	}
}

// talkGarbage says what no client would, until the server has had enough of it.
func talkGarbage(ctx context.Context, endpoint, token string) error {
	garbage := make([]byte, 1+rand.IntN(5000))
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	s, err := dialRude(ctx, endpoint)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	switch rand.IntN(4) {
	case 0: // Over the handshake.
		_, err = s.conn.Write(garbage)
	case 1: // For frames.
		if err = s.introduce(token); err == nil {
			_, err = s.conn.Write(garbage)
		}
	case 2: // In a frame.
		if err = s.introduce(token); err == nil {
			err = s.send(wsFrame{opcode: opText, payload: garbage})
		}
	case 3: // In a message that is one but for that.
		if err = s.introduce(token); err == nil {
			err = s.send(textFrame(`{"id":"1","type":"subscribe","payload":{"query":` + strconv.Quote(string(garbage)) + `}}`))
		}
	}
	if err != nil {
		return err
	}
	// Some of it the server waits for the rest of.
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err = io.Copy(io.Discard, s.conn)
	return err
}

// sendMegabytes sends a message of 10 MB, as far as the server takes it.
func sendMegabytes(ctx context.Context, endpoint, token string) error {
	s, err := dialLight(ctx, endpoint, token)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	const size = 10 << 20
	if _, err := s.conn.Write(wsFrame{opcode: opText}.header(size)); err != nil {
		return err
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = io.Copy(s.conn, io.LimitReader(spaces{}, size))
	return err
}

// spaces are white space without an end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' ' ^ maskKey[i%4]
	}
	return len(p), nil
}

func TestThreeThousandClientsMoveToAnotherProcessWithoutALossOrARushWhenTheirsDrains(t *testing.T) {
	const (
		each   = 100
		drain  = 10 * time.Second
		window = 2 * time.Second
	)
	stack := plainStack(t, harness.Options{})
	settings := []string{"GRAPH_SOCKET_PER_USER=0", fmt.Sprint("GRAPH_SOCKET_DRAIN=", drain)}
	from, fromMeter := startMeasured(t, stack, settings...)
	to, toMeter := startMeasured(t, stack, settings...)
	bob := account(t, stack, "Bob")
	people := make([]*client.Client, 30)
	for i := range people {
		people[i] = account(t, stack, "Ann")
	}
	movers := gather(t, fromMeter, people, each, "http://"+from.Addr()+"/graphql", "http://"+to.Addr()+"/graphql")

	ctx, cancel := context.WithCancel(t.Context())
	sent := map[*client.Client][]string{}
	var talking sync.WaitGroup
	talking.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			who, text := people[i%len(people)], fmt.Sprint("message ", i)
			_, err := bob.Send(t.Context(), client.Draft{RecipientID: who.User.ID, Body: text, ClientID: ids.New().String()})
			if err != nil {
				t.Errorf("send: %v", err)
				return
			}
			sent[who] = append(sent[who], text)
			time.Sleep(50 * time.Millisecond)
		}
	})
	if err := from.Stop(); err != nil {
		t.Error(err)
	}
	cancel()
	talking.Wait()
	movers.wantAll(t, sent)
	values, err := toMeter.now(t.Context())
	if err != nil || values[subscriptions] != float64(len(movers.clients)) {
		t.Errorf("the other process has %v subscriptions, %v", values[subscriptions], err)
	}
	var closes []time.Time
	for _, h := range movers.clients {
		away := h.sentAway()
		if len(away) != 1 {
			t.Fatalf("a client was told %d times to go elsewhere", len(away))
		}
		closes = append(closes, away...)
	}
	slices.SortFunc(closes, time.Time.Compare)
	peak, first := 0, 0
	for i, at := range closes {
		for at.Sub(closes[first]) >= window {
			first++
		}
		peak = max(peak, i-first+1)
	}
	even := float64(len(closes)) * window.Seconds() / drain.Seconds()
	t.Logf("%d clients were told within %v to go elsewhere, at most %d of them within %v: %.2f times even",
		len(closes), closes[len(closes)-1].Sub(closes[0]).Round(time.Millisecond), peak, window, float64(peak)/even)
	if float64(peak) > 1.5*even {
		t.Errorf("%d clients were told within %v, and %.0f would be even", peak, window, even)
	}
}
