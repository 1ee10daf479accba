package resolver

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
)

// Looking ahead means to read in an operation's selection what its later fields will ask for. It never changes an
// answer, only how many calls the answer costs: a field that was not foreseen asks for itself.

// selections returns the fields that are selected under the field being resolved, below a path of field names. Fields
// of the same name under different aliases all count.
func selections(ctx context.Context, path ...string) []graphql.CollectedField {
	return descend(graphql.GetOperationContext(ctx), graphql.GetFieldContext(ctx).Field.Selections, path)
}

func descend(op *graphql.OperationContext, set ast.SelectionSet, path []string) []graphql.CollectedField {
	fields := graphql.CollectFields(op, set, nil)
	if len(path) == 0 {
		return fields
	}
	var below []graphql.CollectedField
	for _, field := range fields {
		if field.Name == path[0] {
			below = append(below, descend(op, field.Selections, path[1:])...)
		}
	}
	return below
}

// asksForMoreThanID tells whether more is asked of the users or conversations at a path than their ids, which is all that
// whatever refers to them has of them.
func asksForMoreThanID(ctx context.Context, path ...string) bool {
	for _, field := range selections(ctx, path...) {
		if field.Name != "id" && field.Name != "__typename" {
			return true
		}
	}
	return false
}

// alone tells whether the root field being resolved is the operation's only one, so that nobody else has anything to
// add to a batch.
func alone(ctx context.Context) bool {
	op := graphql.GetOperationContext(ctx)
	return len(graphql.CollectFields(op, op.Operation.SelectionSet, nil)) == 1
}

// foresee reads the users who will be asked for: at once, if nobody else can ask for more.
func foresee(ctx context.Context, users []ids.ID) error {
	return foreseeIn(ctx, loader.From(ctx).Users, users)
}

// foreseeIn reads what will be asked of a loader, in one call if nobody else can ask for more.
func foreseeIn[K comparable, V any](ctx context.Context, from *loader.Loader[K, V], keys []K) error {
	if alone(ctx) {
		return from.Now(ctx, keys)
	}
	from.Announce(ctx, keys)
	return nil
}

// pageKeys are the given pages of each of the conversations.
func pageKeys(conversations []*model.Conversation, pages []loader.Range) []loader.PageKey {
	keys := make([]loader.PageKey, 0, len(conversations)*len(pages))
	for _, conversation := range conversations {
		for _, page := range pages {
			keys = append(keys, loader.PageKey{ConversationID: conversation.ConversationID, Range: page})
		}
	}
	return keys
}

// usersOf returns the users whom the selection below path asks of conversations at it. The senders of a conversation's
// messages are the reader and the one they talk with, so no message needs to be seen first.
func usersOf(ctx context.Context, reader ids.ID, conversations []*model.Conversation, path ...string) []ids.ID {
	withs := asksForMoreThanID(ctx, join(path, "with")...)
	senders := asksForMoreThanID(ctx, join(path, "messages", "edges", "node", "sender")...)
	lastSenders := asksForMoreThanID(ctx, join(path, "lastMessage", "sender")...)

	wanted := make(set)
	for _, conversation := range conversations {
		if withs || senders {
			wanted.add(conversation.WithID)
		}
		if senders {
			wanted.add(reader)
		}
		if lastSenders && conversation.LastMessage != nil {
			wanted.add(conversation.LastMessage.SenderID)
		}
	}
	return wanted.ids()
}

// pagesOf returns the different pages that are asked of each conversation at path. One that is asked for wrongly is left
// out: the field itself then says what is wrong.
func (r *Resolver) pagesOf(ctx context.Context, path ...string) []loader.Range {
	var pages []loader.Range
	for _, field := range selections(ctx, path...) {
		if field.Name != "messages" {
			continue
		}
		raw := field.ArgumentMap(graphql.GetOperationContext(ctx).Variables)
		first, err := intArgument(raw["first"])
		if err != nil {
			continue
		}
		last, err := intArgument(raw["last"])
		if err != nil {
			continue
		}
		page, err := r.messageRange(messageArgs{
			first: first, after: stringArgument(raw["after"]), last: last, before: stringArgument(raw["before"]),
		})
		if err == nil && !slices.Contains(pages, page) {
			pages = append(pages, page)
		}
	}
	return pages
}

func intArgument(raw any) (*int, error) {
	if raw == nil {
		return nil, nil
	}
	n, err := model.UnmarshalInt(raw)
	return &n, err
}

func stringArgument(raw any) *string {
	s, ok := raw.(string)
	if !ok {
		return nil
	}
	return &s
}

// set keeps ids in the order in which they came, each once.
type set map[ids.ID]int

func (s set) add(id ids.ID) {
	if _, ok := s[id]; !ok {
		s[id] = len(s)
	}
}

func (s set) ids() []ids.ID {
	list := make([]ids.ID, len(s))
	for id, place := range s {
		list[place] = id
	}
	return list
}

// join returns a path with more names at its end, without changing the path.
func join(path []string, names ...string) []string {
	return append(path[:len(path):len(path)], names...)
}
