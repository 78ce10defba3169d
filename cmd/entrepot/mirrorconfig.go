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

// mirrorConfig is the part of the configuration that the files of runtimes are
// made from.
type mirrorConfig struct {
	listen    string
	tls       bool
	upstreams []config.Upstream
}

// A configResponse is the response to GET /config on the admin address. It
// holds what a runtime has to know, and no credentials.
type (
	configResponse struct {
		Listen    string             `json:"listen"`
		TLS       bool               `json:"tls"`
		Upstreams []upstreamResponse `json:"upstreams"`
	}
	upstreamResponse struct {
		Name      string   `json:"name"`
		Aliases   []string `json:"aliases"`
		Hosts     []string `json:"hosts"`
		Default   bool     `json:"default"`
		Endpoints []string `json:"endpoints"`
		CAFile    string   `json:"caFile,omitempty"` // an absolute path
		Insecure  bool     `json:"insecure,omitempty"`
	}
)

// newConfigResponse returns the response of a server that listens on an
// address.
func newConfigResponse(cfg config.Config, listen string) configResponse {
	response := configResponse{Listen: listen, TLS: cfg.TLS.CertFile != ""}
	for _, u := range absolutePaths(cfg.Upstreams) {
		response.Upstreams = append(response.Upstreams, upstreamResponse{
			Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default, Endpoints: u.Endpoints,
			CAFile: u.TLS.CAFile, Insecure: u.TLS.InsecureSkipVerify,
		})
	}
	return response
}

func (r configResponse) mirrorConfig() mirrorConfig {
	m := mirrorConfig{listen: r.Listen, tls: r.TLS}
	for _, u := range r.Upstreams {
		m.upstreams = append(m.upstreams, config.Upstream{
			Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default, Endpoints: u.Endpoints,
			TLS: config.UpstreamTLS{CAFile: u.CAFile, InsecureSkipVerify: u.Insecure},
		})
	}
	return m
}

// loadMirrorConfig returns the configuration in force and prints where it comes
// from. That is the command line, or else the server on the admin address, or
// else the unit that systemd runs, or else the defaults.
func loadMirrorConfig(cmd *cobra.Command, units []string, stderr io.Writer) (mirrorConfig, error) {
	cfg, _, err := config.Load(configOptions(cmd.Flags()))
	if err != nil {
		return mirrorConfig{}, err
	}
	if isConfigured(cmd.Flags()) {
		return mirrorConfigOf(cfg), nil
	}
	adminGiven := cmd.Flags().Changed("admin") || os.Getenv("ENTREPOT_ADMIN") != ""
	found, source, err := findConfig(cmd.Context(), cfg.Admin, adminGiven, units)
	switch {
	case err != nil:
		return mirrorConfig{}, err
	case source != "":
		fmt.Fprintln(stderr, "using the configuration of "+source)
		return found, nil
	}
	fmt.Fprintf(stderr, "using the defaults, because no entrepot answers on %s: name its address with --admin, or its configuration with --config\n", cfg.Admin)
	return mirrorConfigOf(cfg), nil
}

func mirrorConfigOf(cfg config.Config) mirrorConfig {
	return newConfigResponse(cfg, cfg.Listen).mirrorConfig()
}

// findConfig returns the configuration of the server on an admin address, or
// else of the unit that systemd runs, and its source. The source is empty if
// there is neither. If the server is required, its absence is an error.
func findConfig(ctx context.Context, admin string, required bool, units []string) (found mirrorConfig, source string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	response, err := call[configResponse](ctx, &adminClient{address: admin}, http.MethodGet, "/config", nil)
	if err == nil {
		return response.mirrorConfig(), "the entrepot that answers on " + admin, nil
	}
	if required {
		return mirrorConfig{}, "", fmt.Errorf("get the configuration of the entrepot on %s: %w; or name its configuration file with --config", admin, err)
	}
	file := unitConfig(units)
	if file == "" {
		return mirrorConfig{}, "", nil
	}
	cfg, _, err := config.Load(config.Options{File: file})
	return mirrorConfigOf(cfg), file + ", which the systemd unit names", err
}

// isConfigured reports whether a flag or an environment variable names a
// configuration or sets a part of it. The admin address does not count: it only
// says which server to ask.
func isConfigured(flags *pflag.FlagSet) bool {
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.AddFlags(known)
	configured := false
	known.VisitAll(func(f *pflag.Flag) {
		flag := flags.Lookup(f.Name)
		configured = configured || flag != nil && flag.Changed && f.Name != "admin"
	})
	for _, name := range []string{config.EnvFile, "ENTREPOT_LISTEN", "ENTREPOT_TLS_CERT_FILE"} {
		configured = configured || os.Getenv(name) != ""
	}
	return configured
}

// absolutePaths makes the paths of upstreams' files absolute, because a runtime
// has another working directory.
func absolutePaths(upstreams []config.Upstream) []config.Upstream {
	var all []config.Upstream
	for _, u := range upstreams {
		if file := u.TLS.CAFile; file != "" && !filepath.IsAbs(file) {
			if absolute, err := filepath.Abs(file); err == nil {
				u.TLS.CAFile = absolute
			}
		}
		all = append(all, u)
	}
	return all
}

// systemdUnits are the files in which systemd looks for the unit. The first one
// that exists wins.
var systemdUnits = []string{
	"/etc/systemd/system/entrepot.service", "/run/systemd/system/entrepot.service", "/usr/local/lib/systemd/system/entrepot.service",
	"/usr/lib/systemd/system/entrepot.service", "/lib/systemd/system/entrepot.service",
}

// unitConfig returns the configuration file that the unit names, or "".
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
