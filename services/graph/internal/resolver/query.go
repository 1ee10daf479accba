package resolver

import (
	"context"
	"fmt"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
)

// maxSearch is far longer than any name, and what the service users takes.
const maxSearch = 1024

// query implements gen.QueryResolver.
type query struct{ *Resolver }

func (r query) Me(ctx context.Context) (*model.User, error) {
	me, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	found, err := r.findUser(ctx, me)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, errs.New(errs.Unauthenticated, "the account of this access token does not exist any more")
	}
	return found, nil
}

func (r query) Cursor(ctx context.Context) (string, error) {
	read, ok := ctx.Value(cursorKey{}).(cursorRead)
	if !ok {
		read = r.readCursor(ctx)
	}
	return read.cursor, read.err
}

func (r query) User(ctx context.Context, id string) (*model.User, error) {
	userID, ok := model.ParseIDOf(model.KindUser, id)
	if !ok {
		return nil, nil
	}
	return r.findUser(ctx, userID)
}

func (r query) Users(ctx context.Context, search *string, first *int, after *string) (*gen.UserConnection, error) {
	limit, err := r.forward(first)
	if err != nil {
		return nil, err
	}
	request := &usersv1.SearchUsersRequest{PageSize: atLeastOne(limit)}
	if search != nil {
		if len(*search) > maxSearch {
			return nil, badArgument(errs.TooLong, "search", fmt.Sprintf("must have at most %d bytes", maxSearch))
		}
		request.Prefix = *search
	}
	if after != nil {
		var ok bool
		if request.AfterUsername, ok = model.ParseUserCursor(*after); !ok {
			return nil, badCursor("after")
		}
	}
	response, err := r.Resolver.Users.SearchUsers(ctx, request)
	if err != nil {
		return nil, err
	}
	found, more := cut(response.GetUsers(), limit, response.GetHasNextPage())
	edges := make([]*gen.UserEdge, len(found))
	for i, u := range found {
		node, err := model.NewUser(u)
		if err != nil {
			return nil, err
		}
		edges[i] = &gen.UserEdge{Cursor: model.UserCursor(node.Username), Node: node}
	}
	info := &gen.PageInfo{HasPreviousPage: after != nil, HasNextPage: more}
	if len(edges) > 0 {
		info.StartCursor, info.EndCursor = &edges[0].Cursor, &edges[len(edges)-1].Cursor
	}
	return &gen.UserConnection{Edges: edges, PageInfo: info}, nil
}

