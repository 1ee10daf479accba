module chatapp.dev/services/messages

go 1.26.0
