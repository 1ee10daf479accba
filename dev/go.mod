module chatapp.dev/dev

go 1.26.0

require (
	chatapp.dev/internal/platform v0.0.0
	github.com/go-sql-driver/mysql v1.10.1
	github.com/gorilla/websocket v1.5.3
)

require filippo.io/edwards25519 v1.2.0 // indirect

replace (
	chatapp.dev/api => ../api
	chatapp.dev/internal/platform => ../internal/platform
)
