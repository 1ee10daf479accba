// Package service answers users' gRPC calls: it checks what is asked, decides who may ask, and names what went wrong.
//
// It guarantees that a sign-in tells nothing about accounts to somebody without the password: an unknown login, an
// account without a password and a wrong password get the same answer after the same work. A sign-up does tell whether
// a username is taken, and never whether an e-mail address has an account. No password, e-mail address or token is in
// an error that it returns, so that none reaches a log.
//
// A sign-up that fails with errs.Unavailable may have made the account all the same: the caller can try to sign in.
package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/users/internal/password"
	"chatapp.dev/services/users/internal/store"
)

// PublicMethods are the methods that need no access token.
func PublicMethods() []string {
	return []string{
		usersv1.UsersService_SignUp_FullMethodName,
		usersv1.UsersService_SignIn_FullMethodName,
		usersv1.UsersService_GetSigningKeys_FullMethodName,
	}
}

// Service implements UsersService.
type Service struct {
	usersv1.UnsafeUsersServiceServer

	store     *store.Store
	passwords *password.Hasher
	tokens    Tokens
	log       *slog.Logger
}

// New returns the service.
func New(accounts *store.Store, passwords *password.Hasher, tokens Tokens, log *slog.Logger) *Service {
	return &Service{store: accounts, passwords: passwords, tokens: tokens, log: log}
}

// SignUp makes an account and signs it in.
func (s *Service) SignUp(ctx context.Context, req *usersv1.SignUpRequest) (*usersv1.SignUpResponse, error) {
	// The first rule that is broken is told, in the order of the request's fields.
	username, err := checkUsername(req.GetUsername())
	if err != nil {
		return nil, err
	}
	email, err := checkEmail(req.GetEmail())
	if err != nil {
		return nil, err
	}
	displayName, err := checkDisplayName(req.GetDisplayName(), username)
	if err != nil {
		return nil, err
	}
	if err := checkPassword(req.GetPassword()); err != nil {
		return nil, err
	}
	hash, err := s.passwords.Hash(ctx, req.GetPassword())
	if err != nil {
		return nil, err
	}
	account := newAccount(username, displayName)
	account.Email = email
	account.PasswordHash = hash
	err = s.store.CreateAccount(ctx, account)
	if errors.Is(err, store.ErrUsernameTaken) {
		return nil, errs.Field(errs.Conflict, errs.Taken, fieldUsername, "this username is taken")
	}
	if err != nil {
		return nil, storeError(err)
	}
	s.log.InfoContext(ctx, "account created", "user", account.ID)
	token, err := s.tokens.issue(account.ID)
	if err != nil {
		return nil, err
	}
	return &usersv1.SignUpResponse{User: userMessage(account.User), AccessToken: token}, nil
}

// SignIn checks a password and issues an access token.
func (s *Service) SignIn(ctx context.Context, req *usersv1.SignInRequest) (*usersv1.SignInResponse, error) {
	account, err := s.accountByLogin(ctx, req.GetLogin())
	if err != nil && !errors.Is(err, store.ErrNoAccount) {
		return nil, storeError(err)
	}
	// Without an account the hash is empty, which costs the same to find wrong.
	right, weak, err := s.passwords.Check(ctx, req.GetPassword(), account.PasswordHash)
	if err != nil {
		return nil, err
	}
	if !right {
		return nil, errs.Field(errs.Invalid, errs.InvalidCredentials, "",
			"the username or e-mail address and the password do not belong together")
	}
	if weak {
		if err := s.renewHash(ctx, account, req.GetPassword()); err != nil {
			// It can be renewed at the next sign-in as well.
			s.log.WarnContext(ctx, "a password hash was not renewed", "user", account.ID, "err", err)
		}
	}
	token, err := s.tokens.issue(account.ID)
	if err != nil {
		return nil, err
	}
	return &usersv1.SignInResponse{User: userMessage(account.User), AccessToken: token}, nil
}

