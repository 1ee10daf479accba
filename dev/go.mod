module chatapp.dev/dev

go 1.26.0
