// Package store keeps accounts, credentials and sessions in MySQL.
//
// It guarantees that an account is stored together with its credential and its first session or not at all, that no two
// accounts have the same username, whoever signs up at the same moment, and that a session that was revoked is found by
// whoever reads the revocations, until it expires. What was returned without an error is committed, and as durable
// as the server makes a commit. After an error other than ErrUsernameTaken and ErrNoAccount the outcome may be unknown:
// an account may exist although its owner was not told.
//
// Usernames and e-mail addresses must be folded by the caller, and are compared byte by byte. All SQL is in the subset
// that MySQL 8, MariaDB 10.11 and TiDB share.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/users/internal/store/internal/db"
)

// Migrations are the files that make the schema, for a mysql.Migrator.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Refusals.
var (
	// ErrUsernameTaken says that another account has the username.
	ErrUsernameTaken = errors.New("username taken")
	// ErrNoAccount says that no account answers to a login.
	ErrNoAccount = errors.New("no such account")
)

// User is what everybody may know of an account.
type User struct {
	ID          ids.ID
	Username    string
	DisplayName string
}

// Account is what it takes to sign somebody in.
type Account struct {
	User
	// PasswordHash is empty when the account has no password.
	PasswordHash string
}

// NewAccount is an account to be stored.
type NewAccount struct {
	User
	// Email may be empty, and need not be anybody's alone.
	Email string
	// PasswordHash may be empty: then nobody can sign in to the account by password.
	PasswordHash string
	CreatedAt    time.Time
}

// Store is a handle on the users schema. It is safe for concurrent use.
type Store struct {
	db *sql.DB
	q  *db.Queries
}

// New returns a store on a database.
func New(database *sql.DB) *Store {
	return &Store{db: database, q: db.New(database)}
}

// CreateAccount stores an account and the session of whoever signs up, or returns ErrUsernameTaken.
func (s *Store) CreateAccount(ctx context.Context, account NewAccount, session Session) error {
	err := mysql.InTx(ctx, s.db, nil, func(tx *sql.Tx) error {
		q := s.q.WithTx(tx)
		err := q.InsertUser(ctx, db.InsertUserParams{
			ID:                account.ID,
			Username:          account.Username,
			DisplayName:       account.DisplayName,
			DisplayNameFolded: searchKey(account.DisplayName),
			Email:             nullable(account.Email),
			CreatedAt:         account.CreatedAt,
		})
		if mysql.IsDuplicate(err) {
			// The id is fresh and no address is verified yet, so that the username is the only key it can have hit. The
			// server's own text quotes what collided, and is dropped.
			return ErrUsernameTaken
		}
		if err != nil {
			return fmt.Errorf("insert user: %w", err)
		}
		if account.PasswordHash != "" {
			err = q.InsertCredential(ctx, db.InsertCredentialParams{UserID: account.ID, PasswordHash: account.PasswordHash})
			if err != nil {
				return fmt.Errorf("insert credential: %w", err)
			}
		}
		if err := q.InsertSession(ctx, db.InsertSessionParams(session)); err != nil {
			return fmt.Errorf("insert session: %w", err)
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrUsernameTaken) {
		return fmt.Errorf("create account: %w", err)
	}
	return err
}

// AccountByUsername finds an account by its folded username, or returns ErrNoAccount.
func (s *Store) AccountByUsername(ctx context.Context, username string) (Account, error) {
	row, err := s.q.AccountByUsername(ctx, username)
	if errors.Is(err, sql.ErrNoRows) {
		return Account{}, ErrNoAccount
	}
	if err != nil {
		return Account{}, fmt.Errorf("find account by username: %w", err)
	}
	return accountFromRow(row), nil
}

// AccountByEmail finds the account that has proven the folded address to be its owner's, or else the oldest of those
// that claim it, or returns ErrNoAccount.
func (s *Store) AccountByEmail(ctx context.Context, email string) (Account, error) {
	row, err := s.q.AccountByEmail(ctx, db.AccountByEmailParams{Email: nullable(email)})
	if errors.Is(err, sql.ErrNoRows) {
		return Account{}, ErrNoAccount
	}
	if err != nil {
		return Account{}, fmt.Errorf("find account by e-mail address: %w", err)
	}
	return accountFromRow(db.AccountByUsernameRow(row)), nil
}

func accountFromRow(row db.AccountByUsernameRow) Account {
	return Account{
		User:         User{ID: row.ID, Username: row.Username, DisplayName: row.DisplayName},
		PasswordHash: row.PasswordHash.String,
	}
}

// ReplacePasswordHash stores a better hash of the same password. It changes nothing when the hash is no longer the old
// one: the password may have been changed meanwhile.
func (s *Store) ReplacePasswordHash(ctx context.Context, user ids.ID, oldHash, newHash string) error {
	err := s.q.ReplacePasswordHash(ctx, db.ReplacePasswordHashParams{NewHash: newHash, UserID: user, OldHash: oldHash})
	if err != nil {
		return fmt.Errorf("replace password hash: %w", err)
	}
	return nil
}

// Users reads those of the given users that exist, each once and in no order.
func (s *Store) Users(ctx context.Context, userIDs []ids.ID) ([]User, error) {
	rows, err := s.q.UsersByIDs(ctx, userIDs)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return usersFromRows(rows), nil
}

// userRow is the row of any query that reads users; sqlc names a type for each.
type userRow interface {
	~struct {
		ID          ids.ID
		Username    string
		DisplayName string
	}
}

func usersFromRows[R userRow](rows []R) []User {
	users := make([]User, len(rows))
	for i, row := range rows {
		users[i] = User(row)
	}
	return users
}

func nullable(s string) sql.NullString {
	return sql.NullString{String: s, Valid: s != ""}
}
