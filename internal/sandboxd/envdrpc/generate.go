// Package envdrpc holds the two RPC services of a sandbox's daemon. The folders
// below it are generated, with buf, protoc-gen-go and protoc-gen-connect-go at
// the versions that their files name.
package envdrpc

//go:generate buf generate
