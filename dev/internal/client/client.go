// Package client talks to ChatApp as a program of somebody else's would: through GraphQL over HTTP and
// graphql-transport-ws, and nothing else. Tests, the torture, the benchmark and the seeder are its users.
//
// It believes nothing: an answer that breaks the contract (neither data nor errors, a payload with both a result and user
// errors, a frame of the WebSocket protocol that does not belong there) is an error of its own, *ContractError, which no
// caller should retry.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 16 << 20
	// dialTimeout bounds the making of a connection.
	dialTimeout = 5 * time.Second
)

// Client acts for one account, or for nobody until it has signed in, at one endpoint. It is safe for concurrent use.
type Client struct {
	// User is the account; its zero value is nobody.
	User User
	// Token is the access token, empty for nobody.
	Token string

	endpoint string
	http     *http.Client
}

// New returns a client for nobody at an endpoint such as http://localhost:8080/graphql.
func New(endpoint string) *Client {
	return &Client{
		endpoint: endpoint,
		http: &http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     30 * time.Second,
		}},
	}
}

// At returns a client for the same account, sharing connections, at another endpoint.
func (c *Client) At(endpoint string) *Client {
	other := *c
	other.endpoint = endpoint
	return &other
}

// As returns a client for another account at the same endpoint, sharing connections.
func (c *Client) As(user User, token string) *Client {
	other := *c
	other.User, other.Token = user, token
	return &other
}

// Endpoint returns where the client sends its requests.
func (c *Client) Endpoint() string { return c.endpoint }

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Errors are the errors of a GraphQL response.
type Errors struct {
	// Status is the HTTP status, 0 when they came over WebSocket.
	Status int
	List   []ResponseError
}

// ResponseError is one error of a GraphQL response.
type ResponseError struct {
	Message    string `json:"message"`
	Path       []any  `json:"path,omitempty"`
	Locations  []any  `json:"locations,omitempty"`
	Extensions struct {
		Code    string `json:"code"`
		TraceID string `json:"traceId"`
		// Argument and Rule are set when one argument, or a limit, is why.
		Argument string `json:"argument,omitempty"`
		Rule     string `json:"rule,omitempty"`
	} `json:"extensions"`
}

func (e *Errors) Error() string {
	var text strings.Builder
	text.WriteString("GraphQL errors:")
	for _, one := range e.List {
		fmt.Fprintf(&text, " [%s] %s", one.Extensions.Code, one.Message)
		if len(one.Path) > 0 {
			fmt.Fprintf(&text, " at %v", one.Path)
		}
	}
	if e.Status != 0 {
		fmt.Fprintf(&text, " (HTTP %d)", e.Status)
	}
	return text.String()
}

// Code returns extensions.code of the first GraphQL error in err's chain, or "" when there is none.
func Code(err error) string {
	var e *Errors
	if errors.As(err, &e) && len(e.List) > 0 {
		return e.List[0].Extensions.Code
	}
	return ""
}

// ContractError says that the server broke the contract.
type ContractError struct{ What string }

func (e *ContractError) Error() string { return "the server broke the contract: " + e.What }

func broken(format string, args ...any) error {
	return &ContractError{What: fmt.Sprintf(format, args...)}
}

// UserErrors are the userErrors of a mutation's payload.
type UserErrors []UserError

// UserError is why a mutation did not do what it was asked.
type UserError struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Field   []string `json:"field"`
}

func (e UserErrors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = fmt.Sprintf("[%s] %s: %s", one.Code, strings.Join(one.Field, "."), one.Message)
	}
	return "refused: " + strings.Join(texts, "; ")
}

// Retryable says whether the same request or subscription may succeed later or elsewhere: nobody answered, the answer was
// UNAVAILABLE, or the server closed the socket because it stops.
func Retryable(err error) bool {
	var (
		contract *ContractError
		refused  UserErrors
		answered *Errors
		closed   *CloseError
	)
	switch {
	case err == nil, errors.As(err, &contract), errors.As(err, &refused):
		return false
	case errors.As(err, &answered):
		return Code(err) == "UNAVAILABLE"
	case errors.As(err, &closed):
		switch closed.Code {
		case websocket.CloseGoingAway, websocket.CloseServiceRestart, websocket.CloseTryAgainLater,
			websocket.CloseNoStatusReceived:
			return true
		default:
			return false
		}
	default:
		return true
	}
}

// request is the body of a GraphQL request.
type request struct {
	Query     string         `json:"query"`
	Variables map[string]any `json:"variables,omitempty"`
}

// response is the body of a GraphQL response.
type response struct {
	Data       json.RawMessage `json:"data"`
	Errors     []ResponseError `json:"errors"`
	Extensions json.RawMessage `json:"extensions"`
}

// Do executes an operation and decodes its data. Its error is *Errors if the response has errors, even beside data.
func (c *Client) Do(ctx context.Context, query string, variables map[string]any, data any) error {
	body, err := json.Marshal(request{Query: query, Variables: variables})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	status, answer, err := c.Post(ctx, body)
	if err != nil {
		return err
	}
	return decode(status, answer, data)
}

// Post sends any bytes as the body of a request, and returns the status and the body of the answer, which must be JSON.
func (c *Client) Post(ctx context.Context, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json, application/json;q=0.9")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("send request: %w", unwrapURL(err))
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || (kind != "application/graphql-response+json" && kind != "application/json") {
		return res.StatusCode, nil, broken("HTTP %d with Content-Type %q: %.200s", res.StatusCode, res.Header.Get("Content-Type"), answer)
	}
	return res.StatusCode, answer, nil
}

// unwrapURL drops the URL from an error of net/http, which only repeats the endpoint.
func unwrapURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// decode reads a GraphQL response.
func decode(status int, answer []byte, data any) error {
	var res response
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&res); err != nil {
		return broken("HTTP %d with a body that is no GraphQL response (%v): %.200s", status, err, answer)
	}
	if len(res.Errors) > 0 {
		return &Errors{Status: status, List: res.Errors}
	}
	if len(res.Data) == 0 || string(res.Data) == "null" {
		return broken("HTTP %d with neither data nor errors: %.200s", status, answer)
	}
	if status != 0 && status != http.StatusOK {
		return broken("HTTP %d with data and without errors", status)
	}
	if err := json.Unmarshal(res.Data, data); err != nil {
		return broken("data that does not fit the schema (%v): %.200s", err, res.Data)
	}
	return nil
}
