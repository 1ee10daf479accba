package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"chatapp.dev/dev/internal/client"
)

// demoPassword is the one of both people of the demo. It protects nothing.
const demoPassword = "chatapp-demo"

// demoPeople are the people of the demo.
var demoPeople = []client.Account{
	{Username: "ada", Email: "ada@example.com", DisplayName: "Ada Lovelace", Password: demoPassword},
	{Username: "bob", Email: "bob@example.com", DisplayName: "Bob Kahn", Password: demoPassword},
}

// demoConversation is what they have said to each other: who of demoPeople, and what.
var demoConversation = []struct {
	sender int
	body   string
}{
	{0, "Hello Bob! Is this thing on? 👋"},
	{1, "Loud and clear. Every message arrives once, and in order."},
	{0, "Even if somebody pulls the plug?"},
	{1, "Then it arrives when the plug is back in.\nTry it: kill -9 the server and start it again."},
	{0, "Ça marche ! 動いた！ يعمل!"},
	{1, "See you in the playground."},
}

// demoClientIDs is the name space of the client ids of demoConversation, which are the same at every start: what was
// sent already is not sent again.
var demoClientIDs = uuid.MustParse("5b9a8f1e-3c55-4f6e-9b52-0d4a6f0c7d21")

// demo is what there is to look at.
type demo struct {
	url    string
	bob    client.User
	newest []client.Message // Of their conversation, oldest first.
	taken  string           // A username that is somebody else's; then there is no demo.
}

// demoShown is how many messages are printed.
const demoShown = 8

// makeDemo makes the people and their conversation unless they are there.
func makeDemo(ctx context.Context, url string) (demo, error) {
	nobody := client.New(url + "/graphql")
	defer nobody.CloseIdle()
	people := make([]*client.Client, len(demoPeople))
	for i, account := range demoPeople {
		var err error
		people[i], err = signInOrUp(ctx, nobody, account)
		if hasCode(err, "TAKEN") {
			return demo{taken: account.Username}, nil
		}
		if err != nil {
			return demo{}, err
		}
	}
	ada, bob := people[0], people[1]
	var conversation string
	for i, m := range demoConversation {
		sent, err := people[m.sender].Send(ctx, client.Draft{
			RecipientID: people[1-m.sender].User.ID,
			Body:        m.body,
			ClientID:    uuid.NewSHA1(demoClientIDs, fmt.Appendf(nil, "%d %s", i, m.body)).String(),
		})
		if err != nil {
			return demo{}, err
		}
		conversation = sent.ConversationID
	}
	page, err := ada.History(ctx, conversation, client.Range{Last: demoShown})
	if err != nil {
		return demo{}, err
	}
	return demo{url: url, bob: bob.User, newest: page.Messages}, nil
}

func signInOrUp(ctx context.Context, nobody *client.Client, account client.Account) (*client.Client, error) {
	c, err := nobody.SignIn(ctx, account.Username, account.Password)
	if hasCode(err, "INVALID_CREDENTIALS") {
		return nobody.SignUp(ctx, account)
	}
	return c, err
}

// hasCode says whether a mutation was refused with a code.
func hasCode(err error, code string) bool {
	var refused client.UserErrors
	return errors.As(err, &refused) && refused[0].Code == code
}

// print tells what there is, with examples to paste.
func (d demo) print(out io.Writer) {
	if d.taken != "" {
		fmt.Fprintf(out, "\nThere is no demo here: the username %s is somebody else's. Another --data folder has room for it.\n", d.taken)
		return
	}
	fmt.Fprintf(out, "\nThe demo has two people who have talked, ada and bob; both have the password %s.\n\n", demoPassword)
	for _, m := range d.newest {
		fmt.Fprintf(out, "  %4d  %s: %s\n", m.Seq, m.Sender.Username, strings.ReplaceAll(m.Body, "\n", "\n           "))
	}
	fmt.Fprint(out, strings.NewReplacer(
		"{url}", d.url, "{password}", demoPassword, "{bob}", d.bob.ID, "{uuid}", uuid.NewString(),
	).Replace(demoText))
}

// demoText has only lines that can be pasted as a whole.
const demoText = `
1. Be bob: open {url}/ in a browser, sign in, and press Subscribe on this:

subscription { newMessage { cursor message { seq body sender { displayName } } } }

2. Be ada: paste this into a terminal, and watch it arrive. (The same clientId is never sent twice; make a new one for
   each message.)

TOKEN=$(curl -s {url}/graphql -H 'Content-Type: application/json' --data '{
  "query": "mutation SignIn($input: SignInInput!) { signIn(input: $input) { accessToken } }",
  "variables": {"input": {"username": "ada", "password": "{password}"}}
}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')

curl -s {url}/graphql -H 'Content-Type: application/json' -H "Authorization: Bearer $TOKEN" --data '{
  "query": "mutation Send($input: SendMessageInput!) { sendMessage(input: $input) { message { seq body } userErrors { message } } }",
  "variables": {"input": {"recipientId": "{bob}", "body": "Hello from a terminal!", "clientId": "{uuid}"}}
}'

3. More people to talk with: .bin/chatapp seed --users=20 --conversations=50 --messages=2000
`
