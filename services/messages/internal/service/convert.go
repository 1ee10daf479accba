package service

import (
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/messages/internal/cursor"
	"chatapp.dev/services/messages/internal/store"
)

// EventProto turns an event into the form that its user gets, with the cursor to go on from. An event whose message is
// gone keeps its number, so that the log has no gap, and tells nothing.
func EventProto(epoch store.Epoch, e store.Event) *messagesv1.Event {
	out := &messagesv1.Event{Seq: e.Seq, Cursor: cursor.Make(epoch, e.UserID, e.Seq)}
	switch {
	case e.Message != nil:
		out.Kind = &messagesv1.Event_Message{Message: messageProto(*e.Message)}
	case e.Kind == store.KindRead:
		out.Kind = &messagesv1.Event_Read{Read: &messagesv1.Read{
			ConversationId: e.ConversationID.Bytes(), ReadSeq: e.ReadSeq,
		}}
	}
	return out
}

func messageProto(m store.Message) *messagesv1.Message {
	return &messagesv1.Message{
		ConversationId: m.ConversationID.Bytes(),
		Seq:            m.Seq,
		SenderId:       m.SenderID.Bytes(),
		Body:           m.Body,
		SentAtUs:       m.SentAt.UnixMicro(),
		ClientId:       m.ClientID.String(),
	}
}

func messageProtos(messages []store.Message) []*messagesv1.Message {
	out := make([]*messagesv1.Message, len(messages))
	for i, m := range messages {
		out[i] = messageProto(m)
	}
	return out
}

// conversationProto shows a conversation as the user sees it.
func conversationProto(c store.Conversation, user ids.ID) *messagesv1.Conversation {
	readSeq := c.ReadSeq(user)
	return &messagesv1.Conversation{
		Id:          c.ID.Bytes(),
		WithUserId:  c.Users.Other(user).Bytes(),
		LastMessage: messageProto(c.LastMessage),
		ReadSeq:     readSeq,
		UnreadCount: c.LastSeq - readSeq,
	}
}

func conversationProtos(conversations []store.Conversation, user ids.ID) []*messagesv1.Conversation {
	out := make([]*messagesv1.Conversation, len(conversations))
	for i, c := range conversations {
		out[i] = conversationProto(c, user)
	}
	return out
}

// mustID reads an id whose length the request's rules have checked.
func mustID(b []byte) ids.ID { return ids.ID(b) }

func mustIDs(list [][]byte) []ids.ID {
	out := make([]ids.ID, len(list))
	for i, b := range list {
		out[i] = mustID(b)
	}
	return out
}
