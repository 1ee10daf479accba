// Package service answers users' gRPC calls: it checks what is asked, decides who may ask, and names what went wrong.
//
// It guarantees that a sign-in tells nothing about accounts to somebody without the password: an unknown login, an
// account without a password and a wrong password get the same answer after the same work. A sign-up does tell whether
// a username is taken, and never whether an e-mail address has an account. No password, e-mail address or token is in
// an error that it returns, so that none reaches a log.
//
// A sign-up that fails with errs.Unavailable may have made the account all the same: the caller can try to sign in. A
// sign-out that was answered is committed, and told to Redis unless this process dies at once; one that fails can be
// repeated. The service itself does not ask whether its callers' sessions were revoked: see identity.
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
	"chatapp.dev/services/users/internal/revocation"
	"chatapp.dev/services/users/internal/store"
)

// PublicMethods are the methods that need no access token.
func PublicMethods() []string {
	return []string{
		usersv1.UsersService_SignUp_FullMethodName,
		usersv1.UsersService_SignIn_FullMethodName,
		usersv1.UsersService_GetSigningKeys_FullMethodName,
		usersv1.UsersService_ListRevocations_FullMethodName,
	}
}

// Service implements UsersService.
type Service struct {
	usersv1.UnsafeUsersServiceServer

	store       *store.Store
	passwords   *password.Hasher
	tokens      Tokens
	revocations *revocation.Publisher
	log         *slog.Logger
}

// New returns the service.
func New(
	accounts *store.Store, passwords *password.Hasher, tokens Tokens, revocations *revocation.Publisher, log *slog.Logger,
) *Service {
	return &Service{store: accounts, passwords: passwords, tokens: tokens, revocations: revocations, log: log}
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
	token, session, err := s.tokens.issue(account.ID)
	if err != nil {
		return nil, err
	}
	err = s.store.CreateAccount(ctx, account, session)
	if errors.Is(err, store.ErrUsernameTaken) {
		return nil, errs.Field(errs.Conflict, errs.Taken, fieldUsername, "this username is taken")
	}
	if err != nil {
		return nil, storeError(err)
	}
	s.log.InfoContext(ctx, "account created", "user", account.ID)
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
	token, session, err := s.tokens.issue(account.ID)
	if err != nil {
		return nil, err
	}
	if err := s.store.CreateSession(ctx, session); err != nil {
		return nil, storeError(err)
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

// SignOut revokes the caller's session.
func (s *Service) SignOut(ctx context.Context, _ *usersv1.SignOutRequest) (*usersv1.SignOutResponse, error) {
	caller, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	// The token says all that there is to know of its session.
	err = s.store.RevokeSession(ctx, store.Session{
		ID: caller.SessionID, UserID: caller.UserID, CreatedAt: now(), ExpiresAt: caller.ExpiresAt,
	})
	if err != nil {
		return nil, storeError(err)
	}
	s.log.InfoContext(ctx, "session signed out", "user", caller.UserID, "session", caller.SessionID)
	s.revocations.Publish(ctx, revokedMessage(caller.SessionID, caller.ExpiresAt))
	return &usersv1.SignOutResponse{}, nil
}

// ListRevocations reads the sessions whose tokens are not to be accepted. Anybody may: it tells nothing about anybody.
func (s *Service) ListRevocations(
	ctx context.Context, req *usersv1.ListRevocationsRequest,
) (*usersv1.ListRevocationsResponse, error) {
	var after store.RevocationPosition
	if req.GetAfter() != nil {
		id, err := ids.FromBytes(req.GetAfter().GetId())
		if err != nil {
			return nil, errs.Field(errs.Invalid, errs.InvalidFormat, "after", "a session's id has 16 bytes")
		}
		after = store.RevocationPosition{RevokedAt: time.UnixMicro(req.GetAfter().GetRevokedAtUs()).UTC(), ID: id}
	}
	page, err := s.store.Revocations(ctx, after, int(req.GetPageSize()))
	if err != nil {
		return nil, storeError(err)
	}
	response := &usersv1.ListRevocationsResponse{
		Sessions: make([]*usersv1.RevokedSession, len(page.Sessions)), HasNextPage: page.More,
	}
	for i, session := range page.Sessions {
		response.Sessions[i] = revokedMessage(session.ID, session.ExpiresAt)
	}
	if !page.Next.RevokedAt.IsZero() {
		response.Next = &usersv1.RevocationPosition{
			RevokedAtUs: page.Next.RevokedAt.UnixMicro(), Id: page.Next.ID.Bytes(),
		}
	}
	return response, nil
}

// newAccount makes an account of the two checked names that every account has.
func newAccount(username, displayName string) store.NewAccount {
	return store.NewAccount{
		User:      store.User{ID: ids.New(), Username: username, DisplayName: displayName},
		CreatedAt: now(),
	}
}

// now is the time as a DATETIME(6) holds it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Tokens issues access tokens.
type Tokens struct {
	Signer *identity.Signer
	// TTL is how long a token is good.
	TTL time.Duration
}

// issue makes a token and the session of its own that it is for, which has to be stored before the token is handed out.
func (t Tokens) issue(user ids.ID) (*usersv1.AccessToken, store.Session, error) {
	session := store.Session{ID: ids.New(), UserID: user, CreatedAt: now()}
	token, expires, err := t.Signer.Sign(user, session.ID, t.TTL)
	if err != nil {
		return nil, store.Session{}, err
	}
	session.ExpiresAt = expires.UTC()
	return &usersv1.AccessToken{Token: token, ExpiresAtMs: expires.UnixMilli()}, session, nil
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

func revokedMessage(session ids.ID, expires time.Time) *usersv1.RevokedSession {
	return &usersv1.RevokedSession{Id: session.Bytes(), TokensEndAtMs: expires.UnixMilli()}
}

func userMessages(users []store.User) []*usersv1.User {
	messages := make([]*usersv1.User, len(users))
	for i, user := range users {
		messages[i] = userMessage(user)
	}
	return messages
}
