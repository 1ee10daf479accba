-- done: table events
CREATE TABLE events (
  user_id          BINARY(16)       NOT NULL,
  seq              BIGINT UNSIGNED  NOT NULL,
  -- 1: a message, conversation_seq being its seq. 2: a read pointer that moved to conversation_seq.
  kind             TINYINT UNSIGNED NOT NULL,
  conversation_id  BINARY(16)       NOT NULL,
  conversation_seq BIGINT UNSIGNED  NOT NULL,
  created_at       DATETIME(6)      NOT NULL,
  -- 1 until the event was published to Redis, NULL from then on.
  unrelayed        TINYINT UNSIGNED NULL,
  PRIMARY KEY (user_id, seq),
  KEY events_unrelayed (unrelayed, created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
