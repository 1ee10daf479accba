// Package loader reads for resolvers what many of them ask for at the same time, in one call for all.
//
// Loaders live for one response: a query, a mutation, or one event of a subscription. Within it a thing is read at most
// once, so that every part of a response tells the same; nothing is kept for the next one, so that no response is
// older than its request.
//
// A batch is collected for a quarter of a millisecond. Whoever knows beforehand what a response needs need not hope
// that so much is enough: Announce puts keys into a batch before anybody asks for them, and Now reads them in one call
// without waiting at all.
package loader

import (
	"context"
	"errors"
	"time"

	"github.com/vikstrous/dataloadgen"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/model"
)

// wait is how long a batch is open for others to join.
const wait = 250 * time.Microsecond

// The services' own limits on a batch.
const (
	maxUsers         = 200
	maxMessages      = 200
	maxConversations = 200
	maxPages         = 100
)

// Loaders are those of one response.
type Loaders struct {
	// Users has nil for an id that no account has.
	Users *Loader[ids.ID, *model.User]
	// Messages and Conversations have nil for what does not exist or is not the caller's to see.
	Messages      *Loader[MessageKey, *messagesv1.Message]
	Conversations *Loader[ids.ID, *messagesv1.Conversation]
	Pages         *Loader[PageKey, *messagesv1.MessagePage]
}

// MessageKey names a message.
type MessageKey struct {
	ConversationID ids.ID
	Seq            int64
}

// PageKey names a page of a conversation's history.
type PageKey struct {
	ConversationID ids.ID
	Range          Range
}

// Range is messagesv1.PageRange as a value that can be compared.
type Range struct {
	AfterSeq  int64
	BeforeSeq int64
	Limit     int32
	FromEnd   bool
}

// Proto returns the range as the service messages takes it.
func (r Range) Proto() *messagesv1.PageRange {
	return &messagesv1.PageRange{AfterSeq: r.AfterSeq, BeforeSeq: r.BeforeSeq, Limit: r.Limit, FromEnd: r.FromEnd}
}

// New returns loaders for one response. They call with the context of whoever asks first, and so in the name of the
// caller to whom the response goes.
func New(users usersv1.UsersServiceClient, messages messagesv1.MessagesServiceClient) *Loaders {
	return &Loaders{
		Users:         newLoader(maxUsers, fetchUsers(users)),
		Messages:      newLoader(maxMessages, fetchMessages(messages)),
		Conversations: newLoader(maxConversations, fetchConversations(messages)),
		Pages:         newLoader(maxPages, fetchPages(messages)),
	}
}

type contextKey struct{}

// With returns a context in which From finds the loaders.
func With(ctx context.Context, loaders *Loaders) context.Context {
	return context.WithValue(ctx, contextKey{}, loaders)
}

// From returns the loaders of the response that ctx belongs to. It panics when there are none: every response has them.
func From(ctx context.Context) *Loaders {
	return ctx.Value(contextKey{}).(*Loaders)
}

// Loader reads values of one type.
type Loader[K comparable, V any] struct {
	*dataloadgen.Loader[K, V]

	most  int
	fetch fetch[K, V]
}

// fetch reads values for at most as many keys as a batch may have. A key that is left out has the zero value.
type fetch[K comparable, V any] func(ctx context.Context, keys []K) (map[K]V, error)

func newLoader[K comparable, V any](most int, fetch fetch[K, V]) *Loader[K, V] {
	batch := func(ctx context.Context, keys []K) ([]V, []error) {
		found, err := fetch(ctx, keys)
		if err != nil {
			return nil, []error{err}
		}
		values := make([]V, len(keys))
		for i, key := range keys {
			values[i] = found[key]
		}
		return values, nil
	}
	return &Loader[K, V]{
		Loader: dataloadgen.NewLoader(batch, dataloadgen.WithWait(wait), dataloadgen.WithBatchCapacity(most)),
		most:   most,
		fetch:  fetch,
	}
}

// Announce starts to read values that will be asked for, and does not wait for them.
func (l *Loader[K, V]) Announce(ctx context.Context, keys []K) {
	for _, key := range keys {
		l.LoadThunk(ctx, key)
	}
}

