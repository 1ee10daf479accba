package hub

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

// fakeMessages is a messages service whose log fails, stalls, expires and is restored on command, which the real one
// does not.
type fakeMessages struct {
	messagesv1.MessagesServiceClient // nil: the hub calls only what is below.

	mu     sync.Mutex
	epoch  []byte
	logs   map[ids.ID]*fakeLog
	tokens map[string]ids.ID // Those that verify.
	// before, if set, is called at the start of each call, without mu; its error is the call's.
	before func(ctx context.Context, method string) error
	calls  map[string]int
	// Sizes of the batches of tokens.
	batches []int
	// The limits of the reads.
	limits []int32
}

type fakeLog struct {
	events []*messagesv1.Event // The whole log: events[0] has the seq 1.
	floor  int64
}

func newFakeMessages() *fakeMessages {
	return &fakeMessages{
		epoch:  []byte("epoch--1"),
		logs:   make(map[ids.ID]*fakeLog),
		tokens: make(map[string]ids.ID),
		calls:  make(map[string]int),
	}
}

// signIn makes a token for a user.
func (m *fakeMessages) signIn(user ids.ID, ttl time.Duration) identity.Identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	token := "token-" + ids.New().String()
	m.tokens[token] = user
	return identity.Identity{UserID: user, SessionID: ids.New(), ExpiresAt: time.Now().Add(ttl), Token: token}
}

// revoke makes a token invalid before its time.
func (m *fakeMessages) revoke(id identity.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tokens, id.Token)
}

// restore gives the log a new epoch, as a restore from a backup does.
func (m *fakeMessages) restore(epoch string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = []byte(epoch)
}

// setBefore sets before.
func (m *fakeMessages) setBefore(before func(ctx context.Context, method string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

// setFloor deletes the events up to floor.
func (m *fakeMessages) setFloor(user ids.ID, floor int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log(user).floor = floor
}

// truncate empties a user's log.
func (m *fakeMessages) truncate(user ids.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.logs, user)
}

// log returns a user's log. It needs mu.
func (m *fakeMessages) log(user ids.ID) *fakeLog {
	l := m.logs[user]
	if l == nil {
		l = &fakeLog{}
		m.logs[user] = l
	}
	return l
}

// commit appends a message to a user's log.
func (m *fakeMessages) commit(user ids.ID, body string) *eventsv1.Envelope {
	return m.commitEvent(user, func(seq int64) *messagesv1.Event {
		return &messagesv1.Event{Kind: &messagesv1.Event_Message{Message: &messagesv1.Message{
			Seq: seq, Body: body, SenderId: user.Bytes(), SentAtUs: time.Now().UnixMicro(),
		}}}
	})
}

// commitRead appends a read event.
func (m *fakeMessages) commitRead(user ids.ID) *eventsv1.Envelope {
	return m.commitEvent(user, func(seq int64) *messagesv1.Event {
		return &messagesv1.Event{Kind: &messagesv1.Event_Read{Read: &messagesv1.Read{ReadSeq: seq}}}
	})
}

func (m *fakeMessages) commitEvent(user ids.ID, event func(seq int64) *messagesv1.Event) *eventsv1.Envelope {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(user)
	seq := int64(len(l.events)) + 1
	e := event(seq)
	e.Seq = seq
	e.Cursor = m.cursor(user, seq)
	l.events = append(l.events, e)
	return &eventsv1.Envelope{
		UserId: user.Bytes(), Epoch: m.epoch, Event: proto.CloneOf(e), CommittedAtUs: time.Now().UnixMicro(),
	}
}

// head returns the number of the newest event.
func (m *fakeMessages) head(user ids.ID) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.log(user).events))
}

// messagesAfter returns the numbers of the message events after seq.
func (m *fakeMessages) messagesAfter(user ids.ID, seq int64) []int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var seqs []int64
	for _, e := range m.log(user).events[seq:] {
		if e.GetMessage() != nil {
			seqs = append(seqs, e.GetSeq())
		}
	}
	return seqs
}

// cursorAt returns the cursor of a place in the log.
func (m *fakeMessages) cursorAt(user ids.ID, seq int64) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursor(user, seq)
}

