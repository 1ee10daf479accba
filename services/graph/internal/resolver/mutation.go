package resolver

import (
	"context"
	"time"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/gen"
	"chatapp.dev/services/graph/internal/model"
)

// mutation implements gen.MutationResolver. A payload without userErrors has an empty list of them, never null.
type mutation struct{ *Resolver }

func (r mutation) SignUp(ctx context.Context, input gen.SignUpInput) (*gen.SignUpPayload, error) {
	request := &usersv1.SignUpRequest{Username: input.Username, Email: input.Email, Password: input.Password}
	if input.DisplayName != nil {
		request.DisplayName = *input.DisplayName
	}
	response, err := r.Users.SignUp(ctx, request)
	if err != nil {
		userErrors, err := expected(err)
		return &gen.SignUpPayload{UserErrors: userErrors}, err
	}
	account, err := model.NewUser(response.GetUser())
	if err != nil {
		return nil, err
	}
	token, expires := accessToken(response.GetAccessToken())
	return &gen.SignUpPayload{
		User:                 account,
		AccessToken:          token,
		AccessTokenExpiresAt: expires,
		UserErrors:           []*gen.UserError{},
	}, nil
}

func (r mutation) SignIn(ctx context.Context, input gen.SignInInput) (*gen.SignInPayload, error) {
	request := &usersv1.SignInRequest{Login: input.Username, Password: input.Password}
	response, err := r.Users.SignIn(ctx, request)
	if err != nil {
		userErrors, err := expected(err)
		return &gen.SignInPayload{UserErrors: userErrors}, err
	}
	account, err := model.NewUser(response.GetUser())
	if err != nil {
		return nil, err
	}
	token, expires := accessToken(response.GetAccessToken())
	return &gen.SignInPayload{
		User:                 account,
		AccessToken:          token,
		AccessTokenExpiresAt: expires,
		UserErrors:           []*gen.UserError{},
	}, nil
}

func (r mutation) SignOut(ctx context.Context) (*gen.SignOutPayload, error) {
	who, err := identity.Must(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := r.Users.SignOut(ctx, &usersv1.SignOutRequest{}); err != nil {
		userErrors, err := expected(err)
		return &gen.SignOutPayload{UserErrors: userErrors}, err
	}
	// Redis and the next poll tell this process as any other; but it knows already.
	r.Revocations.Revoke(who.SessionID, who.ExpiresAt)
	return &gen.SignOutPayload{UserErrors: []*gen.UserError{}}, nil
}

func accessToken(t *usersv1.AccessToken) (*string, *time.Time) {
	expires := time.UnixMilli(t.GetExpiresAtMs())
	token := t.GetToken()
	return &token, &expires
}

func (r mutation) SendMessage(ctx context.Context, input gen.SendMessageInput) (*gen.SendMessagePayload, error) {
	sender, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	request, userErrors := sendRequest(input)
	if len(userErrors) > 0 {
		return &gen.SendMessagePayload{UserErrors: userErrors}, nil
	}
	response, err := r.Messages.SendMessage(ctx, request)
	if err != nil {
		userErrors, err := expected(err)
		return &gen.SendMessagePayload{UserErrors: userErrors}, err
	}
	sent, err := model.NewMessage(response.GetMessage(), sender)
	if err != nil {
		return nil, err
	}
	return &gen.SendMessagePayload{Message: sent, UserErrors: []*gen.UserError{}}, nil
}

// sendRequest translates the input, or says all that is wrong with it at once. The rules of the text and of the
// client's id are the service's.
func sendRequest(input gen.SendMessageInput) (*messagesv1.SendMessageRequest, []*gen.UserError) {
	var wrong []*gen.UserError
	request := &messagesv1.SendMessageRequest{Body: input.Body}
	switch {
	case input.RecipientID != nil && input.ConversationID != nil:
		wrong = append(wrong, userError(gen.UserErrorCodeInvalidFormat, "conversationId",
			"give either recipientId or conversationId, not both"))
	case input.RecipientID != nil:
		id, ok := model.ParseIDOf(model.KindUser, *input.RecipientID)
		if !ok {
			wrong = append(wrong, notAnID("recipientId", "user"))
		}
		request.To = &messagesv1.SendMessageRequest_RecipientId{RecipientId: id.Bytes()}
	case input.ConversationID != nil:
		id, ok := model.ParseIDOf(model.KindConversation, *input.ConversationID)
		if !ok {
			wrong = append(wrong, notAnID("conversationId", "conversation"))
		}
		request.To = &messagesv1.SendMessageRequest_ConversationId{ConversationId: id.Bytes()}
	default:
		wrong = append(wrong, userError(gen.UserErrorCodeRequired, "recipientId",
			"give either recipientId or conversationId"))
	}
	if input.ClientID == nil || *input.ClientID == "" {
		wrong = append(wrong, userError(gen.UserErrorCodeRequired, "clientId",
			"clientId is required: a UUID, the same with each repeat of this message"))
	} else {
		request.ClientId = *input.ClientID
	}
	return request, wrong
}

func (r mutation) MarkRead(ctx context.Context, input gen.MarkReadInput) (*gen.MarkReadPayload, error) {
	reader, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	id, ok := model.ParseIDOf(model.KindConversation, input.ConversationID)
	if !ok {
		return &gen.MarkReadPayload{
			UserErrors: []*gen.UserError{notAnID("conversationId", "conversation")},
		}, nil
	}
	request := &messagesv1.MarkReadRequest{ConversationId: id.Bytes(), Seq: int64(input.Seq)}
	response, err := r.Messages.MarkRead(ctx, request)
	if err != nil {
		userErrors, err := expected(err)
		return &gen.MarkReadPayload{UserErrors: userErrors}, err
	}
	marked, err := model.NewConversation(response.GetConversation(), reader)
	if err != nil {
		return nil, err
	}
	return &gen.MarkReadPayload{Conversation: marked, UserErrors: []*gen.UserError{}}, nil
}
