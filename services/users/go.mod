module chatapp.dev/services/users

go 1.26.0
