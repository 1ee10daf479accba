-- name: MessageByClientID :one
SELECT conversation_id, seq, sender_id, client_id, body_hash, body, sent_at
FROM messages WHERE sender_id = ? AND client_id = ?;
