package graph

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/rpc"
)

// world is the services users and messages in memory, behind gRPC servers that check tokens and requests as the real
// ones do. It counts its calls and can be told to fail them. What it does not do is publish to Redis: the hub finds
// every event by comparing heads.
type world struct {
	signer   *identity.Signer
	verifier *identity.Verifier

	mu            sync.Mutex
	calls         map[string]int
	hooks         map[string]func()
	failures      map[string]error
	users         []*usersv1.User
	passwords     map[string]string
	conversations []*talk
	logs          map[ids.ID][]*messagesv1.Event
	byClientID    map[string]*messagesv1.Message
	revoked       []*usersv1.RevokedSession
	// refused are tokens that users does not accept although they are good.
	refused map[string]bool
	clock   int64
}

// talk is a conversation of two users, or of one with itself.
type talk struct {
	id       ids.ID
	people   [2]ids.ID
	messages []*messagesv1.Message
	read     map[ids.ID]int64
}

var epoch = []byte("epoch-01")

// person is a user of the world and a token of theirs.
type person struct {
	id    ids.ID
	name  string
	token string
}

// newWorld starts the two services and returns their addresses.
func newWorld(t *testing.T) (w *world, usersAddr, messagesAddr string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	w = &world{
		signer:     signer,
		verifier:   identity.NewVerifier(signer.Fetch),
		calls:      map[string]int{},
		hooks:      map[string]func(){},
		failures:   map[string]error{},
		passwords:  map[string]string{},
		logs:       map[ids.ID][]*messagesv1.Event{},
		refused:    map[string]bool{},
		byClientID: map[string]*messagesv1.Message{},
		clock:      time.Date(2025, 6, 1, 9, 30, 0, 123456000, time.UTC).UnixMicro(),
	}
	usersAddr = w.serve(t, map[string]bool{
		usersv1.UsersService_SignUp_FullMethodName:          true,
		usersv1.UsersService_SignIn_FullMethodName:          true,
		usersv1.UsersService_GetSigningKeys_FullMethodName:  true,
		usersv1.UsersService_ListRevocations_FullMethodName: true,
	}, func(s *rpc.Server) { usersv1.RegisterUsersServiceServer(s, &usersServer{world: w}) })
	messagesAddr = w.serve(t, map[string]bool{
		messagesv1.MessagesService_BatchGetLogHeads_FullMethodName: true,
	}, func(s *rpc.Server) { messagesv1.RegisterMessagesServiceServer(s, &messagesServer{world: w}) })
	return w, usersAddr, messagesAddr
}

