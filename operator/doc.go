// Package operator will hold the Kubernetes operator, which turns one ChatApp resource into the objects that run it.
package operator
