package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/cmd/entrepot/hosts"
	"github.com/entrepot/entrepot/config"
)

const hostsHelp = `Configure a container runtime to pull through this entrepot. The upstreams are those of the configuration in force: the one
named on the command line, or else that of the entrepot that answers on the admin address, or else that of the systemd
unit. Standard error says which one is used.

  entrepot hosts RUNTIME                    prints the runtime's configuration
  entrepot hosts RUNTIME --write [DIR]      writes it to where the runtime reads it, or below DIR. Existing settings keep
                                            their meaning, or else nothing is written. A backup is made of each file
  entrepot hosts RUNTIME --dry-run [DIR]    shows the changes as a diff, and writes nothing
  entrepot hosts RUNTIME --remove [DIR]     restores what was there before
  entrepot hosts RUNTIME --check [DIR]      reports for each registry whether it is pulled through this entrepot; the exit
                                            code is 1 if one is not

Runtimes: %s.

The configuration of containerd, Docker and Talos depends on their version. --version names it. Without --version, it is the
installed version when files are written to where the runtime reads them, and unknown otherwise. containerd 2.2 and Docker
29.1 or later ask a mirror for an image's referrers (signatures, attestations) only if hosts.toml grants it the capability
"referrers". Earlier versions ignore a hosts.toml that grants a capability they do not know.

  containerd --version 2.2   grants "referrers"; for an unknown version it is not granted
  talos --version 1.12       one document for each registry; machine.registries for earlier and unknown versions
  docker --version 29        certs.d/REGISTRY/hosts.toml, for every registry
  docker --version 28        daemon.json, for docker.io only
  docker                     both with --write, which works with every version: Docker before 29.1 ignores these hosts.toml
                             files, and later versions prefer them to daemon.json. Without --write, daemon.json only`

// hostsFlags are the flags of the command.
type hostsFlags struct {
	addresses                          []string
	ca, write                          string
	versionText, containerdVersionText string
	remove, check, dryRun              bool
}

// noFolder is the value of --write if no folder follows an equals sign.
const noFolder = "\x00"

func newHosts() *cobra.Command {
	var f hostsFlags
	cmd := &cobra.Command{
		Use:       "hosts RUNTIME [DIR]",
		Short:     "Configure a container runtime to pull through this entrepot, or undo it",
		Long:      fmt.Sprintf(hostsHelp, strings.Join(hosts.Names(), ", ")),
		ValidArgs: hosts.Names(),
		Args: func(cmd *cobra.Command, args []string) error {
			_, _, err := f.arguments(cmd, args)
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			runtime, dir, err := f.arguments(cmd, args)
			if err != nil {
				return err
			}
			err = f.run(cmd, runtime, dir)
			var wrong hosts.Wrong
			if errors.As(err, &wrong) {
				return usageError(wrong.Error())
			}
			return err
		},
	}
	config.AddFlags(cmd.Flags())
	flags := cmd.Flags()
	flags.StringArrayVar(&f.addresses, "address", nil, "URL under which clients reach this entrepot; may be repeated, the first is tried first (default: the address it listens on)")
	flags.StringVar(&f.ca, "ca", "", "PEM file with the CA of this entrepot's certificate, if the system does not trust it")
	flags.StringVar(&f.write, "write", "", "write the files instead of printing them, to where the runtime reads them or below `DIR`")
	flags.Lookup("write").NoOptDefVal = noFolder
	flags.BoolVar(&f.remove, "remove", false, "undo --write and restore what was there before")
	flags.BoolVar(&f.check, "check", false, "report whether pulls go through this entrepot")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would change, and write nothing")
	flags.StringVar(&f.versionText, "version", "", "version of the runtime, for containerd, docker and talos")
	flags.StringVar(&f.containerdVersionText, "containerd-version", "", "the same as --version, for containerd")
	return cmd
}

