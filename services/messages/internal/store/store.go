// Package store keeps conversations, messages and every user's event log in MySQL.
//
// It guarantees that a message is stored together with its place in the conversation and one event in the log of each
// participant, or not at all; that the numbers of messages in a conversation and of events in a log ascend by one
// without a gap, in the order in which their transactions commit; and that a read pointer never moves back. What was
// returned without an error is committed, and as durable as the server makes a commit. After an error other than a
// refusal the outcome may be unknown, and the same call again, with the same client id, finds it out.
//
// All SQL is in the subset that MySQL 8, MariaDB 10.11 and TiDB share. Locks are taken in one order, a conversation
// before logs and logs by user id, so that transactions wait for each other but do not deadlock; where an engine
// reports one all the same, the transaction is run again.
package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/store/internal/db"
)

// Migrations are the files that make the schema, in the folder migrations.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Refusals.
var (
	// ErrNoConversation says that there is no such conversation, or none that the user takes part in.
	ErrNoConversation = errors.New("no such conversation")
	// ErrClientIDReused says that the sender used the client id for another message before.
	ErrClientIDReused = errors.New("client id already used for another message")
	// ErrLogExpired says that retention has deleted events that the reader has not seen.
	ErrLogExpired = errors.New("events were deleted by retention")
)

// Message is one message of a conversation.
type Message struct {
	ConversationID ids.ID
	Seq            int64
	SenderID       ids.ID
	ClientID       ids.ID
	Body           string
	SentAt         time.Time
}

// Users are the two participants of a conversation, the lower id first; the same twice for notes to self.
type Users struct {
	Lo, Hi ids.ID
}

// Pair orders two participants.
func Pair(a, b ids.ID) Users {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return Users{Lo: a, Hi: b}
}

// Has says whether the user is one of the two.
func (u Users) Has(user ids.ID) bool { return u.Lo == user || u.Hi == user }

// Other returns the other participant: the user's own id for notes to self.
func (u Users) Other(user ids.ID) ids.ID {
	if u.Lo == user {
		return u.Hi
	}
	return u.Lo
}

// each returns the distinct participants in the order in which their logs are locked.
func (u Users) each() []ids.ID {
	if u.Lo == u.Hi {
		return []ids.ID{u.Lo}
	}
	return []ids.ID{u.Lo, u.Hi}
}

// Conversation is a conversation with its newest message.
type Conversation struct {
	ID            ids.ID
	Users         Users
	LastSeq       int64
	LastMessageAt time.Time
	ReadSeqLo     int64
	ReadSeqHi     int64
	LastMessage   Message
}

// ReadSeq returns how far a participant has read.
func (c Conversation) ReadSeq(user ids.ID) int64 {
	if c.Users.Lo == user {
		return c.ReadSeqLo
	}
	return c.ReadSeqHi
}

// Store is a handle on the messages schema. It is safe for concurrent use.
type Store struct {
	db *sql.DB
	q  *db.Queries
}

// New returns a store on a database whose connections allow several statements in one query.
func New(database *sql.DB) *Store {
	return &Store{db: database, q: db.New(database)}
}

// Lock takes a named lock among all processes that use the schema, or returns mysql.ErrLocked at once.
func (s *Store) Lock(ctx context.Context, purpose string) (*mysql.Lock, error) {
	return mysql.AcquireLock(ctx, s.db, purpose, 0)
}

// ConversationByUsers returns the id of two users' conversation, or ErrNoConversation.
func (s *Store) ConversationByUsers(ctx context.Context, users Users) (ids.ID, error) {
	id, err := s.q.ConversationByUsers(ctx, db.ConversationByUsersParams{UserLo: users.Lo, UserHi: users.Hi})
	if errors.Is(err, sql.ErrNoRows) {
		return ids.ID{}, ErrNoConversation
	}
	if err != nil {
		return ids.ID{}, fmt.Errorf("find conversation: %w", err)
	}
	return id, nil
}

// Participants returns who takes part in a conversation, or ErrNoConversation. It never changes.
func (s *Store) Participants(ctx context.Context, conversation ids.ID) (Users, error) {
	row, err := s.q.Participants(ctx, conversation)
	if errors.Is(err, sql.ErrNoRows) {
		return Users{}, ErrNoConversation
	}
	if err != nil {
		return Users{}, fmt.Errorf("find participants: %w", err)
	}
	return Users{Lo: row.UserLo, Hi: row.UserHi}, nil
}

// Conversations reads those of the given conversations that the user takes part in, in no order.
func (s *Store) Conversations(ctx context.Context, user ids.ID, conversationIDs []ids.ID) ([]Conversation, error) {
	rows, err := s.q.ConversationsByID(ctx, db.ConversationsByIDParams{Ids: conversationIDs, UserID: user})
	if err != nil {
		return nil, fmt.Errorf("read conversations: %w", err)
	}
	conversations := make([]Conversation, len(rows))
	for i, row := range rows {
		conversations[i] = conversationFromRow(db.ConversationWithRow(row))
	}
	return conversations, nil
}

// ConversationWith reads the conversation of two users, or ErrNoConversation.
func (s *Store) ConversationWith(ctx context.Context, users Users) (Conversation, error) {
	row, err := s.q.ConversationWith(ctx, db.ConversationWithParams{UserLo: users.Lo, UserHi: users.Hi})
	if errors.Is(err, sql.ErrNoRows) {
		return Conversation{}, ErrNoConversation
	}
	if err != nil {
		return Conversation{}, fmt.Errorf("read conversation: %w", err)
	}
	return conversationFromRow(row), nil
}

// Position is a place in a user's list of conversations.
type Position struct {
	LastMessageAt time.Time
	ID            ids.ID
}

