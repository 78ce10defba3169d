package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHelpShowsSwitchesByTheirNamesAlone(t *testing.T) {
	for name, wants := range map[string][]string{
		"":      {"  entrepot COMMAND\n", "\n  serve ", "  -h, --help   help for entrepot\n"},
		"serve": {"  entrepot serve [flags]\n", "      --offline             ", "  -h, --help                "},
		"hosts": {"      --write[=DIR]  ", "      --dry-run  "},
		"pin":   {"\nExample:\n  entrepot pin docker.io/library/alpine:3\n"},
	} {
		code, stdout, stderr := entrepot(t, append(strings.Fields(name), "--help")...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit %d, stderr %q", name, code, stderr)
		}
		for _, want := range wants {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s --help lacks %q:\n%s", name, want, stdout)
			}
		}
	}
}

func TestHelpOfEveryCommandIsPlainText(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		_, stdout, _ := entrepot(t, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		if strings.Contains(stdout, "true|false") || strings.ContainsRune(stdout, 0) || !strings.Contains(stdout, "Usage:\n  "+cmd.CommandPath()) {
			t.Errorf("%s --help:\n%q", cmd.CommandPath(), stdout)
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(newRoot())
}
