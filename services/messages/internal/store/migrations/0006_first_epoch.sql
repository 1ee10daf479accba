-- done: repeatable
-- The row may be there already when an earlier run was killed before it recorded this migration.
INSERT IGNORE INTO log_epoch (id, epoch, cursor_key) VALUES (1, RANDOM_BYTES(8), RANDOM_BYTES(32));