// endOfTime is later than the last message of any conversation, so that a first page is a page like any other.
var endOfTime = Position{LastMessageAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}

// ListConversations reads up to limit of the user's conversations, the one with the newest message first, after the
// position or from the start when it is nil.
func (s *Store) ListConversations(ctx context.Context, user ids.ID, after *Position, limit int) ([]Conversation, error) {
	if after == nil {
		after = &endOfTime
	}
	rows, err := s.q.ListConversations(ctx, db.ListConversationsParams{
		UserID: user, BeforeAt: after.LastMessageAt, BeforeID: after.ID,
		Limit: int32(limit), Limit_2: int32(limit), Limit_3: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list conversations: %w", err)
	}
	conversations := make([]Conversation, len(rows))
	for i, row := range rows {
		conversations[i] = conversationFromRow(db.ConversationWithRow(row))
	}
	return conversations, nil
}

func conversationFromRow(row db.ConversationWithRow) Conversation {
	return Conversation{
		ID: row.ID, Users: Users{Lo: row.UserLo, Hi: row.UserHi},
		LastSeq: row.LastSeq, LastMessageAt: row.LastMessageAt,
		ReadSeqLo: row.ReadSeqLo, ReadSeqHi: row.ReadSeqHi,
		LastMessage: Message{
			ConversationID: row.ID, Seq: row.LastSeq, SenderID: row.SenderID, ClientID: row.ClientID,
			Body: row.Body, SentAt: row.SentAt,
		},
	}
}

// MessageRef names a message.
type MessageRef struct {
	ConversationID ids.ID
	Seq            int64
}

// Messages reads those of the given messages that exist and that the user may read, in no order.
func (s *Store) Messages(ctx context.Context, user ids.ID, refs []MessageRef) ([]Message, error) {
	query := strings.Builder{}
	query.WriteString(`SELECT m.conversation_id, m.seq, m.sender_id, m.client_id, m.body, m.sent_at
FROM messages m JOIN conversations c ON c.id = m.conversation_id
WHERE (c.user_lo = ? OR c.user_hi = ?) AND (`)
	args := []any{user, user}
	for i, ref := range refs {
		if i > 0 {
			query.WriteString(" OR ")
		}
		query.WriteString("(m.conversation_id = ? AND m.seq = ?)")
		args = append(args, ref.ConversationID, ref.Seq)
	}
	query.WriteString(")")
	rows, err := s.db.QueryContext(ctx, query.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	defer rows.Close()
	var messages []Message
	for rows.Next() {
		var m Message
		if err := rows.Scan(&m.ConversationID, &m.Seq, &m.SenderID, &m.ClientID, &m.Body, &m.SentAt); err != nil {
			return nil, fmt.Errorf("read messages: %w", err)
		}
		messages = append(messages, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return messages, nil
}

// Range selects messages of one conversation by number.
type Range struct {
	ConversationID ids.ID
	// Only messages with AfterSeq < seq < BeforeSeq; 0 is no bound.
	AfterSeq, BeforeSeq int64
	// At most so many, from the newest end of the range or from the oldest.
	Limit   int
	FromEnd bool
}

// History reads a page for each range, ascending by number, in one query. It does not ask who reads: the caller has
// checked that the user takes part in the conversations.
func (s *Store) History(ctx context.Context, ranges []Range) ([][]Message, error) {
	// A page of each range is an index walk of its length; UNION ALL makes one query of them.
	selects := make([]string, len(ranges))
	args := make([]any, 0, 5*len(ranges))
	for i, r := range ranges {
		order := "ASC"
		if r.FromEnd {
			order = "DESC"
		}
		where := "conversation_id = ? AND seq > ?"
		args = append(args, i, r.ConversationID, r.AfterSeq)
		if r.BeforeSeq > 0 {
			where += " AND seq < ?"
			args = append(args, r.BeforeSeq)
		}
		args = append(args, r.Limit)
		selects[i] = "(SELECT ? AS page, conversation_id, seq, sender_id, client_id, body, sent_at FROM messages WHERE " +
			where + " ORDER BY seq " + order + " LIMIT ?)"
	}
	rows, err := s.db.QueryContext(ctx, strings.Join(selects, " UNION ALL "), args...)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer rows.Close()
	pages := make([][]Message, len(ranges))
	for rows.Next() {
		var (
			page int
			m    Message
		)
		if err := rows.Scan(&page, &m.ConversationID, &m.Seq, &m.SenderID, &m.ClientID, &m.Body, &m.SentAt); err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		pages[page] = append(pages[page], m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	// The order of a union's rows is the engine's to choose.
	for _, page := range pages {
		slices.SortFunc(page, func(a, b Message) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return pages, nil
}

// messageByClientID finds what the sender sent under a client id. The hash is that of the body as it was sent.
func (s *Store) messageByClientID(ctx context.Context, sender, clientID ids.ID) (m Message, hash []byte, found bool, err error) {
	row, err := s.q.MessageByClientID(ctx, db.MessageByClientIDParams{SenderID: sender, ClientID: clientID})
	if errors.Is(err, sql.ErrNoRows) {
		return Message{}, nil, false, nil
	}
	if err != nil {
		return Message{}, nil, false, fmt.Errorf("find message by client id: %w", err)
	}
	return Message{
		ConversationID: row.ConversationID, Seq: row.Seq, SenderID: row.SenderID, ClientID: row.ClientID,
		Body: row.Body, SentAt: row.SentAt,
	}, row.BodyHash, true, nil
}

func sameHash(a []byte, b [32]byte) bool { return bytes.Equal(a, b[:]) }