func (r query) Node(ctx context.Context, id string) (model.Node, error) {
	named, ok := model.ParseGlobalID(id)
	if !ok {
		return nil, nil
	}
	// A nil pointer in an interface is not nil, so each kind returns its own nothing.
	switch named.Kind {
	case model.KindUser:
		if found, err := r.findUser(ctx, named.UUID); found != nil || err != nil {
			return found, err
		}
	case model.KindConversation:
		if found, err := r.findConversation(ctx, named.UUID); found != nil || err != nil {
			return found, err
		}
	case model.KindMessage:
		if found, err := r.findMessage(ctx, named); found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

func (r query) Conversations(ctx context.Context, first *int, after *string) (*gen.ConversationConnection, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := r.forward(first)
	if err != nil {
		return nil, err
	}
	request := &messagesv1.ListConversationsRequest{PageSize: atLeastOne(limit)}
	if after != nil {
		position, ok := model.ParseConversationCursor(*after)
		if !ok {
			return nil, badCursor("after")
		}
		request.After = &messagesv1.ConversationPosition{
			LastMessageAtUs: position.LastMessageAtUs,
			ConversationId:  position.ConversationID.Bytes(),
		}
	}
	response, err := r.Messages.ListConversations(ctx, request)
	if err != nil {
		return nil, err
	}
	found, more := cut(response.GetConversations(), limit, response.GetHasNextPage())
	nodes := make([]*model.Conversation, len(found))
	edges := make([]*gen.ConversationEdge, len(found))
	for i, c := range found {
		if nodes[i], err = model.NewConversation(c, reader); err != nil {
			return nil, err
		}
		position := model.ConversationPosition{
			LastMessageAtUs: c.GetLastMessage().GetSentAtUs(),
			ConversationID:  nodes[i].ConversationID,
		}
		edges[i] = &gen.ConversationEdge{Cursor: position.Cursor(), Node: nodes[i]}
	}
	pages := r.pagesOf(ctx, "edges", "node")
	if err := foreseeIn(ctx, loader.From(ctx).Pages, pageKeys(nodes, pages)); err != nil {
		return nil, err
	}
	if err := foresee(ctx, usersOf(ctx, reader, nodes, "edges", "node")); err != nil {
		return nil, err
	}
	info := &gen.PageInfo{HasPreviousPage: after != nil, HasNextPage: more}
	if len(edges) > 0 {
		info.StartCursor, info.EndCursor = &edges[0].Cursor, &edges[len(edges)-1].Cursor
	}
	return &gen.ConversationConnection{Edges: edges, PageInfo: info}, nil
}

func (r query) Conversation(ctx context.Context, id string) (*model.Conversation, error) {
	conversationID, ok := model.ParseIDOf(model.KindConversation, id)
	if !ok {
		return nil, nil
	}
	return r.findConversation(ctx, conversationID)
}

func (r query) ConversationWith(ctx context.Context, userID string) (*model.Conversation, error) {
	with, ok := model.ParseIDOf(model.KindUser, userID)
	if !ok {
		return nil, nil
	}
	request := &messagesv1.GetConversationWithRequest{UserId: with.Bytes()}
	pages := r.pagesOf(ctx)
	if len(pages) == 1 {
		request.Page = pages[0].Proto()
	}
	response, err := r.Messages.GetConversationWith(ctx, request)
	if err != nil {
		if errs.KindOf(err) == errs.NotFound {
			return nil, nil
		}
		return nil, err
	}
	return r.screen(ctx, response.GetConversation(), pages)
}

func (r query) Message(ctx context.Context, id string) (*model.Message, error) {
	named, ok := model.ParseGlobalID(id)
	if !ok || named.Kind != model.KindMessage {
		return nil, nil
	}
	return r.findMessage(ctx, named)
}

// findUser returns a user, or nil when there is none.
func (r query) findUser(ctx context.Context, id ids.ID) (*model.User, error) {
	if err := foresee(ctx, []ids.ID{id}); err != nil {
		return nil, err
	}
	return loader.From(ctx).Users.Load(ctx, id)
}

// findConversation returns a conversation of the caller, or nil when there is none. When it is all that is asked for,
// its page of history comes with it.
func (r query) findConversation(ctx context.Context, id ids.ID) (*model.Conversation, error) {
	if !alone(ctx) {
		found, err := loader.From(ctx).Conversations.Load(ctx, id)
		if found == nil || err != nil {
			return nil, err
		}
		return r.screen(ctx, found, r.pagesOf(ctx))
	}
	request := &messagesv1.BatchGetConversationsRequest{Ids: [][]byte{id.Bytes()}}
	pages := r.pagesOf(ctx)
	if len(pages) == 1 {
		request.Page = pages[0].Proto()
	}
	response, err := r.Messages.BatchGetConversations(ctx, request)
	if err != nil || len(response.GetConversations()) == 0 {
		return nil, err
	}
	return r.screen(ctx, response.GetConversations()[0], pages)
}

// screen returns a conversation, having seen to what is asked of it: its pages, of which a single one may have come with
// it, and the users.
func (r query) screen(
	ctx context.Context, c *messagesv1.Conversation, pages []loader.Range,
) (*model.Conversation, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	found, err := model.NewConversation(c, reader)
	if err != nil {
		return nil, err
	}
	conversations := []*model.Conversation{found}
	keys, loaded := pageKeys(conversations, pages), loader.From(ctx).Pages
	if c.GetPage() != nil {
		loaded.Prime(keys[0], c.GetPage())
	} else if err := foreseeIn(ctx, loaded, keys); err != nil {
		return nil, err
	}
	return found, foresee(ctx, usersOf(ctx, reader, conversations))
}

// findMessage returns a message of one of the caller's conversations, or nil when there is none.
func (r query) findMessage(ctx context.Context, named model.GlobalID) (*model.Message, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	key := loader.MessageKey{ConversationID: named.UUID, Seq: named.Seq}
	messages := loader.From(ctx).Messages
	if alone(ctx) {
		if err := messages.Now(ctx, []loader.MessageKey{key}); err != nil {
			return nil, err
		}
	}
	stored, err := messages.Load(ctx, key)
	if stored == nil || err != nil {
		return nil, err
	}
	found, err := model.NewMessage(stored, reader)
	if err != nil {
		return nil, err
	}
	return found, foreseeSender(ctx, found)
}

// foreseeSender sees to the sender of a message whose selection is that at path.
func foreseeSender(ctx context.Context, m *model.Message, path ...string) error {
	if !asksForMoreThanID(ctx, join(path, "sender")...) {
		return nil
	}
	return foresee(ctx, []ids.ID{m.SenderID})
}

// atLeastOne returns the size of page to ask a service for: a page of nothing still has to tell whether more follows.
func atLeastOne(limit int) int32 { return int32(max(limit, 1)) }

// cut shortens a page to what was wanted, and tells whether more follows.
func cut[T any](items []T, limit int, more bool) ([]T, bool) {
	if len(items) > limit {
		return items[:limit], true
	}
	return items, more
}
