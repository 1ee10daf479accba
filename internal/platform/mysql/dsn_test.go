package mysql

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestAWrongDSNIsRefusedWithoutShowingThePassword(t *testing.T) {
	const password = "hunter2"
	tests := map[string]string{
		"":                                      "is empty",
		"  ":                                    "is empty",
		"mysql://app:hunter2@mysql:3306/chat":   "must not be a URL",
		"app:hunter2@tcp(mysql:3306)":           "has no /database",
		"hunter2":                               "has no /database",
		"app:hunter2@tcp(mysql:3306)/":          "names no database",
		"app:hunter2@tcp(mysql:3306)/?tls=true": "names no database",
		"app:hunter2@mysql:3306/chat":           "cannot be read",
		"app:hunter2/chat":                      "cannot be read",
		"app:hunter2@tcp(mysql:3306/chat":       "cannot be read",
		"app:hun/hunter2":                       "cannot be read",

		"app:hunter2@tcp(mysql)/chat?tls=hunter2":          "has a parameter",
		"app:hunter2@tcp(mysql)/chat?timeout=hunter2":      "has a parameter",
		"app:hunter2@tcp(mysql)/chat?parseTime=hunter2":    "has a parameter",
		"app:hunter2@tcp(mysql)/chat?strict=true":          "has the parameter strict",
		"app:hunter2@tcp(mysql)/chat?tls=true&strict=true": "has the parameter strict",
		"app:hunter2@tcp(mysql)/chat%zz":                   "cannot be read",
		"app:hunter2@tcp(mysql)/chat?loc=hunter2/hunter2":  "cannot be read",
		"app:hunter2@unixx/chat":                           "cannot be read",
	}
	for text, want := range tests {
		d := DSN("untouched")
		err := d.UnmarshalText([]byte(text))
		if err == nil {
			t.Errorf("%q was taken", text)
			continue
		}
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %q, want it to begin with %q", text, err, want)
		}
		if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error shows the password or has several lines: %v", text, err)
		}
		if d != "untouched" {
			t.Errorf("%q was refused but stored", text)
		}
	}
}

func TestAGoodDSNIsTakenAndPrintedWithoutThePassword(t *testing.T) {
	tests := map[DSN]string{
		"app:hunter2@tcp(mysql:3306)/chat":                   "tcp(mysql:3306)/chat",
		"app:hunter2@tcp(mysql)/chat?tls=true":               "tcp(mysql:3306)/chat",
		"app:hun/t?r2@:@tcp([::1]:4000)/chat?readTimeout=5s": "tcp([::1]:4000)/chat",
		"root@unix(/run/mysqld/mysqld.sock)/chat":            "unix(/run/mysqld/mysqld.sock)/chat",
		"/chat": "tcp(127.0.0.1:3306)/chat",
	}
	for dsn, want := range tests {
		var d DSN
		if err := d.UnmarshalText([]byte(dsn)); err != nil {
			t.Errorf("%s: %v", string(dsn), err)
			continue
		}
		if d != dsn {
			t.Errorf("%q became %q", string(dsn), string(d))
		}
		if d.Database() != "chat" {
			t.Errorf("%q: database %q", string(dsn), d.Database())
		}
		cfg := Config{DSN: d}
		asJSON, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, printed := range []string{
			d.String(), fmt.Sprint(d), fmt.Sprintf("%q", d), fmt.Sprintf("%v", cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), string(asJSON),
		} {
			if strings.Contains(printed, "hunter2") || !strings.Contains(printed, want) {
				t.Errorf("printed %s, want %s in it and no password", printed, want)
			}
		}
	}
	for _, d := range []DSN{"", "hunter2"} {
		if d.String() != "invalid DSN" || d.Database() != "" {
			t.Errorf("a wrong DSN is printed as %s", d)
		}
	}
}
