package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// printUsage prints how a command is used. Cobra's own usage would show
// "entrepot [flags]" for a command that only groups others, and pflag's would
// show "--help[=true|false]" for every switch.
func printUsage(cmd *cobra.Command) error {
	var b strings.Builder
	line := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		line = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(&b, "Usage:\n  %s\n", line)
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExample:\n  %s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() || c.Name() == "help" {
				fmt.Fprintf(&b, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	fmt.Fprintf(&b, "\nFlags:\n%s", flagUsages(cmd.Flags()))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nUse \"%s COMMAND --help\" for more information about a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(cmd.OutOrStderr(), b.String())
	return err
}

// bare is the value of a flag that is shown by its name alone. It hides
// IsBoolFlag, from which pflag derives "[=true|false]".
type bare struct{ pflag.Value }

func (bare) Type() string { return "bool" }

// flagUsages lists flags like pflag does, but shows a switch as --offline, and
// a flag whose value is optional as --write[=DIR]. The name of an optional
// value is the one in backquotes in the flag's usage.
func flagUsages(flags *pflag.FlagSet) string {
	shown := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.VisitAll(func(f *pflag.Flag) {
		flag := *f
		if flag.NoOptDefVal != "" {
			if flag.Value.Type() != "bool" {
				value, usage := pflag.UnquoteUsage(f)
				flag.Name += "[=" + value + "]"
				flag.Usage = usage
			}
			flag.Value = bare{flag.Value}
			flag.NoOptDefVal = "true" // pflag shows any other
		}
		shown.AddFlag(&flag)
	})
	return shown.FlagUsages()
}
