package federation

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/model"
)

func TestTheSchemaWithAndWithoutFederation(t *testing.T) {
	generated := gen.NewExecutableSchema(gen.Config{}).Schema()
	for _, on := range []bool{false, true} {
		schema := Schema(gen.Config{}, on).Schema()
		for name := range schema.Types {
			if generated.Types[name] == nil {
				t.Errorf("federation %v: %s has no code", on, name)
			}
		}
		var added []string
		for _, field := range schema.Query.Fields {
			if strings.HasPrefix(field.Name, "_") && !strings.HasPrefix(field.Name, "__") {
				added = append(added, field.Name)
			}
		}
		var want []string
		if on {
			want = []string{"_entities", "_service"}
		}
		if diff := cmp.Diff(want, added); diff != "" {
			t.Errorf("federation %v: -want +got:\n%s", on, diff)
		}
		for _, name := range []string{"_Any", "_Entity", "FieldSet"} {
			if (schema.Types[name] != nil) != on {
				t.Errorf("federation %v: %s is there: %v", on, name, !on)
			}
		}
		if (schema.Directives["key"] != nil) != on {
			t.Errorf("federation %v: @key is there: %v", on, !on)
		}
		for _, typ := range generated.Types {
			named := typ.Name
			if own := !strings.HasPrefix(typ.Position.Src.Name, "../../federation/"); own && schema.Types[named] == nil {
				t.Errorf("federation %v: %s is missing", on, named)
			}
		}
	}
}

// FuzzCheck holds that a representation which passes is one of a type of ours with an id of some length.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		`{"__typename":"User","id":"dQGJCl2slndLvM6zAgmagFc"}`, `{"__typename":"Message","id":7,"x":{"y":[]}}`,
		`{"__typename":"Entity","id":"x"}`, `{"__typename":["User"],"id":"x"}`, `{"id":"x"}`, `{"__typename":"User","id":1.5}`,
		`[{"__typename":"User","id":"x"}]`, `null`, `"User"`, `{"__typename":"Conversation","id":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		var representation any
		if decoder.Decode(&representation) != nil || check(representation) != "" {
			return
		}
		fields := representation.(map[string]any)
		if typeName := fields["__typename"].(string); gen.NewExecutableSchema(gen.Config{}).Schema().Types[typeName] == nil {
			t.Errorf("a representation of a %q passes", typeName)
		}
		if id, err := model.UnmarshalID(fields["id"]); err != nil || len(id) > maxID {
			t.Errorf("a representation with the id %q passes: %v", id, err)
		}
	})
}
