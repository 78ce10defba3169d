package main

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror until it is told to stop",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := config.Load(config.Options{Environment: true, Flags: cmd.Flags()})
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			// A second signal ends the program at once, whatever it waits for.
			defer context.AfterFunc(ctx, stop)()
			return run(ctx, cfg, cmd.OutOrStdout(), newLogger(cmd.ErrOrStderr(), cfg.Log))
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

// newLogger logs as the configuration says, which has been checked.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
