package resolver

import (
	"context"
	"errors"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/hub"
	"chatapp.dev/services/graph/internal/model"
)

// subscription implements gen.SubscriptionResolver.
//
// A subscription is not executed as one operation that goes on: package live follows the log, and executes the
// operation anew on each event, which the context then has.
type subscription struct{ *Resolver }

type eventKey struct{}

// WithEvent returns a context in which a subscription's operation is executed on one event.
func WithEvent(ctx context.Context, event hub.Event) context.Context {
	return context.WithValue(ctx, eventKey{}, event)
}

func (subscription) NewMessage(ctx context.Context, _ *string) (<-chan *model.NewMessageEvent, error) {
	who, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	event, ok := ctx.Value(eventKey{}).(hub.Event)
	if !ok {
		return nil, errs.Wrap(errs.Internal, errors.New("the context has no event"), "a subscription was executed by itself")
	}
	sent, err := model.NewMessage(event.Message, who.UserID)
	if err != nil {
		return nil, err
	}
	events := make(chan *model.NewMessageEvent, 1)
	events <- &model.NewMessageEvent{Cursor: event.Cursor, Sent: sent}
	close(events)
	return events, nil
}
