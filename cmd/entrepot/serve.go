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
			log, end := newPatientLogger(cmd.ErrOrStderr(), cfg.Log)
			defer end()
			defer outliveHangups(cmd.Context(), log)()
			return run(ctx, cfg, cmd.OutOrStdout(), log)
		},
	}
	config.AddFlags(cmd.Flags())
	return cmd
}

// outliveHangups keeps SIGHUP from ending the program at once, and every pull
// with it: whoever sends it means "read the configuration again", or has closed
// a terminal.
func outliveHangups(ctx context.Context, log *slog.Logger) (end func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := inBackground(ctx, func(ctx context.Context) {
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP changes nothing: the configuration is read at the start; restart to have it read again")
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
