package mysql

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScriptsAreSplitIntoStatements(t *testing.T) {
	tests := []struct {
		script string
		want   []string
	}{
		{"", nil},
		{" \r\n\t", nil},
		{";;", nil},
		{"-- only a comment", nil},
		{"# only a comment", nil},
		{"/* only; a comment */", nil},
		{"SELECT 1", []string{"SELECT 1"}},
		{"SELECT 1;", []string{"SELECT 1"}},
		{"SELECT 1;\n-- the end; really\n", []string{"SELECT 1"}},
		{"-- first; comment\nSELECT 1 -- why; so\n + 2;", []string{"SELECT 1 -- why; so\n + 2"}},
		{"SELECT 1; SELECT 2", []string{"SELECT 1", "SELECT 2"}},
		{"SELECT 1 /* a; b */; SELECT 2", []string{"SELECT 1", "SELECT 2"}},
		{"SELECT ';'", []string{"SELECT ';'"}},
		{"SELECT 'it''s; fine'", []string{"SELECT 'it''s; fine'"}},
		{`SELECT 'it\'s; fine'`, []string{`SELECT 'it\'s; fine'`}},
		{`SELECT "a;\"b", ` + "`c;d`", []string{`SELECT "a;\"b", ` + "`c;d`"}},
		{"SELECT `a\\`; SELECT 2", []string{"SELECT `a\\`", "SELECT 2"}},
		{"SELECT '-- no comment', '/* neither'; SELECT 2", []string{"SELECT '-- no comment', '/* neither'", "SELECT 2"}},
		{"SELECT 1--1", []string{"SELECT 1--1"}},
		{"SELECT 'é;🎉'", []string{"SELECT 'é;🎉'"}},
	}
	for _, test := range tests {
		got, err := splitStatements(test.script)
		if err != nil {
			t.Errorf("%q: %v", test.script, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", test.script, diff)
		}
	}
	for _, script := range []string{"SELECT 'open", `SELECT "open\"`, "SELECT `open", "SELECT 1 /* open; SELECT 2"} {
		if got, err := splitStatements(script); err == nil {
			t.Errorf("%q was split into %q", script, got)
		}
	}
}
