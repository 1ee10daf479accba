package transport

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/lexer"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/apierr"
)

// Go's decoders put U+FFFD in the place of what is not Unicode. A message would then be stored that nobody has written,
// so such text is refused before anything decodes it.

// checkJSON refuses JSON whose bytes are not UTF-8, or whose escapes name half of a surrogate pair.
func checkJSON(raw []byte) *errs.Error {
	if !utf8.Valid(raw) {
		return errs.New(errs.Invalid, "the request is not valid UTF-8")
	}
	if hasLoneSurrogate(raw) {
		return errs.New(errs.Invalid, `the request has half of a surrogate pair in an escape (\ud800 to \udfff)`)
	}
	return nil
}

// hasLoneSurrogate looks for \u escapes that name a surrogate without its partner. In JSON and in GraphQL strings a
// backslash begins an escape and nothing else.
func hasLoneSurrogate(raw []byte) bool {
	for {
		start := bytes.IndexByte(raw, '\\')
		if start < 0 || start+1 >= len(raw) {
			return false
		}
		raw = raw[start:]
		unit, ok := escapedUnit(raw)
		switch {
		case !ok:
			// Another escape, such as \\ or \n, or one that the decoder will refuse.
			raw = raw[2:]
		case unit < 0xd800 || unit > 0xdfff:
			raw = raw[6:]
		default:
			low, ok := escapedUnit(raw[6:])
			if unit >= 0xdc00 || !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			raw = raw[12:]
		}
	}
}

// escapedUnit reads the UTF-16 unit that a backslash, u and four hexadecimal digits at the start of raw names.
func escapedUnit(raw []byte) (unit rune, ok bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	for _, c := range raw[2:6] {
		switch {
		case c >= '0' && c <= '9':
			unit = unit<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			unit = unit<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			unit = unit<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

// Text refuses documents whose string literals have half of a surrogate pair. It is an extension of gqlgen's server,
// so that it holds for every transport.
type Text struct{}

var _ graphql.OperationParameterMutator = Text{}

// ExtensionName implements graphql.HandlerExtension.
func (Text) ExtensionName() string { return "Text" }

// Validate implements graphql.HandlerExtension.
func (Text) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters implements graphql.OperationParameterMutator. It changes nothing.
func (Text) MutateOperationParameters(_ context.Context, params *graphql.RawParams) *gqlerror.Error {
	if strings.Contains(params.Query, `\u`) && hasLoneSurrogateLiteral(params.Query) {
		return apierr.Refuse(errs.New(errs.Invalid, `a string has half of a surrogate pair in an escape (\ud800 to \udfff)`))
	}
	return nil
}

func hasLoneSurrogateLiteral(query string) bool {
	runes := []rune(query)
	tokens := lexer.New(&ast.Source{Input: query})
	for {
		token, err := tokens.ReadToken()
		if err != nil || token.Kind == lexer.EOF {
			// What cannot be read is the parser's to report.
			return false
		}
		// A block string has no such escapes.
		if token.Kind == lexer.String && hasLoneSurrogate([]byte(string(runes[token.Pos.Start:token.Pos.End]))) {
			return true
		}
	}
}
