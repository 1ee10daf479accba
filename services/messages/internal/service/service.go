// Package service answers the messages service's calls: it validates, authorises and translates, and leaves the keeping
// to the store.
//
// It is guaranteed that a caller reads and changes nothing but what is theirs, and that what is not theirs is answered
// exactly as what does not exist; and that an acknowledged message is committed. A message's events are handed to the
// relay after the commit: should the process die in between, the sweeper publishes them.
package service

import (
	"context"
	"errors"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/errgroup"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/cursor"
	"chatapp.dev/services/messages/internal/relay"
	"chatapp.dev/services/messages/internal/store"
)

const (
	// conversationsCached bounds the caches of who takes part in which conversation, which never changes.
	conversationsCached = 65_536
	// recipientsCached and recipientFor bound the cache of users who are known to exist.
	recipientsCached = 65_536
	recipientFor     = 10 * time.Second
)

// Service implements messagesv1.MessagesServiceServer.
type Service struct {
	messagesv1.UnimplementedMessagesServiceServer

	store    *store.Store
	relay    *relay.Relay
	users    usersv1.UsersServiceClient
	verifier *identity.Verifier

	// What is known of conversations, by users and by id. A restore may have made it wrong: a send that finds the
	// conversation gone forgets it.
	byUsers      *lru.Cache[store.Users, ids.ID]
	participants *lru.Cache[ids.ID, store.Users]
	recipients   *expirable.LRU[ids.ID, struct{}]
}

// New returns the service. The users client tells whether a recipient exists; the verifier checks the tokens that
// BatchGetLogHeads carries.
func New(st *store.Store, rl *relay.Relay, users usersv1.UsersServiceClient, verifier *identity.Verifier) *Service {
	byUsers, err := lru.New[store.Users, ids.ID](conversationsCached)
	if err != nil {
		panic(err) // The size is a positive constant.
	}
	participants, err := lru.New[ids.ID, store.Users](conversationsCached)
	if err != nil {
		panic(err) // The size is a positive constant.
	}
	return &Service{
		store: st, relay: rl, users: users, verifier: verifier,
		byUsers: byUsers, participants: participants,
		recipients: expirable.NewLRU[ids.ID, struct{}](recipientsCached, nil, recipientFor),
	}
}

// SendMessage stores a message once and hands its events to the relay.
func (s *Service) SendMessage(
	ctx context.Context, req *messagesv1.SendMessageRequest,
) (*messagesv1.SendMessageResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	body, err := normalizeBody(req.GetBody())
	if err != nil {
		return nil, err
	}
	clientID, err := parseClientID(req.GetClientId())
	if err != nil {
		return nil, err
	}
	m := store.NewMessage{
		SenderID: caller.UserID, ClientID: clientID, Body: body, Now: time.Now().UTC().Truncate(time.Microsecond),
	}
	// The second round is for a conversation that the cache knows and the database no longer does.
	for range 2 {
		if err := s.address(ctx, req, caller.UserID, &m); err != nil {
			return nil, err
		}
		sent, err := s.store.Send(ctx, m)
		if errors.Is(err, store.ErrNoConversation) {
			s.byUsers.Remove(m.Users)
			s.participants.Remove(m.ConversationID)
			continue
		}
		if err != nil {
			return nil, translate(err)
		}
		s.remember(sent.Message.ConversationID, m.Users)
		s.relay.Publish(ctx, sent.Epoch, sent.Events)
		return &messagesv1.SendMessageResponse{Message: messageProto(sent.Message)}, nil
	}
	return nil, errNoSuchConversation
}

var errNoSuchConversation = errs.Field(errs.NotFound, errs.UnknownReference, "conversation_id", "no such conversation")

