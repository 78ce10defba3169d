// Command entrepot is a pull-through caching mirror for OCI registries.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/entrepot/entrepot/config"
)

// Exit codes.
const (
	exitFailed = 1 // the command failed
	exitUsage  = 2 // an argument or the configuration is wrong
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	started := false
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "entrepot: %v\n", err)
	var usage usageError
	var mistakes config.Mistakes
	// Before a command starts, only its arguments can be wrong.
	if !started || errors.As(err, &usage) || errors.As(err, &mistakes) {
		return exitUsage
	}
	return exitFailed
}

// usageError says what is wrong with an argument, and how to correct it.
type usageError string

func (e usageError) Error() string { return string(e) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "entrepot",
		Short:         "A pull-through caching mirror for OCI registries",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownValue("command", args[0], commandNames(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(printUsage)
	root.AddCommand(newServe(), newHosts(), newConfig(), newLs(), newPurge(), newPin(), newUnpin(), newPins(), newWarm(), newScrub(), newBundle(), newVersion())
	return root
}

// newGroup returns a command that only groups other commands.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownValue("command", use+" "+args[0], prefixed(use+" ", commandNames(cmd)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(commands...)
	return group
}

// flagError makes a usage error of an error in a flag. For an unknown flag, it
// suggests the nearest one.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError(err.Error())
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if near := config.Nearest(unknown.GetSpecifiedName(), known); near != "" {
		return usageError(fmt.Sprintf("%v; did you mean --%s?", err, near))
	}
	return usageError(err.Error())
}

// noArguments is for commands that only take flags.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Sprintf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0]))
	}
	return nil
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

func prefixed(prefix string, words []string) []string {
	var all []string
	for _, word := range words {
		all = append(all, prefix+word)
	}
	return all
}

// unknownValue returns an error that suggests the nearest known word and lists
// all of them.
func unknownValue(kind, word string, known []string) error {
	message := fmt.Sprintf("unknown %s %q", kind, word)
	if near := config.Nearest(word, known); near != "" {
		message += fmt.Sprintf("; did you mean %s?", near)
	}
	return usageError(message + " (known: " + strings.Join(known, ", ") + ")")
}
