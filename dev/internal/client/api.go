package client

import (
	"context"
	"time"
)

// User is an account as others see it.
type User struct {
	ID          string `json:"id"`
	Username    string `json:"username"`
	DisplayName string `json:"displayName"`
}

// Message is one message of a conversation.
type Message struct {
	ID             string    `json:"id"`
	Seq            int       `json:"seq"`
	Body           string    `json:"body"`
	Sender         User      `json:"sender"`
	SentAt         time.Time `json:"sentAt"`
	ClientID       *string   `json:"clientId"`
	Conversation   idOnly    `json:"conversation"`
	ConversationID string    `json:"-"`
}

type idOnly struct {
	ID string `json:"id"`
}

// Conversation is a conversation as the caller sees it.
type Conversation struct {
	ID          string   `json:"id"`
	With        User     `json:"with"`
	LastMessage *Message `json:"lastMessage"`
	UnreadCount int      `json:"unreadCount"`
	ReadSeq     int      `json:"readSeq"`
}

// PageInfo tells where a page stands among the others.
type PageInfo struct {
	HasPreviousPage bool    `json:"hasPreviousPage"`
	HasNextPage     bool    `json:"hasNextPage"`
	StartCursor     *string `json:"startCursor"`
	EndCursor       *string `json:"endCursor"`
}

const (
	userFields     = `id username displayName`
	messageFields  = `id seq body sentAt clientId sender { ` + userFields + ` } conversation { id }`
	headFields     = `id unreadCount readSeq with { ` + userFields + ` } lastMessage { ` + messageFields + ` }`
	pageInfoFields = `pageInfo { hasPreviousPage hasNextPage startCursor endCursor }`
)

// finish fills in what the JSON holds deeper, and checks what must hold of every message.
func (m *Message) finish() error {
	m.ConversationID = m.Conversation.ID
	switch {
	case m.ID == "" || m.ConversationID == "" || m.Sender.ID == "":
		return broken("a message with an empty id: %+v", *m)
	case m.Seq < 1:
		return broken("a message with seq %d", m.Seq)
	case m.SentAt.IsZero():
		return broken("a message without sentAt")
	}
	return nil
}

// finish checks what must hold of every conversation.
func (c *Conversation) finish() error {
	if c.UnreadCount < 0 || c.ReadSeq < 0 {
		return broken("conversation %s has unreadCount %d and readSeq %d", c.ID, c.UnreadCount, c.ReadSeq)
	}
	if c.LastMessage == nil {
		return broken("conversation %s has no last message", c.ID)
	}
	if err := c.LastMessage.finish(); err != nil {
		return err
	}
	if c.ReadSeq+c.UnreadCount != c.LastMessage.Seq {
		return broken("conversation %s has readSeq %d, unreadCount %d and a last message with seq %d",
			c.ID, c.ReadSeq, c.UnreadCount, c.LastMessage.Seq)
	}
	return nil
}

// Account is what signing up takes.
type Account struct {
	Username, Email, DisplayName, Password string
}

// session is the payload of signUp and signIn.
type session struct {
	User        *User      `json:"user"`
	AccessToken *string    `json:"accessToken"`
	UserErrors  UserErrors `json:"userErrors"`
}

func (c *Client) start(s *session) (*Client, error) {
	if err := checkPayload(s.User != nil && s.AccessToken != nil, s.User == nil && s.AccessToken == nil, s.UserErrors); err != nil {
		return nil, err
	}
	return c.As(*s.User, *s.AccessToken), nil
}

// checkPayload returns the user errors of a payload, and insists that there is either a result or a reason.
func checkPayload(complete, empty bool, refused UserErrors) error {
	switch {
	case len(refused) == 0 && !complete:
		return broken("a payload without a result and without userErrors")
	case len(refused) > 0 && !empty:
		return broken("a payload with a result and with userErrors: %v", refused)
	case len(refused) > 0:
		return refused
	}
	return nil
}

