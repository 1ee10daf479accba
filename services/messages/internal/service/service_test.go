package service

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/services/messages/internal/cursor"
	"chatapp.dev/services/messages/internal/relay"
	"chatapp.dev/services/messages/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

// knownUsers answers for the users service that some users exist. The real one is met in the end-to-end tests.
type knownUsers struct {
	usersv1.UsersServiceClient
	known map[ids.ID]bool
}

func (k knownUsers) BatchGetUsers(
	_ context.Context, req *usersv1.BatchGetUsersRequest, _ ...grpc.CallOption,
) (*usersv1.BatchGetUsersResponse, error) {
	res := &usersv1.BatchGetUsersResponse{}
	for _, id := range req.GetIds() {
		if k.known[ids.ID(id)] {
			res.Users = append(res.Users, &usersv1.User{Id: id})
		}
	}
	return res, nil
}

// fixture is the service on a real database and Redis behind a real gRPC server.
type fixture struct {
	t      *testing.T
	client messagesv1.MessagesServiceClient
	conn   *grpc.ClientConn
	store  *store.Store
	relay  *relay.Relay
	redis  *redistest.Server
	signer *identity.Signer
	known  map[ids.ID]bool
}

func start(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	database, err := mysql.Open(t.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t)), MultiStatements: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close() })
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	redisServer := redistest.Start(t)
	rdb, err := redisclient.Connect("redis://" + redisServer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })

	f := &fixture{
		t: t, store: store.New(database), redis: redisServer, signer: signer, known: map[ids.ID]bool{},
	}
	verifier := identity.NewVerifier(signer.Fetch)
	f.relay = relay.New(rdb, f.store, EventProto, log)
	server := rpc.NewServer(rpc.ServerConfig{}, verifier, map[string]bool{
		messagesv1.MessagesService_BatchGetLogHeads_FullMethodName: true,
	}, log)
	messagesv1.RegisterMessagesServiceServer(server, New(f.store, f.relay, knownUsers{known: f.known}, verifier))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.conn, err = rpc.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- server.Serve(ctx, listener) }()
	go func() { served <- f.relay.Run(ctx) }()
	t.Cleanup(func() {
		f.conn.Close()
		cancel()
		for range 2 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	})
	f.client = messagesv1.NewMessagesServiceClient(f.conn)
	return f
}

// person makes a user and the context in which they call.
func (f *fixture) person() (ids.ID, context.Context) {
	f.t.Helper()
	id := ids.New()
	f.known[id] = true
	return id, f.as(id)
}

