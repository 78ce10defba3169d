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

// The codes that the program exits with.
const (
	exitFailed = 1 // it could not do, or go on doing, what it was told
	exitWrong  = 2 // what it was told is wrong: a configuration or an argument
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command and returns the code to exit with.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	began := false
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "entrepot: %v\n", err)
	var usage usageError
	var mistakes config.Mistakes
	// Before a command begins, only its arguments can be wrong.
	if !began || errors.As(err, &usage) || errors.As(err, &mistakes) {
		return exitWrong
	}
	return exitFailed
}

// usageError says what is wrong with an argument, and what would be right.
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
				return unknownWord("command", args[0], commandNames(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.AddCommand(newServe(), newHosts(), newConfig(), newLs(), newPurge(), newPin(), newUnpin(), newPins(), newScrub(), newVersion())
	return root
}

// newGroup is a command that only holds others.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownWord("command", use+" "+args[0], prefixed(use+" ", commandNames(cmd)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(commands...)
	return group
}

// wrongFlag names the nearest flag to an unknown one.
func wrongFlag(cmd *cobra.Command, err error) error {
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

// noArguments is for commands that take flags alone.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Sprintf("%s takes no argument, and got %q", cmd.CommandPath(), args[0]))
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

// unknownWord names the known words, and the nearest first.
func unknownWord(kind, word string, known []string) error {
	message := fmt.Sprintf("unknown %s %q", kind, word)
	if near := config.Nearest(word, known); near != "" {
		message += fmt.Sprintf("; did you mean %s?", near)
	}
	return usageError(message + " (known: " + strings.Join(known, ", ") + ")")
}
