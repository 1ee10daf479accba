package torture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/ids"
)

const (
	// attemptTimeout is longer than any call may take by the services' own deadlines: whoever waits so long has been left
	// hanging.
	attemptTimeout = 15 * time.Second
	// retryPause is how long a client waits before it tries again.
	retryPause = 100 * time.Millisecond
)

// How often clients do what is rarer than sending, of a thousand times.
const (
	repeatShare   = 50 // Send what was acknowledged again.
	conflictShare = 20 // Use its client id for another message.
	giveUpShare   = 20 // Give up after a failed attempt, and leave the outcome unknown.
	selfShare     = 50 // Write to oneself.
)

// crowd are the people of a run, and what they have noted so far.
type crowd struct {
	people    []*person
	endpoints []string
	pace      time.Duration // The mean pause of a person between two messages.

	attempts, acknowledged, delivered atomic.Int64

	mu      sync.Mutex
	sends   []Send
	marks   []Mark
	mishaps []Violation
	pairs   map[string][2]*person // Who talks in the conversations that somebody has sent to.
}

// mishap notes an answer that no fault excuses.
func (c *crowd) mishap(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mishaps = append(c.mishaps, Violation{Kind: Mishap, What: fmt.Sprintf(format, args...)})
}

// person is a user with some devices.
type person struct {
	crowd  *crowd
	client *client.Client
	id     string
	name   string
	start  string // The cursor before the first message.

	mu      sync.Mutex
	devices []*device
	with    map[string]string  // The conversations by the other's id.
	newest  map[string]Message // The newest message of each conversation that a device has shown.
}

// device is one of a person's subscriptions.
type device struct {
	name     string
	late     bool
	known    []Message
	follower *client.Follower
	done     chan struct{}

	mu       sync.Mutex
	messages []Message
}

// seen returns the messages that the device has shown so far.
func (d *device) seen() []Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.messages)
}

// persist repeats a call, at one endpoint after the other, until it succeeds, until it fails in a way that no fault
// excuses, which is noted, or until ctx ends.
func (p *person) persist(ctx context.Context, rng *rand.Rand, what string, call func(context.Context, *client.Client) error) error {
	for i := rng.IntN(len(p.crowd.endpoints)); ; i++ {
		err := p.attempt(ctx, what, p.crowd.endpoints[i%len(p.crowd.endpoints)], call)
		if err == nil || ctx.Err() != nil || errors.Is(err, errGaveUp) || !client.Retryable(err) {
			return err
		}
		sleep(ctx, between(rng, retryPause/2, 2*retryPause))
	}
}

// attempt makes one call, and notes it if it fails in a way that no fault excuses. A refusal is for the caller to judge.
func (p *person) attempt(ctx context.Context, what, endpoint string, call func(context.Context, *client.Client) error) error {
	bounded, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	err := call(bounded, p.client.At(endpoint))
	var refused client.UserErrors
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, errGaveUp) || errors.As(err, &refused):
	case bounded.Err() != nil:
		p.crowd.mishap("%s waited %v in vain for %s to %s", p.name, attemptTimeout, endpoint, what)
	case !client.Retryable(err):
		p.crowd.mishap("%s could not %s: %v", p.name, what, err)
	}
	return err
}

// talk sends messages until stop is closed.
func (p *person) talk(ctx context.Context, stop <-chan struct{}, rng *rand.Rand) {
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(between(rng, 0, 2*p.crowd.pace)):
		}
		peer := p.crowd.people[rng.IntN(len(p.crowd.people))]
		if rng.IntN(1000) < selfShare {
			peer = p
		}
		p.send(ctx, rng, peer, fmt.Sprintf("%s to %s, %d: %s", p.name, peer.name, n, phrase(rng)), rng.IntN(1000) < giveUpShare)
	}
}

// phrase returns some text, of all kinds and lengths.
func phrase(rng *rand.Rand) string {
	phrases := []string{
		"hello", "How are you?", "line one\nline two\tand a tab", "שלום", "你好，世界", "👩‍👩‍👧‍👦 🎉", "Zürich, naïve, Ångström",
		"ไม่เป็นไร", "'; DROP TABLE messages; --", `"quoted" \ and {"json": true}`, "\u202eright to left\u202c",
	}
	return strings.Repeat(phrases[rng.IntN(len(phrases))]+" ", 1+rng.IntN(20)) + "."
}

