package upstream

import (
	"context"
	"strings"
)

type acceptKey struct{}

// WithAccept returns a context with which manifests are requested for a client
// that accepts only these media types. Some registries convert a manifest then.
func WithAccept(ctx context.Context, types []string) context.Context {
	return context.WithValue(ctx, acceptKey{}, strings.Join(types, ", "))
}

// acceptOf returns the Accept header of a request for a manifest.
func acceptOf(ctx context.Context) string {
	if types, ok := ctx.Value(acceptKey{}).(string); ok && types != "" {
		return types
	}
	return acceptManifests()
}
