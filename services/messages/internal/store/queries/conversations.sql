-- name: ConversationByUsers :one
SELECT id FROM conversations WHERE user_lo = ? AND user_hi = ?;

-- name: Participants :one
SELECT user_lo, user_hi FROM conversations WHERE id = ?;

-- name: LockConversation :one
SELECT id, user_lo, user_hi, last_seq, last_message_at, read_seq_lo, read_seq_hi
FROM conversations WHERE id = ? FOR UPDATE;

-- The caller stands twice in the condition rather than in an OR of an index range, for the rows are found by their ids.
-- name: ConversationsByID :many
SELECT c.id, c.user_lo, c.user_hi, c.last_seq, c.last_message_at, c.read_seq_lo, c.read_seq_hi,
       m.sender_id, m.client_id, m.body, m.sent_at
FROM conversations c
JOIN messages m ON m.conversation_id = c.id AND m.seq = c.last_seq
WHERE c.id IN (sqlc.slice('ids')) AND (c.user_lo = sqlc.arg('user_id') OR c.user_hi = sqlc.arg('user_id'));

-- name: ConversationWith :one
SELECT c.id, c.user_lo, c.user_hi, c.last_seq, c.last_message_at, c.read_seq_lo, c.read_seq_hi,
       m.sender_id, m.client_id, m.body, m.sent_at
FROM conversations c
JOIN messages m ON m.conversation_id = c.id AND m.seq = c.last_seq
WHERE c.user_lo = ? AND c.user_hi = ?;

-- name: InsertConversation :exec
INSERT INTO conversations (id, user_lo, user_hi, last_seq, last_message_at, read_seq_lo, read_seq_hi, created_at)
VALUES (?, ?, ?, 0, sqlc.arg('created_at'), 0, 0, sqlc.arg('created_at'));

-- name: AdvanceConversation :exec
UPDATE conversations SET last_seq = ?, last_message_at = ?, read_seq_lo = ?, read_seq_hi = ? WHERE id = ?;

-- name: SetReadLo :exec
UPDATE conversations SET read_seq_lo = ? WHERE id = ?;

-- name: SetReadHi :exec
UPDATE conversations SET read_seq_hi = ? WHERE id = ?;

-- Each half walks its own index from the newest, so that a page costs its length and not the list's.
-- The second half leaves notes to self to the first.
-- name: ListConversations :many
SELECT c.id, c.user_lo, c.user_hi, c.last_seq, c.last_message_at, c.read_seq_lo, c.read_seq_hi,
       m.sender_id, m.client_id, m.body, m.sent_at
FROM (
  (SELECT lo.* FROM conversations lo
   WHERE lo.user_lo = sqlc.arg('user_id') AND lo.last_message_at <= sqlc.arg('before_at')
     AND (lo.last_message_at < sqlc.arg('before_at') OR lo.id < sqlc.arg('before_id'))
   ORDER BY lo.last_message_at DESC, lo.id DESC LIMIT ?)
  UNION ALL
  (SELECT hi.* FROM conversations hi
   WHERE hi.user_hi = sqlc.arg('user_id') AND hi.user_lo <> sqlc.arg('user_id')
     AND hi.last_message_at <= sqlc.arg('before_at')
     AND (hi.last_message_at < sqlc.arg('before_at') OR hi.id < sqlc.arg('before_id'))
   ORDER BY hi.last_message_at DESC, hi.id DESC LIMIT ?)
) c
JOIN messages m ON m.conversation_id = c.id AND m.seq = c.last_seq
ORDER BY c.last_message_at DESC, c.id DESC
LIMIT ?;
