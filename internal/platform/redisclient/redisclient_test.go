package redisclient

import (
	"context"
	"net"
	"testing"
	"time"

	"chatapp.dev/internal/platform/redistest"
)

func TestAClientTalksToTheRedisOfItsURL(t *testing.T) {
	server := redistest.Start(t)
	client, err := Connect("redis://" + server.Addr + "/0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	server.Stop()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("a Redis that has stopped answers")
	}
	server.Restart()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("after its return: %v", err)
	}
}

func TestADeadlineHoldsThoughRedisIsSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	client, err := Connect("redis://" + silent.Addr().String() + "/0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := client.Ping(ctx).Err(); err == nil {
		t.Error("a Redis that says nothing has answered")
	}
	// The client's own timeouts, with its retries, add up to more.
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("a deadline of 20 ms took %v", took)
	}
}
