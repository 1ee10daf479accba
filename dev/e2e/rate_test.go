package e2e

import (
	"errors"
	"net/http"
	"testing"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
)

func TestRatesHoldOverAllProcessesAndWithoutRedisInEach(t *testing.T) {
	t.Parallel()
	const burst = 10
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Graphs: 2, Env: []string{
		"GRAPH_RATE_USER=0.01", "GRAPH_RATE_USER_BURST=10", "GRAPH_RATE_REDIS_WAIT=1m",
	}}))
	// passed is how many requests of somebody pass, at each process in turn, until one is refused.
	passed := func(c *client.Client) int {
		t.Helper()
		for n := range 10 * burst {
			_, err := at(stack, c)[n%2].Cursor(t.Context())
			var answered *client.Errors
			switch {
			case err == nil:
			case errors.As(err, &answered) && client.Code(err) == "RATE_LIMITED" && answered.Status == http.StatusTooManyRequests:
				return n
			default:
				t.Fatal(err)
			}
		}
		t.Fatalf("%d requests passed", 10*burst)
		return 0
	}
	ada, bob, cyd := account(t, stack, "Ada"), account(t, stack, "Bob"), account(t, stack, "Cyd")
	if got := passed(ada); got != burst {
		t.Errorf("with Redis %d requests passed, want %d", got, burst)
	}
	// What is refused is one user's, whatever token it comes with.
	again, err := client.New(stack.Endpoints()[1]).SignIn(t.Context(), ada.User.Username, password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.CloseIdle)
	if got := passed(again); got != 0 {
		t.Errorf("with a new token %d more requests passed", got)
	}
	if got := passed(bob); got != burst {
		t.Errorf("of somebody else %d requests passed, want %d", got, burst)
	}
	if err := stack.Redis.Stop(); err != nil {
		t.Fatal(err)
	}
	// Each process then counts its own.
	if got := passed(cyd); got != 2*burst {
		t.Errorf("without Redis %d requests passed, want %d", got, 2*burst)
	}
}
