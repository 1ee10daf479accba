// Package bench measures a whole system: how fast messages are sent, read and delivered, what a send costs, and what
// subscriptions cost.
//
// The three services, MariaDB and Redis are processes of this machine, built and set as in production, with every commit
// flushed to the disk. Each rate is held against what the database alone does with the same SQL on the same machine in the
// same run, in turns, so that the ratios can be compared between machines where the rates cannot. The load is generated
// on the same machine, by this process, and takes its share of it.
package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"chatapp.dev/dev/internal/bench/edge"
	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/seed"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mariadb"
)

const (
	// workers is how many send or read at a time.
	workers = 16
	// pageSize is the size of a page of history, and historyLength of the conversation it is from.
	pageSize      = 15
	historyLength = 100_000
	// pace is the rate at which the latency of deliveries is measured, in sends a second.
	pace = 200
	// mostPerBurst bounds a round by count, so that a fast machine does not fill its disk.
	mostPerBurst = 200_000
)

// The ratios and latencies that are aimed at.
const (
	wantSendRatio    = 0.4
	wantHistoryRatio = 0.3
	wantP50          = 4 * time.Millisecond
	wantP99          = 10 * time.Millisecond
)

// Options says how to measure.
type Options struct {
	// Programs are the services, built as for production.
	Programs *harness.Programs
	// Dir is a folder on the disk that is to be measured; it gets the databases and the logs.
	Dir string
	// Rounds is how often each thing is measured, for so long each time; the medians are reported.
	Rounds int
	Round  time.Duration
	// Only are the sections that are measured; empty means all.
	Only []string
	// Progress is shown what is being measured.
	Progress io.Writer
	Log      *slog.Logger
}

// Sections are the parts of a report, in the order in which they are measured.
var Sections = []string{"delivery", "send", "history", "cost", "edge"}

// Report has the medians of all rounds, of the sections that were measured.
type Report struct {
	Machine struct {
		CPUs    int    `json:"cpus"`
		Go      string `json:"go"`
		MariaDB string `json:"mariadb"`
		Rounds  int    `json:"rounds"`
		Round   string `json:"round"`
	} `json:"machine"`
	// Send compares sends through GraphQL with the same transaction run directly: statement by statement, and in the one
	// round trip in which the service does it. The ratios are of each round; these are their medians.
	Send struct {
		GraphQL        float64 `json:"graphqlPerSecond"`
		ByStatement    float64 `json:"directByStatementPerSecond"`
		InOneTrip      float64 `json:"directInOneTripPerSecond"`
		Ratio          float64 `json:"ratioToByStatement"`
		RatioToOneTrip float64 `json:"ratioToOneTrip"`
		WantRatio      float64 `json:"wantRatio"`
	} `json:"send,omitzero"`
	// History compares pages through GraphQL with the bare SELECT of a page: with the senders' ids, which messages have,
	// and with their names, which users has.
	History struct {
		GraphQL        float64 `json:"graphqlPerSecond"`
		WithNames      float64 `json:"graphqlWithNamesPerSecond"`
		Select         float64 `json:"selectPerSecond"`
		Ratio          float64 `json:"ratio"`
		RatioWithNames float64 `json:"ratioWithNames"`
		WantRatio      float64 `json:"wantRatio"`
	} `json:"history,omitzero"`
	// Delivery is the time from a client's sending to another's receiving, at a steady pace.
	Delivery struct {
		PerSecond int     `json:"perSecond"`
		Sends     int     `json:"sends"`
		P50       float64 `json:"p50Milliseconds"`
		P99       float64 `json:"p99Milliseconds"`
		WantP50   float64 `json:"wantP50Milliseconds"`
		WantP99   float64 `json:"wantP99Milliseconds"`
	} `json:"delivery,omitzero"`
	// Cost is what one send takes, of three services together.
	Cost Cost `json:"cost,omitzero"`
	// Edge compares what subscriptions cost graph with what they cost other servers.
	Edge *edge.Report `json:"edge,omitempty"`
}

