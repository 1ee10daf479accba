-- name: Epoch :one
SELECT epoch, cursor_key FROM log_epoch WHERE id = 1;

-- name: RenewEpoch :exec
UPDATE log_epoch SET epoch = ?, cursor_key = ? WHERE id = 1;

-- name: LogState :one
SELECT e.epoch, e.cursor_key, COALESCE(l.head, 0) AS head, COALESCE(l.log_floor, 0) AS log_floor
FROM log_epoch e
LEFT JOIN user_logs l ON l.user_id = ?
WHERE e.id = 1;

-- name: LogHeads :many
SELECT user_id, head FROM user_logs WHERE user_id IN (sqlc.slice('user_ids'));

-- name: Events :many
SELECT e.seq, e.kind, e.conversation_id, e.conversation_seq, e.created_at, m.sender_id, m.client_id, m.body, m.sent_at
FROM events e
LEFT JOIN messages m ON e.kind = 1 AND m.conversation_id = e.conversation_id AND m.seq = e.conversation_seq
WHERE e.user_id = ? AND e.seq > ?
ORDER BY e.seq
LIMIT ?;

-- name: EnsureUserLogs :exec
INSERT INTO user_logs (user_id, head, log_floor) VALUES (?, 0, 0), (?, 0, 0)
ON DUPLICATE KEY UPDATE log_floor = log_floor;

-- name: LockUserLog :one
SELECT head, log_floor FROM user_logs WHERE user_id = ? FOR UPDATE;

-- name: SetLogHead :exec
UPDATE user_logs SET head = ? WHERE user_id = ?;

-- name: SetLogFloor :exec
UPDATE user_logs SET log_floor = ? WHERE user_id = ?;

-- name: InsertEvent :exec
INSERT INTO events (user_id, seq, kind, conversation_id, conversation_seq, created_at, unrelayed)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: UnrelayedEvents :many
SELECT e.user_id, e.seq, e.kind, e.conversation_id, e.conversation_seq, e.created_at,
       m.sender_id, m.client_id, m.body, m.sent_at
FROM events e
LEFT JOIN messages m ON e.kind = 1 AND m.conversation_id = e.conversation_id AND m.seq = e.conversation_seq
WHERE e.unrelayed = 1 AND e.created_at < ?
ORDER BY e.created_at
LIMIT ?;

-- The first event that each user's log still has tells whether there is anything to delete in it.
-- name: LogsWithEventsBefore :many
SELECT l.user_id
FROM user_logs l
JOIN events e ON e.user_id = l.user_id AND e.seq = l.log_floor + 1
WHERE l.user_id > ? AND e.created_at < ?
ORDER BY l.user_id
LIMIT ?;

-- name: OldestEvents :many
SELECT seq, created_at, unrelayed FROM events WHERE user_id = ? AND seq > ? ORDER BY seq LIMIT ?;

-- name: DeleteEventsUpTo :exec
DELETE FROM events WHERE user_id = ? AND seq <= ?;
