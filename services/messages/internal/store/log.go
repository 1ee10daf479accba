package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/store/internal/db"
)

// Kind says what an event tells.
type Kind uint8

// The kinds of events, as the events table has them.
const (
	KindMessage Kind = 1
	KindRead    Kind = 2
)

// Event is one entry of a user's log.
type Event struct {
	UserID ids.ID
	// The place in the user's log: 1 for the first event, without gaps.
	Seq  int64
	Kind Kind
	// The conversation it happened in.
	ConversationID ids.ID
	CreatedAt      time.Time
	// The message of a KindMessage; nil if it has been deleted since.
	Message *Message
	// The pointer's new place, of a KindRead.
	ReadSeq int64
}

// Epoch is the life of the log that cursors belong to, with the secret that authenticates them.
type Epoch struct {
	ID  [8]byte
	Key [32]byte
}

func epochFrom(id, key []byte) (Epoch, error) {
	var e Epoch
	if len(id) != len(e.ID) || len(key) != len(e.Key) {
		return Epoch{}, fmt.Errorf("log epoch has %d and %d bytes, not %d and %d", len(id), len(key), len(e.ID), len(e.Key))
	}
	copy(e.ID[:], id)
	copy(e.Key[:], key)
	return e, nil
}

// CurrentEpoch reads the log's epoch.
func (s *Store) CurrentEpoch(ctx context.Context) (Epoch, error) {
	row, err := s.q.Epoch(ctx)
	if err != nil {
		return Epoch{}, fmt.Errorf("read log epoch: %w", err)
	}
	return epochFrom(row.Epoch, row.CursorKey)
}

// SetEpoch begins a new life of the log: every cursor that was given out before is refused from then on.
func (s *Store) SetEpoch(ctx context.Context, e Epoch) error {
	if err := s.q.RenewEpoch(ctx, db.RenewEpochParams{Epoch: e.ID[:], CursorKey: e.Key[:]}); err != nil {
		return fmt.Errorf("write log epoch: %w", err)
	}
	return nil
}

// LogState is where a user's log begins and ends.
type LogState struct {
	Epoch Epoch
	// Head is the number of the newest event, 0 when there was none.
	Head int64
	// Floor is the number of the newest event that retention has deleted, 0 when there was none.
	Floor int64
}

// LogState reads where the user's log begins and ends. A user without a log has an empty one.
func (s *Store) LogState(ctx context.Context, user ids.ID) (LogState, error) {
	row, err := s.q.LogState(ctx, user)
	if err != nil {
		return LogState{}, fmt.Errorf("read log state: %w", err)
	}
	epoch, err := epochFrom(row.Epoch, row.CursorKey)
	if err != nil {
		return LogState{}, err
	}
	return LogState{Epoch: epoch, Head: row.Head, Floor: row.LogFloor}, nil
}

// LogHeads reads the numbers of the newest events of many users. Users without a log are left out.
func (s *Store) LogHeads(ctx context.Context, users []ids.ID) (map[ids.ID]int64, error) {
	rows, err := s.q.LogHeads(ctx, users)
	if err != nil {
		return nil, fmt.Errorf("read log heads: %w", err)
	}
	heads := make(map[ids.ID]int64, len(rows))
	for _, row := range rows {
		heads[row.UserID] = row.Head
	}
	return heads, nil
}