// send sends one message for as long as it takes, unless the person gives up, and notes it.
func (p *person) send(ctx context.Context, rng *rand.Rand, peer *person, body string, giveUp bool) {
	draft := client.Draft{RecipientID: peer.id, Body: body, ClientID: ids.New().String()}
	if id := p.conversationWith(peer); id != "" && rng.IntN(2) == 0 {
		draft.RecipientID, draft.ConversationID = "", id
	}
	send := Send{ClientID: draft.ClientID, Sender: p.id, Recipient: peer.id, Body: body, Begun: time.Now()}
	defer func() {
		p.crowd.mu.Lock()
		defer p.crowd.mu.Unlock()
		p.crowd.sends = append(p.crowd.sends, send)
	}()
	var m client.Message
	err := p.persist(ctx, rng, "send", func(ctx context.Context, c *client.Client) error {
		p.crowd.attempts.Add(1)
		var err error
		if m, err = c.Send(ctx, draft); err != nil && giveUp && client.Retryable(err) {
			return errGaveUp
		}
		return err
	})
	if err != nil {
		p.blame(ctx, "send", err)
		return
	}
	send.Ended = time.Now()
	send.Acks = append(send.Acks, seenAs(m))
	p.crowd.acknowledged.Add(1)
	p.learn(peer, m.ConversationID)

	switch dice := rng.IntN(1000); {
	case dice < repeatShare:
		// The same message may be addressed in the other way.
		draft.RecipientID, draft.ConversationID = "", m.ConversationID
		err := p.persist(ctx, rng, "repeat a send", func(ctx context.Context, c *client.Client) error {
			var err error
			m, err = c.Send(ctx, draft)
			return err
		})
		if err != nil {
			p.blame(ctx, "repeat a send", err)
			return
		}
		send.Acks = append(send.Acks, seenAs(m))
	case dice < repeatShare+conflictShare:
		draft.Body += "!"
		err := p.persist(ctx, rng, "reuse a client id", func(ctx context.Context, c *client.Client) error {
			_, err := c.Send(ctx, draft)
			return err
		})
		var refused client.UserErrors
		if ctx.Err() == nil && (!errors.As(err, &refused) || refused[0].Code != "CONFLICT") {
			p.crowd.mishap("%s used a client id for another message and got %v", p.name, err)
		}
	}
}

// errGaveUp says that a person did not try again.
var errGaveUp = errors.New("the person gave up")

// blame notes a refusal of what is right.
func (p *person) blame(ctx context.Context, what string, err error) {
	var refused client.UserErrors
	if ctx.Err() == nil && errors.As(err, &refused) {
		p.crowd.mishap("%s was refused to %s: %v", p.name, what, err)
	}
}

// read moves the person's read pointers, pages through histories and pries into what is not theirs, until stop is
// closed.
func (p *person) read(ctx context.Context, stop <-chan struct{}, rng *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(between(rng, 0, 4*p.crowd.pace)):
		}
		newest, ok := p.anyConversation(rng)
		if !ok {
			continue
		}
		switch rng.IntN(4) {
		case 0:
			_ = p.persist(ctx, rng, "read a page", func(ctx context.Context, c *client.Client) error {
				page, err := c.History(ctx, newest.Conversation, client.Range{})
				if err == nil && (page == nil || len(page.Messages) == 0) {
					return &client.ContractError{What: "a conversation without a page of messages"}
				}
				return err
			})
		case 1:
			_ = p.persist(ctx, rng, "list conversations", func(ctx context.Context, c *client.Client) error {
				_, err := c.Conversations(ctx, 20, "")
				return err
			})
		case 2:
			p.pry(ctx, rng)
		default:
			p.mark(ctx, rng, newest.Conversation, max(1, newest.Seq-rng.IntN(3)))
		}
	}
}

// mark marks a conversation read up to a message.
func (p *person) mark(ctx context.Context, rng *rand.Rand, conversation string, seq int) {
	var after client.Conversation
	err := p.persist(ctx, rng, "mark read", func(ctx context.Context, c *client.Client) error {
		var err error
		after, err = c.MarkRead(ctx, conversation, seq)
		return err
	})
	if err != nil {
		p.blame(ctx, "mark read", err)
		return
	}
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	p.crowd.marks = append(p.crowd.marks, Mark{User: p.id, Conversation: conversation, Seq: seq, ReadSeq: after.ReadSeq})
}

