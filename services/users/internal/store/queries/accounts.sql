-- name: InsertUser :exec
INSERT INTO users (id, username, display_name, display_name_folded, email, created_at)
VALUES (?, ?, ?, ?, ?, ?);

-- name: InsertCredential :exec
INSERT INTO credentials (user_id, password_hash)
VALUES (?, ?);

-- ReplacePasswordHash leaves a hash alone that is no longer the one that was read.
-- name: ReplacePasswordHash :exec
UPDATE credentials
SET password_hash = sqlc.arg(new_hash)
WHERE user_id = sqlc.arg(user_id) AND password_hash = sqlc.arg(old_hash);

-- name: AccountByUsername :one
SELECT u.id, u.username, u.display_name, c.password_hash
FROM users u
LEFT JOIN credentials c ON c.user_id = u.id
WHERE u.username = ?;

-- AccountByEmail returns the account that has proven the address to be its owner's, or else the oldest that claims it.
-- name: AccountByEmail :one
SELECT u.id, u.username, u.display_name, c.password_hash
FROM users u
LEFT JOIN credentials c ON c.user_id = u.id
WHERE u.id = COALESCE(
  (SELECT v.id FROM users v WHERE v.verified_email = sqlc.arg(email)),
  (SELECT o.id FROM users o WHERE o.email = sqlc.arg(email) ORDER BY o.created_at, o.id LIMIT 1)
);
