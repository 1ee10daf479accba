-- done: table sessions
--
-- A session begins with a sign-in and is named by its access tokens. It ends by itself with the last of them, at
-- expires_at, or when it is revoked before; the row stays until expires_at either way, so that a revocation can be told
-- as long as there is a token to refuse. revoked_at is by the database's clock, the one clock that all writers share, and
-- is what readers of the list of revocations go by; the index holds all that they read.
CREATE TABLE sessions (
  id         BINARY(16)  NOT NULL,
  user_id    BINARY(16)  NOT NULL,
  created_at DATETIME(6) NOT NULL,
  expires_at DATETIME(6) NOT NULL,
  revoked_at DATETIME(6) NULL,
  PRIMARY KEY (id),
  KEY sessions_by_revocation (revoked_at, id, expires_at),
  KEY sessions_by_expiry (expires_at)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