// Now reads values at once, for whoever knows that nobody else has anything to add. They are then there for Load.
func (l *Loader[K, V]) Now(ctx context.Context, keys []K) error {
	if len(keys) == 0 {
		return nil
	}
	if len(keys) > l.most {
		// More than a call takes: the batches sort it out.
		l.Announce(ctx, keys)
		return nil
	}
	found, err := l.fetch(ctx, keys)
	if err != nil {
		return err
	}
	for _, key := range keys {
		l.Prime(key, found[key])
	}
	return nil
}

func fetchUsers(users usersv1.UsersServiceClient) fetch[ids.ID, *model.User] {
	return func(ctx context.Context, keys []ids.ID) (map[ids.ID]*model.User, error) {
		response, err := users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{Ids: rawIDs(keys)})
		if err != nil {
			return nil, err
		}
		found := make(map[ids.ID]*model.User, len(keys))
		for _, u := range response.GetUsers() {
			user, err := model.NewUser(u)
			if err != nil {
				return nil, err
			}
			found[user.UserID] = user
		}
		return found, nil
	}
}

func fetchMessages(messages messagesv1.MessagesServiceClient) fetch[MessageKey, *messagesv1.Message] {
	return func(ctx context.Context, keys []MessageKey) (map[MessageKey]*messagesv1.Message, error) {
		request := &messagesv1.BatchGetMessagesRequest{}
		for _, key := range keys {
			request.Refs = append(request.Refs, &messagesv1.MessageRef{
				ConversationId: key.ConversationID.Bytes(),
				Seq:            key.Seq,
			})
		}
		response, err := messages.BatchGetMessages(ctx, request)
		if err != nil {
			return nil, err
		}
		found := make(map[MessageKey]*messagesv1.Message, len(keys))
		for _, message := range response.GetMessages() {
			id, err := ids.FromBytes(message.GetConversationId())
			if err != nil {
				return nil, errs.Wrap(errs.Internal, err, "a message's conversation is malformed")
			}
			found[MessageKey{ConversationID: id, Seq: message.GetSeq()}] = message
		}
		return found, nil
	}
}

func fetchConversations(messages messagesv1.MessagesServiceClient) fetch[ids.ID, *messagesv1.Conversation] {
	return func(ctx context.Context, keys []ids.ID) (map[ids.ID]*messagesv1.Conversation, error) {
		request := &messagesv1.BatchGetConversationsRequest{Ids: rawIDs(keys)}
		response, err := messages.BatchGetConversations(ctx, request)
		if err != nil {
			return nil, err
		}
		found := make(map[ids.ID]*messagesv1.Conversation, len(keys))
		for _, conversation := range response.GetConversations() {
			id, err := ids.FromBytes(conversation.GetId())
			if err != nil {
				return nil, errs.Wrap(errs.Internal, err, "a conversation's id is malformed")
			}
			found[id] = conversation
		}
		return found, nil
	}
}

func fetchPages(messages messagesv1.MessagesServiceClient) fetch[PageKey, *messagesv1.MessagePage] {
	return func(ctx context.Context, keys []PageKey) (map[PageKey]*messagesv1.MessagePage, error) {
		request := &messagesv1.BatchListMessagesRequest{}
		for _, key := range keys {
			request.Requests = append(request.Requests, &messagesv1.HistoryRequest{
				ConversationId: key.ConversationID.Bytes(),
				Page:           key.Range.Proto(),
			})
		}
		response, err := messages.BatchListMessages(ctx, request)
		if err != nil {
			return nil, err
		}
		if len(response.GetPages()) != len(keys) {
			return nil, errs.Wrap(errs.Internal, errors.New("as many pages as requests were promised"), "pages are missing")
		}
		found := make(map[PageKey]*messagesv1.MessagePage, len(keys))
		for i, key := range keys {
			found[key] = response.GetPages()[i]
		}
		return found, nil
	}
}

func rawIDs(keys []ids.ID) [][]byte {
	raw := make([][]byte, len(keys))
	for i, key := range keys {
		raw[i] = key.Bytes()
	}
	return raw
}
