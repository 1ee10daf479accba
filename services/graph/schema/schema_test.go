package schema

import (
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

func TestTheSubgraphIsThePublicSchemaAndNothingElse(t *testing.T) {
	document, err := parser.ParseSchema(&ast.Source{Input: Subgraph()})
	if err != nil {
		t.Fatal(err)
	}
	public := Public()
	seen := map[string]bool{}
	for _, definition := range document.Definitions {
		seen[definition.Name] = true
		known := public.Types[definition.Name]
		if known == nil || known.Kind != definition.Kind || known.Description != definition.Description {
			t.Errorf("%s is not as in the public schema", definition.Name)
			continue
		}
		for _, field := range definition.Fields {
			if other := known.Fields.ForName(field.Name); other == nil || other.Type.String() != field.Type.String() {
				t.Errorf("%s.%s is not as in the public schema", definition.Name, field.Name)
			}
		}
	}
	for name, definition := range public.Types {
		if !definition.BuiltIn && !strings.HasPrefix(name, "__") && !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if len(document.Extensions) > 0 || len(document.SchemaExtension) != 1 {
		t.Errorf("%d types and %d schemas are extended", len(document.Extensions), len(document.SchemaExtension))
	}
}

func TestThePublicSchemaKnowsNoFederation(t *testing.T) {
	for name := range Public().Directives {
		switch name {
		case "key", "shareable", "link":
			t.Errorf("there is a directive @%s", name)
		}
	}
}
