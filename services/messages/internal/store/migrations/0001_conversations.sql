-- done: table conversations
CREATE TABLE conversations (
  id              BINARY(16)      NOT NULL,
  -- The participants, the lower id first; the same twice for notes to self.
  user_lo         BINARY(16)      NOT NULL,
  user_hi         BINARY(16)      NOT NULL,
  last_seq        BIGINT UNSIGNED NOT NULL,
  last_message_at DATETIME(6)     NOT NULL,
  -- How far each participant has read; unread messages are last_seq less this. Notes to self use read_seq_lo.
  read_seq_lo     BIGINT UNSIGNED NOT NULL,
  read_seq_hi     BIGINT UNSIGNED NOT NULL,
  created_at      DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY conversations_by_users (user_lo, user_hi),
  KEY conversations_of_lo (user_lo, last_message_at, id),
  KEY conversations_of_hi (user_hi, last_message_at, id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