// Run measures.
func Run(ctx context.Context, opts Options) (_ *Report, err error) {
	b := &bench{opts: opts, report: &Report{}}
	b.show("starting MariaDB, Redis and the services")
	server, err := mariadb.Start(ctx, mariadb.Options{Dir: filepath.Join(opts.Dir, "mysql"), Log: opts.Log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	services := filepath.Join(opts.Dir, "services")
	if err := os.Mkdir(services, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	b.stack, err = harness.Start(ctx, harness.Options{
		Programs: opts.Programs, Dir: services, MySQL: server, Env: development, Log: opts.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stack.Close()) }()
	m := &b.report.Machine
	m.CPUs, m.Go, m.MariaDB = runtime.GOMAXPROCS(0), runtime.Version(), server.Version()
	m.Rounds, m.Round = opts.Rounds, opts.Round.String()

	measures := map[string]func(context.Context) error{
		"delivery": b.measureDelivery, "send": b.measureSends, "history": b.measureHistory, "cost": b.measureCost,
		"edge": b.measureEdge,
	}
	for _, section := range Sections {
		if len(opts.Only) > 0 && !slices.Contains(opts.Only, section) {
			continue
		}
		if err := measures[section](ctx); err != nil {
			return nil, err
		}
	}
	return b.report, nil
}

// measureEdge compares subscriptions with those of other servers.
func (b *bench) measureEdge(ctx context.Context) error {
	dir := filepath.Join(b.opts.Dir, "edge")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	report, err := edge.Run(ctx, edge.Options{
		Stack: b.stack,
		Seed: func(ctx context.Context, prefix string, people int) ([]seed.User, error) {
			return b.seed(ctx, prefix, people, 0, 0)
		},
		Dir: dir, Sizes: edge.Default(b.opts.Rounds, b.opts.Round), Progress: b.opts.Progress,
	})
	b.report.Edge = report
	return err
}

// development are the settings with which people and messages can be made in bulk.
var development = []string{"USERS_DEVELOPMENT=true", "MESSAGES_DEVELOPMENT=true"}

// bench is one run.
type bench struct {
	opts   Options
	stack  *harness.Stack
	report *Report
}

func (b *bench) show(format string, args ...any) { fmt.Fprintf(b.opts.Progress, format+"\n", args...) }

// seed makes people, and conversations between them.
func (b *bench) seed(ctx context.Context, prefix string, people, conversations, messages int) ([]seed.User, error) {
	usersConn, err := grpc.NewClient(b.stack.Users[0].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to users: %w", err)
	}
	defer usersConn.Close()
	messagesConn, err := grpc.NewClient(b.stack.Messages[0].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to messages: %w", err)
	}
	defer messagesConn.Close()
	return seed.Run(ctx, usersConn, messagesConn, seed.Options{
		Users: people, Conversations: conversations, Messages: messages, Seed: 1, Prefix: prefix,
	})
}

// sender is one who sends to one recipient, as fast as can be.
type sender struct {
	wire   *wire
	before []byte // The request up to the client id.
	after  []byte // The rest of it.
	buffer []byte
}

// openSenders returns senders, each with a conversation of its own that exists already.
func openSenders(ctx context.Context, endpoint string, people []seed.User) ([]*sender, error) {
	var senders []*sender
	for i := 0; i+1 < len(people); i += 2 {
		w, err := dialWire(ctx, endpoint, people[i].AccessToken)
		if err != nil {
			return nil, err
		}
		const mark = "CLIENT-ID"
		request, err := json.Marshal(map[string]any{
			"query": client.SendQuery,
			"variables": map[string]any{"input": client.Draft{
				RecipientID: people[i+1].ID, Body: body, ClientID: mark,
			}.Input()},
		})
		if err != nil {
			return nil, fmt.Errorf("encode a send: %w", err)
		}
		before, after, _ := bytes.Cut(request, []byte(mark))
		s := &sender{wire: w, before: before, after: after}
		senders = append(senders, s)
		// The first message makes the conversation.
		if err := s.send(); err != nil {
			return nil, err
		}
	}
	return senders, nil
}

func closeAll(senders []*sender) {
	for _, s := range senders {
		s.wire.close()
	}
}

// noErrors is what the payload of a mutation holds that did what it was asked.
var noErrors = []byte(`"userErrors":[]`)

func (s *sender) send() error {
	s.buffer = append(s.buffer[:0], s.before...)
	s.buffer = append(s.buffer, ids.New().String()...)
	s.buffer = append(s.buffer, s.after...)
	answer, err := s.wire.post(s.buffer)
	if err != nil {
		return fmt.Errorf("send through GraphQL: %w", err)
	}
	if !bytes.Contains(answer, noErrors) {
		return fmt.Errorf("send through GraphQL: %.300s", answer)
	}
	return nil
}

// measureSends compares sends through GraphQL with sends by SQL alone.
func (b *bench) measureSends(ctx context.Context) error {
	people, err := b.seed(ctx, "sender-", 2*workers, 0, 0)
	if err != nil {
		return err
	}
	senders, err := openSenders(ctx, b.stack.Endpoints()[0], people)
	if err != nil {
		return err
	}
	defer closeAll(senders)
	database := "bench_direct"
	if err := b.stack.MySQL.CreateDatabase(ctx, database); err != nil {
		return err
	}
	dsn := b.stack.MySQL.DSN(database)
	if err := b.opts.Programs.Run(ctx, []string{"MESSAGES_MYSQL_DSN=" + dsn}, "messages", "migrate"); err != nil {
		return err
	}
	db, direct, err := openDirect(ctx, dsn, workers)
	if err != nil {
		return err
	}
	defer db.Close()

	ways := []struct {
		name string
		do   func(worker int) error
	}{
		{"directly, statement by statement", func(i int) error { return direct[i].sendByStatement(ctx) }},
		{"directly, in one round trip", func(i int) error { return direct[i].sendInOneTrip(ctx) }},
		{"through GraphQL", func(i int) error { return senders[i].send() }},
	}
	rates := make([][]float64, len(ways))
	for round := range b.opts.Rounds + 1 {
		for i, way := range ways {
			rate, err := burst(ctx, workers, b.opts.Round, mostPerBurst, way.do)
			if err != nil {
				return err
			}
			if round == 0 {
				continue // Caches are cold, and the database's files are small.
			}
			b.show("send, round %d: %s: %.0f/s", round, way.name, rate)
			rates[i] = append(rates[i], rate)
		}
	}
	s := &b.report.Send
	s.ByStatement, s.InOneTrip, s.GraphQL = median(rates[0]), median(rates[1]), median(rates[2])
	s.Ratio, s.RatioToOneTrip = median(ratios(rates[2], rates[0])), median(ratios(rates[2], rates[1]))
	s.WantRatio = wantSendRatio
	return nil
}

// ratios divides the rates of each round.
func ratios(a, b []float64) []float64 {
	divided := make([]float64, len(a))
	for i := range a {
		divided[i] = a[i] / b[i]
	}
	return divided
}

// measureHistory compares pages of a long conversation through GraphQL with the SELECT of a page.
func (b *bench) measureHistory(ctx context.Context) error {
	b.show("making a conversation of %d messages", historyLength)
	people, err := b.seed(ctx, "reader-", 2, 1, historyLength)
	if err != nil {
		return err
	}
	endpoint := b.stack.Endpoints()[0]
	api := client.New(endpoint)
	defer api.CloseIdle()
	reader := api.As(client.User{ID: people[0].ID}, people[0].AccessToken)
	conversations, err := reader.AllConversations(ctx)
	if err != nil {
		return err
	}
	if len(conversations) != 1 {
		return fmt.Errorf("the reader has %d conversations", len(conversations))
	}
	places, err := historyPlaces(ctx, reader, conversations[0].ID)
	if err != nil {
		return err
	}
	conversation, err := rawID(conversations[0].ID)
	if err != nil {
		return err
	}
	db, direct, err := openConns(ctx, b.stack.DSN("messages"), workers)
	if err != nil {
		return err
	}
	defer db.Close()
	wires := make([]*wire, workers)
	for i := range wires {
		if wires[i], err = dialWire(ctx, endpoint, reader.Token); err != nil {
			return err
		}
		defer wires[i].close()
	}

	ways := []struct {
		name string
		do   func(worker int) error
	}{
		{"the bare SELECT", func(i int) error {
			return page(ctx, direct[i], conversation, places[rand.IntN(len(places))].seq)
		}},
		{"through GraphQL", func(i int) error { return readPage(wires[i], places[rand.IntN(len(places))].page) }},
		{"through GraphQL, with names", func(i int) error {
			return readPage(wires[i], places[rand.IntN(len(places))].pageWithNames)
		}},
	}
	rates := make([][]float64, len(ways))
	for round := range b.opts.Rounds + 1 {
		for i, way := range ways {
			rate, err := burst(ctx, workers, b.opts.Round, mostPerBurst, way.do)
			if err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			b.show("history, round %d: %s: %.0f/s", round, way.name, rate)
			rates[i] = append(rates[i], rate)
		}
	}
	h := &b.report.History
	h.Select, h.GraphQL, h.WithNames = median(rates[0]), median(rates[1]), median(rates[2])
	h.Ratio, h.RatioWithNames = median(ratios(rates[1], rates[0])), median(ratios(rates[2], rates[0]))
	h.WantRatio = wantHistoryRatio
	return nil
}

// historyPlace is where a page ends: before this message.
type historyPlace struct {
	seq                 int64
	page, pageWithNames []byte
}

// historyPlaces returns places all over a conversation.
func historyPlaces(ctx context.Context, reader *client.Client, conversation string) ([]historyPlace, error) {
	const every = 10 // Of the pages of 100 that are walked through.
	var places []historyPlace
	r := client.Range{First: 100}
	for n := 0; ; n++ {
		page, err := reader.History(ctx, conversation, r)
		if err != nil {
			return nil, err
		}
		if page == nil || len(page.Messages) == 0 {
			break
		}
		last := len(page.Messages) - 1
		if n%every == 0 {
			place := historyPlace{seq: int64(page.Messages[last].Seq)}
			for _, kind := range []struct {
				request *[]byte
				sender  string
			}{{&place.page, "sender { id }"}, {&place.pageWithNames, "sender { id displayName }"}} {
				*kind.request, err = json.Marshal(map[string]any{
					"query":     fmt.Sprintf(pageQuery, pageSize, kind.sender),
					"variables": map[string]any{"id": conversation, "before": page.Cursors[last]},
				})
				if err != nil {
					return nil, fmt.Errorf("encode a request: %w", err)
				}
			}
			places = append(places, place)
		}
		r.After = page.Cursors[last]
	}
	return places, nil
}

// pageQuery reads a page of so many messages with so much of their senders.
const pageQuery = `query Page($id: ID!, $before: String) { conversation(id: $id) { messages(last: %d, before: $before) {
	edges { node { id seq body sentAt %s } } pageInfo { hasPreviousPage startCursor } } } }`

var oneMessage = []byte(`"sentAt":`)

func readPage(w *wire, request []byte) error {
	answer, err := w.post(request)
	if err != nil {
		return fmt.Errorf("read a page through GraphQL: %w", err)
	}
	if n := bytes.Count(answer, oneMessage); n != pageSize {
		return fmt.Errorf("read a page through GraphQL: %d messages: %.300s", n, answer)
	}
	return nil
}

// rawID returns the UUID in a conversation's opaque id, which the database alone knows it by.
func rawID(global string) (ids.ID, error) {
	raw, err := base64.RawURLEncoding.DecodeString(global)
	if err != nil || len(raw) != 1+ids.Size {
		return ids.ID{}, fmt.Errorf("the id %q is not made as expected", global)
	}
	return ids.FromBytes(raw[1:])
}

// measureDelivery sends at a steady pace and times how long messages take to the recipients' subscriptions.
func (b *bench) measureDelivery(ctx context.Context) error {
	people, err := b.seed(ctx, "talker-", 2*workers, 0, 0)
	if err != nil {
		return err
	}
	endpoint := b.stack.Endpoints()[0]
	senders, err := openSenders(ctx, endpoint, people)
	if err != nil {
		return err
	}
	defer closeAll(senders)
	// Whoever sends and whoever receives listens, as both do in life.
	pairs := make([]*delivery, workers)
	api := client.New(endpoint)
	defer api.CloseIdle()
	for i := range pairs {
		pairs[i] = &delivery{}
		for k, person := range people[2*i : 2*i+2] {
			c := api.As(client.User{ID: person.ID}, person.AccessToken)
			after, err := c.Cursor(ctx)
			if err != nil {
				return err
			}
			sub, err := c.Subscribe(ctx, after)
			if err != nil {
				return err
			}
			defer sub.Socket().Close()
			if k == 1 {
				pairs[i].events = sub.Events()
			} else {
				go drain(sub.Events())
			}
		}
	}
	var p50s, p99s []time.Duration
	total := 0
	for round := range b.opts.Rounds + 1 {
		took, err := deliver(ctx, senders, pairs, b.opts.Round)
		if err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		slices.Sort(took)
		p50, p99 := quantile(took, 0.5), quantile(took, 0.99)
		b.show("delivery, round %d: p50 %v, p99 %v", round, p50.Round(time.Microsecond), p99.Round(time.Microsecond))
		p50s, p99s = append(p50s, p50), append(p99s, p99)
		total += len(took)
	}
	d := &b.report.Delivery
	d.PerSecond, d.Sends = pace, total
	d.P50, d.P99 = milliseconds(median(p50s)), milliseconds(median(p99s))
	d.WantP50, d.WantP99 = milliseconds(wantP50), milliseconds(wantP99)
	return nil
}

func drain(events <-chan client.Event) {
	for range events {
		continue
	}
}

// delivery is what goes from one sender to one recipient.
type delivery struct {
	events <-chan client.Event

	mu   sync.Mutex
	sent []time.Time // When each message was sent, in the order of the conversation.
}

// deliver sends at the pace for a while and returns how long each message took.
func deliver(ctx context.Context, senders []*sender, pairs []*delivery, length time.Duration) ([]time.Duration, error) {
	var (
		sending sync.WaitGroup
		failed  = make([]error, len(pairs))
		took    = make([][]time.Duration, len(pairs))
	)
	each := int(length.Seconds()*pace) / len(pairs)
	interval := time.Second * time.Duration(len(pairs)) / pace
	begun := time.Now()
	for i, pair := range pairs {
		pair.sent = pair.sent[:0]
		sending.Go(func() {
			for n := range each {
				// The pairs take turns, so that sends are spread evenly.
				due := begun.Add(time.Duration(n)*interval + time.Duration(i)*interval/time.Duration(len(pairs)))
				time.Sleep(time.Until(due))
				pair.mu.Lock()
				pair.sent = append(pair.sent, time.Now())
				pair.mu.Unlock()
				if failed[i] = senders[i].send(); failed[i] != nil {
					return
				}
			}
		})
		sending.Go(func() {
			timeout := time.NewTimer(length + requestTimeout)
			defer timeout.Stop()
			for n := range each {
				select {
				case event, open := <-pair.events:
					if !open {
						return
					}
					pair.mu.Lock()
					took[i] = append(took[i], event.At.Sub(pair.sent[n]))
					pair.mu.Unlock()
				case <-timeout.C:
					return
				}
			}
		})
	}
	sending.Wait()
	if err := errors.Join(append(failed, ctx.Err())...); err != nil {
		return nil, err
	}
	all := slices.Concat(took...)
	if want := each * len(pairs); len(all) != want {
		return nil, fmt.Errorf("of %d messages %d were delivered", want, len(all))
	}
	return all, nil
}

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d.Microseconds())) / 1000
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) {
	verdict := func(good bool) string {
		if good {
			return "met"
		}
		return "MISSED"
	}
	s, h, d, c := r.Send, r.History, r.Delivery, r.Cost
	fmt.Fprintf(w, "\n%d CPUs, %s, MariaDB %s; medians of %d rounds of %s, %d at a time\n\n",
		r.Machine.CPUs, r.Machine.Go, r.Machine.MariaDB, r.Machine.Rounds, r.Machine.Round, workers)
	rows := [][]string{{"", "measured", "ratio", "goal", ""}}
	if s.GraphQL > 0 {
		rows = append(rows,
			[]string{"send: the same SQL directly, by statement", fmt.Sprintf("%.0f/s", s.ByStatement), "1", "", ""},
			[]string{"send: the same SQL directly, in one trip", fmt.Sprintf("%.0f/s", s.InOneTrip), fmt.Sprintf("%.2f", s.InOneTrip/s.ByStatement), "", ""},
			[]string{"send: through GraphQL", fmt.Sprintf("%.0f/s", s.GraphQL), fmt.Sprintf("%.2f", s.Ratio), fmt.Sprintf(">= %.2f", s.WantRatio), verdict(s.Ratio >= s.WantRatio)},
			[]string{"  its ratio to the one trip", "", fmt.Sprintf("%.2f", s.RatioToOneTrip), "", ""},
		)
	}
	if h.GraphQL > 0 {
		rows = append(rows,
			[]string{"history: the bare SELECT", fmt.Sprintf("%.0f/s", h.Select), "1", "", ""},
			[]string{"history: through GraphQL", fmt.Sprintf("%.0f/s", h.GraphQL), fmt.Sprintf("%.2f", h.Ratio), fmt.Sprintf(">= %.2f", h.WantRatio), verdict(h.Ratio >= h.WantRatio)},
			[]string{"  with the senders' names", fmt.Sprintf("%.0f/s", h.WithNames), fmt.Sprintf("%.2f", h.RatioWithNames), "", ""},
		)
	}
	if d.Sends > 0 {
		rows = append(rows,
			[]string{fmt.Sprintf("send to delivery at %d/s: p50", d.PerSecond), fmt.Sprintf("%.2f ms", d.P50), "", fmt.Sprintf("<= %.0f ms", d.WantP50), verdict(d.P50 <= d.WantP50)},
			[]string{fmt.Sprintf("send to delivery at %d/s: p99", d.PerSecond), fmt.Sprintf("%.2f ms", d.P99), "", fmt.Sprintf("<= %.0f ms", d.WantP99), verdict(d.P99 <= d.WantP99)},
		)
	}
	if c.RoundTrips > 0 {
		rows = append(rows,
			[]string{"a send's SQL round trips", fmt.Sprintf("%.2f", c.RoundTrips), "", "", ""},
			[]string{"  with those that clear the outbox and sweep", fmt.Sprintf("%.2f", c.AllRoundTrips), "", "", ""},
			[]string{"a send's SQL statements, all in all", fmt.Sprintf("%.2f", c.Statements), "", "", ""},
			[]string{"a send's allocations in the three services", fmt.Sprintf("%.0f", c.Allocations), "", "", ""},
			[]string{"a send's allocated bytes in the three services", fmt.Sprintf("%.0f", c.AllocatedBytes), "", "", ""},
		)
	}
	if len(rows) > 1 {
		for _, row := range rows {
			fmt.Fprintf(w, "%-48s %12s %7s %9s %s\n", row[0], row[1], row[2], row[3], row[4])
		}
	}
	if r.Edge != nil {
		fmt.Fprintln(w)
		r.Edge.Write(w)
	}
}
