package mysql

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// ErrOutcomeUnknown says that the connection broke while a transaction was being committed: it may have been or not.
var ErrOutcomeUnknown = errors.New("the outcome of the transaction is unknown")

// The numbers of the errors that we tell apart. Those from 8000 on are TiDB's own.
const (
	errAccessDeniedToDatabase = 1044
	errAccessDenied           = 1045
	errUnknownDatabase        = 1049
	errDuplicate              = 1062
	errUnknown                = 1105
	errNoSuchTable            = 1146
)

// lockRetryLimit is the text under which TiDB tells, with the number of an unknown error, that it has tried too often to
// lock rows that others kept changing.
const lockRetryLimit = "pessimistic lock retry limit reached"

func isLockRetryLimit(err error) bool {
	var failure *mysql.MySQLError
	return errors.As(err, &failure) && failure.Number == errUnknown && failure.Message == lockRetryLimit
}

// IsDuplicate says whether a row was refused because one with the same primary or unique key exists.
func IsDuplicate(err error) bool { return number(err) == errDuplicate }

// DuplicateKey returns the name of the key that [IsDuplicate] is about, such as "users_by_name" or "PRIMARY", and
// nothing when the error is another one. Some servers put the table's name before it; it is left out.
func DuplicateKey(err error) string {
	var failure *mysql.MySQLError
	if !errors.As(err, &failure) || failure.Number != errDuplicate {
		return ""
	}
	// The value stands before the key and may hold any text, so the last match counts.
	i := strings.LastIndex(failure.Message, duplicateKeyPhrase)
	if i < 0 {
		return ""
	}
	key := strings.TrimSuffix(failure.Message[i+len(duplicateKeyPhrase):], "'")
	return key[strings.LastIndexByte(key, '.')+1:]
}

const duplicateKeyPhrase = " for key '"

// IsRetryable says whether the whole transaction should be rolled back and run again: another one was in its way.
func IsRetryable(err error) bool {
	switch number(err) {
	case 1213, // Deadlock.
		1205, // Waited too long for a lock.
		1020, // MariaDB: a row has changed since this snapshot was taken.
		1412, // The table was altered since this snapshot was taken.
		8002, // TiDB: the same as 1020, for SELECT ... FOR UPDATE.
		8022, // TiDB: the commit failed and can be tried again.
		8028, // TiDB: the table was altered while the transaction ran.
		9007: // TiDB: write conflict.
		return true
	}
	return isLockRetryLimit(err)
}

// IsConnection says whether the database could not be reached or went away: it is down, restarting, failing over or
// overwhelmed. The same call may succeed later.
func IsConnection(err error) bool {
	for _, target := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, net.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	// Not every net.Error: a context that ends is one too, and says nothing about the database.
	var operation *net.OpError
	var lookup *net.DNSError
	if errors.As(err, &operation) || errors.As(err, &lookup) {
		return true
	}
	switch number(err) {
	case 1040, 1203, // Too many connections, in all or of this user.
		1047,                         // Galera: this node has not joined its cluster yet, or lost it.
		1053, 1077, 1079, 1080, 1317, // Shutting down: no new statement, and those that ran are interrupted.
		1152, 1184, 1158, 1159, 1160, 1161, // The server gave the connection up, or saw the network fail.
		1290, 1792, 1836, // Read-only: this was the primary once.
		1927, 3169, 4031, // The connection was killed, or closed for being idle.
		2006, 2013, // The server has gone away.
		9001, 9002, 9003, 9004, 9005: // TiDB: a component behind the server is away or busy.
		return true
	}
	return false
}

// isRefusal says whether the database is there but does not want us, which waiting does not change.
func isRefusal(err error) bool {
	switch number(err) {
	case errAccessDeniedToDatabase, errAccessDenied, errUnknownDatabase:
		return true
	}
	return false
}

// number returns the number of the server's error in err, or 0 when there is none.
func number(err error) uint16 {
	var failure *mysql.MySQLError
	if errors.As(err, &failure) {
		return failure.Number
	}
	return 0
}