// SignUp makes an account and returns a client for it.
func (c *Client) SignUp(ctx context.Context, a Account) (*Client, error) {
	var data struct {
		SignUp *session `json:"signUp"`
	}
	err := c.As(User{}, "").Do(ctx, `mutation SignUp($input: SignUpInput!) { signUp(input: $input) {
		user { `+userFields+` } accessToken userErrors { code message field } } }`,
		map[string]any{"input": map[string]any{
			"username": a.Username, "email": a.Email, "displayName": a.DisplayName, "password": a.Password,
		}}, &data)
	if err != nil {
		return nil, err
	}
	return c.start(data.SignUp)
}

// SignIn signs an account in by its username or e-mail address, and returns a client for it.
func (c *Client) SignIn(ctx context.Context, login, password string) (*Client, error) {
	var data struct {
		SignIn *session `json:"signIn"`
	}
	err := c.As(User{}, "").Do(ctx, `mutation SignIn($input: SignInInput!) { signIn(input: $input) {
		user { `+userFields+` } accessToken userErrors { code message field } } }`,
		map[string]any{"input": map[string]any{"username": login, "password": password}}, &data)
	if err != nil {
		return nil, err
	}
	return c.start(data.SignIn)
}

// SignOut ends the session of the client's token.
func (c *Client) SignOut(ctx context.Context) error {
	var data struct {
		SignOut *struct {
			UserErrors UserErrors `json:"userErrors"`
		} `json:"signOut"`
	}
	if err := c.Do(ctx, `mutation SignOut { signOut { userErrors { code message field } } }`, nil, &data); err != nil {
		return err
	}
	if refused := data.SignOut.UserErrors; len(refused) > 0 {
		return refused
	}
	return nil
}

// Draft is a message to be sent. Empty fields are left out of the request.
type Draft struct {
	RecipientID, ConversationID string
	Body                        string
	ClientID                    string
}

// SendQuery is the operation of Send, for those who measure it without the client.
const SendQuery = `mutation Send($input: SendMessageInput!) { sendMessage(input: $input) {
	message { ` + messageFields + ` } userErrors { code message field } } }`

// Input returns the draft as the variable "input" of SendQuery.
func (d Draft) Input() map[string]any {
	input := map[string]any{"body": d.Body}
	for name, value := range map[string]string{
		"recipientId": d.RecipientID, "conversationId": d.ConversationID, "clientId": d.ClientID,
	} {
		if value != "" {
			input[name] = value
		}
	}
	return input
}

// Send sends a message. Its error is UserErrors when it was refused.
func (c *Client) Send(ctx context.Context, d Draft) (Message, error) {
	var data struct {
		SendMessage *struct {
			Message    *Message   `json:"message"`
			UserErrors UserErrors `json:"userErrors"`
		} `json:"sendMessage"`
	}
	if err := c.Do(ctx, SendQuery, map[string]any{"input": d.Input()}, &data); err != nil {
		return Message{}, err
	}
	p := data.SendMessage
	if err := checkPayload(p.Message != nil, p.Message == nil, p.UserErrors); err != nil {
		return Message{}, err
	}
	if err := p.Message.finish(); err != nil {
		return Message{}, err
	}
	if p.Message.ClientID == nil {
		return Message{}, broken("a sent message without its clientId")
	}
	return *p.Message, nil
}

// MarkRead moves the caller's read pointer, and returns the conversation afterwards.
func (c *Client) MarkRead(ctx context.Context, conversationID string, seq int) (Conversation, error) {
	var data struct {
		MarkRead *struct {
			Conversation *Conversation `json:"conversation"`
			UserErrors   UserErrors    `json:"userErrors"`
		} `json:"markRead"`
	}
	err := c.Do(ctx, `mutation MarkRead($input: MarkReadInput!) { markRead(input: $input) {
		conversation { `+headFields+` } userErrors { code message field } } }`,
		map[string]any{"input": map[string]any{"conversationId": conversationID, "seq": seq}}, &data)
	if err != nil {
		return Conversation{}, err
	}
	p := data.MarkRead
	if err := checkPayload(p.Conversation != nil, p.Conversation == nil, p.UserErrors); err != nil {
		return Conversation{}, err
	}
	return *p.Conversation, p.Conversation.finish()
}

