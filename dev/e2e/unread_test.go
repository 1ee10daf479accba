package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/ids"
)

// TestUnreadCountsUnder2000RandomInterleavingsOfSendsAndReadsEqualAModels lets a person with three devices and another
// one send and mark at random, up to four at the same time, and compares what both see with a model after each round.
func TestUnreadCountsUnder2000RandomInterleavingsOfSendsAndReadsEqualAModels(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	model := struct{ last, ann, bob int }{last: send(t, ann, bob, "first").Seq, ann: 1}
	conversation := conversationWith(t, ann, bob).ID
	type operation struct {
		by   *client.Client
		mark int // 0 sends.
	}
	devices := []*client.Client{ann, ann.At(stack.Endpoints()[1]), ann, bob.At(stack.Endpoints()[1])}
	const operations = 2000
	for done := 0; done < operations; {
		var round []operation
		for _, device := range devices {
			switch {
			case rng.IntN(3) == 0:
			case rng.IntN(2) == 0:
				round = append(round, operation{by: device})
			default:
				round = append(round, operation{by: device, mark: 1 + rng.IntN(model.last)})
			}
		}
		if rng.IntN(20) == 0 {
			// Alone, since what is beyond the last message depends on what is sent meanwhile.
			round = []operation{{by: devices[rng.IntN(len(devices))], mark: model.last + 1 + rng.IntN(1000)}}
		}
		sent := make([]client.Message, len(round))
		parallel(len(round), func(i int) {
			op := round[i]
			var err error
			if op.mark == 0 {
				sent[i], err = op.by.Send(t.Context(), client.Draft{
					ConversationID: conversation, Body: fmt.Sprintf("%d.%d", done, i), ClientID: ids.New().String(),
				})
			} else {
				// The client checks that counts are not negative and follow from the pointer.
				_, err = op.by.MarkRead(t.Context(), conversation, op.mark)
			}
			if err != nil {
				t.Errorf("operation %d.%d: %v", done, i, err)
			}
		})
		if t.Failed() {
			return
		}
		sends := 0
		for i, op := range round {
			pointer := &model.ann
			if op.by.User == bob.User {
				pointer = &model.bob
			}
			if op.mark == 0 {
				sends++
				*pointer = max(*pointer, sent[i].Seq)
			} else {
				*pointer = max(*pointer, min(op.mark, model.last))
			}
		}
		model.last += sends
		done += len(round)
		for _, want := range []struct {
			by, with *client.Client
			pointer  int
		}{{ann, bob, model.ann}, {bob, ann, model.bob}} {
			got := conversationWith(t, want.by, want.with)
			if got.ReadSeq != want.pointer || got.UnreadCount != model.last-want.pointer || got.LastMessage.Seq != model.last {
				t.Fatalf("after %d operations %s sees %d unread after %d of %d; the model says %d after %d of %d", done,
					want.by.User.Username, got.UnreadCount, got.ReadSeq, got.LastMessage.Seq, model.last-want.pointer, want.pointer, model.last)
			}
		}
	}
}
