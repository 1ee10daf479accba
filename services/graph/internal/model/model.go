// Package model has the Go types behind the schema's types, and the texts by which clients name things: global ids and
// the cursors of connections.
//
// It is guaranteed that a global id is the same in every process and every release, that two things never share one,
// and that a text which is not exactly what this package makes is refused. Neither is a secret or a permission: whoever
// reads by them is checked by the service that owns the data.
package model

import (
	"time"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

// Node is anything with a global id.
type Node interface {
	IsNode()
	ID() string
}

// User is the schema's User.
type User struct {
	UserID      ids.ID
	Username    string
	DisplayName string
}

// NewUser returns the user that the service users sent.
func NewUser(u *usersv1.User) (*User, error) {
	id, err := ids.FromBytes(u.GetId())
	if err != nil {
		return nil, malformed(err, "a user's id")
	}
	return &User{UserID: id, Username: u.GetUsername(), DisplayName: u.GetDisplayName()}, nil
}

// IsNode makes User a Node.
func (*User) IsNode() {}

// IsEntity makes User an entity of Apollo Federation.
func (*User) IsEntity() {}

// ID returns the global id.
func (u *User) ID() string { return GlobalID{Kind: KindUser, UUID: u.UserID}.String() }

// Message is the schema's Message, as one reader sees it.
type Message struct {
	ConversationID ids.ID
	Seq            int64
	SenderID       ids.ID
	Body           string
	SentAt         time.Time
	// ClientID is nil unless the reader is the sender.
	ClientID *string
}

// NewMessage returns the message that the service messages sent, as the user called reader sees it.
func NewMessage(m *messagesv1.Message, reader ids.ID) (*Message, error) {
	conversationID, err := ids.FromBytes(m.GetConversationId())
	if err != nil {
		return nil, malformed(err, "a message's conversation")
	}
	senderID, err := ids.FromBytes(m.GetSenderId())
	if err != nil {
		return nil, malformed(err, "a message's sender")
	}
	message := &Message{
		ConversationID: conversationID,
		Seq:            m.GetSeq(),
		SenderID:       senderID,
		Body:           m.GetBody(),
		SentAt:         time.UnixMicro(m.GetSentAtUs()),
	}
	if senderID == reader {
		clientID := m.GetClientId()
		message.ClientID = &clientID
	}
	return message, nil
}

// IsNode makes Message a Node.
func (*Message) IsNode() {}

// IsEntity makes Message an entity of Apollo Federation.
func (*Message) IsEntity() {}

// ID returns the global id.
func (m *Message) ID() string {
	return GlobalID{Kind: KindMessage, UUID: m.ConversationID, Seq: m.Seq}.String()
}

// Conversation is the schema's Conversation, as one participant sees it.
type Conversation struct {
	ConversationID ids.ID
	WithID         ids.ID
	LastMessage    *Message
	UnreadCount    int64
	ReadSeq        int64
}

// NewConversation returns the conversation that the service messages sent, as the participant called reader sees it.
func NewConversation(c *messagesv1.Conversation, reader ids.ID) (*Conversation, error) {
	id, err := ids.FromBytes(c.GetId())
	if err != nil {
		return nil, malformed(err, "a conversation's id")
	}
	withID, err := ids.FromBytes(c.GetWithUserId())
	if err != nil {
		return nil, malformed(err, "a conversation's other participant")
	}
	conversation := &Conversation{
		ConversationID: id,
		WithID:         withID,
		UnreadCount:    c.GetUnreadCount(),
		ReadSeq:        c.GetReadSeq(),
	}
	if c.GetLastMessage() != nil {
		if conversation.LastMessage, err = NewMessage(c.GetLastMessage(), reader); err != nil {
			return nil, err
		}
	}
	return conversation, nil
}

// IsNode makes Conversation a Node.
func (*Conversation) IsNode() {}

// IsEntity makes Conversation an entity of Apollo Federation.
func (*Conversation) IsEntity() {}

// ID returns the global id.
func (c *Conversation) ID() string {
	return GlobalID{Kind: KindConversation, UUID: c.ConversationID}.String()
}

// NewMessageEvent is the schema's NewMessageEvent.
type NewMessageEvent struct {
	// Cursor is the place in the subscriber's log after this event.
	Cursor string
	// Sent is the message, as the subscriber sees it.
	Sent *Message
}

// malformed returns the error for an answer of another service that its contract forbids.
func malformed(err error, what string) error {
	return errs.Wrap(errs.Internal, err, what+" is malformed")
}
