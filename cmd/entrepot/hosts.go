package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
)

// runtimeConfig is a kind of client whose configuration can be made.
type runtimeConfig struct {
	name  string
	files func(mirrors) ([]configFile, error)
	// parse reads a version of the runtime, where what it is given depends on it.
	parse func(told string) (version, error)
	// untold is what is said where it depends on the version, and none is told.
	untold string
}

// configFile is a file for a client.
type configFile struct {
	dir     string // where the client looks for it
	path    string // below dir
	content string
}

func runtimes() []runtimeConfig {
	return []runtimeConfig{
		{name: "containerd", files: containerdFiles, parse: containerdVersion, untold: containerdUntold},
		{name: "docker", files: dockerFiles, parse: dockerVersion, untold: dockerUntold},
		{name: "crio", files: registriesConf("crio")},
		{name: "podman", files: registriesConf("podman")},
		{name: "skopeo", files: registriesConf("skopeo")},
		{name: "buildkit", files: buildkitFiles},
		{name: "k3s", files: registriesYAML("k3s")},
		{name: "rke2", files: registriesYAML("rke2")},
		{name: "talos", files: talosFiles},
		{name: "homebrew", files: homebrewFiles},
	}
}

func runtimeNames() []string {
	var names []string
	for _, r := range runtimes() {
		names = append(names, r.name)
	}
	return names
}

func newHosts() *cobra.Command {
	var address, folder, told string
	cmd := &cobra.Command{
		Use:   "hosts RUNTIME",
		Short: "Make the mirror configuration of a runtime",
		Long: "Make the configuration that lets a runtime pull through this entrepot, from the upstreams in force.\n" +
			"Runtimes: " + strings.Join(runtimeNames(), ", ") + ".\n\n" + versionHelp,
		ValidArgs: runtimeNames(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("name one runtime: " + strings.Join(runtimeNames(), ", "))
			}
			if !slices.Contains(runtimeNames(), args[0]) {
				return unknownWord("runtime", args[0], runtimeNames())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := config.Load(config.Options{Environment: true, Flags: cmd.Flags()})
			if err != nil {
				return err
			}
			m := mirrors{upstreams: cfg.Upstreams}
			if m.address, err = clientAddress(address, cfg, cmd.ErrOrStderr()); err != nil {
				return err
			}
			runtime := runtimes()[slices.Index(runtimeNames(), args[0])]
			if m.version, err = toldVersion(cmd, runtime, told); err != nil {
				return err
			}
			files, err := runtime.files(m)
			if err != nil {
				return err
			}
			if runtime.untold != "" && !m.version.told() {
				fmt.Fprintln(cmd.ErrOrStderr(), runtime.untold)
			}
			if folder != "" {
				return writeFiles(cmd.OutOrStdout(), folder, files)
			}
			return printFiles(cmd.OutOrStdout(), cmd.ErrOrStderr(), files)
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&address, "address", "", "URL that clients reach this entrepot under (default: where it listens)")
	cmd.Flags().StringVar(&folder, "write", "", "write the files below this folder instead of printing them")
	cmd.Flags().StringVar(&told, "version", "", "version of the runtime, where its configuration depends on it: containerd and docker")
	cmd.Flags().StringVar(&told, "containerd-version", "", "the same as --version, for containerd")
	return cmd
}

// mirrors is what the configuration of every runtime is made from.
type mirrors struct {
	address   *url.URL // scheme and host only
	upstreams []config.Upstream
	version   version
}

func (m mirrors) plainHTTP() bool { return m.address.Scheme == "http" }

// mirrored is a registry, as image names begin, that entrepot stands before.
type mirrored struct {
	name     string
	upstream config.Upstream
	// server is the registry itself, for when entrepot can't be reached. It is
	// the zero Place where it is at https://name, or can't be told.
	server config.Place
}

// elsewhere says that runtimes can't know by themselves where the registry is.
// Where docker.io is they know, unless it lies below a path.
func (r mirrored) elsewhere() bool {
	return r.server != config.Place{} && (r.upstream.Name != "docker.io" || !r.server.Bare())
}

// registries are all names that images can begin with, in the order of the
// configuration.
func (m mirrors) registries() []mirrored {
	var all []mirrored
	for _, u := range m.upstreams {
		names := []string{u.Name}
		for _, alias := range u.Aliases {
			// Image names never begin with these: every client takes them to
			// be docker.io before it looks for a mirror.
			if alias != "index.docker.io" && alias != "registry-1.docker.io" {
				names = append(names, alias)
			}
		}
		for _, name := range names {
			all = append(all, mirrored{name: name, upstream: u, server: serverOf(u, name)})
		}
	}
	return all
}

// component is what a repository's name is made of (distribution-spec, "Pulling
// manifests"). A registry's name with a port is none.
var component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// prefixOf is the name by which a repository of the upstream can be asked for
// under entrepot's own name, or empty where it has no such name.
func prefixOf(u config.Upstream) string {
	for _, name := range append([]string{u.Name}, u.Aliases...) {
		if component.MatchString(name) {
			return name
		}
	}
	return ""
}

// virtualHost is the upstream's first virtual host at the port of clients, or
// empty where it has none.
func (m mirrors) virtualHost(u config.Upstream) string {
	if len(u.Hosts) == 0 {
		return ""
	}
	if port := m.address.Port(); port != "" {
		return net.JoinHostPort(u.Hosts[0], port)
	}
	return u.Hosts[0]
}

// serverOf is the last endpoint: before it, other mirrors may stand.
func serverOf(u config.Upstream, name string) config.Place {
	if len(u.Endpoints) == 0 {
		return config.Place{}
	}
	last, err := config.PlaceOf(u.Endpoints[len(u.Endpoints)-1])
	if err != nil || last == (config.Place{Scheme: "https", Host: name}) {
		return config.Place{}
	}
	return last
}

// clientAddress is the URL that clients use, as told, or else from where
// entrepot listens.
func clientAddress(told string, cfg config.Config, stderr io.Writer) (*url.URL, error) {
	if told == "" {
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", cfg.Listen, err)
		}
		if port == "0" {
			return nil, usageError("entrepot listens on any free port: say with --address which one clients use")
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			fmt.Fprintln(stderr, "entrepot listens on every address of its machine; for clients on others, say with --address which one they use")
		}
		scheme := "http"
		if cfg.TLS.CertFile != "" {
			scheme = "https"
		}
		return &url.URL{Scheme: scheme, Host: dialable(cfg.Listen)}, nil
	}
	u, err := url.Parse(told)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usageError(fmt.Sprintf("--address %q is not a URL such as http://entrepot.example.com:5000", told))
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, usageError(fmt.Sprintf("--address has more than a scheme and a host: did you mean %s://%s?", u.Scheme, u.Host))
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// madeBy is the first line of every file whose format has comments.
func madeBy(runtime string) string { return "# Made by \"entrepot hosts " + runtime + "\".\n" }

// quote writes a string as JSON does, which TOML and YAML read as well.
func quote(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		return `""` // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}
