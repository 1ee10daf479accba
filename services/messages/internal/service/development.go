package service

import (
	"context"
	"time"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/messages/internal/store"
)

// Development implements messagesv1.DevelopmentServiceServer. It trusts its callers, and must be registered in
// development alone.
type Development struct {
	messagesv1.UnimplementedDevelopmentServiceServer

	store *store.Store
}

// NewDevelopment returns the service.
func NewDevelopment(st *store.Store) *Development { return &Development{store: st} }

// ImportMessages stores messages in bulk. Open subscriptions find them by comparing heads.
func (d *Development) ImportMessages(
	ctx context.Context, req *messagesv1.ImportMessagesRequest,
) (*messagesv1.ImportMessagesResponse, error) {
	user, other := mustID(req.GetUserId()), mustID(req.GetWithUserId())
	messages := make([]store.ImportedMessage, len(req.GetMessages()))
	for i, m := range req.GetMessages() {
		body, err := normalizeBody(m.GetBody())
		if err != nil {
			return nil, err
		}
		messages[i] = store.ImportedMessage{SenderID: pick(m.GetFromOther(), other, user), Body: body}
	}
	last, err := d.store.Import(ctx, store.Pair(user, other), messages, time.Now().UTC().Truncate(time.Microsecond))
	if err != nil {
		return nil, translate(err)
	}
	return &messagesv1.ImportMessagesResponse{
		ConversationId: last.ConversationID.Bytes(), LastMessage: messageProto(last),
	}, nil
}

func pick(first bool, a, b ids.ID) ids.ID {
	if first {
		return a
	}
	return b
}
