package httpapi

import (
	"fmt"
	"net/http"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"

	"chatapp.dev/services/graph/internal/transport"
)

// jitter is the most bytes by which the length of an answer varies. Without it, whoever can have text of theirs stand
// beside a secret and sees how long the answers are could guess the secret letter by letter (BREACH).
const jitter = 32

// compressed compresses answers that are long enough for it to clients that take gzip. What streams is left alone: it must
// leave at once, and a compressor a connection would cost more than all else that one has.
func compressed(next http.Handler) http.Handler {
	wrap, err := gzhttp.NewWrapper(
		gzhttp.EnableZstd(false),
		gzhttp.CompressionLevel(gzip.BestSpeed),
		gzhttp.ContentTypes([]string{"application/json", "application/graphql-response+json"}),
		gzhttp.RandomJitter(jitter, 0, false),
	)
	if err != nil {
		panic(fmt.Sprintf("httpapi: %v", err)) // The options are constants.
	}
	short := wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if transport.IsUpgrade(r) || transport.IsStream(r) {
			next.ServeHTTP(w, r)
			return
		}
		short(w, r)
	})
}
