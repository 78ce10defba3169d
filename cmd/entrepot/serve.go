package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := config.Load(configOptions(cmd.Flags()))
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			// A second signal ends the program at once.
			defer context.AfterFunc(ctx, stop)()
			log, queue := newQueuedLogger(cmd.ErrOrStderr(), cfg.Log)
			defer queue.end()
			defer ignoreHangups(cmd.Context(), log)()
			return run(ctx, cfg, cmd.OutOrStdout(), log, queue.lost.Load)
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

// ignoreHangups keeps SIGHUP from ending the program and every pull with it.
// The signal means that a terminal was closed, or that somebody wants the
// configuration to be reloaded.
func ignoreHangups(ctx context.Context, log *slog.Logger) (end func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := inBackground(ctx, func(ctx context.Context) {
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP is ignored: restart entrepot to reload the configuration")
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		signal.Stop(hangups)
		done()
	}
}

// newLogger returns a logger for a configuration that has been checked.
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
