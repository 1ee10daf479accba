module chatapp.dev/services/graph

go 1.26.0
