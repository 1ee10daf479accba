package resolver

import (
	"context"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
)

// entity implements gen.EntityResolver: what a router of a federation asks for by id, all of one type at a time. As with
// Query.node, what does not exist, what is not the caller's to see, and an id that is none are nothing.
type entity struct{ *Resolver }

// FindManyUserByIDs implements gen.EntityResolver.
func (r entity) FindManyUserByIDs(ctx context.Context, reps []*gen.UserByIDsInput) ([]*model.User, error) {
	return found(ctx, loader.From(ctx).Users, reps, func(rep *gen.UserByIDsInput) (ids.ID, bool) {
		return model.ParseIDOf(model.KindUser, rep.ID)
	})
}

// FindManyConversationByIDs implements gen.EntityResolver.
func (r entity) FindManyConversationByIDs(
	ctx context.Context, reps []*gen.ConversationByIDsInput,
) ([]*model.Conversation, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := found(ctx, loader.From(ctx).Conversations, reps, func(rep *gen.ConversationByIDsInput) (ids.ID, bool) {
		return model.ParseIDOf(model.KindConversation, rep.ID)
	})
	if err != nil {
		return nil, err
	}
	entities := make([]*model.Conversation, len(stored))
	var conversations []*model.Conversation
	for i, c := range stored {
		if c == nil {
			continue
		}
		if entities[i], err = model.NewConversation(c, reader); err != nil {
			return nil, err
		}
		conversations = append(conversations, entities[i])
	}
	if err := foreseeIn(ctx, loader.From(ctx).Pages, pageKeys(conversations, r.pagesOf(ctx))); err != nil {
		return nil, err
	}
	return entities, foresee(ctx, usersOf(ctx, reader, conversations))
}

// FindManyMessageByIDs implements gen.EntityResolver.
func (r entity) FindManyMessageByIDs(ctx context.Context, reps []*gen.MessageByIDsInput) ([]*model.Message, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := found(ctx, loader.From(ctx).Messages, reps, func(rep *gen.MessageByIDsInput) (loader.MessageKey, bool) {
		named, ok := model.ParseGlobalID(rep.ID)
		return loader.MessageKey{ConversationID: named.UUID, Seq: named.Seq}, ok && named.Kind == model.KindMessage
	})
	if err != nil {
		return nil, err
	}
	senders, conversations := make(set), make(set)
	entities := make([]*model.Message, len(stored))
	for i, m := range stored {
		if m == nil {
			continue
		}
		if entities[i], err = model.NewMessage(m, reader); err != nil {
			return nil, err
		}
		senders.add(entities[i].SenderID)
		conversations.add(entities[i].ConversationID)
	}
	if asksForMoreThanID(ctx, "conversation") {
		if err := foreseeIn(ctx, loader.From(ctx).Conversations, conversations.ids()); err != nil {
			return nil, err
		}
	}
	if asksForMoreThanID(ctx, "sender") {
		return entities, foresee(ctx, senders.ids())
	}
	return entities, nil
}

// found reads what representations name, in one call, and returns it in their order, with nothing for those that name
// nothing. There are never more than a call takes.
func found[R any, K comparable, V any](
	ctx context.Context, from *loader.Loader[K, *V], reps []R, parse func(R) (K, bool),
) ([]*V, error) {
	var keys []K
	places := make(map[K][]int)
	for i, rep := range reps {
		if key, ok := parse(rep); ok {
			if places[key] == nil {
				keys = append(keys, key)
			}
			places[key] = append(places[key], i)
		}
	}
	if err := from.Now(ctx, keys); err != nil {
		return nil, err
	}
	values := make([]*V, len(reps))
	for _, key := range keys {
		value, err := from.Load(ctx, key)
		if err != nil {
			return nil, err
		}
		for _, i := range places[key] {
			values[i] = value
		}
	}
	return values, nil
}