func (f *fixture) token(id ids.ID) string {
	f.t.Helper()
	token, _, err := f.signer.Sign(id, ids.New(), time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

func (f *fixture) as(id ids.ID) context.Context {
	return identity.With(f.t.Context(), identity.Identity{UserID: id, Token: f.token(id)})
}

func (f *fixture) send(ctx context.Context, to ids.ID, body string) *messagesv1.Message {
	f.t.Helper()
	res, err := f.client.SendMessage(ctx, &messagesv1.SendMessageRequest{
		To: &messagesv1.SendMessageRequest_RecipientId{RecipientId: to.Bytes()}, Body: body, ClientId: ids.New().String(),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return res.GetMessage()
}

func (f *fixture) wantKind(err error, kind errs.Kind, field string) {
	f.t.Helper()
	e, ok := errs.As(err)
	if !ok || e.Kind != kind || e.Field != field {
		f.t.Errorf("error is %v; want %v about %q", err, kind, field)
	}
}

func TestNoMethodServesWithoutAValidToken(t *testing.T) {
	f := start(t)
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	forger, err := identity.NewSigner([]ed25519.PrivateKey{other})
	if err != nil {
		t.Fatal(err)
	}
	forged, _, err := forger.Sign(ids.New(), ids.New(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expired, _, err := f.signer.Sign(ids.New(), ids.New(), -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, ctx := range map[string]context.Context{
		"none":    t.Context(),
		"garbage": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer garbage"),
		"forged":  metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+forged),
		"expired": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+expired),
	} {
		for _, method := range messagesv1.MessagesService_ServiceDesc.Methods {
			if method.MethodName == "BatchGetLogHeads" {
				continue // It carries its tokens in the request: see its own test.
			}
			full := "/" + messagesv1.MessagesService_ServiceDesc.ServiceName + "/" + method.MethodName
			// Every request is empty and thus invalid too: who asks is checked first, and nothing else is told.
			err := f.conn.Invoke(ctx, full, &messagesv1.GetCursorRequest{}, &messagesv1.GetCursorResponse{})
			if errs.KindOf(err) != errs.Unauthenticated {
				t.Errorf("%s with token %s: %v", method.MethodName, name, err)
			}
		}
	}
}

// Tokens of a withdrawn key wait for the keys to be read anew, which is done once a second at most.
func TestTokensOfAWithdrawnKeyDoNotHoldUpTheHeadsOfOthers(t *testing.T) {
	f := start(t)
	a, asA := f.person()
	b, _ := f.person()
	f.send(asA, b, "x")
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	withdrawn, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	tokens := []string{f.token(a)}
	for range 50 {
		token, _, err := withdrawn.Sign(ids.New(), ids.New(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	// The call has the default deadline, which fifty reads of the keys would exceed tenfold.
	res, err := f.client.BatchGetLogHeads(t.Context(), &messagesv1.BatchGetLogHeadsRequest{AccessTokens: tokens})
	if err != nil || len(res.GetHeads()) != 1 || ids.ID(res.GetHeads()[0].GetUserId()) != a {
		t.Errorf("heads are %v, %v", res, err)
	}
}

func TestHeadsAreToldOnlyForTokensThatVerify(t *testing.T) {
	f := start(t)
	a, asA := f.person()
	b, _ := f.person()
	f.send(asA, b, "x")
	res, err := f.client.BatchGetLogHeads(t.Context(), &messagesv1.BatchGetLogHeadsRequest{
		AccessTokens: []string{"garbage", f.token(a), strings.Replace(f.token(b), ".", ".x", 1)},
	})
	if err != nil || len(res.GetHeads()) != 1 || ids.ID(res.GetHeads()[0].GetUserId()) != a || res.GetHeads()[0].GetHead() != 1 {
		t.Errorf("heads are %v, %v", res, err)
	}
}

func TestSendingRefusesBadInputByFieldAndStoresNothing(t *testing.T) {
	f := start(t)
	a, asA := f.person()
	b, asB := f.person()
	conversation := f.send(asA, b, "first").GetConversationId()
	_, stranger := f.person()
	to := &messagesv1.SendMessageRequest_RecipientId{RecipientId: b.Bytes()}
	id := ids.New().String()
	for name, c := range map[string]struct {
		ctx   context.Context
		req   *messagesv1.SendMessageRequest
		kind  errs.Kind
		field string
	}{
		"blank":                  {asA, &messagesv1.SendMessageRequest{To: to, Body: " \n", ClientId: id}, errs.Invalid, "body"},
		"too long":               {asA, &messagesv1.SendMessageRequest{To: to, Body: strings.Repeat("é", 4001), ClientId: id}, errs.Invalid, "body"},
		"control character":      {asA, &messagesv1.SendMessageRequest{To: to, Body: "a\x07", ClientId: id}, errs.Invalid, "body"},
		"no client id":           {asA, &messagesv1.SendMessageRequest{To: to, Body: "x"}, errs.Invalid, "client_id"},
		"bad client id":          {asA, &messagesv1.SendMessageRequest{To: to, Body: "x", ClientId: "17"}, errs.Invalid, "client_id"},
		"nobody":                 {asA, &messagesv1.SendMessageRequest{Body: "x", ClientId: id}, errs.Invalid, "to"},
		"unknown recipient":      {asA, &messagesv1.SendMessageRequest{To: &messagesv1.SendMessageRequest_RecipientId{RecipientId: ids.New().Bytes()}, Body: "x", ClientId: id}, errs.NotFound, "recipient_id"},
		"unknown conversation":   {asA, &messagesv1.SendMessageRequest{To: &messagesv1.SendMessageRequest_ConversationId{ConversationId: ids.New().Bytes()}, Body: "x", ClientId: id}, errs.NotFound, "conversation_id"},
		"not their conversation": {stranger, &messagesv1.SendMessageRequest{To: &messagesv1.SendMessageRequest_ConversationId{ConversationId: conversation}, Body: "x", ClientId: id}, errs.NotFound, "conversation_id"},
	} {
		_, err := f.client.SendMessage(c.ctx, c.req)
		t.Log(name, err)
		f.wantKind(err, c.kind, c.field)
	}
	for _, ctx := range []context.Context{asA, asB} {
		if res, err := f.client.GetCursor(ctx, &messagesv1.GetCursorRequest{}); err != nil || res.GetHead() != 1 {
			t.Errorf("the log's head is %d, %v; want 1", res.GetHead(), err)
		}
	}
	if _, err := f.client.GetConversationWith(asA, &messagesv1.GetConversationWithRequest{UserId: a.Bytes()}); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a conversation was made: %v", err)
	}
}

func TestRepeatedClientIDIsTheFirstMessageOrAConflict(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, _ := f.person()
	c, _ := f.person()
	id := ids.New().String()
	send := func(to ids.ID, body string) (*messagesv1.Message, error) {
		res, err := f.client.SendMessage(asA, &messagesv1.SendMessageRequest{
			To: &messagesv1.SendMessageRequest_RecipientId{RecipientId: to.Bytes()}, Body: body, ClientId: id,
		})
		return res.GetMessage(), err
	}
	first, err := send(b, "once")
	if err != nil {
		t.Fatal(err)
	}
	// The same text once it is normalised, and the id in another case.
	id = strings.ToUpper(id)
	if again, err := send(b, " once\r\n"); err != nil || !proto.Equal(first, again) {
		t.Errorf("again: %v, %v; want %v", again, err, first)
	}
	_, err = send(b, "twice")
	f.wantKind(err, errs.Conflict, "client_id")
	_, err = send(c, "once")
	f.wantKind(err, errs.Conflict, "client_id")
}

func TestAStrangersAnswersAreThoseForWhatDoesNotExist(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, _ := f.person()
	theirs := f.send(asA, b, "secret").GetConversationId()
	_, stranger := f.person()
	none := ids.New().Bytes()
	for name, call := range map[string]func(conversation []byte) (proto.Message, error){
		"conversations": func(c []byte) (proto.Message, error) {
			return f.client.BatchGetConversations(stranger, &messagesv1.BatchGetConversationsRequest{Ids: [][]byte{c}})
		},
		"messages": func(c []byte) (proto.Message, error) {
			return f.client.BatchGetMessages(stranger, &messagesv1.BatchGetMessagesRequest{Refs: []*messagesv1.MessageRef{{ConversationId: c, Seq: 1}}})
		},
		"history": func(c []byte) (proto.Message, error) {
			return f.client.BatchListMessages(stranger, &messagesv1.BatchListMessagesRequest{Requests: []*messagesv1.HistoryRequest{
				{ConversationId: c, Page: &messagesv1.PageRange{Limit: 5, FromEnd: true}},
			}})
		},
		"mark read": func(c []byte) (proto.Message, error) {
			return f.client.MarkRead(stranger, &messagesv1.MarkReadRequest{ConversationId: c, Seq: 1})
		},
		"send": func(c []byte) (proto.Message, error) {
			return f.client.SendMessage(stranger, &messagesv1.SendMessageRequest{
				To: &messagesv1.SendMessageRequest_ConversationId{ConversationId: c}, Body: "x", ClientId: ids.New().String(),
			})
		},
	} {
		gotReal, errReal := call(theirs)
		gotNone, errNone := call(none)
		if !proto.Equal(gotReal, gotNone) || fmt.Sprint(errReal) != fmt.Sprint(errNone) {
			t.Errorf("%s tells them apart: %v, %v and %v, %v", name, gotReal, errReal, gotNone, errNone)
		}
	}
	if res, err := f.client.ListConversations(stranger, &messagesv1.ListConversationsRequest{PageSize: 10}); err != nil || len(res.GetConversations()) != 0 {
		t.Errorf("a stranger lists %v, %v", res, err)
	}
}

func TestPagesSayWhatLiesAroundThem(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, _ := f.person()
	var conversation []byte
	for i := range 10 {
		conversation = f.send(asA, b, fmt.Sprint(i+1)).GetConversationId()
	}
	for name, c := range map[string]struct {
		page       *messagesv1.PageRange
		first      int64
		n          int
		prev, next bool
	}{
		"newest":           {&messagesv1.PageRange{Limit: 3, FromEnd: true}, 8, 3, true, false},
		"before":           {&messagesv1.PageRange{Limit: 3, BeforeSeq: 8, FromEnd: true}, 5, 3, true, true},
		"before, to start": {&messagesv1.PageRange{Limit: 3, BeforeSeq: 3, FromEnd: true}, 1, 2, false, true},
		"oldest":           {&messagesv1.PageRange{Limit: 3}, 1, 3, false, true},
		"after":            {&messagesv1.PageRange{Limit: 3, AfterSeq: 3}, 4, 3, true, true},
		"after, to end":    {&messagesv1.PageRange{Limit: 3, AfterSeq: 8}, 9, 2, true, false},
		"all":              {&messagesv1.PageRange{Limit: 100, FromEnd: true}, 1, 10, false, false},
		"none":             {&messagesv1.PageRange{Limit: 0}, 0, 0, false, true},
	} {
		res, err := f.client.BatchGetConversations(asA, &messagesv1.BatchGetConversationsRequest{Ids: [][]byte{conversation}, Page: c.page})
		if err != nil {
			t.Fatal(err)
		}
		page := res.GetConversations()[0].GetPage()
		if len(page.GetMessages()) != c.n || page.GetHasPreviousPage() != c.prev || page.GetHasNextPage() != c.next ||
			c.n > 0 && page.GetMessages()[0].GetSeq() != c.first {
			t.Errorf("%s: %v", name, page)
		}
	}
}

func TestLogIsReadOnFromACursor(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, asB := f.person()
	before, err := f.client.GetCursor(asB, &messagesv1.GetCursorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		f.send(asA, b, fmt.Sprint(i))
	}
	at := before.GetCursor()
	for want := int64(1); want <= 5; want += 2 {
		res, err := f.client.ReadLog(asB, &messagesv1.ReadLogRequest{From: &messagesv1.ReadLogRequest_Cursor{Cursor: at}, Limit: 2})
		if err != nil || res.GetHead() != 5 || res.GetEvents()[0].GetSeq() != want {
			t.Fatalf("page is %v, %v", res, err)
		}
		at = res.GetEvents()[len(res.GetEvents())-1].GetCursor()
	}
	res, err := f.client.ReadLog(asB, &messagesv1.ReadLogRequest{From: &messagesv1.ReadLogRequest_Cursor{Cursor: at}, Limit: 2})
	if err != nil || len(res.GetEvents()) != 0 || res.GetLastSeq() != 5 {
		t.Errorf("after the end: %v, %v", res, err)
	}
}

func TestCursorsThatAreNoneAreRefused(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, asB := f.person()
	for range 3 {
		f.send(asA, b, "x")
	}
	theirs, err := f.client.GetCursor(asA, &messagesv1.GetCursorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := f.store.CurrentEpoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := cursor.Make(epoch, b, 0)
	for name, text := range map[string]string{
		"another user's": theirs.GetCursor(), "garbage": "garbage", "above the head": cursor.Make(epoch, b, 4),
		"of another epoch": cursor.Make(store.Epoch{Key: epoch.Key}, b, 1),
	} {
		_, err := f.client.ReadLog(asB, &messagesv1.ReadLogRequest{From: &messagesv1.ReadLogRequest_Cursor{Cursor: text}, Limit: 1})
		if errs.KindOf(err) != errs.CursorInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = f.client.ReadLog(asB, &messagesv1.ReadLogRequest{
		From: &messagesv1.ReadLogRequest_AfterSeq{AfterSeq: 1}, Epoch: []byte("elsewhen"), Limit: 1,
	})
	if errs.KindOf(err) != errs.CursorInvalid {
		t.Errorf("a number of another epoch: %v", err)
	}
	// Retention deletes what the cursor's reader has not seen.
	var refs []store.EventRef
	for seq := range int64(3) {
		refs = append(refs, store.EventRef{UserID: b, Seq: seq + 1})
	}
	if err := f.store.MarkRelayed(t.Context(), refs); err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.DeleteEventsBefore(t.Context(), b, time.Now().Add(time.Hour), 2); err != nil {
		t.Fatal(err)
	}
	_, err = f.client.ReadLog(asB, &messagesv1.ReadLogRequest{From: &messagesv1.ReadLogRequest_Cursor{Cursor: old}, Limit: 1})
	if errs.KindOf(err) != errs.CursorExpired {
		t.Errorf("an expired cursor: %v", err)
	}
}

func TestEventsReachRedisAtOnceOrByTheSweeper(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, _ := f.person()
	rdb, err := redisclient.Connect("redis://" + f.redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	hints := rdb.Subscribe(t.Context(), api.UserChannel(b.String()))
	defer hints.Close()
	if _, err := hints.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := func() *eventsv1.Envelope {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		message, err := hints.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var envelope eventsv1.Envelope
		if err := proto.Unmarshal([]byte(message.Payload), &envelope); err != nil {
			t.Fatal(err)
		}
		return &envelope
	}
	sent := f.send(asA, b, "at once")
	if got := next(); got.GetEvent().GetSeq() != 1 || !proto.Equal(got.GetEvent().GetMessage(), sent) || ids.ID(got.GetUserId()) != b {
		t.Errorf("hint is %v", got)
	}

	// Committed by a process that died before it published.
	late := ids.New()
	if _, err := f.store.Send(t.Context(), store.NewMessage{
		ConversationID: ids.ID(sent.GetConversationId()), Users: store.Pair(ids.ID(sent.GetSenderId()), b),
		SenderID: b, ClientID: late, Body: "late", Now: time.Now().UTC(),
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	swept := make(chan error, 1)
	go func() { swept <- f.relay.Sweep(ctx) }()
	if got := next(); got.GetEvent().GetSeq() != 2 || got.GetEvent().GetMessage().GetClientId() != late.String() {
		t.Errorf("hint is %v", got)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		left, err := f.store.UnrelayedEvents(t.Context(), time.Now().Add(time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events keep their flag", len(left))
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	if err := <-swept; err != nil {
		t.Error(err)
	}
}

func TestSendingGoesOnWithoutRedisAndEventsFollow(t *testing.T) {
	f := start(t)
	_, asA := f.person()
	b, _ := f.person()
	f.send(asA, b, "before")
	f.redis.Stop()
	for i := range 5 {
		f.send(asA, b, fmt.Sprint("while away ", i))
	}
	f.redis.Restart()
	ctx, cancel := context.WithCancel(t.Context())
	swept := make(chan error, 1)
	go func() { swept <- f.relay.Sweep(ctx) }()
	defer func() {
		cancel()
		if err := <-swept; err != nil {
			t.Error(err)
		}
	}()
	deadline := time.Now().Add(30 * time.Second)
	for {
		left, err := f.store.UnrelayedEvents(t.Context(), time.Now().Add(time.Hour), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events were never published", len(left))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
