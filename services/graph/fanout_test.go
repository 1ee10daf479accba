package graph

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/model"
)

// relayed is a server whose events are published to Redis, as they must be to be shared: what is found by comparing heads
// is read by each subscription for itself.
type relayed struct {
	*server
	rdb *redis.Client
}

// startRelayed runs the service until the test ends.
func startRelayed(t *testing.T, change func(*Config)) *relayed {
	t.Helper()
	var url string
	s := start(t, func(c *Config) {
		c.Hub.HeadInterval, c.Hub.ConfirmWait = 2*time.Second, patience
		if change != nil {
			change(c)
		}
		url = c.Redis
	})
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	r := &relayed{server: s, rdb: redis.NewClient(options)}
	t.Cleanup(func() { _ = r.rdb.Close() })
	return r
}

// tell sends a message and tells those whose logs have it.
func (r *relayed) tell(t *testing.T, from, to person, body string) {
	t.Helper()
	sent := r.send(from, to, body)
	for _, reader := range slices.Compact([]ids.ID{from.id, to.id}) {
		r.mu.Lock()
		log := r.world.logs[reader]
		event := log[len(log)-1]
		r.mu.Unlock()
		if event.GetMessage() != sent {
			t.Fatal("somebody else is sending")
		}
		payload, err := proto.Marshal(&eventsv1.Envelope{
			UserId: reader.Bytes(), Epoch: epoch, Event: event, CommittedAtUs: sent.GetSentAtUs(),
		})
		if err == nil {
			err = r.rdb.Publish(t.Context(), api.UserChannel(reader.String()), payload).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sum returns how many calls there were of the services that answers come from.
func sum(calls map[string]int) int {
	return calls["BatchGetUsers"] + calls["BatchGetConversations"] + calls["BatchListMessages"]
}

// writer makes documents that ask for a message in any way that there is, but for what changes while nobody looks. What a
// document asks for depends on variables, which are few, so that different viewers come to ask for the same.
type writer struct {
	*rand.Rand
	fragments []string
	// used has the variables of the operation with their types.
	used map[string]string
	// literal makes a document that has values where others have variables.
	literal bool
	names   int
}

// document is what viewers ask with.
type document struct {
	// text has @AFTER@ where the argument goes, and @DECLARED@ where its variable is declared.
	text       string
	operations []string
	used       map[string]string
}

func (w *writer) name(prefix string) string {
	w.names++
	return fmt.Sprintf("%s%d", prefix, w.names)
}

// variable returns a value that depends on a variable.
func (w *writer) variable(name, kind string) string {
	if w.literal {
		return map[byte]string{'B': fmt.Sprint(w.IntN(2) == 0), 'I': fmt.Sprint(1 + w.IntN(3)), 'S': "null"}[kind[0]]
	}
	w.used[name] = kind
	return "$" + name
}

// directive returns a directive that leaves something out now and then, or none.
func (w *writer) directive() string {
	switch w.IntN(8) {
	case 0:
		return " @include(if: " + w.variable("a", "Boolean!") + ")"
	case 1:
		return " @skip(if: " + w.variable("b", "Boolean! = false") + ")"
	case 2:
		return " @include(if: true) @skip(if: " + w.variable("c", "Boolean! = true") + ")"
	default:
		return ""
	}
}

// set returns a selection set of a type: some of its fields, some of them by another name, some in fragments.
func (w *writer) set(kind string, depth int) string {
	field := func(name, below string) string {
		if w.IntN(5) == 0 {
			name = w.name("x") + ": " + name
		}
		return name + w.directive() + below
	}
	choices := map[string][]func() string{
		"NewMessageEvent": {
			func() string { return field("cursor", "") },
			func() string { return field("message", " "+w.set("Message", depth+1)) },
			func() string { return field("message", " "+w.set("Message", depth+1)) },
		},
		"Message": {
			func() string { return field("id", "") },
			func() string { return field("seq", "") },
			func() string { return field("body", "") },
			func() string { return field("sentAt", "") },
			func() string { return field("clientId", "") },
			func() string { return field("sender", " "+w.set("User", depth+1)) },
			func() string { return field("conversation", " "+w.set("Conversation", depth+1)) },
		},
		"User": {
			func() string { return field("id", "") },
			func() string { return field("username", "") },
			func() string { return field("displayName", "") },
		},
		"Conversation": {
			func() string { return field("id", "") },
			func() string { return field("with", " "+w.set("User", depth+1)) },
			func() string {
				// The oldest, of which there are enough. Two pages by one name would have to be the same.
				page := "first: " + w.variable("n", "Int = 2")
				if w.IntN(2) == 0 {
					page += ", after: " + w.variable("from", "String")
				}
				return w.name("page") + ": messages(" + page + ")" + w.directive() + " { edges { cursor node " + w.set("Message", depth+2) +
					" } pageInfo { startCursor endCursor hasPreviousPage } }"
			},
		},
	}[kind]
	if depth > 4 {
		choices = choices[:1]
	}
	selections := []string{"__typename"}
	for range 1 + w.IntN(4) {
		selections = append(selections, choices[w.IntN(len(choices))]())
	}
	inner := "{ " + strings.Join(selections[w.IntN(2):], " ") + " }"
	switch w.IntN(8) {
	case 0:
		return "{ __typename ... on " + kind + w.directive() + " " + inner + " }"
	case 1:
		return "{ __typename ..." + w.directive() + " " + inner + " }"
	case 2:
		name := w.name("F")
		w.fragments = append(w.fragments, "fragment "+name+" on "+kind+" "+inner)
		return "{ ..." + name + w.directive() + " __typename ..." + name + " }"
	default:
		return inner
	}
}

// document makes a document with one operation, or with two that give the same another name.
func (w *writer) document() document {
	w.fragments, w.used = nil, map[string]string{}
	body := w.set("NewMessageEvent", 0)
	root := func(name string) string {
		// Whatever else is asked for, each answer takes a call of a service, so that answers can be counted.
		return "{ " + name + "newMessage@AFTER@ { ... " + body + " always: message { sender { displayName } } } }"
	}
	if w.IntN(3) == 0 {
		fragment := w.name("Root")
		w.fragments = append(w.fragments, "fragment "+fragment+" on Subscription "+root(""))
		root = func(string) string { return "{ ..." + fragment + " }" }
	}
	var declared []string
	for _, name := range slices.Sorted(maps.Keys(w.used)) {
		declared = append(declared, "$"+name+": "+w.used[name])
	}
	header := "(@DECLARED@" + strings.Join(declared, ", ") + ")"
	if len(declared) == 0 {
		header = "@DECLARED@"
	}
	d := document{used: w.used}
	text := ""
	for i, name := range []string{"First", "Second"} {
		d.operations = append(d.operations, name)
		alias := ""
		if i > 0 {
			alias = "second: "
		}
		text += "subscription " + name + header + " " + root(alias) + "\n"
		if strings.Contains(root(alias), "...Root") {
			break
		}
	}
	d.text = text + strings.Join(w.fragments, "\n")
	return d
}

// variables returns values for the document's variables, some of which are left to their defaults.
func (w *writer) variables(d document) map[string]any {
	values := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(d.used)) {
		kind := d.used[name]
		switch {
		case strings.Contains(kind, "=") && w.IntN(3) == 0:
		case strings.HasPrefix(kind, "Boolean"):
			values[name] = w.IntN(2) == 0
		case strings.HasPrefix(kind, "Int"):
			values[name] = 1 + w.IntN(3)
		case w.IntN(3) > 0:
			values[name] = model.MessageCursor(1 + w.Int64N(2))
		}
	}
	return values
}

// other returns the same variables, of which one has another value.
func (w *writer) other(variables map[string]any) map[string]any {
	variables = maps.Clone(variables)
	names := slices.Sorted(maps.Keys(variables))
	name := names[w.IntN(len(names))]
	switch value := variables[name].(type) {
	case bool:
		variables[name] = !value
	case int:
		variables[name] = value%3 + 1
	default:
		variables[name] = model.MessageCursor(3)
	}
	return variables
}

// asked is what one subscription of one viewer asks for.
type asked struct {
	viewer    int
	document  document
	operation string
	variables map[string]any
	// start is after which event it begins.
	start int64
	// how the start is named: by a variable, by a literal, or not at all.
	how string
}

// text returns the document as it is sent, with the variables.
func (a asked) text(how string, reader ids.ID) (query string, variables map[string]any) {
	variables = maps.Clone(a.variables)
	argument, declared := "", ""
	switch how {
	case "variable":
		argument, declared = "(after: $after)", "$after: Cursor"
		variables["after"] = cursorOf(reader, a.start)
	case "null":
		argument, declared = "(after: $after)", "$after: Cursor"
		variables["after"] = nil
	case "literal":
		argument = `(after: "` + cursorOf(reader, a.start) + `")`
	}
	if len(a.document.used) > 0 && declared != "" {
		declared += ", "
	} else if declared != "" {
		declared = "(" + declared + ")"
	}
	return strings.NewReplacer("@AFTER@", argument, "@DECLARED@", declared).Replace(a.document.text), variables
}

func (c *client) ask(a asked, id, how string, reader ids.ID) {
	c.t.Helper()
	query, variables := a.text(how, reader)
	c.send(wsMessage{ID: id, Type: "subscribe", Payload: encode(c.t, map[string]any{
		"query": query, "variables": variables, "operationName": a.operation,
	})})
}

// TestNobodyGetsTheAnswerOfAnother compares what viewers get live, when answers are shared, with what each gets for
// itself later: one subscription at a time, which reads the log and so has nobody to share with.
func TestNobodyGetsTheAnswerOfAnother(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	w := &writer{Rand: rand.New(rand.NewPCG(seed, 0))}
	s := startRelayed(t, func(c *Config) { c.Limit.Aliases, c.Limit.Fields, c.Limit.Tokens = 1000, 10_000, 10_000 })
	people := []person{s.add(t, "ada"), s.add(t, "bob"), s.add(t, "eve")}
	for i := range 6 {
		for _, from := range people {
			for _, to := range people {
				s.send(from, to, fmt.Sprintf("%s to %s, %d", from.name, to.name, i))
			}
		}
	}
	head := func(p person) int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return int64(len(s.world.logs[p.id]))
	}

	const documents, devices, each = 5, 8, 8
	var pool []asked
	for i := range documents {
		// Those without variables differ in nothing but the document.
		w.literal = i < 2
		d := w.document()
		variables := w.variables(d)
		for _, operation := range d.operations {
			pool = append(pool, asked{document: d, operation: operation, variables: variables})
		}
		// And these in nothing but the value of one variable.
		if len(variables) > 0 {
			for range 2 {
				pool = append(pool, asked{document: d, operation: d.operations[0], variables: w.other(variables)})
			}
		}
	}
	var all []asked
	var live []*client
	begun := map[string]int{}
	for viewer, p := range people {
		for range devices {
			c := s.connect(t, p.token)
			for range each {
				a := pool[w.IntN(len(pool))]
				a.viewer, a.start, a.how = viewer, head(p), "variable"
				if i := w.IntN(20); i < 3 {
					a.how = []string{"null", "literal", ""}[i]
				}
				method := "GetCursor"
				if a.how == "variable" || a.how == "literal" {
					method = "ReadLog"
					if w.IntN(8) == 0 {
						// This one has to catch up first.
						a.start -= w.Int64N(4)
					}
				}
				begun[method]++
				c.ask(a, fmt.Sprint(len(all)), a.how, p.id)
				all, live = append(all, a), append(live, c)
			}
		}
	}
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.calls["GetCursor"] >= begun["GetCursor"] && s.calls["ReadLog"] >= begun["ReadLog"]
	})

	got := make([][]string, len(all))
	shared := sum(s.counted(func() {
		for i := range 12 {
			s.tell(t, people[w.IntN(3)], people[w.IntN(3)], fmt.Sprintf("live, %d", i))
		}
		var reading sync.WaitGroup
		for first := 0; first < len(all); first += each {
			missing := 0
			for _, a := range all[first : first+each] {
				missing += int(head(people[a.viewer]) - a.start)
			}
			reading.Go(func() {
				for ; missing > 0; missing-- {
					m, err := live[first].next()
					var i int
					if _, scanned := fmt.Sscan(m.ID, &i); err != nil || m.Type != "next" || scanned != nil || i < first || i >= first+each {
						t.Errorf("got %s %s %s, %v", m.ID, m.Type, m.Payload, err)
						return
					}
					got[i] = append(got[i], string(m.Payload))
				}
			})
		}
		reading.Wait()
	}))
	for first := 0; first < len(all) && !t.Failed(); first += each {
		live[first].silent()
		_ = live[first].conn.Close()
	}
	if t.Failed() {
		return
	}

	var alone []*client
	for _, p := range people {
		alone = append(alone, s.connect(t, p.token))
	}
	individual := sum(s.counted(func() {
		for i, a := range all {
			how, p, c := a.how, people[a.viewer], alone[a.viewer]
			if how == "null" || how == "" {
				how = "variable"
			}
			id := fmt.Sprint("alone", i)
			c.ask(a, id, how, p.id)
			var want []string
			for range head(p) - a.start {
				m := c.receive()
				if m.Type != "next" || m.ID != id || strings.Contains(string(m.Payload), `"errors"`) {
					query, variables := a.text(how, p.id)
					t.Fatalf("%s %v: got %s %s", query, variables, m.Type, m.Payload)
				}
				want = append(want, string(m.Payload))
			}
			c.send(wsMessage{ID: id, Type: "complete"})
			if !slices.Equal(got[i], want) {
				query, variables := a.text(a.how, p.id)
				t.Errorf("%s asks %s of\n%s\nwith %v and gets, live,\n%s\nbut alone\n%s",
					p.name, a.operation, query, variables, strings.Join(got[i], "\n"), strings.Join(want, "\n"))
			}
		}
	}))
	if 5*shared > 4*individual {
		t.Errorf("%d calls when answers are shared, and %d when they are not", shared, individual)
	}
	t.Logf("%d calls when answers are shared, and %d when they are not", shared, individual)
}