func parseClientID(text string) (ids.ID, error) {
	if text == "" {
		return ids.ID{}, errs.Field(errs.Invalid, errs.Required, "client_id", "client_id is required: a UUID made by the client")
	}
	id, err := ids.Parse(text)
	if err != nil || id.IsZero() {
		return ids.ID{}, errs.Field(errs.Invalid, errs.InvalidFormat, "client_id",
			"client_id must be a UUID such as 018f3c1e-7b2a-7c3d-9e4f-5a6b7c8d9e0f")
	}
	return id, nil
}

// address finds the conversation and the participants of a message that is to be sent.
func (s *Service) address(
	ctx context.Context, req *messagesv1.SendMessageRequest, sender ids.ID, m *store.NewMessage,
) error {
	if id := req.GetConversationId(); id != nil {
		m.ConversationID = mustID(id)
		users, err := s.participantsOf(ctx, m.ConversationID)
		if errors.Is(err, store.ErrNoConversation) || err == nil && !users.Has(sender) {
			return errNoSuchConversation
		}
		m.Users = users
		return err
	}
	recipient := mustID(req.GetRecipientId())
	m.Users = store.Pair(sender, recipient)
	if id, ok := s.byUsers.Get(m.Users); ok {
		m.ConversationID = id
		return nil
	}
	id, err := s.store.ConversationByUsers(ctx, m.Users)
	switch {
	case err == nil:
		m.ConversationID = id
		return nil
	case !errors.Is(err, store.ErrNoConversation):
		return translate(err)
	}
	m.ConversationID = ids.ID{}
	return s.checkRecipient(ctx, sender, recipient)
}

// checkRecipient refuses a recipient whom users does not know. A conversation's participants were checked when it was
// made.
func (s *Service) checkRecipient(ctx context.Context, sender, recipient ids.ID) error {
	if recipient == sender {
		return nil
	}
	if _, known := s.recipients.Get(recipient); known {
		return nil
	}
	res, err := s.users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{Ids: [][]byte{recipient.Bytes()}})
	if err != nil {
		return err
	}
	if len(res.GetUsers()) == 0 {
		return errs.Field(errs.NotFound, errs.UnknownReference, "recipient_id", "no such user")
	}
	s.recipients.Add(recipient, struct{}{})
	return nil
}

func (s *Service) participantsOf(ctx context.Context, conversation ids.ID) (store.Users, error) {
	if users, ok := s.participants.Get(conversation); ok {
		return users, nil
	}
	users, err := s.store.Participants(ctx, conversation)
	if err != nil {
		return store.Users{}, translate(err)
	}
	s.remember(conversation, users)
	return users, nil
}

func (s *Service) remember(conversation ids.ID, users store.Users) {
	s.byUsers.Add(users, conversation)
	s.participants.Add(conversation, users)
}

// BatchGetMessages reads messages by conversation and number.
func (s *Service) BatchGetMessages(
	ctx context.Context, req *messagesv1.BatchGetMessagesRequest,
) (*messagesv1.BatchGetMessagesResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	refs := make([]store.MessageRef, len(req.GetRefs()))
	for i, ref := range req.GetRefs() {
		refs[i] = store.MessageRef{ConversationID: mustID(ref.GetConversationId()), Seq: ref.GetSeq()}
	}
	messages, err := s.store.Messages(ctx, caller.UserID, refs)
	if err != nil {
		return nil, translate(err)
	}
	return &messagesv1.BatchGetMessagesResponse{Messages: messageProtos(messages)}, nil
}

// BatchGetConversations reads conversations by id, each with a page of history where asked: two queries at most.
func (s *Service) BatchGetConversations(
	ctx context.Context, req *messagesv1.BatchGetConversationsRequest,
) (*messagesv1.BatchGetConversationsResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	conversations, err := s.store.Conversations(ctx, caller.UserID, mustIDs(req.GetIds()))
	if err != nil {
		return nil, translate(err)
	}
	out, err := s.withPages(ctx, caller.UserID, conversations, req.GetPage())
	if err != nil {
		return nil, err
	}
	return &messagesv1.BatchGetConversationsResponse{Conversations: out}, nil
}