// Events reads up to limit events after the given number, in order and without a gap. ErrLogExpired says that retention
// deleted some of them, also when it did so between the caller's reading the floor and this call.
func (s *Store) Events(ctx context.Context, user ids.ID, after int64, limit int) ([]Event, error) {
	rows, err := s.q.Events(ctx, db.EventsParams{UserID: user, Seq: after, Limit: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		if row.Seq != after+1+int64(i) {
			return nil, ErrLogExpired
		}
		events[i] = eventFromRow(db.UnrelayedEventsRow{
			UserID: user, Seq: row.Seq, Kind: row.Kind,
			ConversationID: row.ConversationID, ConversationSeq: row.ConversationSeq, CreatedAt: row.CreatedAt,
			SenderID: row.SenderID, ClientID: row.ClientID, Body: row.Body, SentAt: row.SentAt,
		})
	}
	return events, nil
}

func eventFromRow(row db.UnrelayedEventsRow) Event {
	e := Event{
		UserID: row.UserID, Seq: row.Seq, Kind: Kind(row.Kind),
		ConversationID: row.ConversationID, CreatedAt: row.CreatedAt,
	}
	switch {
	case e.Kind == KindRead:
		e.ReadSeq = row.ConversationSeq
	case row.SenderID != nil:
		e.Message = &Message{
			ConversationID: row.ConversationID, Seq: row.ConversationSeq, SenderID: *row.SenderID, ClientID: *row.ClientID,
			Body: row.Body.String, SentAt: row.SentAt.Time,
		}
	}
	return e
}

// EventRef names an event.
type EventRef struct {
	UserID ids.ID
	Seq    int64
}

// UnrelayedEvents reads up to limit events that were committed before the given time and are not known to have been
// published. They are found by their flag: a watermark of time or id would pass over transactions that commit late.
func (s *Store) UnrelayedEvents(ctx context.Context, before time.Time, limit int) ([]Event, error) {
	rows, err := s.q.UnrelayedEvents(ctx, db.UnrelayedEventsParams{CreatedAt: before, Limit: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("read unrelayed events: %w", err)
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = eventFromRow(row)
	}
	return events, nil
}

// MarkRelayed clears the flag of events that were published.
func (s *Store) MarkRelayed(ctx context.Context, refs []EventRef) error {
	if len(refs) == 0 {
		return nil
	}
	args := make([]any, 0, 2*len(refs))
	for _, ref := range refs {
		args = append(args, ref.UserID, ref.Seq)
	}
	query := "UPDATE events SET unrelayed = NULL WHERE " +
		strings.Repeat("(user_id = ? AND seq = ?) OR ", len(refs)-1) + "(user_id = ? AND seq = ?)"
	err := mysql.Retry(ctx, func() error {
		_, err := s.db.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("mark events relayed: %w", err)
	}
	return nil
}

// LogsWithEventsBefore returns up to limit users, by ascending id after the given one, whose logs have events older
// than the given time.
func (s *Store) LogsWithEventsBefore(ctx context.Context, before time.Time, after ids.ID, limit int) ([]ids.ID, error) {
	users, err := s.q.LogsWithEventsBefore(ctx, db.LogsWithEventsBeforeParams{
		UserID: after, CreatedAt: before, Limit: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("find old events: %w", err)
	}
	return users, nil
}

// DeleteEventsBefore deletes up to limit of the oldest events of a user that are older than the given time, and raises
// the log's floor in the same transaction, so that no reader takes what is left for all. It stops at an event that was
// not published yet, and returns how many it deleted.
func (s *Store) DeleteEventsBefore(ctx context.Context, user ids.ID, before time.Time, limit int) (int, error) {
	var deleted int
	err := mysql.InTx(ctx, s.db, nil, func(tx *sql.Tx) error {
		deleted = 0
		q := s.q.WithTx(tx)
		log, err := q.LockUserLog(ctx, user)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		oldest, err := q.OldestEvents(ctx, db.OldestEventsParams{UserID: user, Seq: log.LogFloor, Limit: int32(limit)})
		if err != nil {
			return err
		}
		floor := log.LogFloor
		for _, e := range oldest {
			if e.Unrelayed.Valid || !e.CreatedAt.Before(before) {
				break
			}
			floor = e.Seq
			deleted++
		}
		if deleted == 0 {
			return nil
		}
		if err := q.DeleteEventsUpTo(ctx, db.DeleteEventsUpToParams{UserID: user, Seq: floor}); err != nil {
			return err
		}
		return q.SetLogFloor(ctx, db.SetLogFloorParams{LogFloor: floor, UserID: user})
	})
	if err != nil {
		return 0, fmt.Errorf("delete old events: %w", err)
	}
	return deleted, nil
}

// appendEvent gives the event the next number of its user's log and stores it, in a transaction that holds the locks
// that come before the log's.
func appendEvent(ctx context.Context, q *db.Queries, e Event, conversationSeq int64) (Event, error) {
	log, err := q.LockUserLog(ctx, e.UserID)
	if err != nil {
		return Event{}, fmt.Errorf("lock log: %w", err)
	}
	e.Seq = log.Head + 1
	if err := q.SetLogHead(ctx, db.SetLogHeadParams{Head: e.Seq, UserID: e.UserID}); err != nil {
		return Event{}, fmt.Errorf("move log head: %w", err)
	}
	err = q.InsertEvent(ctx, db.InsertEventParams{
		UserID: e.UserID, Seq: e.Seq, Kind: uint8(e.Kind), ConversationID: e.ConversationID,
		ConversationSeq: conversationSeq, CreatedAt: e.CreatedAt, Unrelayed: sql.NullInt16{Int16: 1, Valid: true},
	})
	if err != nil {
		return Event{}, fmt.Errorf("append event: %w", err)
	}
	return e, nil
}
