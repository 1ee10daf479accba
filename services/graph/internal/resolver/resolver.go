// Package resolver answers the fields of the schema from the services users and messages.
//
// It decides nothing about who may read what: the services do, each for itself, with the caller's token. What it
// guarantees is that no field but signUp, signIn and introspection is resolved without a token (Guard), that what
// a service refuses to show looks exactly like what does not exist, that expected failures of a mutation become
// userErrors while all else becomes errors, and that a screen costs as few calls as it can: whatever an operation will
// need is known from its selection and asked for at once (lookahead.go).
package resolver

import (
	"context"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
	"chatapp.dev/services/graph/internal/revocation"
)

// Resolver implements gen.ResolverRoot.
type Resolver struct {
	Users    usersv1.UsersServiceClient
	Messages messagesv1.MessagesServiceClient
	// Revocations learns of sessions that are signed out here.
	Revocations *revocation.List
	// PageSize is how many edges a connection has when nobody says: 1 to MaxPageSize.
	PageSize int
}

// Query implements gen.ResolverRoot.
func (r *Resolver) Query() gen.QueryResolver { return query{r} }

// Mutation implements gen.ResolverRoot.
func (r *Resolver) Mutation() gen.MutationResolver { return mutation{r} }

// Subscription implements gen.ResolverRoot.
func (r *Resolver) Subscription() gen.SubscriptionResolver { return subscription{r} }

// Entity implements gen.ResolverRoot.
func (r *Resolver) Entity() gen.EntityResolver { return entity{r} }

// NewMessageEvent implements gen.ResolverRoot.
func (r *Resolver) NewMessageEvent() gen.NewMessageEventResolver { return newMessageEvent{r} }

// Conversation implements gen.ResolverRoot.
func (r *Resolver) Conversation() gen.ConversationResolver { return conversation{r} }

// Message implements gen.ResolverRoot.
func (r *Resolver) Message() gen.MessageResolver { return message{r} }

// Loaders returns a context with loaders for the response that is made in it.
func (r *Resolver) Loaders(ctx context.Context) context.Context {
	return loader.With(ctx, loader.New(r.Users, r.Messages))
}

// user returns a user who must exist, since something stored refers to them.
func user(ctx context.Context, id ids.ID) (*model.User, error) {
	if !asksForMoreThanID(ctx) {
		return &model.User{UserID: id}, nil
	}
	found, err := loader.From(ctx).Users.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, errs.New(errs.Internal, "user "+id.String()+" is referred to and does not exist")
	}
	return found, nil
}

// caller returns the user whose token came with the operation.
func caller(ctx context.Context) (ids.ID, error) {
	who, err := identity.Must(ctx)
	return who.UserID, err
}