// GetConversationWith reads the caller's conversation with a user: two queries at most.
func (s *Service) GetConversationWith(
	ctx context.Context, req *messagesv1.GetConversationWithRequest,
) (*messagesv1.GetConversationWithResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.store.ConversationWith(ctx, store.Pair(caller.UserID, mustID(req.GetUserId())))
	if errors.Is(err, store.ErrNoConversation) {
		return nil, errs.Field(errs.NotFound, errs.UnknownReference, "user_id", "no such conversation")
	}
	if err != nil {
		return nil, translate(err)
	}
	out, err := s.withPages(ctx, caller.UserID, []store.Conversation{c}, req.GetPage())
	if err != nil {
		return nil, err
	}
	return &messagesv1.GetConversationWithResponse{Conversation: out[0]}, nil
}

func (s *Service) withPages(
	ctx context.Context, user ids.ID, conversations []store.Conversation, page *messagesv1.PageRange,
) ([]*messagesv1.Conversation, error) {
	out := conversationProtos(conversations, user)
	if page == nil || len(conversations) == 0 {
		return out, nil
	}
	wants := make([]want, len(conversations))
	for i, c := range conversations {
		wants[i] = want{conversation: c.ID, lastSeq: c.LastSeq, page: page}
	}
	pages, err := s.pages(ctx, wants)
	if err != nil {
		return nil, err
	}
	for i, p := range pages {
		out[i].Page = p
	}
	return out, nil
}

// ListConversations lists the caller's conversations by their newest message: one query.
func (s *Service) ListConversations(
	ctx context.Context, req *messagesv1.ListConversationsRequest,
) (*messagesv1.ListConversationsResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	var after *store.Position
	if p := req.GetAfter(); p != nil {
		after = &store.Position{
			LastMessageAt: time.UnixMicro(p.GetLastMessageAtUs()).UTC(), ID: mustID(p.GetConversationId()),
		}
	}
	size := int(req.GetPageSize())
	conversations, err := s.store.ListConversations(ctx, caller.UserID, after, size+1)
	if err != nil {
		return nil, translate(err)
	}
	more := len(conversations) > size
	if more {
		conversations = conversations[:size]
	}
	return &messagesv1.ListConversationsResponse{
		Conversations: conversationProtos(conversations, caller.UserID), HasNextPage: more,
	}, nil
}

// BatchListMessages reads pages of history: two queries.
func (s *Service) BatchListMessages(
	ctx context.Context, req *messagesv1.BatchListMessagesRequest,
) (*messagesv1.BatchListMessagesResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	asked := make([]ids.ID, len(req.GetRequests()))
	for i, r := range req.GetRequests() {
		asked[i] = mustID(r.GetConversationId())
	}
	conversations, err := s.store.Conversations(ctx, caller.UserID, asked)
	if err != nil {
		return nil, translate(err)
	}
	lastSeqs := make(map[ids.ID]int64, len(conversations))
	for _, c := range conversations {
		lastSeqs[c.ID] = c.LastSeq
	}
	out := make([]*messagesv1.MessagePage, len(asked))
	var (
		wants []want
		at    []int
	)
	for i, r := range req.GetRequests() {
		lastSeq, ok := lastSeqs[asked[i]]
		if !ok {
			out[i] = &messagesv1.MessagePage{}
			continue
		}
		wants = append(wants, want{conversation: asked[i], lastSeq: lastSeq, page: r.GetPage()})
		at = append(at, i)
	}
	pages, err := s.pages(ctx, wants)
	if err != nil {
		return nil, err
	}
	for i, p := range pages {
		out[at[i]] = p
	}
	return &messagesv1.BatchListMessagesResponse{Pages: out}, nil
}

// want is a page of a conversation that the caller may read.
type want struct {
	conversation ids.ID
	lastSeq      int64
	page         *messagesv1.PageRange
}

