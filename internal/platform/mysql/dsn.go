package mysql

import (
	"errors"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// DSN names a database as go-sql-driver/mysql does: user:password@tcp(host:port)/database?parameters. It holds a
// password, so printing or logging it shows everything but that.
type DSN string

const dsnTakes = "it takes user:password@tcp(host:port)/database, such as app:secret@tcp(mysql:3306)/app"

// UnmarshalText sets the DSN from text, or says what is wrong with it without repeating any of it.
func (d *DSN) UnmarshalText(text []byte) error {
	dsn := DSN(text)
	if _, err := dsn.parse(); err != nil {
		return err
	}
	*d = dsn
	return nil
}

// parse returns what the DSN says. Its errors read on from the setting's name and repeat nothing of the DSN, as the
// driver's own would: where an @ or a / is missing, the driver mistakes the password for some other part.
func (d DSN) parse() (*mysql.Config, error) {
	text := string(d)
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("is empty: " + dsnTakes)
	}
	if strings.Contains(text, "://") {
		return nil, errors.New("must not be a URL: " + dsnTakes)
	}
	slash := strings.LastIndexByte(text, '/')
	if slash < 0 {
		return nil, errors.New("has no /database: " + dsnTakes)
	}
	// The driver panics on a parameter that it once had.
	if _, parameters, _ := strings.Cut(text[slash:], "?"); strings.HasPrefix(parameters, "strict=") ||
		strings.Contains(parameters, "&strict=") {
		return nil, errors.New("has the parameter strict, which no longer exists: sessions are always strict")
	}
	config, err := mysql.ParseDSN(text)
	if err != nil {
		withoutParameters, _, has := strings.Cut(text[slash:], "?")
		if _, err := mysql.ParseDSN(text[:slash] + withoutParameters); has && err == nil {
			return nil, errors.New("has a parameter after the ? that go-sql-driver/mysql does not take, or with a wrong value")
		}
		return nil, errors.New("cannot be read: " + dsnTakes)
	}
	if config.DBName == "" {
		return nil, errors.New("names no database after the /: " + dsnTakes)
	}
	return config, nil
}

// Database returns the name of the database, or nothing when the DSN is wrong.
func (d DSN) Database() string {
	config, err := d.parse()
	if err != nil {
		return ""
	}
	return config.DBName
}

// String returns the DSN without its user, password and parameters.
func (d DSN) String() string {
	config, err := d.parse()
	if err != nil {
		return "invalid DSN"
	}
	return config.Net + "(" + config.Addr + ")/" + config.DBName
}

// GoString implements fmt.GoStringer, so that %#v of a configuration shows no password either.
func (d DSN) GoString() string { return "mysql.DSN(" + d.String() + ")" }

// MarshalText implements encoding.TextMarshaler, so that JSON of a configuration shows no password either.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
