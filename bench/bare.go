package main

import (
	"context"
	"net/http"
)

// serveBare serves files until ctx ends: what Go's own server costs, as a
// yardstick for the others.
func serveBare(ctx context.Context, address, folder string) error {
	server := &http.Server{Addr: address, Handler: http.FileServer(http.Dir(folder))}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