// pages reads the pages that are wanted in one query.
func (s *Service) pages(ctx context.Context, wants []want) ([]*messagesv1.MessagePage, error) {
	if len(wants) == 0 {
		return nil, nil
	}
	ranges := make([]store.Range, len(wants))
	for i, w := range wants {
		ranges[i] = store.Range{
			ConversationID: w.conversation, AfterSeq: w.page.GetAfterSeq(), BeforeSeq: w.page.GetBeforeSeq(),
			// One more than asked for tells whether there are more.
			Limit: int(w.page.GetLimit()) + 1, FromEnd: w.page.GetFromEnd(),
		}
	}
	histories, err := s.store.History(ctx, ranges)
	if err != nil {
		return nil, translate(err)
	}
	out := make([]*messagesv1.MessagePage, len(wants))
	for i, w := range wants {
		out[i] = messagePage(histories[i], w)
	}
	return out, nil
}

// messagePage cuts the surplus message off and says what lies on either side of the page.
func messagePage(messages []store.Message, w want) *messagesv1.MessagePage {
	page := &messagesv1.MessagePage{}
	limit := int(w.page.GetLimit())
	more := len(messages) > limit
	if w.page.GetFromEnd() {
		if more {
			messages = messages[len(messages)-limit:]
		}
		page.HasPreviousPage = more || w.page.GetAfterSeq() > 0
		page.HasNextPage = w.page.GetBeforeSeq() > 0 && w.page.GetBeforeSeq() <= w.lastSeq
	} else {
		if more {
			messages = messages[:limit]
		}
		page.HasNextPage = more || w.page.GetBeforeSeq() > 0 && w.page.GetBeforeSeq() <= w.lastSeq
		page.HasPreviousPage = w.page.GetAfterSeq() > 0
	}
	page.Messages = messageProtos(messages)
	return page
}

// MarkRead moves the caller's read pointer forward and tells the caller's other devices.
func (s *Service) MarkRead(ctx context.Context, req *messagesv1.MarkReadRequest) (*messagesv1.MarkReadResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetSeq() < 0 {
		return nil, errs.Field(errs.Invalid, errs.OutOfRange, "seq", "seq must not be negative")
	}
	read, err := s.store.MarkRead(ctx, caller.UserID, mustID(req.GetConversationId()), req.GetSeq(),
		time.Now().UTC().Truncate(time.Microsecond))
	if errors.Is(err, store.ErrNoConversation) {
		return nil, errNoSuchConversation
	}
	if err != nil {
		return nil, translate(err)
	}
	if read.Event != nil {
		s.relay.Publish(ctx, read.Epoch, []store.Event{*read.Event})
	}
	return &messagesv1.MarkReadResponse{Conversation: conversationProto(read.Conversation, caller.UserID)}, nil
}

// GetCursor returns the cursor of the newest event in the caller's log.
func (s *Service) GetCursor(
	ctx context.Context, _ *messagesv1.GetCursorRequest,
) (*messagesv1.GetCursorResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	state, err := s.store.LogState(ctx, caller.UserID)
	if err != nil {
		return nil, translate(err)
	}
	return &messagesv1.GetCursorResponse{
		Cursor: cursor.Make(state.Epoch, caller.UserID, state.Head), Head: state.Head, Epoch: state.Epoch.ID[:],
	}, nil
}

var (
	errCursorInvalid = errs.New(errs.CursorInvalid,
		"the cursor is not one of yours, or not one of this log: read your lists anew and subscribe after their cursor")
	errCursorExpired = errs.New(errs.CursorExpired,
		"the cursor is older than the events kept: read your lists anew and subscribe after their cursor")
)

