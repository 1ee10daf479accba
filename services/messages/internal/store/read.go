package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/store/internal/db"
)

// Read is a read pointer's place.
type Read struct {
	Conversation Conversation
	// The event that tells the reader's other devices; none when the pointer stayed where it was.
	Event *Event
	Epoch Epoch
}

// MarkRead moves the user's read pointer to seq, or to the last message if that comes before, unless it is there
// already. ErrNoConversation says that the user takes part in no such conversation.
func (s *Store) MarkRead(ctx context.Context, user, conversation ids.ID, seq int64, now time.Time) (Read, error) {
	var read Read
	err := mysql.InTx(ctx, s.db, nil, func(tx *sql.Tx) error {
		read = Read{}
		q := s.q.WithTx(tx)
		row, err := q.LockConversation(ctx, conversation)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoConversation
		}
		if err != nil {
			return err
		}
		users := Users{Lo: row.UserLo, Hi: row.UserHi}
		if !users.Has(user) {
			return ErrNoConversation
		}
		pointer := row.ReadSeqHi
		if users.Lo == user {
			pointer = row.ReadSeqLo
		}
		target := min(seq, row.LastSeq)
		if target <= pointer {
			return nil
		}
		if users.Lo == user {
			err = q.SetReadLo(ctx, db.SetReadLoParams{ReadSeqLo: target, ID: conversation})
		} else {
			err = q.SetReadHi(ctx, db.SetReadHiParams{ReadSeqHi: target, ID: conversation})
		}
		if err != nil {
			return err
		}
		event, err := appendEvent(ctx, q, Event{
			UserID: user, Kind: KindRead, ConversationID: conversation, CreatedAt: now, ReadSeq: target,
		}, target)
		if err != nil {
			return err
		}
		epoch, err := q.Epoch(ctx)
		if err != nil {
			return err
		}
		read.Event = &event
		read.Epoch, err = epochFrom(epoch.Epoch, epoch.CursorKey)
		return err
	})
	if err != nil {
		return Read{}, fmt.Errorf("mark read: %w", err)
	}
	conversations, err := s.Conversations(ctx, user, []ids.ID{conversation})
	if err != nil {
		return Read{}, err
	}
	if len(conversations) == 0 {
		return Read{}, ErrNoConversation
	}
	read.Conversation = conversations[0]
	return read, nil
}