// arguments returns the runtime and the folder. They may come in any order,
// because a folder may follow --write after a space.
func (f hostsFlags) arguments(cmd *cobra.Command, args []string) (hosts.Runtime, string, error) {
	var none hosts.Runtime
	files := cmd.Flags().Changed("write") || f.remove || f.check || f.dryRun
	if f.remove && (f.check || cmd.Flags().Changed("write")) || f.check && (f.dryRun || cmd.Flags().Changed("write")) {
		return none, "", usageError("use only one of --write, --remove and --check")
	}
	dir := ""
	if f.write != noFolder {
		dir = f.write
	}
	if cmd.Flags().Changed("write") && f.write == "" {
		return none, "", usageError("--write= names no folder: use --write alone for the runtime's own")
	}
	most := 1 // arguments
	if files && dir == "" {
		most = 2
	}
	isRuntime := func(word string) bool { return slices.Contains(hosts.Names(), word) }
	i := slices.IndexFunc(args, isRuntime)
	switch {
	case len(args) == 0 || len(args) > most || most == 1 && len(args) == 1 && i < 0 && strings.ContainsAny(args[0], `/\`):
		return none, "", usageError("name one runtime: " + strings.Join(hosts.Names(), ", "))
	case i < 0:
		return none, "", unknownValue("runtime", args[0], hosts.Names())
	case len(args) == 2 && isRuntime(args[1-i]):
		return none, "", usageError(fmt.Sprintf("%s and %s are both runtimes: to name a folder, write ./%s", args[0], args[1], args[1-i]))
	case len(args) == 2:
		dir = args[1-i]
	}
	runtime, _ := hosts.Find(args[i])
	return runtime, dir, nil
}

func (f hostsFlags) run(cmd *cobra.Command, runtime hosts.Runtime, dir string) error {
	stderr := cmd.ErrOrStderr()
	settings, err := f.settings()
	if err != nil {
		return err
	}
	version, err := f.version(cmd, runtime)
	if err != nil {
		return err
	}
	known, err := loadMirrorConfig(cmd, systemdUnits, stderr)
	if err != nil {
		return err
	}
	if len(settings.Addresses) == 0 {
		address, err := known.clientURL(stderr)
		if err != nil {
			return err
		}
		settings.Addresses = []*url.URL{address}
	}
	if settings.CAFile != "" && !slices.ContainsFunc(settings.Addresses, func(a *url.URL) bool { return a.Scheme == "https" }) {
		return usageError("--ca is for an https address, but the address is " + settings.Addresses[0].String())
	}
	mirror, err := hosts.NewMirror(known.upstreams, settings)
	if err != nil {
		return err
	}
	if address := mirror.Loopback(); runtime.Elsewhere && address != nil {
		fmt.Fprintf(stderr, "%s works on this machine only: for %s on another machine, name this one's address with --address\n", address, runtime.Name)
	}
	machine := hosts.ThisMachine()
	printed := !cmd.Flags().Changed("write") && !f.remove && !f.check && !f.dryRun
	// A folder elsewhere need not be for the version that is installed here.
	if !printed && !version.Known() && (dir == "" || filepath.Clean(dir) == filepath.Clean(runtime.Place(machine))) {
		version = runtime.FindVersion(cmd.Context(), machine)
	}
	setting, err := runtime.NewSetting(mirror, version, machine, dir)
	if err != nil {
		return err
	}
	if printed {
		return printHosts(cmd.OutOrStdout(), stderr, runtime, setting)
	}
	if version.Found {
		fmt.Fprintf(stderr, "%s %s is installed\n", runtime.Name, version)
	}
	if f.check {
		return checkHosts(cmd.Context(), cmd.OutOrStdout(), runtime, setting)
	}
	return f.change(cmd.OutOrStdout(), stderr, runtime, setting)
}

// settings returns what the flags say about the mirror.
func (f hostsFlags) settings() (hosts.Settings, error) {
	var s hosts.Settings
	for _, text := range f.addresses {
		address, err := hosts.ParseAddress(text)
		if err != nil {
			return s, err
		}
		if !slices.ContainsFunc(s.Addresses, func(a *url.URL) bool { return *a == *address }) {
			s.Addresses = append(s.Addresses, address)
		}
	}
	if f.ca == "" {
		return s, nil
	}
	var err error
	if s.CAFile, err = filepath.Abs(f.ca); err != nil {
		return s, err
	}
	if _, err := os.Stat(s.CAFile); err != nil {
		return s, usageError(fmt.Sprintf("--ca: %v", err))
	}
	return s, nil
}

// version returns the version that a flag names, or the zero Version.
func (f hostsFlags) version(cmd *cobra.Command, runtime hosts.Runtime) (hosts.Version, error) {
	flag, text := "--version", f.versionText
	if cmd.Flags().Changed("containerd-version") {
		if cmd.Flags().Changed("version") {
			return hosts.Version{}, usageError("--containerd-version is the same as --version: use only one of them")
		}
		if runtime.Name != "containerd" {
			return hosts.Version{}, usageError("--containerd-version is for containerd only")
		}
		flag, text = "--containerd-version", f.containerdVersionText
	}
	if text == "" {
		return hosts.Version{}, nil
	}
	if runtime.Version == nil {
		return hosts.Version{}, usageError(flag + " is for containerd, docker and talos only")
	}
	v, err := runtime.Version(text)
	if err != nil {
		return v, usageError(fmt.Sprintf("%s %q %v", flag, text, err))
	}
	return v, nil
}

func printHosts(stdout, stderr io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	printed, err := runtime.Print(s)
	if err != nil {
		return err
	}
	printNotes(stderr, printed.Notes)
	for _, name := range printed.Names {
		fmt.Fprintln(stderr, "# "+name)
	}
	_, err = io.WriteString(stdout, printed.Text)
	return err
}

var errNotMirrored = errors.New(`not every pull goes through this entrepot: "entrepot hosts RUNTIME --write" configures the runtime`)

func checkHosts(ctx context.Context, stdout io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	right, err := runtime.Check(ctx, s, stdout)
	if err == nil && !right {
		return errNotMirrored
	}
	return err
}

// change applies a plan to write or to remove, or shows what it would change.
func (f hostsFlags) change(stdout, stderr io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	var plan hosts.Plan
	var refused error
	if f.remove {
		plan, refused = runtime.PlanRemove(s)
	} else if plan, refused = runtime.PlanWrite(s); refused != nil && !f.dryRun {
		return refused // nothing is written in part
	}
	printNotes(stderr, plan.Notes)
	if f.dryRun {
		for _, step := range plan.Steps {
			if _, err := io.WriteString(stdout, step.Diff()); err != nil {
				return err
			}
		}
		return refused
	}
	if err := plan.Apply(); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w; run this as who may write there, or name a folder of yours", err)
		}
		return err
	}
	for _, step := range plan.Steps {
		if _, err := fmt.Fprintln(stdout, step.Path); err != nil {
			return err
		}
	}
	switch {
	case f.remove && len(plan.Steps) == 0 && refused == nil:
		fmt.Fprintf(stderr, "entrepot has not written anything in %s\n", s.Dir)
	case plan.Changes() && f.remove:
		fmt.Fprintln(stderr, "to restart: "+s.Typed(runtime.AfterRemove()))
	case plan.Changes():
		fmt.Fprintln(stderr, "to restart: "+s.Typed(runtime.Restart))
	}
	return refused
}

func printNotes(w io.Writer, notes []string) {
	for _, note := range notes {
		fmt.Fprintln(w, note)
	}
}

// clientURL returns the URL under which clients on this machine reach entrepot.
func (m mirrorConfig) clientURL(stderr io.Writer) (*url.URL, error) {
	host, port, err := net.SplitHostPort(m.listen)
	if err != nil {
		return nil, fmt.Errorf("parse the address %s: %w", m.listen, err)
	}
	if port == "0" {
		return nil, usageError("entrepot listens on any free port: name the address that clients use with --address")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		fmt.Fprintln(stderr, "entrepot listens on all addresses of this machine: for clients on other machines, name the one they use with --address")
	}
	scheme := "http"
	if m.tls {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: dialable(m.listen)}, nil
}
