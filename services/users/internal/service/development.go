package service

import (
	"context"
	"log/slog"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/services/users/internal/password"
	"chatapp.dev/services/users/internal/store"
)

// DevelopmentMethods are the methods of Development, none of which needs an access token.
func DevelopmentMethods() []string {
	return []string{usersv1.DevelopmentService_CreateUsers_FullMethodName}
}

// Development implements DevelopmentService. It lets anybody who reaches it act as anybody, so that it must be
// registered only where the settings ask for it.
type Development struct {
	usersv1.UnsafeDevelopmentServiceServer

	store     *store.Store
	passwords *password.Hasher
	tokens    Tokens
	log       *slog.Logger
}

// NewDevelopment returns the service.
func NewDevelopment(accounts *store.Store, passwords *password.Hasher, tokens Tokens, log *slog.Logger) *Development {
	return &Development{store: accounts, passwords: passwords, tokens: tokens, log: log}
}

// CreateUsers makes accounts that share a password, and signs each in.
func (d *Development) CreateUsers(
	ctx context.Context, req *usersv1.CreateUsersRequest,
) (*usersv1.CreateUsersResponse, error) {
	var hash string
	if req.GetPassword() != "" {
		if err := checkPassword(req.GetPassword()); err != nil {
			return nil, err
		}
		// One hash for all of them: a hash each would take longer than all the rest.
		var err error
		if hash, err = d.passwords.Hash(ctx, req.GetPassword()); err != nil {
			return nil, err
		}
	}
	accounts := make([]store.NewAccount, len(req.GetUsers()))
	for i, user := range req.GetUsers() {
		username, err := checkUsername(user.GetUsername())
		if err != nil {
			return nil, err
		}
		displayName, err := checkDisplayName(user.GetDisplayName(), username)
		if err != nil {
			return nil, err
		}
		accounts[i] = newAccount(username, displayName)
		accounts[i].PasswordHash = hash
	}
	users, err := d.store.CreateAccounts(ctx, accounts)
	if err != nil {
		return nil, storeError(err)
	}
	d.log.InfoContext(ctx, "accounts created for development", "accounts", len(users))
	created := make([]*usersv1.CreatedUser, len(users))
	sessions := make([]store.Session, len(users))
	for i, user := range users {
		token, session, err := d.tokens.issue(user.ID)
		if err != nil {
			return nil, err
		}
		created[i], sessions[i] = &usersv1.CreatedUser{User: userMessage(user), AccessToken: token}, session
	}
	if err := d.store.CreateSessions(ctx, sessions); err != nil {
		return nil, storeError(err)
	}
	return &usersv1.CreateUsersResponse{Users: created}, nil
}