// next returns the next message.
func (c *client) next() (m wsMessage, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	err = c.conn.ReadJSON(&m)
	return m, err
}

// bodyOnly asks for nothing that another service than messages knows.
const bodyOnly = `subscription { newMessage { message { body } } }`

// TestAFailureEndsThoseWhoAskForTheSame holds that an event which cannot be answered ends the subscriptions that ask for
// what is missing, at all of the user's devices, and no others.
func TestAFailureEndsThoseWhoAskForTheSame(t *testing.T) {
	t.Parallel()
	s := startRelayed(t, nil)
	ada, bob, eve := s.add(t, "ada"), s.add(t, "bob"), s.add(t, "eve")
	phone, desk, other := s.connect(t, ada.token), s.connect(t, ada.token), s.connect(t, eve.token)
	for _, c := range []*client{phone, desk, other} {
		s.established(t, c, "whole", nil)
	}
	calls := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.calls["GetCursor"]
	}
	before := calls()
	desk.subscribe("body", bodyOnly, nil)
	waitFor(t, func() bool { return calls() > before })

	s.tell(t, bob, ada, "first")
	var whole []string
	for _, want := range []map[string]int{{"whole": 1}, {"whole": 1, "body": 1}} {
		c := []*client{phone, desk}[len(whole)]
		got := map[string]int{}
		for range len(want) {
			m := c.receive()
			got[m.ID+map[bool]string{false: " " + m.Type}[m.Type == "next"]]++
			if m.ID == "whole" {
				whole = append(whole, string(m.Payload))
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if whole[0] != whole[1] {
		t.Errorf("%s is not %s", whole[0], whole[1])
	}

	s.fail("BatchGetUsers", fmt.Errorf("secret"))
	s.tell(t, bob, ada, "second")
	if code := phone.failure(); code != "INTERNAL_SERVER_ERROR" {
		t.Errorf("got %s", code)
	}
	failed, answered := 0, 0
	for range 2 {
		switch m := desk.receive(); {
		case m.ID == "whole" && m.Type == "error" && !strings.Contains(string(m.Payload), "secret"):
			failed++
		case m.ID == "body" && string(m.Payload) == `{"data":{"newMessage":{"message":{"body":"second"}}}}`:
			answered++
		default:
			t.Errorf("got %s %s %s", m.ID, m.Type, m.Payload)
		}
	}
	if failed != 1 || answered != 1 {
		t.Errorf("%d subscriptions failed and %d went on", failed, answered)
	}

	s.fail("BatchGetUsers", nil)
	s.tell(t, bob, ada, "third")
	s.tell(t, eve, eve, "a note")
	if m := desk.receive(); m.ID != "body" || !strings.Contains(string(m.Payload), "third") {
		t.Errorf("got %s %s %s", m.ID, m.Type, m.Payload)
	}
	if got := other.event().Data.NewMessage.Message.Body; got != "a note" {
		t.Errorf("somebody else got %q", got)
	}
	for _, c := range []*client{phone, desk, other} {
		c.silent()
	}
}

// TestATokenThatIsRefusedEndsNobody holds that answers are made with another of the user's tokens when a service does not
// accept one, as long as there is another.
func TestATokenThatIsRefusedEndsNobody(t *testing.T) {
	t.Parallel()
	s := startRelayed(t, func(c *Config) { c.Hub.HeadInterval = 100 * time.Millisecond })
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	// The one that lasts longest is used first.
	refused := s.token(t, ada.id, 2*time.Hour)
	s.mu.Lock()
	s.refused[refused] = true
	s.mu.Unlock()
	bad, good := s.connect(t, refused), s.connect(t, ada.token)
	s.established(t, bad, "1", nil)
	s.established(t, good, "1", nil)
	for i := range 5 {
		s.tell(t, bob, ada, fmt.Sprint(i))
		for _, c := range []*client{bad, good} {
			if got := c.event().Data.NewMessage.Message; got.Body != fmt.Sprint(i) || got.Sender.Username != "bob" {
				t.Errorf("got %+v, want %d", got, i)
			}
		}
	}
	good.silent()
	_ = good.conn.Close()
	if code := bad.failure(); code != "UNAUTHENTICATED" {
		t.Errorf("got %s", code)
	}
}

// TestATokenIsRenewedByAPing holds that a subscription goes on beyond the token that it began with.
func TestATokenIsRenewedByAPing(t *testing.T) {
	t.Parallel()
	s := startRelayed(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	const life = 4 * time.Second
	expires := time.Now().Add(life)
	renewed, other := s.connect(t, s.token(t, ada.id, life)), s.connect(t, s.token(t, ada.id, life))
	for _, c := range []*client{renewed, other} {
		s.established(t, c, "1", nil)
	}
	renewed.send(wsMessage{Type: "ping", Payload: encode(t, map[string]string{"authorization": "Bearer " + ada.token})})
	if m := renewed.receive(); m.Type != "pong" || m.Payload != nil {
		t.Errorf("got %s %s", m.Type, m.Payload)
	}
	if code, before := other.closed(); code != 4403 || len(before) > 0 {
		t.Errorf("the other was closed with %d after %v", code, before)
	}
	time.Sleep(time.Until(expires))
	s.tell(t, bob, ada, "hello")
	if got := renewed.event().Data.NewMessage.Message; got.Body != "hello" || got.Sender.Username != "bob" {
		t.Errorf("got %+v", got)
	}
	renewed.subscribe("2", `{ me { username } }`, nil)
	if m := renewed.receive(); m.Type != "next" || !strings.Contains(string(m.Payload), "ada") {
		t.Errorf("got %s %s", m.Type, m.Payload)
	}
}
