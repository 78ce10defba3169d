package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			build, _ := debug.ReadBuildInfo()
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionOf(build))
			return err
		},
	}
}

// versionOf returns one line with the module's version, the revision if it is
// known, and the toolchain. The build may be nil.
func versionOf(build *debug.BuildInfo) string {
	version, revision := "(devel)", ""
	if build != nil {
		if build.Main.Version != "" {
			version = build.Main.Version
		}
		for _, setting := range build.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = " " + setting.Value[:min(12, len(setting.Value))] + revision
			case setting.Key == "vcs.modified" && setting.Value == "true":
				revision += ", modified"
			}
		}
	}
	return fmt.Sprintf("entrepot %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion returns the module's version.
func buildVersion() string {
	build, ok := debug.ReadBuildInfo()
	if !ok || build.Main.Version == "" {
		return "(devel)"
	}
	return build.Main.Version
}
