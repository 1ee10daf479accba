-- name: InsertSession :exec
INSERT INTO sessions (id, user_id, created_at, expires_at)
VALUES (?, ?, ?, ?);

-- RevokeSession stores the session when it is not there: it may have begun before sessions were stored. One that is
-- revoked already is stamped again, see the store.
-- name: RevokeSession :exec
INSERT INTO sessions (id, user_id, created_at, expires_at, revoked_at)
VALUES (?, ?, ?, ?, NOW(6))
ON DUPLICATE KEY UPDATE revoked_at = NOW(6);

-- name: Revocations :many
SELECT id, revoked_at, expires_at
FROM sessions
WHERE revoked_at >= sqlc.arg(revoked_at) AND (revoked_at > sqlc.arg(revoked_at) OR id > sqlc.arg(after_id))
  AND expires_at > sqlc.arg(expires_after)
ORDER BY revoked_at, id
LIMIT ?;

-- name: DeleteSessions :execrows
DELETE FROM sessions
WHERE expires_at < ?
ORDER BY expires_at
LIMIT ?;
