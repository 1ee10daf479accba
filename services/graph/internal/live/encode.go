package live

import (
	"bytes"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Encode returns the JSON text of a response. What gqlgen made of the data is taken as it is: to encode it once more
// would cost as much as making it, and would escape what needs no escape. A response to a request that never was
// executed has no data, and its text no data either.
func Encode(response *graphql.Response) []byte {
	var body bytes.Buffer
	body.Grow(len(response.Data) + 64)
	body.WriteByte('{')
	if len(response.Errors) > 0 {
		body.WriteString(`"errors":`)
		body.Write(mustMarshal(response.Errors))
	}
	if response.Data != nil {
		if len(response.Errors) > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`"data":`)
		body.Write(response.Data)
	}
	if len(response.Extensions) > 0 {
		body.WriteString(`,"extensions":`)
		body.Write(mustMarshal(response.Extensions))
	}
	body.WriteByte('}')
	return body.Bytes()
}

// EncodeErrors returns the JSON text of a list of errors.
func EncodeErrors(list gqlerror.List) []byte { return mustMarshal(list) }

// EncodeString returns the JSON text of a string.
func EncodeString(s string) []byte { return mustMarshal(s) }

// mustMarshal encodes what consists of strings, numbers and maps of them.
func mustMarshal(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return encoded
}
