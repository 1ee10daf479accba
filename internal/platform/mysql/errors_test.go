package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/go-sql-driver/mysql"
)

func serverError(number uint16, message string) error {
	return fmt.Errorf("insert: %w", &mysql.MySQLError{Number: number, Message: message})
}

func TestErrorsAreToldApart(t *testing.T) {
	type class struct{ duplicate, retryable, connection bool }
	tests := []struct {
		name string
		err  error
		want class
	}{
		{"nothing", nil, class{}},
		{"something else", errors.New("oops"), class{}},
		{"no rows", sql.ErrNoRows, class{}},
		{"duplicate", serverError(1062, "Duplicate entry 'a' for key 'b'"), class{duplicate: true}},
		{"foreign key", serverError(1452, ""), class{}},
		{"check", serverError(3819, ""), class{}},
		{"deadlock", serverError(1213, ""), class{retryable: true}},
		{"lock wait", serverError(1205, ""), class{retryable: true}},
		{"snapshot", serverError(1020, ""), class{retryable: true}},
		{"TiDB's snapshot", serverError(8002, ""), class{retryable: true}},
		{"TiDB's write conflict", serverError(9007, ""), class{retryable: true}},
		{"TiDB's limit of lock retries", withoutValues(&mysql.MySQLError{Number: 1105, Message: lockRetryLimit}), class{retryable: true}},
		{"another unknown error", serverError(1105, "row 'a' reached its limit"), class{}},
		{"bad connection", fmt.Errorf("x: %w", driver.ErrBadConn), class{connection: true}},
		{"invalid connection", mysql.ErrInvalidConn, class{connection: true}},
		{"closed connection", sql.ErrConnDone, class{connection: true}},
		{"end of the stream", io.EOF, class{connection: true}},
		{"torn stream", io.ErrUnexpectedEOF, class{connection: true}},
		{"silence", os.ErrDeadlineExceeded, class{connection: true}},
		{"refused", &net.OpError{Op: "dial", Err: errors.New("connection refused")}, class{connection: true}},
		{"unknown host", &net.DNSError{Err: "no such host"}, class{connection: true}},
		{"too many connections", serverError(1040, ""), class{connection: true}},
		{"shutdown", serverError(1053, ""), class{connection: true}},
		{"killed", serverError(1927, ""), class{connection: true}},
		{"gone away", serverError(2006, ""), class{connection: true}},
		{"lost", serverError(2013, ""), class{connection: true}},
		{"read-only", serverError(1836, ""), class{connection: true}},
		{"TiDB's storage is away", serverError(9002, ""), class{connection: true}},
		{"out of time", context.DeadlineExceeded, class{}},
		{"given up", context.Canceled, class{}},
	}
	for _, test := range tests {
		got := class{IsDuplicate(test.err), IsRetryable(test.err), IsConnection(test.err)}
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestDuplicateKeyIsTheKeysName(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{serverError(1062, "Duplicate entry 'a@b.c' for key 'users_by_email'"), "users_by_email"},
		{serverError(1062, "Duplicate entry 'a@b.c' for key 'users.users_by_email'"), "users_by_email"},
		{serverError(1062, "Duplicate entry '1' for key 'PRIMARY'"), "PRIMARY"},
		{serverError(1062, "Duplicate entry 'x' for key 'forged'' for key 'real'"), "real"},
		{serverError(1062, "Doppelter Eintrag"), ""},
		{serverError(1213, "Deadlock for key 'x'"), ""},
		{errors.New("x for key 'y'"), ""},
		{nil, ""},
	}
	for _, test := range tests {
		if got := DuplicateKey(test.err); got != test.want {
			t.Errorf("%v: got %q, want %q", test.err, got, test.want)
		}
	}
}
