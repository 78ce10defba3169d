package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/entrepot/entrepot/config"
)

// run is TEMPORARY: it only listens and announces, until the real one puts the
// program together.
func run(ctx context.Context, cfg config.Config, stdout io.Writer, log *slog.Logger) error {
	clients, err := listen(ctx, cfg.Listen, "listen")
	if err != nil {
		return err
	}
	defer clients.Close()
	admin, err := listen(ctx, cfg.Admin, "admin")
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := announce(stdout, cfg, clients.Addr(), admin.Addr()); err != nil {
		return err
	}
	<-ctx.Done()
	log.InfoContext(ctx, "stopped")
	return nil
}
