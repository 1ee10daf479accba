package store

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/users/internal/store/internal/db"
)

// searchKeyLen is the length of users.display_name_folded in code points. Folding can lengthen a name eighteenfold;
// such names are compared by the beginnings of their keys alone.
const searchKeyLen = 128

// searchKey returns the form of a display name or of a searched text that is compared: without regard to case and to
// compatible spellings, such as full-width letters and ligatures, but with regard to accents.
func searchKey(s string) string {
	// Folding can leave text that is not normalised, so that it is normalised before and after.
	folded := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
	count := 0
	for i := range folded {
		if count == searchKeyLen {
			return folded[:i]
		}
		count++
	}
	return folded
}

// likeEscaper makes text stand for itself in a LIKE pattern. The escape character is one that no sql_mode gives or
// takes away a meaning, unlike the backslash.
var likeEscaper = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// Search selects users.
type Search struct {
	// Prefix is what the username or the display name begins with; empty selects everybody.
	Prefix string
	// AfterUsername is the last username of the page before; empty for the first page.
	AfterUsername string
	// Except is left out.
	Except ids.ID
	// Limit is the size of a page.
	Limit int
}

// SearchUsers reads a page of users, ascending by username, and whether more follow.
//
// A user is on exactly one of the pages that follow each other by username, whoever signs up meanwhile; somebody who
// signs up meanwhile may be on none.
func (s *Store) SearchUsers(ctx context.Context, search Search) (users []User, more bool, err error) {
	limit := int32(search.Limit) + 1 // The one more tells whether a page follows.
	if search.Prefix == "" {
		// Everybody has the empty prefix: the page is a piece of the index by username, and the other index would be
		// read whole for nothing.
		rows, err := s.q.ListUsers(ctx, db.ListUsersParams{
			AfterUsername: search.AfterUsername, ExceptID: search.Except, Limit: limit,
		})
		if err != nil {
			return nil, false, fmt.Errorf("list users: %w", err)
		}
		users = usersFromRows(rows)
	} else {
		pattern := likeEscaper.Replace(searchKey(search.Prefix)) + "%"
		rows, err := s.q.SearchUsers(ctx, db.SearchUsersParams{
			UsernamePattern: pattern, DisplayNamePattern: pattern,
			AfterUsername: search.AfterUsername, ExceptID: search.Except,
			Limit: limit, Limit_2: limit, Limit_3: limit,
		})
		if err != nil {
			return nil, false, fmt.Errorf("search users: %w", err)
		}
		users = usersFromRows(rows)
	}
	if len(users) > search.Limit {
		return users[:search.Limit], true, nil
	}
	return users, false, nil
}
