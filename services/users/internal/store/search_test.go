package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/users/internal/store"
)

// named makes an account with a display name.
func named(username, displayName string) store.NewAccount {
	a := account(username)
	a.DisplayName = displayName
	return a
}

func usernames(users []store.User) []string {
	names := make([]string, len(users))
	for i, user := range users {
		names[i] = user.Username
	}
	return names
}

// searchAll reads page after page, and calls between after each that another follows.
func searchAll(t *testing.T, s *store.Store, search store.Search, between func()) []string {
	t.Helper()
	var all []string
	for {
		users, more, err := s.SearchUsers(t.Context(), search)
		if err != nil {
			t.Fatal(err)
		}
		if len(users) > search.Limit {
			t.Fatalf("a page of %d has %d users", search.Limit, len(users))
		}
		all = append(all, usernames(users)...)
		if !more {
			return all
		}
		if len(users) != search.Limit {
			t.Fatalf("a page of %d that another follows has %d users", search.Limit, len(users))
		}
		search.AfterUsername = users[len(users)-1].Username
		between()
	}
}

func TestSearchFindsPrefixesOfUsernamesAndDisplayNames(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	me := named("zoe", "Zoë")
	longName := strings.Repeat("ﷺ", 64) // Each folds to eighteen characters.
	create(t, s, me,
		named("ada", "Ada Lovelace"),
		named("adam", "Émile Zola"),
		named("a_b", "100% Sure"),
		named("a-b", "100 Years"),
		named("axb", "!important"),
		named("bob", `back\slash`),
		named("carl", "O'Brien"),
		named("dora", "Straße"),
		named("eve", "ＦＵＬＬ Width"),
		named("finn", "ﬁsh"),
		named("gus", "愛麗絲"),
		named("hal", "עליזה"),
		named("ida", "Łukasz ada"),
		named("jan", "👩‍🚀 Ann"),
		named("kim", "_underscore"),
		named("lea", longName),
		named("mia", "ΣΊΣΥΦΟΣ"),
	)
	tests := map[string]struct {
		prefix string
		want   []string
	}{
		"everybody but the caller": {"", []string{
			"a-b", "a_b", "ada", "adam", "axb", "bob", "carl", "dora", "eve", "finn", "gus", "hal", "ida", "jan", "kim",
			"lea", "mia",
		}},
		"both names at once":     {"ada", []string{"ada", "adam"}},
		"other case":             {"ADA", []string{"ada", "adam"}},
		"whole name":             {"ada lovelace", []string{"ada"}},
		"more than the name":     {"ada lovelacex", []string{}},
		"not in the middle":      {"lovelace", []string{}},
		"the caller":             {"zo", []string{}},
		"accent":                 {"émile", []string{"adam"}},
		"decomposed accent":      {"E\u0301MILE", []string{"adam"}},
		"without the accent":     {"emile", []string{}},
		"underscore is no dot":   {"a_", []string{"a_b"}},
		"underscore":             {"_", []string{"kim"}},
		"percent":                {"100%", []string{"a_b"}},
		"only percent":           {"%", []string{}},
		"percent inside":         {"a%", []string{}},
		"escape character":       {"!", []string{"axb"}},
		"escaped escape":         {"!i", []string{"axb"}},
		"escape and wildcard":    {"!%", []string{}},
		"backslash":              {`back\`, []string{"bob"}},
		"backslash and percent":  {`back\%`, []string{}},
		"quote":                  {"o'b", []string{"carl"}},
		"sharp s as ss":          {"STRASSE", []string{"dora"}},
		"sharp s":                {"straß", []string{"dora"}},
		"full width":             {"full w", []string{"eve"}},
		"typed in full width":    {"ｆｕｌｌ", []string{"eve"}},
		"username in full width": {"ｅｖｅ", []string{"eve"}},
		"ligature":               {"FIS", []string{"finn"}},
		"CJK":                    {"愛", []string{"gus"}},
		"right to left":          {"עלי", []string{"hal"}},
		"stroke":                 {"łuk", []string{"ida"}},
		"emoji sequence":         {"👩‍🚀", []string{"jan"}},
		"start of the sequence":  {"👩", []string{"jan"}},
		"cut name":               {longName, []string{"lea"}},
		"final sigma":            {"σίσυφος", []string{"mia"}},
		"NUL":                    {"a\x00", []string{}},
		"absurdly long":          {strings.Repeat("a", 1024), []string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			users, more, err := s.SearchUsers(t.Context(), store.Search{Prefix: test.prefix, Except: me.ID, Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, usernames(users)); diff != "" || more {
				t.Errorf("more = %t, users (-want +got):\n%s", more, diff)
			}
			one := searchAll(t, s, store.Search{Prefix: test.prefix, Except: me.ID, Limit: 1}, func() {})
			if diff := cmp.Diff(test.want, append([]string{}, one...)); diff != "" {
				t.Errorf("one by one (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPagesHaveNoGapAndNoRepeatWhileOthersSignUp(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "m"} {
		t.Run(fmt.Sprintf("prefix %q", prefix), func(t *testing.T) {
			t.Parallel()
			s, _ := newStore(t)
			// Every second one is found by username and the others by display name.
			var want []string
			for i := range 60 {
				a := named(fmt.Sprintf("m%03d", i), "other")
				if i%2 == 1 {
					a = named(fmt.Sprintf("u%03d", i), "M name")
				}
				create(t, s, a)
				want = append(want, a.Username)
			}
			slices.Sort(want)

			newcomers := 0
			got := searchAll(t, s, store.Search{Prefix: prefix, Except: ids.New(), Limit: 7}, func() {
				newcomers++
				create(t, s,
					named(fmt.Sprintf("a-new%03d", newcomers), "M before all"),
					named(fmt.Sprintf("m%03d-new", newcomers*7), "M among them"),
					named(fmt.Sprintf("z-new%03d", newcomers), "after all, but not found by m"),
				)
			})
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("the pages are out of order or repeat a user: %v", got)
			}
			old := slices.DeleteFunc(slices.Clone(got), func(name string) bool { return strings.Contains(name, "new") })
			if diff := cmp.Diff(want, old); diff != "" {
				t.Errorf("users who were there before the first page (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPageOfASearchIsOneQueryThatReadsByIndex(t *testing.T) {
	t.Parallel()
	s, database := newStore(t)
	crowd(t, s, database, 3000)
	s, recorder := s.Record()
	for _, search := range []store.Search{
		{},
		{AfterUsername: "crowd1500"},
		{Prefix: "crowd01"},
		{Prefix: "ab"},
		{Prefix: "ab", AfterUsername: "crowd1500"},
		{Prefix: "nobody has this"},
	} {
		search.Except, search.Limit = ids.New(), 20
		if _, _, err := s.SearchUsers(t.Context(), search); err != nil {
			t.Fatal(err)
		}
		queries := recorder.Take(t)
		if len(queries) != 1 {
			t.Errorf("search %+v: %d queries, want 1", search, len(queries))
		}
		expectIndexed(t, database, queries)
	}
}
