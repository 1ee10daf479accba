// Package persisted lets a client name a document instead of sending it, by extensions.persistedQuery as Apollo's clients
// do or by the documentId of GraphQL over HTTP's persisted documents.
//
// Without a file of trusted documents a client teaches the server: it sends a document once with its hash, and from then
// on the hash alone (automatic persisted queries). What was taught is kept in this process only, as far as its bounds
// allow; a client that is told PERSISTED_QUERY_NOT_FOUND sends the document again. Only documents that are valid, within
// the limits and for the caller to execute are kept, so a name never stands for anything but the text whose hash it is.
//
// With such a file nothing else is executed, whoever asks and by whatever transport: the file is read at the start, and a
// document that the schema does not know stops it.
package persisted

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/errcode"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph/internal/apierr"
)

// Config are the settings of the package.
type Config struct {
	Entries int `name:"persisted-queries" default:"1000" help:"Documents that are kept for clients that send a hash instead (automatic persisted queries); 0 turns this off."`
	Bytes   int `name:"persisted-queries-bytes" default:"4194304" help:"Bytes that those documents may have together."`

	TrustedDocuments string `placeholder:"FILE" help:"JSON file with the only documents that are executed: GraphQL Code Generator's persisted-documents.json (hashAlgorithm: sha256) or Apollo's persisted-query-manifest.json. Without it every valid document is."`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	switch {
	case c.Entries < 0:
		return run.Invalid(&c.Entries, "must not be negative, but is %d", c.Entries)
	case c.Entries > 0 && c.Bytes < maxDocument:
		return run.Invalid(&c.Bytes, "must be at least %d, but is %d", maxDocument, c.Bytes)
	}
	return nil
}

// ruleTrusted is the rule that an operation breaks whose document is not in the file.
const ruleTrusted errs.Code = "TRUSTED_DOCUMENTS"

// documentID is the member of a request's extensions in which Name puts a documentId. A client whose transport has no
// place for one may put it there itself.
const documentID = "documentId"

// Name makes params ask for a document by its id.
func Name(params *graphql.RawParams, id string) {
	if params.Extensions == nil {
		params.Extensions = map[string]any{}
	}
	params.Extensions[documentID] = id
}

// Named tells whether params ask for a document by a name.
func Named(params *graphql.RawParams) bool {
	return params.Extensions[documentID] != nil || params.Extensions["persistedQuery"] != nil
}

// Extension finds the documents that clients name. It is an extension of gqlgen's server, which must come after those
// that refuse operations: what they refuse is not kept.
type Extension struct {
	cache   *cache     // Nil when clients cannot teach.
	trusted *Documents // Nil when every document may be executed.
}

var (
	_ graphql.OperationParameterMutator = (*Extension)(nil)
	_ graphql.OperationContextMutator   = (*Extension)(nil)
)

// New returns an extension. With trusted documents these alone are executed.
func New(cfg Config, trusted *Documents) *Extension {
	e := &Extension{trusted: trusted}
	if trusted == nil && cfg.Entries > 0 {
		e.cache = newCache(cfg.Entries, cfg.Bytes)
	}
	return e
}

// ExtensionName implements graphql.HandlerExtension.
func (*Extension) ExtensionName() string { return "PersistedDocuments" }

// Validate implements graphql.HandlerExtension.
func (*Extension) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters implements graphql.OperationParameterMutator. It puts the text of a document in the place of
// its name.
func (e *Extension) MutateOperationParameters(ctx context.Context, params *graphql.RawParams) *gqlerror.Error {
	id, err := nameOf(params.Extensions)
	if err != nil {
		return apierr.Refuse(err)
	}
	switch {
	case e.trusted != nil:
		return e.trust(id, params)
	case id == "":
		return nil
	case e.cache == nil:
		return refuse(apierr.PersistedQueryNotSupported, "PersistedQueryNotSupported")
	case params.Query == "":
		text, ok := e.cache.get(id)
		if !ok {
			return errNotFound()
		}
		params.Query = text
		return nil
	case id != hash(params.Query):
		return errMismatch()
	default:
		graphql.GetOperationContext(ctx).Stats.SetExtension(e.ExtensionName(), taught(id))
		return nil
	}
}

// taught is the hash of a document that a client has sent along.
type taught string

// MutateOperationContext implements graphql.OperationContextMutator. It changes nothing, but keeps a document that turned
// out to be one.
func (e *Extension) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	if id, ok := op.Stats.GetExtension(e.ExtensionName()).(taught); ok {
		e.cache.add(string(id), op.RawQuery)
	}
	return nil
}

// trust finds the trusted document that params name or send.
func (e *Extension) trust(id string, params *graphql.RawParams) *gqlerror.Error {
	if params.Query == "" && id != "" {
		text, ok := e.trusted.byID[id]
		if !ok {
			return errNotFound()
		}
		params.Query = text
		return nil
	}
	if !e.trusted.has(params.Query) {
		return apierr.Refuse(&errs.Error{
			Kind: errs.Forbidden, Code: ruleTrusted,
			Message: "only trusted documents are executed here, as they are or by their ids, and this is none",
		})
	}
	if id != "" && e.trusted.byID[id] != params.Query {
		return errMismatch()
	}
	return nil
}

// nameOf returns the name by which a document is asked for, "" for none. A SHA-256 hash is its bare digits.
func nameOf(extensions map[string]any) (string, *errs.Error) {
	var name string
	switch id := extensions[documentID].(type) {
	case nil:
	case string:
		if digits, ok := strings.CutPrefix(id, "sha256:"); !ok {
			name = id
		} else if name = digits; !isHash(digits) {
			return "", errs.New(errs.Invalid, `documentId must have 64 hexadecimal digits, in lower case, after "sha256:"`)
		}
	default:
		return "", errs.New(errs.Invalid, "documentId must be a string")
	}
	query := extensions["persistedQuery"]
	if query == nil {
		return name, nil
	}
	if name != "" {
		return "", errs.New(errs.Invalid, "documentId and extensions.persistedQuery exclude each other")
	}
	members, ok := query.(map[string]any)
	if !ok {
		return "", errs.New(errs.Invalid, "extensions.persistedQuery must be an object")
	}
	if !isOne(members["version"]) {
		return "", errs.New(errs.Invalid, "extensions.persistedQuery.version must be 1")
	}
	digits, ok := members["sha256Hash"].(string)
	if !ok || !isHash(digits) {
		return "", errs.New(errs.Invalid, "extensions.persistedQuery.sha256Hash must have 64 hexadecimal digits, in lower case")
	}
	return digits, nil
}

// isOne tells whether a number that was decoded from JSON is 1.
func isOne(number any) bool {
	switch number := number.(type) {
	case json.Number:
		return number == "1"
	case float64:
		return number == 1
	default:
		return false
	}
}

// hash returns the SHA-256 hash of a document's text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func isHash(text string) bool {
	return len(text) == hex.EncodedLen(sha256.Size) && strings.Trim(text, "0123456789abcdef") == ""
}

func errNotFound() *gqlerror.Error {
	return refuse(apierr.PersistedQueryNotFound, "PersistedQueryNotFound")
}

func errMismatch() *gqlerror.Error {
	return apierr.Refuse(errs.New(errs.Invalid, "the id is not that of the document which was sent with it"))
}

// refuse returns an error with a code of Apollo's. Some of its clients look at the message instead.
func refuse(code, message string) *gqlerror.Error {
	err := gqlerror.Errorf("%s", message)
	errcode.Set(err, code)
	return err
}
