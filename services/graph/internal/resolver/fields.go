package resolver

import (
	"context"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
)

// conversation implements gen.ConversationResolver.
type conversation struct{ *Resolver }

func (r conversation) With(ctx context.Context, c *model.Conversation) (*model.User, error) {
	return user(ctx, c.WithID)
}

func (r conversation) Messages(
	ctx context.Context, c *model.Conversation, first *int, after *string, last *int, before *string,
) (*gen.MessageConnection, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := r.messageRange(messageArgs{first: first, after: after, last: last, before: before})
	if err != nil {
		return nil, err
	}
	page, err := loader.From(ctx).Pages.Load(ctx, loader.PageKey{ConversationID: c.ConversationID, Range: wanted})
	if err != nil {
		return nil, err
	}
	edges := make([]*gen.MessageEdge, len(page.GetMessages()))
	for i, m := range page.GetMessages() {
		node, err := model.NewMessage(m, reader)
		if err != nil {
			return nil, err
		}
		edges[i] = &gen.MessageEdge{Cursor: model.MessageCursor(node.Seq), Node: node}
	}
	info := &gen.PageInfo{HasPreviousPage: page.GetHasPreviousPage(), HasNextPage: page.GetHasNextPage()}
	if len(edges) > 0 {
		info.StartCursor, info.EndCursor = &edges[0].Cursor, &edges[len(edges)-1].Cursor
	}
	return &gen.MessageConnection{Edges: edges, PageInfo: info}, nil
}

// message implements gen.MessageResolver.
type message struct{ *Resolver }

func (r message) Sender(ctx context.Context, m *model.Message) (*model.User, error) {
	return user(ctx, m.SenderID)
}

func (r message) Conversation(ctx context.Context, m *model.Message) (*model.Conversation, error) {
	if !asksForMoreThanID(ctx) {
		return &model.Conversation{ConversationID: m.ConversationID}, nil
	}
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	found, err := loader.From(ctx).Conversations.Load(ctx, m.ConversationID)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, errs.New(errs.Internal, "the conversation "+m.ConversationID.String()+" of a message does not exist")
	}
	return model.NewConversation(found, reader)
}

// newMessageEvent implements gen.NewMessageEventResolver.
type newMessageEvent struct{ *Resolver }

func (r newMessageEvent) Message(ctx context.Context, e *model.NewMessageEvent) (*model.Message, error) {
	return e.Sent, foreseeSender(ctx, e.Sent)
}
