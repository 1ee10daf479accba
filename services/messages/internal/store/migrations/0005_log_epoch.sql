-- done: table log_epoch
CREATE TABLE log_epoch (
  -- Always 1: the table has one row.
  id         TINYINT UNSIGNED NOT NULL,
  -- Which life of the log cursors belong to; a restore from a backup begins a new one.
  epoch      BINARY(8)        NOT NULL,
  -- The secret that authenticates cursors.
  cursor_key BINARY(32)       NOT NULL,
  PRIMARY KEY (id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
