package transport

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// An event that comes after the close must not cut the connection, and perhaps the close with it.
func TestWritingAfterACloseLeavesTheClientTheTimeToAnswer(t *testing.T) {
	answered := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			answered <- err
			return
		}
		s := &socket{}
		s.connect(conn)
		s.end(websocket.CloseServiceRestart, "the server restarts")
		if err := s.WriteJSON("an event"); err == nil {
			t.Error("something was written after the close")
		}
		_, _, err = conn.NextReader()
		answered <- err
		s.finish()
	}))
	defer server.Close()
	client, response, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	response.Body.Close()
	// Reading answers a close.
	if _, _, err := client.NextReader(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("the client got %v", err)
	}
	if err := <-answered; !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("the server got %v for an answer", err)
	}
}