// Cursor returns the newest place in the caller's log.
func (c *Client) Cursor(ctx context.Context) (string, error) {
	var data struct {
		Cursor string `json:"cursor"`
	}
	if err := c.Do(ctx, `query Cursor { cursor }`, nil, &data); err != nil {
		return "", err
	}
	if data.Cursor == "" {
		return "", broken("an empty cursor")
	}
	return data.Cursor, nil
}

// Me returns the caller.
func (c *Client) Me(ctx context.Context) (User, error) {
	var data struct {
		Me User `json:"me"`
	}
	err := c.Do(ctx, `query Me { me { `+userFields+` } }`, nil, &data)
	return data.Me, err
}

// SearchUsers returns the first users whose username or display name begins with the prefix.
func (c *Client) SearchUsers(ctx context.Context, prefix string, first int) ([]User, error) {
	var data struct {
		Users struct {
			Edges []struct {
				Node User `json:"node"`
			} `json:"edges"`
		} `json:"users"`
	}
	err := c.Do(ctx, `query Users($search: String, $first: Int) { users(search: $search, first: $first) {
		edges { node { `+userFields+` } } } }`, map[string]any{"search": prefix, "first": first}, &data)
	if err != nil {
		return nil, err
	}
	users := make([]User, len(data.Users.Edges))
	for i, edge := range data.Users.Edges {
		users[i] = edge.Node
	}
	return users, nil
}

// Message returns a message by id, or nil.
func (c *Client) Message(ctx context.Context, id string) (*Message, error) {
	var data struct {
		Message *Message `json:"message"`
	}
	err := c.Do(ctx, `query Message($id: ID!) { message(id: $id) { `+messageFields+` } }`, map[string]any{"id": id}, &data)
	if err != nil || data.Message == nil {
		return nil, err
	}
	return data.Message, data.Message.finish()
}

// Conversation returns a conversation by id, or nil.
func (c *Client) Conversation(ctx context.Context, id string) (*Conversation, error) {
	var data struct {
		Conversation *Conversation `json:"conversation"`
	}
	err := c.Do(ctx, `query Conversation($id: ID!) { conversation(id: $id) { `+headFields+` } }`,
		map[string]any{"id": id}, &data)
	if err != nil || data.Conversation == nil {
		return nil, err
	}
	return data.Conversation, data.Conversation.finish()
}

// ConversationWith returns the caller's conversation with a user, or nil.
func (c *Client) ConversationWith(ctx context.Context, userID string) (*Conversation, error) {
	var data struct {
		Conversation *Conversation `json:"conversationWith"`
	}
	err := c.Do(ctx, `query ConversationWith($id: ID!) { conversationWith(userId: $id) { `+headFields+` } }`,
		map[string]any{"id": userID}, &data)
	if err != nil || data.Conversation == nil {
		return nil, err
	}
	return data.Conversation, data.Conversation.finish()
}

// ConversationPage is a page of the caller's conversations.
type ConversationPage struct {
	Conversations []Conversation
	PageInfo      PageInfo
}

// Conversations returns a page of the caller's conversations after a cursor, or the first when it is empty.
func (c *Client) Conversations(ctx context.Context, first int, after string) (ConversationPage, error) {
	var data struct {
		Conversations struct {
			Edges []struct {
				Node Conversation `json:"node"`
			} `json:"edges"`
			PageInfo PageInfo `json:"pageInfo"`
		} `json:"conversations"`
	}
	err := c.Do(ctx, `query Conversations($first: Int, $after: String) { conversations(first: $first, after: $after) {
		edges { node { `+headFields+` } } `+pageInfoFields+` } }`,
		map[string]any{"first": first, "after": orNull(after)}, &data)
	if err != nil {
		return ConversationPage{}, err
	}
	page := ConversationPage{PageInfo: data.Conversations.PageInfo}
	for _, edge := range data.Conversations.Edges {
		if err := edge.Node.finish(); err != nil {
			return ConversationPage{}, err
		}
		page.Conversations = append(page.Conversations, edge.Node)
	}
	return page, nil
}

