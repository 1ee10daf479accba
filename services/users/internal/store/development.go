package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
)

// CreateAccounts stores many accounts at once, passing over those whose usernames exist, and returns the users of all
// the usernames, in order and as they are stored. It serves development, where it is repeated and raced freely.
func (s *Store) CreateAccounts(ctx context.Context, accounts []NewAccount) ([]User, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	// Everybody inserts in the same order, so that two who create the same accounts wait for each other without a
	// deadlock.
	sorted := slices.Clone(accounts)
	slices.SortFunc(sorted, func(a, b NewAccount) int { return strings.Compare(a.Username, b.Username) })
	usernames := make([]string, len(sorted))
	for i, account := range sorted {
		usernames[i] = account.Username
	}

	byName := make(map[string]User, len(accounts))
	err := mysql.InTx(ctx, s.db, nil, func(tx *sql.Tx) error {
		if err := insertUsers(ctx, tx, sorted); err != nil {
			return fmt.Errorf("insert users: %w", err)
		}
		rows, err := s.q.WithTx(tx).UsersByUsernames(ctx, usernames)
		if err != nil {
			return fmt.Errorf("read users: %w", err)
		}
		stored := make(map[ids.ID]bool, len(rows))
		for _, user := range usersFromRows(rows) {
			byName[user.Username] = user
			stored[user.ID] = true
		}
		fresh := slices.DeleteFunc(slices.Clone(sorted), func(a NewAccount) bool {
			return a.PasswordHash == "" || !stored[a.ID]
		})
		if err := insertCredentials(ctx, tx, fresh); err != nil {
			return fmt.Errorf("insert credentials: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("create accounts: %w", err)
	}
	users := make([]User, len(accounts))
	for i, account := range accounts {
		users[i] = byName[account.Username]
	}
	return users, nil
}

// insertUsers inserts the users whose usernames are not there yet. sqlc has no statement of many rows.
func insertUsers(ctx context.Context, tx *sql.Tx, accounts []NewAccount) error {
	args := make([]any, 0, 6*len(accounts))
	for _, a := range accounts {
		args = append(args, a.ID, a.Username, a.DisplayName, searchKey(a.DisplayName), nullable(a.Email), a.CreatedAt)
	}
	// An update that changes nothing passes over what exists. INSERT IGNORE would pass over all else that is wrong,
	// too.
	_, err := tx.ExecContext(ctx,
		"INSERT INTO users (id, username, display_name, display_name_folded, email, created_at) VALUES "+
			rowsOf("(?, ?, ?, ?, ?, ?)", len(accounts))+" ON DUPLICATE KEY UPDATE id = id",
		args...)
	return err
}

func insertCredentials(ctx context.Context, tx *sql.Tx, accounts []NewAccount) error {
	if len(accounts) == 0 {
		return nil
	}
	args := make([]any, 0, 2*len(accounts))
	for _, a := range accounts {
		args = append(args, a.ID, a.PasswordHash)
	}
	_, err := tx.ExecContext(ctx,
		"INSERT INTO credentials (user_id, password_hash) VALUES "+rowsOf("(?, ?)", len(accounts)), args...)
	return err
}

// rowsOf repeats the placeholders of a row.
func rowsOf(row string, count int) string {
	return strings.TrimSuffix(strings.Repeat(row+", ", count), ", ")
}
