package identity

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

func TestContext(t *testing.T) {
	if id, ok := From(context.Background()); ok {
		t.Errorf("From of a bare context found %v", id)
	}
	if _, err := Must(context.Background()); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("Must of a bare context gave %v, want Unauthenticated", err)
	}
	want := Identity{UserID: ids.New(), SessionID: ids.New(), Token: "t"}
	ctx := With(context.Background(), want)
	if got, ok := From(ctx); !ok || got != want {
		t.Errorf("From = %v, %v; want %v", got, ok, want)
	}
	if got, err := Must(ctx); err != nil || got != want {
		t.Errorf("Must = %v, %v; want %v", got, err, want)
	}
}

func TestTokenReachesNoLog(t *testing.T) {
	id := Identity{UserID: ids.New(), SessionID: ids.New(), Token: "canary"}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("call", "caller", id)
	slog.New(slog.NewTextHandler(&out, nil)).Info("call", "caller", id)
	fmt.Fprintf(&out, "%v %+v %s", id, id, id)
	if strings.Contains(out.String(), id.Token) {
		t.Errorf("the token was printed: %s", out.String())
	}
	if !strings.Contains(out.String(), id.UserID.String()) {
		t.Errorf("the user was not printed: %s", out.String())
	}
}
