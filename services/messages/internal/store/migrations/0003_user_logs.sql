-- done: table user_logs
CREATE TABLE user_logs (
  user_id   BINARY(16)      NOT NULL,
  -- The number of the newest event.
  head      BIGINT UNSIGNED NOT NULL,
  -- Events up to this number were deleted by retention.
  log_floor BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (user_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