// ReadLog reads the caller's events in order: two queries.
func (s *Service) ReadLog(ctx context.Context, req *messagesv1.ReadLogRequest) (*messagesv1.ReadLogResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	state, err := s.store.LogState(ctx, caller.UserID)
	if err != nil {
		return nil, translate(err)
	}
	after, err := startOf(req, caller.UserID, state)
	if err != nil {
		return nil, err
	}
	res := &messagesv1.ReadLogResponse{LastSeq: after, Head: state.Head, Epoch: state.Epoch.ID[:]}
	if req.GetLimit() == 0 || after == state.Head {
		return res, nil
	}
	events, err := s.store.Events(ctx, caller.UserID, after, int(req.GetLimit()))
	// No event after the given one, though the head is further: retention took them after the floor was read.
	if errors.Is(err, store.ErrLogExpired) || err == nil && len(events) == 0 {
		return nil, errCursorExpired
	}
	if err != nil {
		return nil, translate(err)
	}
	res.Events = make([]*messagesv1.Event, len(events))
	for i, e := range events {
		res.Events[i] = EventProto(state.Epoch, e)
	}
	res.LastSeq = events[len(events)-1].Seq
	res.Head = max(res.Head, res.LastSeq)
	return res, nil
}

// startOf checks where a reader wants to go on, and returns its number.
func startOf(req *messagesv1.ReadLogRequest, user ids.ID, state store.LogState) (int64, error) {
	after := req.GetAfterSeq()
	if text := req.GetCursor(); text != "" {
		var err error
		if after, err = cursor.Parse(state.Epoch, user, text); err != nil {
			return 0, errCursorInvalid
		}
	} else if string(req.GetEpoch()) != string(state.Epoch.ID[:]) {
		return 0, errCursorInvalid
	}
	if after > state.Head {
		return 0, errCursorInvalid
	}
	if after < state.Floor {
		return 0, errCursorExpired
	}
	return after, nil
}

// BatchGetLogHeads returns the heads of the logs of all users whose tokens it is shown.
func (s *Service) BatchGetLogHeads(
	ctx context.Context, req *messagesv1.BatchGetLogHeadsRequest,
) (*messagesv1.BatchGetLogHeadsResponse, error) {
	users, err := s.verified(ctx, req.GetAccessTokens())
	if err != nil {
		return nil, err
	}
	epoch, err := s.store.CurrentEpoch(ctx)
	if err != nil {
		return nil, translate(err)
	}
	res := &messagesv1.BatchGetLogHeadsResponse{Epoch: epoch.ID[:]}
	if len(users) == 0 {
		return res, nil
	}
	heads, err := s.store.LogHeads(ctx, users)
	if err != nil {
		return nil, translate(err)
	}
	for _, user := range users {
		res.Heads = append(res.Heads, &messagesv1.LogHead{UserId: user.Bytes(), Head: heads[user]})
	}
	return res, nil
}

// verified returns the users of those tokens that verify. The tokens are looked at side by side: one whose key has been
// withdrawn waits for the keys to be read anew, up to a second, and many of them must not wait one after the other.
func (s *Service) verified(ctx context.Context, tokens []string) ([]ids.ID, error) {
	owners := make([]ids.ID, len(tokens))
	var checks errgroup.Group
	for i, token := range tokens {
		checks.Go(func() error {
			who, err := s.verifier.Verify(ctx, token)
			if err != nil && errs.KindOf(err) != errs.Unauthenticated {
				return err
			}
			owners[i] = who.UserID
			return nil
		})
	}
	if err := checks.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(owners, ids.ID.IsZero), nil
}

// translate gives the store's errors their kinds. What the caller can retry is unavailable.
func translate(err error) error {
	switch {
	case errors.Is(err, store.ErrClientIDReused):
		return errs.Field(errs.Conflict, errs.ClientIDReused, "client_id",
			"client_id was used for another message: make a new one for each message")
	case errors.Is(err, store.ErrNoConversation):
		return err
	case mysql.IsConnection(err), mysql.IsRetryable(err):
		return errs.Wrap(errs.Unavailable, err, "messages can't be stored or read right now: try again")
	default:
		return err
	}
}
