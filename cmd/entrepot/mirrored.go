package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/entrepot/entrepot/config"
)

// mirrored is what clients' configuration is made from.
type mirrored struct {
	listen    string
	tls       bool
	upstreams []config.Upstream
}

// A mirroredAnswer is what the admin address tells of the configuration, which
// is what a runtime has to know: nothing of credentials is in it.
type (
	mirroredAnswer struct {
		Listen    string             `json:"listen"`
		TLS       bool               `json:"tls"`
		Upstreams []mirroredUpstream `json:"upstreams"`
	}
	mirroredUpstream struct {
		Name      string   `json:"name"`
		Aliases   []string `json:"aliases"`
		Hosts     []string `json:"hosts"`
		Default   bool     `json:"default"`
		Endpoints []string `json:"endpoints"`
		CAFile    string   `json:"caFile,omitempty"` // a whole path
		Insecure  bool     `json:"insecure,omitempty"`
	}
)

// tell is the answer of a server that listens on an address.
func tell(cfg config.Config, listen string) mirroredAnswer {
	answer := mirroredAnswer{Listen: listen, TLS: cfg.TLS.CertFile != ""}
	for _, u := range wholePaths(cfg.Upstreams) {
		answer.Upstreams = append(answer.Upstreams, mirroredUpstream{
			Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default, Endpoints: u.Endpoints,
			CAFile: u.TLS.CAFile, Insecure: u.TLS.InsecureSkipVerify,
		})
	}
	return answer
}

func (a mirroredAnswer) mirrored() mirrored {
	m := mirrored{listen: a.Listen, tls: a.TLS}
	for _, u := range a.Upstreams {
		m.upstreams = append(m.upstreams, config.Upstream{
			Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default, Endpoints: u.Endpoints,
			TLS: config.UpstreamTLS{CAFile: u.CAFile, InsecureSkipVerify: u.Insecure},
		})
	}
	return m
}

// mirroredConfig is the configuration in force, and says which that is: the one
// that is told, else that of the server on the admin address, else that of the
// one that systemd runs, else the defaults.
func mirroredConfig(cmd *cobra.Command, units []string, stderr io.Writer) (mirrored, error) {
	cfg, _, err := config.Load(config.Options{Environment: true, Flags: cmd.Flags()})
	if err != nil {
		return mirrored{}, err
	}
	if isTold(cmd.Flags()) {
		return mirroredOf(cfg), nil
	}
	asked := cmd.Flags().Changed("admin") || os.Getenv("ENTREPOT_ADMIN") != ""
	found, whose, err := findConfig(cmd.Context(), cfg.Admin, asked, units)
	switch {
	case err != nil:
		return mirrored{}, err
	case whose != "":
		fmt.Fprintln(stderr, whose)
		return found, nil
	}
	fmt.Fprintf(stderr, "no entrepot answers on %s: these are the defaults; name its address with --admin, or its configuration with --config\n", cfg.Admin)
	return mirroredOf(cfg), nil
}

func mirroredOf(cfg config.Config) mirrored { return tell(cfg, cfg.Listen).mirrored() }

// findConfig is the configuration of the server on an admin address, or else of
// the one that systemd runs, and whose it is: nobody's where there is none. That
// there is a server at the address can be wanted.
func findConfig(ctx context.Context, admin string, wanted bool, units []string) (found mirrored, whose string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := call[mirroredAnswer](ctx, &adminClient{address: admin}, http.MethodGet, "/config", nil)
	if err == nil {
		return answer.mirrored(), "of the entrepot that answers on " + admin, nil
	}
	if wanted {
		return mirrored{}, "", fmt.Errorf("ask the entrepot on %s for its configuration: %w; or name its file with --config", admin, err)
	}
	file := unitConfig(units)
	if file == "" {
		return mirrored{}, "", nil
	}
	cfg, _, err := config.Load(config.Options{File: file})
	return mirroredOf(cfg), "of " + file + ", which systemd has entrepot read", err
}

// isTold says that a configuration is named or set by a flag or a variable. The
// admin address alone says which server to ask.
func isTold(flags *pflag.FlagSet) bool {
	of := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.AddFlags(of)
	told := false
	of.VisitAll(func(f *pflag.Flag) {
		set := flags.Lookup(f.Name)
		told = told || set != nil && set.Changed && f.Name != "admin"
	})
	for _, name := range []string{config.EnvFile, "ENTREPOT_LISTEN", "ENTREPOT_TLS_CERT_FILE"} {
		told = told || os.Getenv(name) != ""
	}
	return told
}

// wholePaths has the files of upstreams named from the root: a runtime runs in
// another folder.
func wholePaths(upstreams []config.Upstream) []config.Upstream {
	var all []config.Upstream
	for _, u := range upstreams {
		if file := u.TLS.CAFile; file != "" && !filepath.IsAbs(file) {
			if whole, err := filepath.Abs(file); err == nil {
				u.TLS.CAFile = whole
			}
		}
		all = append(all, u)
	}
	return all
}

// systemdUnits are where systemd looks for the unit, first what wins.
var systemdUnits = []string{
	"/etc/systemd/system/entrepot.service", "/run/systemd/system/entrepot.service", "/usr/local/lib/systemd/system/entrepot.service",
	"/usr/lib/systemd/system/entrepot.service", "/lib/systemd/system/entrepot.service",
}

// unitConfig is the configuration file that the unit names, or empty.
func unitConfig(units []string) string {
	for _, unit := range units {
		content, err := os.ReadFile(unit)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		for line := range strings.Lines(string(content)) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
			if !ok {
				continue
			}
			words := strings.Fields(command)
			for i, word := range words {
				if file, ok := strings.CutPrefix(word, "--config="); ok {
					return file
				}
				if word == "--config" && i+1 < len(words) {
					return words[i+1]
				}
			}
		}
		return ""
	}
	return ""
}
