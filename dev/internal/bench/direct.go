package bench

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/ids"
)

// body is what every message of the benchmark says.
const body = "The quick brown fox jumps over the lazy dog, and then it does so once more."

// direct is a worker's own connection and conversation, without any service.
type direct struct {
	conn         *sql.Conn
	conversation ids.ID
	lo, hi       ids.ID
}

// openConns opens connections to a database, with a session that is set up as the services set up theirs.
func openConns(ctx context.Context, dsn string, n int) (*sql.DB, []*sql.Conn, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("open MySQL: %w", err)
	}
	cfg.ParseTime, cfg.InterpolateParams, cfg.MultiStatements = true, true, true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("open MySQL: %w", err)
	}
	db := sql.OpenDB(connector)
	conns := make([]*sql.Conn, n)
	for i := range conns {
		if conns[i], err = db.Conn(ctx); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("open MySQL: %w", err), db.Close())
		}
	}
	return db, conns, nil
}

// openDirect opens a database with the schema of messages for workers, with a connection and a conversation each.
func openDirect(ctx context.Context, dsn string, workers int) (*sql.DB, []*direct, error) {
	db, conns, err := openConns(ctx, dsn, workers)
	if err != nil {
		return nil, nil, err
	}
	all := make([]*direct, workers)
	for i, conn := range conns {
		all[i] = &direct{conn: conn, conversation: ids.New(), lo: ids.New(), hi: ids.New()}
		if err := all[i].prepare(ctx); err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
	}
	return db, all, nil
}

// prepare makes the worker's conversation.
func (w *direct) prepare(ctx context.Context) error {
	now := time.Now().UTC()
	_, err := w.conn.ExecContext(ctx, `INSERT INTO conversations
  (id, user_lo, user_hi, last_seq, last_message_at, read_seq_lo, read_seq_hi, created_at) VALUES (?, ?, ?, 0, ?, 0, 0, ?);
INSERT INTO user_logs (user_id, head, log_floor) VALUES (?, 0, 0), (?, 0, 0)`,
		w.conversation, w.lo, w.hi, now, now, w.lo, w.hi)
	if err != nil {
		return fmt.Errorf("make a conversation: %w", err)
	}
	return nil
}

// statement is one of a transaction's.
type statement struct {
	text string
	args []any
}

// transaction is what services/messages/internal/store/send.go executes for a message in a conversation that exists,
// statement for statement. It is repeated here because nobody outside of that service can import it.
func (w *direct) transaction() []statement {
	now := time.Now().UTC()
	hash := sha256.Sum256([]byte(body))
	log := "UPDATE user_logs SET head = head + 1 WHERE user_id = ? AND EXISTS (SELECT 1 FROM conversations WHERE id = ?)"
	return []statement{
		{"BEGIN", nil},
		{"UPDATE conversations SET read_seq_lo = last_seq + 1, last_seq = last_seq + 1," +
			" last_message_at = GREATEST(last_message_at, ?) WHERE id = ?", []any{now, w.conversation}},
		{
			`INSERT INTO messages (conversation_id, seq, sender_id, client_id, body_hash, body, sent_at)
  SELECT id, last_seq, ?, ?, ?, ?, last_message_at FROM conversations WHERE id = ?`,
			[]any{w.lo, ids.New(), hash[:], body, w.conversation},
		},
		{log, []any{w.lo, w.conversation}},
		{log, []any{w.hi, w.conversation}},
		{`INSERT INTO events (user_id, seq, kind, conversation_id, conversation_seq, created_at, unrelayed)
  SELECT l.user_id, l.head, 1, c.id, c.last_seq, ?, 1
  FROM conversations c JOIN user_logs l ON l.user_id IN (?, ?) WHERE c.id = ?`, []any{now, w.lo, w.hi, w.conversation}},
		{`SELECT c.last_seq, c.last_message_at, lo.head, hi.head, e.epoch, e.cursor_key
  FROM conversations c JOIN user_logs lo ON lo.user_id = ? JOIN user_logs hi ON hi.user_id = ? JOIN log_epoch e ON e.id = 1
  WHERE c.id = ?`, []any{w.lo, w.hi, w.conversation}},
		{"COMMIT", nil},
	}
}

// sendByStatement runs the transaction in a round trip for each statement.
func (w *direct) sendByStatement(ctx context.Context) error {
	for _, s := range w.transaction() {
		if strings.HasPrefix(s.text, "SELECT") {
			if err := w.place(ctx, s.text, s.args); err != nil {
				return err
			}
			continue
		}
		if _, err := w.conn.ExecContext(ctx, s.text, s.args...); err != nil {
			return fmt.Errorf("send directly: %w", err)
		}
	}
	return nil
}

// sendInOneTrip runs the transaction in one round trip, as the service does.
func (w *direct) sendInOneTrip(ctx context.Context) error {
	var (
		query strings.Builder
		args  []any
	)
	for _, s := range w.transaction() {
		query.WriteString(s.text)
		query.WriteString(";\n")
		args = append(args, s.args...)
	}
	return w.place(ctx, query.String(), args)
}

// place runs a query and reads the place that a message was given, and whatever answers follow.
func (w *direct) place(ctx context.Context, query string, args []any) error {
	rows, err := w.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("send directly: %w", err)
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var (
			seq, headLo, headHi int64
			at                  time.Time
			epoch, key          []byte
		)
		if err := rows.Scan(&seq, &at, &headLo, &headHi, &epoch, &key); err != nil {
			return fmt.Errorf("send directly: %w", err)
		}
		found = true
	}
	for rows.NextResultSet() {
		continue
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("send directly: %w", err)
	}
	if !found {
		return errors.New("send directly: no row, so nothing was stored")
	}
	return nil
}

// page reads a page of a conversation as the bare SELECT that the service's query is about.
func page(ctx context.Context, conn *sql.Conn, conversation ids.ID, before int64) error {
	rows, err := conn.QueryContext(ctx, `SELECT conversation_id, seq, sender_id, client_id, body, sent_at FROM messages
  WHERE conversation_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?`, conversation, before, pageSize)
	if err != nil {
		return fmt.Errorf("select a page: %w", err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var (
			id, sender, client ids.ID
			seq                int64
			text               string
			at                 time.Time
		)
		if err := rows.Scan(&id, &seq, &sender, &client, &text, &at); err != nil {
			return fmt.Errorf("select a page: %w", err)
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("select a page: %w", err)
	}
	if n != pageSize {
		return fmt.Errorf("select a page: %d rows", n)
	}
	return nil
}