func (m *fakeMessages) cursor(user ids.ID, seq int64) string {
	return fmt.Sprintf("%x/%s/%d", m.epoch, user, seq)
}

// callsOf returns how often a method was called.
func (m *fakeMessages) callsOf(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

// enter counts the call and lets before have its say.
func (m *fakeMessages) enter(ctx context.Context, method string) error {
	m.mu.Lock()
	m.calls[method]++
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx, method); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "the call took too long")
	}
	return nil
}

// caller verifies the token of the context. It needs mu.
func (m *fakeMessages) caller(ctx context.Context) (ids.ID, error) {
	id, err := identity.Must(ctx)
	if err != nil {
		return ids.ID{}, err
	}
	user, ok := m.tokens[id.Token]
	if !ok || user != id.UserID || !time.Now().Before(id.ExpiresAt) {
		return ids.ID{}, errs.New(errs.Unauthenticated, "the token is not valid")
	}
	return user, nil
}

func (m *fakeMessages) GetCursor(
	ctx context.Context, _ *messagesv1.GetCursorRequest, _ ...grpc.CallOption,
) (*messagesv1.GetCursorResponse, error) {
	if err := m.enter(ctx, "GetCursor"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	user, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	head := int64(len(m.log(user).events))
	return &messagesv1.GetCursorResponse{Cursor: m.cursor(user, head), Head: head, Epoch: m.epoch}, nil
}

func (m *fakeMessages) ReadLog(
	ctx context.Context, req *messagesv1.ReadLogRequest, _ ...grpc.CallOption,
) (*messagesv1.ReadLogResponse, error) {
	m.mu.Lock()
	m.limits = append(m.limits, req.GetLimit())
	m.mu.Unlock()
	if err := m.enter(ctx, "ReadLog"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	user, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	l := m.log(user)
	head := int64(len(l.events))
	after := req.GetAfterSeq()
	if cursor := req.GetCursor(); cursor != "" {
		if after, err = m.parseCursor(user, cursor); err != nil {
			return nil, errs.Wrap(errs.CursorInvalid, err, "the cursor is not yours")
		}
	} else if string(req.GetEpoch()) != string(m.epoch) {
		return nil, errs.New(errs.CursorInvalid, "another epoch")
	}
	switch {
	case after > head:
		return nil, errs.New(errs.CursorInvalid, "above the head")
	case after < l.floor:
		return nil, errs.New(errs.CursorExpired, "too old")
	}
	last := min(after+int64(req.GetLimit()), head)
	return &messagesv1.ReadLogResponse{
		Events: slices.Clone(l.events[after:last]), LastSeq: last, Head: head, Epoch: m.epoch,
	}, nil
}

func (m *fakeMessages) parseCursor(user ids.ID, cursor string) (int64, error) {
	parts := strings.Split(cursor, "/")
	if len(parts) != 3 || parts[0] != hex.EncodeToString(m.epoch) || parts[1] != user.String() {
		return 0, errors.New("not a cursor of this user and epoch")
	}
	return strconv.ParseInt(parts[2], 10, 64)
}

func (m *fakeMessages) BatchGetLogHeads(
	ctx context.Context, req *messagesv1.BatchGetLogHeadsRequest, _ ...grpc.CallOption,
) (*messagesv1.BatchGetLogHeadsResponse, error) {
	if err := m.enter(ctx, "BatchGetLogHeads"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches = append(m.batches, len(req.GetAccessTokens()))
	resp := &messagesv1.BatchGetLogHeadsResponse{Epoch: m.epoch}
	for _, token := range req.GetAccessTokens() {
		if user, ok := m.tokens[token]; ok {
			head := int64(len(m.log(user).events))
			resp.Heads = append(resp.Heads, &messagesv1.LogHead{UserId: user.Bytes(), Head: head})
		}
	}
	return resp, nil
}

// encode makes an envelope's payload and the channel that it goes to.
func encode(t testing.TB, env *eventsv1.Envelope) (channel, payload string) {
	t.Helper()
	user, err := ids.FromBytes(env.GetUserId())
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	return api.UserChannel(user.String()), string(b)
}
