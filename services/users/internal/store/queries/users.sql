-- name: UsersByIDs :many
SELECT id, username, display_name
FROM users
WHERE id IN (sqlc.slice(ids));

-- UsersByUsernames locks the rows, which makes it read what is committed now: a snapshot may be older than a row over
-- which this transaction has just stumbled.
-- name: UsersByUsernames :many
SELECT id, username, display_name
FROM users
WHERE username IN (sqlc.slice(usernames))
FOR UPDATE;

-- name: ListUsers :many
SELECT id, username, display_name
FROM users
WHERE username > sqlc.arg(after_username) AND id <> sqlc.arg(except_id)
ORDER BY username
LIMIT ?;

-- SearchUsers takes a page from the range of either index and then the first of both. The index by username is in the
-- order of the page, so that branch ends with it; the other one reads its index (and not the table) for every display
-- name with the prefix.
-- name: SearchUsers :many
SELECT u.id, u.username, u.display_name
FROM (
  (SELECT a.id FROM users a
   WHERE a.username LIKE sqlc.arg(username_pattern) ESCAPE '!'
     AND a.username > sqlc.arg(after_username) AND a.id <> sqlc.arg(except_id)
   ORDER BY a.username LIMIT ?)
  UNION
  (SELECT b.id FROM users b
   WHERE b.display_name_folded LIKE sqlc.arg(display_name_pattern) ESCAPE '!'
     AND b.username > sqlc.arg(after_username) AND b.id <> sqlc.arg(except_id)
   ORDER BY b.username LIMIT ?)
) AS found
JOIN users u ON u.id = found.id
ORDER BY u.username
LIMIT ?;
