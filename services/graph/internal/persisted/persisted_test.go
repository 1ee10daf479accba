package persisted

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

func TestTheCacheHasBounds(t *testing.T) {
	t.Run("entries", func(t *testing.T) {
		c := newCache(3, 1<<20)
		for i := range 4 {
			c.add(fmt.Sprint(i), "text")
			// The first is asked for again and again, so it is not the one to go.
			if _, ok := c.get("0"); !ok {
				t.Errorf("after %d the first is gone", i)
			}
		}
		if _, ok := c.get("1"); ok || c.texts.Len() != 3 {
			t.Errorf("%d are kept", c.texts.Len())
		}
	})
	t.Run("bytes", func(t *testing.T) {
		c := newCache(1000, maxDocument)
		for i := range 100 {
			c.add(fmt.Sprintf("%03d", i), strings.Repeat("x", 1000))
			c.add(fmt.Sprintf("%03d", i), strings.Repeat("x", 1000)) // Which changes nothing.
		}
		held := 0
		for _, text := range c.texts.Values() {
			held += len(text) + 3
		}
		if held != c.bytes || held > maxDocument || c.texts.Len() != maxDocument/1003 {
			t.Errorf("%d texts have %d bytes, by its count %d", c.texts.Len(), held, c.bytes)
		}
		if text, ok := c.get("099"); !ok || len(text) != 1000 {
			t.Error("the last is not kept")
		}
	})
	t.Run("one", func(t *testing.T) {
		c := newCache(10, 1<<20)
		c.add("short", "text")
		c.add("long", strings.Repeat("x", maxDocument+1))
		if _, ok := c.get("long"); ok || c.texts.Len() != 1 {
			t.Error("a text is kept that is too long")
		}
	})
}

func TestSettings(t *testing.T) {
	for name, test := range map[string]struct {
		cfg Config
		ok  bool
	}{
		"off":      {Config{}, true},
		"least":    {Config{Entries: 1, Bytes: maxDocument}, true},
		"too few":  {Config{Entries: 1, Bytes: maxDocument - 1}, false},
		"negative": {Config{Entries: -1, Bytes: maxDocument}, false},
	} {
		if err := test.cfg.Validate(); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func schema(t *testing.T) *ast.Schema {
	t.Helper()
	s, err := gqlparser.LoadSchema(&ast.Source{Input: `type Query { a: String b(c: Int): String }`})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	a, b := "{ a }", "query B($c: Int) { b(c: $c) }"
	manifest := func(format string, version int, operations string) string {
		return fmt.Sprintf(`{"format":%q,"version":%d,"operations":[%s]}`, format, version, operations)
	}
	operation := func(id, body string) string {
		return fmt.Sprintf(`{"id":%q,"name":"A","type":"query","body":%q}`, id, body)
	}
	for name, test := range map[string]struct{ file, reason string }{
		"map":                   {fmt.Sprintf(`{%q:%q,%q:%q}`, hash(a), a, hash(b), b), ""},
		"map with prefixes":     {fmt.Sprintf(`{%q:%q,%q:%q}`, "sha256:"+hash(a), a, "sha256:"+hash(b), b), ""},
		"map with other ids":    {fmt.Sprintf(`{"one":%q,"two":%q}`, a, b), ""},
		"manifest":              {manifest(apolloFormat, 1, operation(hash(a), a)+","+operation(hash(b), b)), ""},
		"manifest with ids":     {manifest(apolloFormat, 1, operation("one", a)+","+operation("two", b)), ""},
		"manifest of another":   {manifest("other", 1, operation(hash(a), a)), `its format is "other"`},
		"manifest of later":     {manifest(apolloFormat, 2, operation(hash(a), a)), "version 2"},
		"manifest of nothing":   {manifest(apolloFormat, 1, ""), "no documents"},
		"manifest without body": {manifest(apolloFormat, 1, `{"id":"one"}`), "no id or no text"},
		"manifest misshapen":    {`{"format":"` + apolloFormat + `","version":1,"operations":{}}`, "not a manifest"},
		"same id twice":         {manifest(apolloFormat, 1, operation("one", a)+","+operation("one", b)), "twice"},
		"another's hash":        {fmt.Sprintf(`{%q:%q}`, hash(b), a), "another SHA-256 hash"},
		"no text":               {`{"one":7}`, "not a string"},
		"no id":                 {fmt.Sprintf(`{"":%q}`, a), "no id or no text"},
		"nothing":               {`{}`, "no documents"},
		"null":                  {`null`, "no documents"},
		"a list":                {`["{ a }"]`, "not a JSON object"},
		"no JSON":               {`query { a }`, "not a JSON object"},
		"no UTF-8":              {"{\"one\":\"{ a } #\xff\"}", "not UTF-8"},
		"not parsed":            {`{"one":"{"}`, "document"},
		"not valid":             {`{"one":"{ z }"}`, `Cannot query field "z"`},
		"no operation":          {`{"one":"fragment f on Query { a }"}`, "no operation"},
		"too long":              {`{"one":"{ a a a a a a a a a a a a a a a a a a a a a }"}`, "token limit of 20"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "documents.json")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			documents, err := Load(path, schema(t), 20)
			if test.reason != "" {
				if err == nil || !strings.Contains(err.Error(), test.reason) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !documents.has(a) || !documents.has(b) || documents.has("{ b }") {
				t.Errorf("got %v", documents)
			}
			if strings.Contains(test.file, `"two"`) && documents.byID["two"] != b {
				t.Errorf("the file's own ids are lost: %v", documents)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "nothing.json"), schema(t), 10); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

// FuzzParse holds that every document is found by its hash, and that no hash leads to another document.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"one":"{ a }"}`, `{"format":"apollo-persisted-query-manifest","version":1,"operations":[{"id":"one","body":"{ a }"}]}`,
		`{"format":7}`, `{}`, `null`, `[]`, `{"sha256:":"x"}`, "{\"one\":\"\xff\"}", `{"one":"\ud83d"}`, `{"` + hash("a") + `":"a"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		documents, err := parse(raw)
		if err != nil {
			return
		}
		if len(documents.byID) == 0 {
			t.Errorf("%q has no documents", raw)
		}
		for id, text := range documents.byID {
			if !documents.has(text) || text == "" || id == "" || (isHash(id) && id != hash(text)) {
				t.Errorf("%q: document %q is %q", raw, id, text)
			}
		}
	})
}
