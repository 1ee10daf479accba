-- done: table users
--
-- display_name_folded is what a search compares (see search.go); it may be cut, so it is never shown.
-- email is what the owner typed at sign-up, folded, and proves nothing: any number of accounts may claim an address, so
-- that a sign-up cannot be used to ask whether an address has an account. verified_email holds the address once it is
-- proven to be the owner's, and only then is it the one account's that has it.
-- utf8mb4_bin: what must not differ by case is folded before it is stored, and every engine compares bytes alike.
CREATE TABLE users (
  id                  BINARY(16)   NOT NULL,
  username            VARCHAR(32)  NOT NULL,
  display_name        VARCHAR(64)  NOT NULL,
  display_name_folded VARCHAR(128) NOT NULL,
  email               VARCHAR(254) NULL,
  email_verified_at   DATETIME(6)  NULL,
  verified_email      VARCHAR(254) NULL,
  created_at          DATETIME(6)  NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY users_by_username (username),
  UNIQUE KEY users_by_verified_email (verified_email),
  KEY users_by_email (email, created_at, id),
  KEY users_by_display_name (display_name_folded, username)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