// pry asks for the newest message of a conversation of others.
func (p *person) pry(ctx context.Context, rng *rand.Rand) {
	m, ok := p.crowd.people[rng.IntN(len(p.crowd.people))].anyConversation(rng)
	if !ok || !p.crowd.strange(p, m.Conversation) {
		return
	}
	_ = p.persist(ctx, rng, "pry", func(ctx context.Context, c *client.Client) error {
		read, err := c.Message(ctx, m.ID)
		if err == nil && read != nil {
			return &client.ContractError{What: "a stranger could read " + m.String()}
		}
		return err
	})
}

// strange says whether a conversation is known to be one of others.
func (c *crowd) strange(p *person, conversation string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, known := c.pairs[conversation]
	return known && pair[0] != p && pair[1] != p
}

// anyConversation returns the newest message of one of the person's conversations, if there are any.
func (p *person) anyConversation(rng *rand.Rand) (Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.newest) == 0 {
		return Message{}, false
	}
	all := slices.Sorted(maps.Keys(p.newest))
	return p.newest[all[rng.IntN(len(all))]], true
}

// conversationWith returns the id of the conversation with somebody, if the person has sent to it.
func (p *person) conversationWith(peer *person) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.with[peer.id]
}

// learn notes which conversation is whose.
func (p *person) learn(peer *person, conversation string) {
	p.mu.Lock()
	p.with[peer.id] = conversation
	p.mu.Unlock()
	p.crowd.mu.Lock()
	p.crowd.pairs[conversation] = [2]*person{p, peer}
	p.crowd.mu.Unlock()
}

// watch begins a subscription from the cursor before the first message.
func (p *person) watch(ctx context.Context, name string, shift int) {
	p.follow(ctx, &device{name: name}, p.start, shift)
}

// watchLate begins a subscription in the way of a client that starts: it reads a cursor, then the lists, and then
// subscribes after the cursor.
func (p *person) watchLate(ctx context.Context, rng *rand.Rand, name string) {
	var cursor string
	err := p.persist(ctx, rng, "read the cursor", func(ctx context.Context, c *client.Client) error {
		var err error
		cursor, err = c.Cursor(ctx)
		return err
	})
	if err != nil {
		return
	}
	conversations, err := p.lists(ctx, rng)
	if err != nil {
		return
	}
	d := &device{name: name, late: true}
	for _, c := range conversations {
		d.known = append(d.known, c.Messages...)
	}
	p.follow(ctx, d, cursor, rng.IntN(len(p.crowd.endpoints)))
}

func (p *person) follow(ctx context.Context, d *device, after string, shift int) {
	endpoints := slices.Concat(p.crowd.endpoints[shift:], p.crowd.endpoints[:shift])
	d.follower = p.client.Follow(ctx, after, endpoints...)
	d.done = make(chan struct{})
	p.mu.Lock()
	p.devices = append(p.devices, d)
	p.mu.Unlock()
	go func() {
		defer close(d.done)
		for event := range d.follower.Events() {
			p.crowd.delivered.Add(1)
			m := seenAs(event.Message)
			d.mu.Lock()
			d.messages = append(d.messages, m)
			d.mu.Unlock()
			p.mu.Lock()
			if m.Seq > p.newest[m.Conversation].Seq {
				p.newest[m.Conversation] = m
			}
			p.mu.Unlock()
		}
		if err := d.follower.Err(); err != nil {
			p.crowd.mishap("stream %s of %s ended: %v", d.name, p.name, err)
		}
	}()
}

// allDevices returns the devices so far.
func (p *person) allDevices() []*device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.devices)
}

// lists reads all of the person's conversations with their histories.
func (p *person) lists(ctx context.Context, rng *rand.Rand) ([]Conversation, error) {
	var heads []client.Conversation
	err := p.persist(ctx, rng, "list all conversations", func(ctx context.Context, c *client.Client) error {
		var err error
		heads, err = c.AllConversations(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	conversations := make([]Conversation, len(heads))
	for i, head := range heads {
		var history []client.Message
		err := p.persist(ctx, rng, "read a history", func(ctx context.Context, c *client.Client) error {
			var err error
			history, err = c.AllHistory(ctx, head.ID)
			return err
		})
		if err != nil {
			return nil, err
		}
		conversations[i] = Conversation{ID: head.ID, With: head.With.ID, Unread: head.UnreadCount, ReadSeq: head.ReadSeq}
		for _, m := range history {
			conversations[i].Messages = append(conversations[i].Messages, seenAs(m))
		}
	}
	return conversations, nil
}

// seenAs is what the checker keeps of a message.
func seenAs(m client.Message) Message {
	return Message{ID: m.ID, Conversation: m.ConversationID, Seq: m.Seq, Sender: m.Sender.ID, Body: m.Body}
}
