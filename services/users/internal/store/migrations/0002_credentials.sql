-- done: table credentials
--
-- A table of its own, so that no query about who somebody is can return how they prove it. An account without a row
-- here cannot sign in by password. password_hash is argon2id in the PHC string format, which names its own parameters.
CREATE TABLE credentials (
  user_id       BINARY(16)   NOT NULL,
  password_hash VARCHAR(255) NOT NULL,
  PRIMARY KEY (user_id)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
