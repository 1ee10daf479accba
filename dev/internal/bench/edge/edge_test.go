package edge

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/seed"
)

// TestRunMeasuresEveryServer runs everything in small, on the real system. How large the figures are is not its business.
func TestRunMeasuresEveryServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	programs, err := harness.Build(ctx, harness.Flavour{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := programs.Remove(); err != nil {
			t.Error(err)
		}
	})
	stack, err := harness.Start(ctx, harness.Options{
		Programs: programs, Dir: t.TempDir(), Env: []string{"USERS_DEVELOPMENT=true", "MESSAGES_DEVELOPMENT=true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	sizes := Sizes{
		Idle: 40, IdleTime: time.Second,
		Subscribers: 20, Window: 2, Rounds: 2, Round: 500 * time.Millisecond,
		Stalled: 5, StalledRounds: 1, StalledTime: time.Second, StalledLimit: 2 * time.Second, Pace: 10,
	}
	report, err := Run(ctx, Options{
		Stack: stack, Dir: t.TempDir(), Sizes: sizes, Progress: t.Output(),
		Seed: func(ctx context.Context, prefix string, people int) ([]seed.User, error) {
			return makePeople(ctx, stack, prefix, people)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Servers) != 4 {
		t.Errorf("%d servers were measured", len(report.Servers))
	}
	for _, f := range report.Servers {
		if len(f.Saturation) != sizes.Rounds {
			t.Errorf("%s was saturated %d times", f.Name, len(f.Saturation))
		}
		for _, s := range f.Saturation {
			if s.PerCPUSecond <= 0 || s.P99 <= 0 {
				t.Errorf("saturated, %s is measured as %+v", f.Name, s)
			}
		}
		if f.Name == "bare gorilla, joined" {
			continue
		}
		if f.Idle == nil || f.Idle.Goroutines < 1 || f.Idle.PayloadBytes < len(body(0)) {
			t.Errorf("idle, %s is measured as %+v", f.Name, f.Idle)
		}
		if len(f.Stalled) != 1 || f.Stalled[0].P99With <= 0 || f.Stalled[0].P99Without <= 0 || f.Stalled[0].Stalled != sizes.Stalled {
			t.Errorf("with stalled clients, %s is measured as %+v", f.Name, f.Stalled)
		}
	}
}

func makePeople(ctx context.Context, stack *harness.Stack, prefix string, people int) ([]seed.User, error) {
	users, err := grpc.NewClient(stack.Users[0].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer users.Close()
	messages, err := grpc.NewClient(stack.Messages[0].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	return seed.Run(ctx, users, messages, seed.Options{Users: people, Prefix: prefix})
}
