package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/store/internal/db"
)

// ImportedMessage is a message to be stored in bulk.
type ImportedMessage struct {
	SenderID ids.ID
	Body     string
}

// importRows is how many rows one statement inserts: some of the largest bodies still fit in the smallest default
// packet of the engines, 16 MiB.
const importRows = 500

// Import appends messages to the conversation of two users, which it makes if need be, with the effect of sending them
// one by one, in one transaction. Their events count as relayed, so that a bulk import does not flood Redis. It returns
// the last message.
func (s *Store) Import(ctx context.Context, users Users, messages []ImportedMessage, now time.Time) (Message, error) {
	if len(messages) == 0 {
		return Message{}, errors.New("import: no messages")
	}
	var last Message
	err := mysql.InTx(ctx, s.db, nil, func(tx *sql.Tx) error {
		q := s.q.WithTx(tx)
		c, err := lockOrMake(ctx, q, users, now)
		if err != nil {
			return err
		}
		at := now
		if c.LastMessageAt.After(at) {
			at = c.LastMessageAt
		}
		rows := make([]Message, len(messages))
		for i, m := range messages {
			c.LastSeq++
			rows[i] = Message{
				ConversationID: c.ID, Seq: c.LastSeq, SenderID: m.SenderID, ClientID: ids.New(), Body: m.Body, SentAt: at,
			}
			if m.SenderID == users.Lo {
				c.ReadSeqLo = c.LastSeq
			} else {
				c.ReadSeqHi = c.LastSeq
			}
		}
		err = q.AdvanceConversation(ctx, db.AdvanceConversationParams{
			LastSeq: c.LastSeq, LastMessageAt: at, ReadSeqLo: c.ReadSeqLo, ReadSeqHi: c.ReadSeqHi, ID: c.ID,
		})
		if err != nil {
			return err
		}
		if err := insertMessages(ctx, tx, rows); err != nil {
			return err
		}
		for _, user := range users.each() {
			log, err := q.LockUserLog(ctx, user)
			if err != nil {
				return err
			}
			if err := insertRelayedEvents(ctx, tx, user, log.Head, rows); err != nil {
				return err
			}
			head := log.Head + int64(len(rows))
			if err := q.SetLogHead(ctx, db.SetLogHeadParams{Head: head, UserID: user}); err != nil {
				return err
			}
		}
		last = rows[len(rows)-1]
		return nil
	})
	if err != nil {
		return Message{}, fmt.Errorf("import messages: %w", err)
	}
	return last, nil
}

func lockOrMake(ctx context.Context, q *db.Queries, users Users, now time.Time) (db.LockConversationRow, error) {
	id, err := q.ConversationByUsers(ctx, db.ConversationByUsersParams{UserLo: users.Lo, UserHi: users.Hi})
	if err == nil {
		return q.LockConversation(ctx, id)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return db.LockConversationRow{}, err
	}
	id = ids.New()
	err = q.InsertConversation(ctx, db.InsertConversationParams{ID: id, UserLo: users.Lo, UserHi: users.Hi, CreatedAt: now})
	if err != nil {
		return db.LockConversationRow{}, err
	}
	if err := q.EnsureUserLogs(ctx, db.EnsureUserLogsParams{UserID: users.Lo, UserID_2: users.Hi}); err != nil {
		return db.LockConversationRow{}, err
	}
	return q.LockConversation(ctx, id)
}

func insertMessages(ctx context.Context, tx *sql.Tx, messages []Message) error {
	const head = "INSERT INTO messages (conversation_id, seq, sender_id, client_id, body_hash, body, sent_at) VALUES "
	return insertRows(ctx, tx, head, 7, len(messages), func(i int) []any {
		m := messages[i]
		hash := sha256.Sum256([]byte(m.Body))
		return []any{m.ConversationID, m.Seq, m.SenderID, m.ClientID, hash[:], m.Body, m.SentAt}
	})
}

func insertRelayedEvents(ctx context.Context, tx *sql.Tx, user ids.ID, head int64, messages []Message) error {
	const insert = "INSERT INTO events (user_id, seq, kind, conversation_id, conversation_seq, created_at) VALUES "
	return insertRows(ctx, tx, insert, 6, len(messages), func(i int) []any {
		m := messages[i]
		return []any{user, head + 1 + int64(i), KindMessage, m.ConversationID, m.Seq, m.SentAt}
	})
}

// insertRows inserts count rows of so many columns, importRows at a time.
func insertRows(ctx context.Context, tx *sql.Tx, head string, columns, count int, row func(i int) []any) error {
	group := "(" + strings.Repeat("?, ", columns-1) + "?)"
	for start := 0; start < count; start += importRows {
		n := min(importRows, count-start)
		args := make([]any, 0, n*columns)
		for i := range n {
			args = append(args, row(start+i)...)
		}
		query := head + strings.Repeat(group+", ", n-1) + group
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}
