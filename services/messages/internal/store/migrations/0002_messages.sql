-- done: table messages
CREATE TABLE messages (
  conversation_id BINARY(16)      NOT NULL,
  seq             BIGINT UNSIGNED NOT NULL,
  sender_id       BINARY(16)      NOT NULL,
  client_id       BINARY(16)      NOT NULL,
  -- SHA-256 of the body's bytes: what a repeated client_id is compared with, since collations call different texts equal.
  body_hash       BINARY(32)      NOT NULL,
  body            VARCHAR(4000)   NOT NULL,
  sent_at         DATETIME(6)     NOT NULL,
  PRIMARY KEY (conversation_id, seq),
  UNIQUE KEY messages_by_client_id (sender_id, client_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
