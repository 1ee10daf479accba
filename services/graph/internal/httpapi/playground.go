package httpapi

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

// The playground is a page of our own, so that it works without the internet: nothing in it comes from elsewhere.
//
//go:embed playground
var playground embed.FS

// mountPlayground serves the page at / and its parts below /playground/.
func mountPlayground(mux *http.ServeMux) {
	page, err := playground.ReadFile("playground/index.html")
	if err != nil {
		panic(err) // It is embedded.
	}
	parts, err := fs.Sub(playground, "playground")
	if err != nil {
		panic(err)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		protect(w, r)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	files := http.StripPrefix("/playground/", http.FileServerFS(parts))
	mux.HandleFunc("GET /playground/", func(w http.ResponseWriter, r *http.Request) {
		protect(w, r)
		if strings.HasSuffix(r.URL.Path, "/") {
			// No list of files, and no second address for the page.
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// protect lets the page run its own script and talk to its own server, and nothing else.
func protect(w http.ResponseWriter, r *http.Request) {
	connect := "'self'"
	if isHostname(r.Host) {
		// Not every browser takes 'self' to mean the WebSocket of the same host.
		connect += " ws://" + r.Host + " wss://" + r.Host
	}
	header := w.Header()
	header.Set("Content-Security-Policy", strings.Join([]string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src " + connect,
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
	}, "; "))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	// A new version of the server brings a new version of the page.
	header.Set("Cache-Control", "no-cache")
}

// isHostname tells whether a Host header has nothing that would mean something else within a policy.
func isHostname(host string) bool {
	return host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") == ""
}
