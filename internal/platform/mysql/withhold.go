package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// A server quotes values of rows and arguments in some of its errors: an e-mail address that is taken, the piece of a
// statement it did not understand. Errors end up in logs and traces, where such values must not. They are taken out
// here, below everything that could see them, rather than by each of those who might print one.

// withheld replaces what an error quoted.
const withheld = "(values withheld)"

// withoutValues returns err without the values that a server put in it. The number stays, and so does the name of the
// key in a duplicate, which code depends on.
func withoutValues(err error) error {
	var failure *mysql.MySQLError
	if !errors.As(err, &failure) || !quotesValues(failure.Number) {
		return err
	}
	if isLockRetryLimit(failure) {
		return err
	}
	clean := *failure
	clean.Message = withheld
	if i := strings.LastIndex(failure.Message, duplicateKeyPhrase); failure.Number == errDuplicate && i >= 0 {
		clean.Message = "Duplicate entry " + withheld + failure.Message[i:]
	}
	return &clean
}

// quotesValues says whether the text of an error can hold values.
func quotesValues(number uint16) bool {
	switch number {
	case errDuplicate, 1586, // The row that exists already.
		1064, 1149, // The statement from the mistake on, arguments included.
		1105, 1815, // Anything.
		1210, 1264, 1265, 1292, 1366, 1367, 1411, 1416, 1525, 1690, 3140, 3854: // A value that does not fit.
		return true
	}
	// TiDB's own errors quote keys of its storage. Those about a component that is away do not.
	return number >= 8000 && (number < 9001 || number > 9005)
}

// fullConn is all that a connection of the driver can do. Embedding it passes on what is not overridden.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type fullStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
	driver.NamedValueChecker
}

type fullRows interface {
	driver.Rows
	driver.RowsNextResultSet
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

// withhold returns a connection whose errors hold no values.
func withhold(conn driver.Conn) (driver.Conn, error) {
	full, ok := conn.(fullConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method that is needed", conn), conn.Close())
	}
	return withholdingConn{full}, nil
}

type withholdingConn struct{ fullConn }

// BeginTx implements driver.ConnBeginTx.
func (c withholdingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.fullConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, withoutValues(err)
	}
	return withholdingTx{tx}, nil
}

// PrepareContext implements driver.ConnPrepareContext.
func (c withholdingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.fullConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, withoutValues(err)
	}
	full, ok := stmt.(fullStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method that is needed", stmt), stmt.Close())
	}
	return withholdingStmt{full}, nil
}

// ExecContext implements driver.ExecerContext.
func (c withholdingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.fullConn.ExecContext(ctx, query, args)
	return result, withoutValues(err)
}

// QueryContext implements driver.QueryerContext.
func (c withholdingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.fullConn.QueryContext(ctx, query, args)
	return withholdRows(rows, err)
}

type withholdingTx struct{ tx driver.Tx }

// Commit implements driver.Tx.
func (t withholdingTx) Commit() error { return withoutValues(t.tx.Commit()) }

// Rollback implements driver.Tx.
func (t withholdingTx) Rollback() error { return withoutValues(t.tx.Rollback()) }

type withholdingStmt struct{ fullStmt }

// ExecContext implements driver.StmtExecContext.
func (s withholdingStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	result, err := s.fullStmt.ExecContext(ctx, args)
	return result, withoutValues(err)
}

// QueryContext implements driver.StmtQueryContext.
func (s withholdingStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.fullStmt.QueryContext(ctx, args)
	return withholdRows(rows, err)
}

func withholdRows(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, withoutValues(err)
	}
	full, ok := rows.(fullRows)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's %T lacks a method that is needed", rows), rows.Close())
	}
	return withholdingRows{full}, nil
}

type withholdingRows struct{ fullRows }

// Next implements driver.Rows. The end of the rows is an io.EOF, which passes unchanged.
func (r withholdingRows) Next(dest []driver.Value) error { return withoutValues(r.fullRows.Next(dest)) }

// NextResultSet implements driver.RowsNextResultSet. It is where the error of a later statement of several arrives.
func (r withholdingRows) NextResultSet() error { return withoutValues(r.fullRows.NextResultSet()) }

// Close implements driver.Rows. It reads what has not been read, which can end in an error too.
func (r withholdingRows) Close() error { return withoutValues(r.fullRows.Close()) }