// AllConversations returns all of the caller's conversations, page by page. A conversation that moves up the list
// meanwhile can be missing or doubled, as it can for every reader of keyset pages.
func (c *Client) AllConversations(ctx context.Context) ([]Conversation, error) {
	var all []Conversation
	after := ""
	for {
		page, err := c.Conversations(ctx, 100, after)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Conversations...)
		if !page.PageInfo.HasNextPage {
			return all, nil
		}
		if page.PageInfo.EndCursor == nil {
			return nil, broken("a page with a next one and without endCursor")
		}
		after = *page.PageInfo.EndCursor
	}
}

// Range selects a page of a conversation's history. Zero values are left out.
type Range struct {
	First, Last   int
	After, Before string
}

// MessagePage is a page of a conversation's history.
type MessagePage struct {
	Messages []Message
	// Cursors has the cursor of each message.
	Cursors  []string
	PageInfo PageInfo
}

// History returns a page of a conversation, or nil when there is no such conversation for the caller.
func (c *Client) History(ctx context.Context, conversationID string, r Range) (*MessagePage, error) {
	var data struct {
		Conversation *struct {
			Messages struct {
				Edges []struct {
					Cursor string  `json:"cursor"`
					Node   Message `json:"node"`
				} `json:"edges"`
				PageInfo PageInfo `json:"pageInfo"`
			} `json:"messages"`
		} `json:"conversation"`
	}
	variables := map[string]any{"id": conversationID}
	if r.First > 0 {
		variables["first"] = r.First
	}
	if r.Last > 0 {
		variables["last"] = r.Last
	}
	if r.After != "" {
		variables["after"] = r.After
	}
	if r.Before != "" {
		variables["before"] = r.Before
	}
	err := c.Do(ctx, HistoryQuery, variables, &data)
	if err != nil || data.Conversation == nil {
		return nil, err
	}
	page := &MessagePage{PageInfo: data.Conversation.Messages.PageInfo}
	for i, edge := range data.Conversation.Messages.Edges {
		if err := edge.Node.finish(); err != nil {
			return nil, err
		}
		if edge.Node.ConversationID != conversationID {
			return nil, broken("the history of %s has a message of %s", conversationID, edge.Node.ConversationID)
		}
		if i > 0 && edge.Node.Seq != page.Messages[i-1].Seq+1 {
			return nil, broken("a page of history has seq %d after %d", edge.Node.Seq, page.Messages[i-1].Seq)
		}
		page.Messages = append(page.Messages, edge.Node)
		page.Cursors = append(page.Cursors, edge.Cursor)
	}
	return page, nil
}

// HistoryQuery is the operation of History, for those who measure it without the client.
const HistoryQuery = `query History($id: ID!, $first: Int, $after: String, $last: Int, $before: String) {
	conversation(id: $id) { messages(first: $first, after: $after, last: $last, before: $before) {
		edges { cursor node { ` + messageFields + ` } } ` + pageInfoFields + ` } } }`

// AllHistory returns a whole conversation, oldest message first, or nothing when there is none for the caller.
func (c *Client) AllHistory(ctx context.Context, conversationID string) ([]Message, error) {
	var all []Message
	r := Range{First: 100}
	for {
		page, err := c.History(ctx, conversationID, r)
		if err != nil || page == nil {
			return nil, err
		}
		all = append(all, page.Messages...)
		if !page.PageInfo.HasNextPage {
			return all, nil
		}
		if page.PageInfo.EndCursor == nil {
			return nil, broken("a page with a next one and without endCursor")
		}
		r.After = *page.PageInfo.EndCursor
	}
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
