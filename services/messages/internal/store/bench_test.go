package store

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
)

// BenchmarkSend sends from 16 workers in as many conversations on the tests' server, which does not wait for the disk.
func BenchmarkSend(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	database, err := mysql.Open(b.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(b)), MultiStatements: true}, log)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { database.Close() })
	migrator, err := mysql.NewMigrator(database, Migrations)
	if err != nil {
		b.Fatal(err)
	}
	if err := migrator.Up(b.Context()); err != nil {
		b.Fatal(err)
	}
	s := New(database)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		from, to := ids.New(), ids.New()
		first, err := s.Send(context.Background(), say(from, to, "first"))
		if err != nil {
			b.Error(err)
			return
		}
		for i := 0; pb.Next(); i++ {
			m := say(from, to, fmt.Sprint("message ", i))
			m.ConversationID = first.Message.ConversationID
			if _, err := s.Send(context.Background(), m); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
