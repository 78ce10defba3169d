package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
)

func newConfig() *cobra.Command {
	return newGroup("config", "Check or show the configuration", newConfigCheck(), newConfigShow())
}

func newConfigCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file and report all mistakes",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("name one file to check, as in: entrepot config check entrepot.yaml")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load(config.Options{File: args[0]})
			if err != nil {
				return err
			}
			upstreams := fmt.Sprintf("%d upstreams", len(cfg.Upstreams))
			if len(cfg.Upstreams) == 1 {
				upstreams = "1 upstream"
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is valid: %s, listening on %s\n", args[0], upstreams, cfg.Listen)
			if exposure := cfg.Exposure(cfg.Listen); exposure != "" {
				fmt.Fprintf(out, "warning: %s\n", exposure)
			}
			return nil
		},
	}
}

func newConfigShow() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration in force and where each value comes from",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "yaml" && output != "json" {
				return unknownValue("output", output, []string{"yaml", "json"})
			}
			cfg, origins, err := config.Load(configOptions(cmd.Flags()))
			if err != nil {
				return err
			}
			if output == "json" {
				return config.WriteJSON(cmd.OutOrStdout(), cfg, origins)
			}
			return config.WriteYAML(cmd.OutOrStdout(), cfg, origins)
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "yaml", "yaml or json")
	return cmd
}
