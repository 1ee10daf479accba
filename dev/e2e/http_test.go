package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/npm"
)

// The audits are those of the package graphql-http, by which servers prove that they follow the GraphQL-over-HTTP
// specification. Some ask for the schema, which is answered in development alone.
func TestEveryAuditOfGraphQLOverHTTPPasses(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Env: []string{"GRAPH_DEVELOPMENT=true"}}))
	out, err := npm.Run(t.Context(), npm.Script{Name: "audit.mjs", Args: []string{stack.Endpoints()[0]}})
	if err != nil {
		t.Fatal(err)
	}
	var audits []struct{ ID, Name, Status, Reason string }
	if err := json.Unmarshal(out, &audits); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	passed := map[string]int{}
	total := map[string]int{}
	for _, audit := range audits {
		level, _, _ := strings.Cut(audit.Name, " ")
		total[level]++
		if audit.Status == "ok" {
			passed[level]++
		} else {
			t.Errorf("%s %s: %s, %s", audit.ID, audit.Name, audit.Status, audit.Reason)
		}
	}
	t.Logf("%d audits: MUST %d/%d, SHOULD %d/%d, MAY %d/%d",
		len(audits), passed["MUST"], total["MUST"], passed["SHOULD"], total["SHOULD"], passed["MAY"], total["MAY"])
	// So that a package which lost its audits, or a run that met none, is no success.
	if len(audits) < 60 || total["MUST"] == 0 || total["SHOULD"] == 0 {
		t.Errorf("there are only %d audits: %s", len(audits), out)
	}
}
