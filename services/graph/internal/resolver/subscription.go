package resolver

import (
	"context"
	"encoding/json"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/hub"
	"chatapp.dev/services/graph/internal/model"
)

// expiryMargin is how long before its token expires a subscription ends, so that it is never later than that, and none
// of its calls is made with a token that expires under way.
const expiryMargin = time.Second

// subscription implements gen.SubscriptionResolver.
type subscription struct{ *Resolver }

func (r subscription) NewMessage(ctx context.Context, after *string) (<-chan *model.NewMessageEvent, error) {
	who, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	place := ""
	if after != nil {
		place = *after
	}
	subscribed, err := r.Hub.Subscribe(ctx, who, place)
	if err != nil {
		return nil, err
	}
	events := make(chan *model.NewMessageEvent)
	go func() {
		defer close(events)
		defer subscribed.Close()
		endWith(ctx, forward(ctx, who, subscribed, events))
	}()
	return events, nil
}

// forward passes events on until the subscription ends, and returns why it ended; nil when nobody listens any more.
func forward(
	ctx context.Context, who identity.Identity, from *hub.Subscription, to chan<- *model.NewMessageEvent,
) error {
	valid, cancel := context.WithDeadlineCause(ctx, who.ExpiresAt.Add(-expiryMargin), errExpired())
	defer cancel()
	for {
		event, err := from.Next(valid)
		if err == nil {
			var sent *model.Message
			if sent, err = model.NewMessage(event.Message, who.UserID); err == nil {
				select {
				case to <- &model.NewMessageEvent{Cursor: event.Cursor, Sent: sent}:
					continue
				case <-valid.Done():
					err = valid.Err()
				}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if valid.Err() != nil {
			return context.Cause(valid)
		}
		return err
	}
}

// ending is why a subscription ended. It is written before the channel of events is closed and read after.
type ending struct{ err error }

type endingKey struct{}

func endWith(ctx context.Context, err error) {
	if end, ok := ctx.Value(endingKey{}).(*ending); ok {
		end.err = err
	}
}

// Endings makes sure that a subscription says how it ends. It is operation middleware of gqlgen's server, and works
// alike for every transport: the last response of a subscription that failed has errors and no data, and a transport
// must pass it on as the end.
//
// An event whose fields could not all be read ends the subscription as well. To go on with the next one would lose it:
// the client would take that one's cursor and never come back for what failed.
func Endings(present graphql.ErrorPresenterFunc) graphql.OperationMiddleware {
	return func(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
		if graphql.GetOperationContext(ctx).Operation.Operation != ast.Subscription {
			return next(ctx)
		}
		end := &ending{}
		responses := next(context.WithValue(ctx, endingKey{}, end))
		over := false
		return func(ctx context.Context) *graphql.Response {
			if over {
				return nil
			}
			response := responses(ctx)
			switch {
			case response == nil:
				over = true
				// In this order: when it is the context that ended, the channel may not be closed yet, and the ending
				// not written.
				if ctx.Err() != nil || end.err == nil {
					return nil
				}
				return &graphql.Response{Errors: gqlerror.List{present(ctx, end.err)}}
			case len(response.Errors) > 0 && isLost(response.Data):
				over = true
				return &graphql.Response{Errors: response.Errors}
			default:
				return response
			}
		}
	}
}

// isLost tells whether the data of an event has nothing of it. Errors deeper down, where the schema allows null, leave
// the rest of the event as good as it was.
func isLost(data json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return true
	}
	for _, value := range fields {
		if string(value) == "null" {
			return true
		}
	}
	return len(fields) == 0
}
