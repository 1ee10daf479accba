package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/npm"
)

func TestGraphQLOverHTTPWithTheToolsOfNPM(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Env: []string{"GRAPH_DEVELOPMENT=true"}}))
	t.Run("EveryAuditPasses", func(t *testing.T) { audit(t, stack.Endpoints()[0]) })
	t.Run("ApolloTeachesAQueryOnce", func(t *testing.T) { teach(t, stack) })
}

// audit performs the audits of the package graphql-http, by which servers prove that they follow the GraphQL-over-HTTP
// specification. Some ask for the schema, which is answered in development alone.
func audit(t *testing.T, endpoint string) {
	out, err := npm.Run(t.Context(), npm.Script{Name: "audit.mjs", Args: []string{endpoint}})
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

// teach lets Apollo Client ask by hash: the server does not know the first, is sent the document, and knows the next.
func teach(t *testing.T, stack *harness.Stack) {
	ada := account(t, stack, "Ada")
	out, err := npm.Run(t.Context(), npm.Script{
		Name: "persisted.mjs", Args: []string{stack.Endpoints()[0]}, Env: []string{"TOKEN=" + ada.Token},
	})
	if err != nil {
		t.Fatal(err)
	}
	type exchange struct {
		Method   string
		Status   int
		HasQuery bool
		Code     string
	}
	var got struct {
		Exchanges []exchange
		Answers   []string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	want := []exchange{
		{http.MethodGet, http.StatusNotFound, false, "PERSISTED_QUERY_NOT_FOUND"},
		{http.MethodPost, http.StatusOK, true, ""},
		{http.MethodGet, http.StatusOK, false, ""},
	}
	if diff := cmp.Diff(want, got.Exchanges); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{ada.User.Username, ada.User.Username}, got.Answers); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