// accountByLogin finds the account that somebody signs in to, or returns store.ErrNoAccount. A username never has an @.
func (s *Service) accountByLogin(ctx context.Context, login string) (store.Account, error) {
	// Keyboards that complete words leave a space behind, and no login has one.
	login = strings.TrimSpace(login)
	if strings.Contains(login, "@") {
		return s.store.AccountByEmail(ctx, foldEmail(login))
	}
	return s.store.AccountByUsername(ctx, foldUsername(login))
}

// renewHash hashes a password that was right under the settings of now.
func (s *Service) renewHash(ctx context.Context, account store.Account, password string) error {
	hash, err := s.passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	return s.store.ReplacePasswordHash(ctx, account.ID, account.PasswordHash, hash)
}

// BatchGetUsers reads users by id. Any signed-in user may see any other.
func (s *Service) BatchGetUsers(
	ctx context.Context, req *usersv1.BatchGetUsersRequest,
) (*usersv1.BatchGetUsersResponse, error) {
	if _, err := identity.Must(ctx); err != nil {
		return nil, err
	}
	userIDs := make([]ids.ID, len(req.GetIds()))
	for i, raw := range req.GetIds() {
		id, err := ids.FromBytes(raw)
		if err != nil {
			return nil, errs.Field(errs.Invalid, errs.InvalidFormat, "ids", "an id has 16 bytes")
		}
		userIDs[i] = id
	}
	users, err := s.store.Users(ctx, userIDs)
	if err != nil {
		return nil, storeError(err)
	}
	return &usersv1.BatchGetUsersResponse{Users: userMessages(users)}, nil
}

// SearchUsers lists users by prefix of username or display name. Any signed-in user may see any other.
func (s *Service) SearchUsers(
	ctx context.Context, req *usersv1.SearchUsersRequest,
) (*usersv1.SearchUsersResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	users, more, err := s.store.SearchUsers(ctx, store.Search{
		// Names are stored without outer white space, so that none can begin with it.
		Prefix:        strings.TrimSpace(req.GetPrefix()),
		AfterUsername: req.GetAfterUsername(),
		Except:        caller.UserID,
		Limit:         int(req.GetPageSize()),
	})
	if err != nil {
		return nil, storeError(err)
	}
	return &usersv1.SearchUsersResponse{Users: userMessages(users), HasNextPage: more}, nil
}

// GetSigningKeys returns the public keys that verify access tokens.
func (s *Service) GetSigningKeys(
	context.Context, *usersv1.GetSigningKeysRequest,
) (*usersv1.GetSigningKeysResponse, error) {
	return &usersv1.GetSigningKeysResponse{Jwks: s.tokens.Signer.JWKS()}, nil
}

// newAccount makes an account of the two checked names that every account has.
func newAccount(username, displayName string) store.NewAccount {
	return store.NewAccount{
		User: store.User{ID: ids.New(), Username: username, DisplayName: displayName},
		// What a DATETIME(6) holds.
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
}

// Tokens issues access tokens.
type Tokens struct {
	Signer *identity.Signer
	// TTL is how long a token is good.
	TTL time.Duration
}

// issue starts a session of its own for each token.
func (t Tokens) issue(user ids.ID) (*usersv1.AccessToken, error) {
	token, expires, err := t.Signer.Sign(user, ids.New(), t.TTL)
	if err != nil {
		return nil, err
	}
	return &usersv1.AccessToken{Token: token, ExpiresAtMs: expires.UnixMilli()}, nil
}

// storeError names a failure of the store that passes by itself; any other is internal.
func storeError(err error) error {
	if mysql.IsConnection(err) || mysql.IsRetryable(err) || errors.Is(err, mysql.ErrOutcomeUnknown) {
		return errs.Wrap(errs.Unavailable, err, "accounts cannot be reached now; try again")
	}
	return err
}

func userMessage(user store.User) *usersv1.User {
	return &usersv1.User{Id: user.ID.Bytes(), Username: user.Username, DisplayName: user.DisplayName}
}

func userMessages(users []store.User) []*usersv1.User {
	messages := make([]*usersv1.User, len(users))
	for i, user := range users {
		messages[i] = userMessage(user)
	}
	return messages
}