func (w *world) serve(t *testing.T, public map[string]bool, register func(*rpc.Server)) string {
	t.Helper()
	server := rpc.NewServer(rpc.ServerConfig{}, w.verifier, public, slog.New(slog.DiscardHandler))
	register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// add makes a user.
func (w *world) add(t *testing.T, name string) person {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	id := ids.New()
	w.users = append(w.users, &usersv1.User{Id: id.Bytes(), Username: name, DisplayName: strings.ToUpper(name)})
	w.passwords[name] = "correct horse"
	return person{id: id, name: name, token: w.token(t, id, time.Hour)}
}

func (w *world) token(t *testing.T, id ids.ID, ttl time.Duration) string {
	t.Helper()
	token, _, err := w.signer.Sign(id, ids.New(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// revoke ends a token's session as if it had been signed out somewhere else.
func (w *world) revoke(t *testing.T, token string) {
	t.Helper()
	who, err := w.verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked = append(w.revoked, &usersv1.RevokedSession{
		Id: who.SessionID.Bytes(), TokensEndAtMs: who.ExpiresAt.UnixMilli(),
	})
}

// send stores a message as if it had come from somewhere else.
func (w *world) send(from, to person, body string) *messagesv1.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(w.between(from.id, to.id), from.id, body, ids.New().String())
}

// fail makes a method fail from now on; nil mends it.
func (w *world) fail(method string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures[method] = err
}

// counted returns how often each method was called while f ran.
func (w *world) counted(f func()) map[string]int {
	w.mu.Lock()
	w.calls = map[string]int{}
	w.mu.Unlock()
	f()
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = map[string]int{}
	// These are the verifier's and the hub's own.
	delete(calls, "GetSigningKeys")
	delete(calls, "ListRevocations")
	delete(calls, "BatchGetLogHeads")
	return calls
}

// hook makes each call of a method run f before it does anything, from now on.
func (w *world) hook(method string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks[method] = f
}

// enter counts a call and returns with w.mu held, unless the call is to fail.
func (w *world) enter(method string) error {
	w.mu.Lock()
	w.calls[method]++
	if f := w.hooks[method]; f != nil {
		w.mu.Unlock()
		f()
		w.mu.Lock()
	}
	if err := w.failures[method]; err != nil {
		w.mu.Unlock()
		return err
	}
	return nil
}

func (w *world) between(a, b ids.ID) *talk {
	for _, c := range w.conversations {
		if c.people == [2]ids.ID{a, b} || c.people == [2]ids.ID{b, a} {
			return c
		}
	}
	c := &talk{id: ids.New(), people: [2]ids.ID{a, b}, read: map[ids.ID]int64{}}
	w.conversations = append(w.conversations, c)
	return c
}

func (w *world) find(id []byte, reader ids.ID) *talk {
	for _, c := range w.conversations {
		if bytes.Equal(c.id.Bytes(), id) && slices.Contains(c.people[:], reader) {
			return c
		}
	}
	return nil
}

func (w *world) append(c *talk, sender ids.ID, body, clientID string) *messagesv1.Message {
	w.clock += 1000
	m := &messagesv1.Message{
		ConversationId: c.id.Bytes(),
		Seq:            int64(len(c.messages)) + 1,
		SenderId:       sender.Bytes(),
		Body:           body,
		SentAtUs:       w.clock,
		ClientId:       clientID,
	}
	c.messages = append(c.messages, m)
	c.read[sender] = m.Seq
	for _, reader := range slices.Compact(slices.Clone(c.people[:])) {
		seq := int64(len(w.logs[reader])) + 1
		w.logs[reader] = append(w.logs[reader], &messagesv1.Event{
			Seq: seq, Cursor: cursorOf(reader, seq), Kind: &messagesv1.Event_Message{Message: m},
		})
	}
	w.byClientID[sender.String()+clientID] = m
	return m
}

func cursorOf(reader ids.ID, seq int64) string { return fmt.Sprintf("log-%s-%d", reader, seq) }

func (c *talk) seenBy(reader ids.ID) *messagesv1.Conversation {
	with := c.people[0]
	if with == reader {
		with = c.people[1]
	}
	return &messagesv1.Conversation{
		Id:          c.id.Bytes(),
		WithUserId:  with.Bytes(),
		LastMessage: c.messages[len(c.messages)-1],
		ReadSeq:     c.read[reader],
		UnreadCount: int64(len(c.messages)) - c.read[reader],
	}
}

func (c *talk) page(wanted *messagesv1.PageRange) *messagesv1.MessagePage {
	first, end := wanted.GetAfterSeq(), int64(len(c.messages))
	if before := wanted.GetBeforeSeq(); before > 0 {
		end = min(end, before-1)
	}
	first = min(first, end)
	if limit := int64(wanted.GetLimit()); end-first > limit {
		if wanted.GetFromEnd() {
			first = end - limit
		} else {
			end = first + limit
		}
	}
	return &messagesv1.MessagePage{
		Messages:        c.messages[first:end],
		HasPreviousPage: first > 0,
		HasNextPage:     end < int64(len(c.messages)),
	}
}

type usersServer struct {
	usersv1.UnimplementedUsersServiceServer
	*world
}

func (s *usersServer) SignUp(_ context.Context, r *usersv1.SignUpRequest) (*usersv1.SignUpResponse, error) {
	if err := s.enter("SignUp"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if _, taken := s.passwords[r.Username]; taken {
		return nil, errs.Field(errs.Conflict, errs.Taken, "username", "this username is taken")
	}
	id := ids.New()
	user := &usersv1.User{Id: id.Bytes(), Username: r.Username, DisplayName: cmp.Or(r.DisplayName, r.Username)}
	s.users = append(s.users, user)
	s.passwords[r.Username] = r.Password
	return &usersv1.SignUpResponse{User: user, AccessToken: s.accessToken(id)}, nil
}

func (s *usersServer) SignIn(_ context.Context, r *usersv1.SignInRequest) (*usersv1.SignInResponse, error) {
	if err := s.enter("SignIn"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for _, user := range s.users {
		if user.Username == r.Login && s.passwords[r.Login] == r.Password {
			return &usersv1.SignInResponse{User: user, AccessToken: s.accessToken(ids.ID(user.Id))}, nil
		}
	}
	return nil, errs.Field(errs.Invalid, errs.InvalidCredentials, "", "no account has this name and password")
}

func (s *usersServer) SignOut(ctx context.Context, _ *usersv1.SignOutRequest) (*usersv1.SignOutResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.enter("SignOut"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	s.revoked = append(s.revoked, &usersv1.RevokedSession{
		Id: caller.SessionID.Bytes(), TokensEndAtMs: caller.ExpiresAt.UnixMilli(),
	})
	return &usersv1.SignOutResponse{}, nil
}

func (s *usersServer) ListRevocations(
	context.Context, *usersv1.ListRevocationsRequest,
) (*usersv1.ListRevocationsResponse, error) {
	if err := s.enter("ListRevocations"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return &usersv1.ListRevocationsResponse{Sessions: slices.Clone(s.revoked)}, nil
}

func (s *usersServer) accessToken(id ids.ID) *usersv1.AccessToken {
	token, expires, err := s.signer.Sign(id, ids.New(), time.Hour)
	if err != nil {
		panic(err)
	}
	return &usersv1.AccessToken{Token: token, ExpiresAtMs: expires.UnixMilli()}
}

func (s *usersServer) BatchGetUsers(
	ctx context.Context, r *usersv1.BatchGetUsersRequest,
) (*usersv1.BatchGetUsersResponse, error) {
	if err := s.enter("BatchGetUsers"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if caller, ok := identity.From(ctx); ok && s.refused[caller.Token] {
		return nil, errs.New(errs.Unauthenticated, "this token is not accepted")
	}
	response := &usersv1.BatchGetUsersResponse{}
	for _, user := range s.users {
		if slices.ContainsFunc(r.Ids, func(id []byte) bool { return bytes.Equal(id, user.Id) }) {
			response.Users = append(response.Users, user)
		}
	}
	return response, nil
}

func (s *usersServer) SearchUsers(
	ctx context.Context, r *usersv1.SearchUsersRequest,
) (*usersv1.SearchUsersResponse, error) {
	if err := s.enter("SearchUsers"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	response := &usersv1.SearchUsersResponse{}
	sorted := slices.SortedFunc(slices.Values(s.users), func(a, b *usersv1.User) int { return cmp.Compare(a.Username, b.Username) })
	for _, user := range sorted {
		if user.Username <= r.AfterUsername || !strings.HasPrefix(user.Username, r.Prefix) ||
			bytes.Equal(user.Id, caller.UserID.Bytes()) {
			continue
		}
		if len(response.Users) == int(r.PageSize) {
			response.HasNextPage = true
			break
		}
		response.Users = append(response.Users, user)
	}
	return response, nil
}

func (s *usersServer) GetSigningKeys(
	context.Context, *usersv1.GetSigningKeysRequest,
) (*usersv1.GetSigningKeysResponse, error) {
	if err := s.enter("GetSigningKeys"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return &usersv1.GetSigningKeysResponse{Jwks: s.signer.JWKS()}, nil
}

type messagesServer struct {
	messagesv1.UnimplementedMessagesServiceServer
	*world
}

var errNoConversation = errs.Field(errs.NotFound, errs.UnknownReference, "conversation_id", "no such conversation")

// as is enter for a caller.
func (s *messagesServer) as(ctx context.Context, method string) (ids.ID, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return ids.ID{}, err
	}
	return caller.UserID, s.enter(method)
}

func (s *messagesServer) SendMessage(
	ctx context.Context, r *messagesv1.SendMessageRequest,
) (*messagesv1.SendMessageResponse, error) {
	caller, err := s.as(ctx, "SendMessage")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if strings.TrimSpace(r.Body) == "" {
		return nil, errs.Field(errs.Invalid, errs.Required, "body", "body must not be blank")
	}
	if _, err := ids.Parse(r.ClientId); err != nil {
		return nil, errs.Field(errs.Invalid, errs.InvalidFormat, "client_id", "client_id must be a UUID")
	}
	if sent := s.byClientID[caller.String()+r.ClientId]; sent != nil {
		if sent.Body != r.Body {
			return nil, errs.Field(errs.Conflict, errs.ClientIDReused, "client_id", "client_id stands for another message")
		}
		return &messagesv1.SendMessageResponse{Message: sent}, nil
	}
	var to *talk
	if id := r.GetConversationId(); id != nil {
		to = s.find(id, caller)
		if to == nil {
			return nil, errNoConversation
		}
	} else {
		known := func(u *usersv1.User) bool { return bytes.Equal(u.Id, r.GetRecipientId()) }
		if !slices.ContainsFunc(s.users, known) {
			return nil, errs.Field(errs.NotFound, errs.UnknownReference, "recipient_id", "no such user")
		}
		to = s.between(caller, ids.ID(r.GetRecipientId()))
	}
	return &messagesv1.SendMessageResponse{Message: s.append(to, caller, r.Body, r.ClientId)}, nil
}

func (s *messagesServer) BatchGetMessages(
	ctx context.Context, r *messagesv1.BatchGetMessagesRequest,
) (*messagesv1.BatchGetMessagesResponse, error) {
	caller, err := s.as(ctx, "BatchGetMessages")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	response := &messagesv1.BatchGetMessagesResponse{}
	for _, ref := range r.Refs {
		if c := s.find(ref.ConversationId, caller); c != nil && ref.Seq <= int64(len(c.messages)) {
			response.Messages = append(response.Messages, c.messages[ref.Seq-1])
		}
	}
	return response, nil
}

func (s *messagesServer) BatchGetConversations(
	ctx context.Context, r *messagesv1.BatchGetConversationsRequest,
) (*messagesv1.BatchGetConversationsResponse, error) {
	caller, err := s.as(ctx, "BatchGetConversations")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	response := &messagesv1.BatchGetConversationsResponse{}
	for _, id := range r.Ids {
		if c := s.find(id, caller); c != nil {
			seen := c.seenBy(caller)
			if r.Page != nil {
				seen.Page = c.page(r.Page)
			}
			response.Conversations = append(response.Conversations, seen)
		}
	}
	return response, nil
}

func (s *messagesServer) GetConversationWith(
	ctx context.Context, r *messagesv1.GetConversationWithRequest,
) (*messagesv1.GetConversationWithResponse, error) {
	caller, err := s.as(ctx, "GetConversationWith")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for _, c := range s.conversations {
		if with := ids.ID(r.UserId); c.people == [2]ids.ID{caller, with} || c.people == [2]ids.ID{with, caller} {
			seen := c.seenBy(caller)
			if r.Page != nil {
				seen.Page = c.page(r.Page)
			}
			return &messagesv1.GetConversationWithResponse{Conversation: seen}, nil
		}
	}
	return nil, errs.Field(errs.NotFound, errs.UnknownReference, "user_id", "no such conversation")
}

func (s *messagesServer) ListConversations(
	ctx context.Context, r *messagesv1.ListConversationsRequest,
) (*messagesv1.ListConversationsResponse, error) {
	caller, err := s.as(ctx, "ListConversations")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var list []*messagesv1.Conversation
	for _, c := range s.conversations {
		if slices.Contains(c.people[:], caller) {
			list = append(list, c.seenBy(caller))
		}
	}
	slices.SortFunc(list, func(a, b *messagesv1.Conversation) int {
		return cmp.Compare(b.LastMessage.SentAtUs, a.LastMessage.SentAtUs)
	})
	if r.After != nil {
		list = slices.DeleteFunc(list, func(c *messagesv1.Conversation) bool {
			return c.LastMessage.SentAtUs >= r.After.LastMessageAtUs
		})
	}
	response := &messagesv1.ListConversationsResponse{Conversations: list}
	if len(list) > int(r.PageSize) {
		response.Conversations, response.HasNextPage = list[:r.PageSize], true
	}
	return response, nil
}

func (s *messagesServer) BatchListMessages(
	ctx context.Context, r *messagesv1.BatchListMessagesRequest,
) (*messagesv1.BatchListMessagesResponse, error) {
	caller, err := s.as(ctx, "BatchListMessages")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	response := &messagesv1.BatchListMessagesResponse{}
	for _, wanted := range r.Requests {
		page := &messagesv1.MessagePage{}
		if c := s.find(wanted.ConversationId, caller); c != nil {
			page = c.page(wanted.Page)
		}
		response.Pages = append(response.Pages, page)
	}
	return response, nil
}

func (s *messagesServer) MarkRead(
	ctx context.Context, r *messagesv1.MarkReadRequest,
) (*messagesv1.MarkReadResponse, error) {
	caller, err := s.as(ctx, "MarkRead")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if r.Seq < 0 {
		return nil, errs.Field(errs.Invalid, errs.OutOfRange, "seq", "seq must not be negative")
	}
	c := s.find(r.ConversationId, caller)
	if c == nil {
		return nil, errNoConversation
	}
	c.read[caller] = max(c.read[caller], min(r.Seq, int64(len(c.messages))))
	return &messagesv1.MarkReadResponse{Conversation: c.seenBy(caller)}, nil
}

func (s *messagesServer) GetCursor(
	ctx context.Context, _ *messagesv1.GetCursorRequest,
) (*messagesv1.GetCursorResponse, error) {
	caller, err := s.as(ctx, "GetCursor")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	head := int64(len(s.logs[caller]))
	return &messagesv1.GetCursorResponse{Cursor: cursorOf(caller, head), Head: head, Epoch: epoch}, nil
}

func (s *messagesServer) ReadLog(
	ctx context.Context, r *messagesv1.ReadLogRequest,
) (*messagesv1.ReadLogResponse, error) {
	caller, err := s.as(ctx, "ReadLog")
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	log := s.logs[caller]
	after := r.GetAfterSeq()
	if cursor := r.GetCursor(); cursor != "" {
		after = -1
		for seq := range int64(len(log)) + 1 {
			if cursorOf(caller, seq) == cursor {
				after = seq
			}
		}
	}
	if after < 0 || after > int64(len(log)) {
		return nil, errs.New(errs.CursorInvalid, "the cursor is not one that was given to you")
	}
	end := min(int64(len(log)), after+int64(r.Limit))
	return &messagesv1.ReadLogResponse{Events: log[after:end], LastSeq: end, Head: int64(len(log)), Epoch: epoch}, nil
}

func (s *messagesServer) BatchGetLogHeads(
	ctx context.Context, r *messagesv1.BatchGetLogHeadsRequest,
) (*messagesv1.BatchGetLogHeadsResponse, error) {
	response := &messagesv1.BatchGetLogHeadsResponse{Epoch: epoch}
	if err := s.enter("BatchGetLogHeads"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for _, token := range r.AccessTokens {
		if who, err := s.verifier.Verify(ctx, token); err == nil {
			response.Heads = append(response.Heads, &messagesv1.LogHead{
				UserId: who.UserID.Bytes(), Head: int64(len(s.logs[who.UserID])),
			})
		}
	}
	return response, nil
}
