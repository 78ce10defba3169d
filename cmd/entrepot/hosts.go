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

const hostsHelp = `Make a runtime pull through this entrepot, for the upstreams in force: those of the configuration that is named, else
of the entrepot that answers on the admin address, else of the one that systemd runs; standard error says which.

  entrepot hosts RUNTIME                    prints what the runtime reads
  entrepot hosts RUNTIME --write [DIR]      puts it into what the runtime reads here, or below a folder. What is there keeps
                                            its meaning, or nothing is written; a backup is beside each file
  entrepot hosts RUNTIME --dry-run [DIR]    shows that as a diff, and writes nothing
  entrepot hosts RUNTIME --remove [DIR]     gives back what was there
  entrepot hosts RUNTIME --check [DIR]      says for each registry whether a pull of it comes here; exit code 1 where one does not

Runtimes: %s.

What is made for containerd and Docker depends on their version: the one that --version tells, or else the one that is
installed, where files are written into the folder that it reads. containerd from 2.2 and Docker from 29.1 on ask a mirror for what refers to an image (signatures,
attestations) only where its hosts.toml grants it "referrers"; older ones ignore a whole hosts.toml that grants what they
don't know.

  containerd --version 2.2   grants it; of an unknown version it is not granted
  talos --version 1.12       a document for each registry; before it, and of an unknown version, machine.registries
  docker --version 29        certs.d/REGISTRY/hosts.toml, for every registry
  docker --version 28        daemon.json, for docker.io alone
  docker                     both with --write, which suits every version: Docker before 29.1 ignores these hosts.toml,
                             and later ones take them before daemon.json. What is printed is daemon.json alone`

// hostsFlags are what the command is told.
type hostsFlags struct {
	addresses             []string
	ca, write             string
	told, containerdTold  string
	remove, check, dryRun bool
}

// noFolder is what --write is where no folder follows an equals sign.
const noFolder = "\x00"

func newHosts() *cobra.Command {
	var f hostsFlags
	cmd := &cobra.Command{
		Use:       "hosts RUNTIME [DIR]",
		Short:     "Make a runtime pull through this entrepot, and undo it",
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
	flags.StringArrayVar(&f.addresses, "address", nil, "URL that clients reach this entrepot under; more than once: tried in order (default: where it listens)")
	flags.StringVar(&f.ca, "ca", "", "file with who signed this entrepot's certificate, where the system does not know (PEM)")
	flags.StringVar(&f.write, "write", "", "write what is printed otherwise, below a folder or where the runtime looks")
	flags.Lookup("write").NoOptDefVal = noFolder
	flags.BoolVar(&f.remove, "remove", false, "give back what was there before --write")
	flags.BoolVar(&f.check, "check", false, "say whether pulls come here")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would change, and write nothing")
	flags.StringVar(&f.told, "version", "", "version of the runtime, where its configuration depends on it: containerd, docker and talos")
	flags.StringVar(&f.containerdTold, "containerd-version", "", "the same as --version, for containerd")
	return cmd
}

// arguments are the runtime and a folder, in any order: a folder may follow
// --write with a space between.
func (f hostsFlags) arguments(cmd *cobra.Command, args []string) (hosts.Runtime, string, error) {
	var none hosts.Runtime
	files := cmd.Flags().Changed("write") || f.remove || f.check || f.dryRun
	if f.remove && (f.check || cmd.Flags().Changed("write")) || f.check && (f.dryRun || cmd.Flags().Changed("write")) {
		return none, "", usageError("--write, --remove and --check are one at a time")
	}
	dir := ""
	if f.write != noFolder {
		dir = f.write
	}
	if cmd.Flags().Changed("write") && f.write == "" {
		return none, "", usageError("--write names no folder: leave the = out for the runtime's own")
	}
	room := 1 // for arguments
	if files && dir == "" {
		room = 2
	}
	isRuntime := func(word string) bool { return slices.Contains(hosts.Names(), word) }
	i := slices.IndexFunc(args, isRuntime)
	switch {
	case len(args) == 0 || len(args) > room || room == 1 && len(args) == 1 && i < 0 && strings.ContainsAny(args[0], `/\`):
		return none, "", usageError("name one runtime: " + strings.Join(hosts.Names(), ", "))
	case i < 0:
		return none, "", unknownWord("runtime", args[0], hosts.Names())
	case len(args) == 2 && isRuntime(args[1-i]):
		return none, "", usageError(fmt.Sprintf("%s and %s are both runtimes: a folder of such a name is written ./%s", args[0], args[1], args[1-i]))
	case len(args) == 2:
		dir = args[1-i]
	}
	runtime, _ := hosts.Find(args[i])
	return runtime, dir, nil
}

func (f hostsFlags) run(cmd *cobra.Command, runtime hosts.Runtime, dir string) error {
	stderr := cmd.ErrOrStderr()
	said, err := f.settings()
	if err != nil {
		return err
	}
	version, err := f.version(cmd, runtime)
	if err != nil {
		return err
	}
	known, err := mirroredConfig(cmd, systemdUnits, stderr)
	if err != nil {
		return err
	}
	if len(said.Addresses) == 0 {
		address, err := known.address(stderr)
		if err != nil {
			return err
		}
		said.Addresses = []*url.URL{address}
	}
	if said.CAFile != "" && !slices.ContainsFunc(said.Addresses, func(a *url.URL) bool { return a.Scheme == "https" }) {
		return usageError("--ca is for an https address, and " + said.Addresses[0].String() + " is none")
	}
	mirror, err := hosts.NewMirror(known.upstreams, said)
	if err != nil {
		return err
	}
	if address := mirror.Loopback(); runtime.Elsewhere && address != nil {
		fmt.Fprintf(stderr, "%s is of one machine alone: %s on another needs an address of this one, with --address\n", address, runtime.Name)
	}
	machine := hosts.ThisMachine()
	printed := !cmd.Flags().Changed("write") && !f.remove && !f.check && !f.dryRun
	// What is installed here says nothing of who reads a folder elsewhere.
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

// settings are what the flags say of the mirror.
func (f hostsFlags) settings() (hosts.Settings, error) {
	var s hosts.Settings
	for _, told := range f.addresses {
		address, err := hosts.ParseAddress(told)
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

// version is what a flag tells of the runtime, if any does.
func (f hostsFlags) version(cmd *cobra.Command, runtime hosts.Runtime) (hosts.Version, error) {
	flag, told := "--version", f.told
	if cmd.Flags().Changed("containerd-version") {
		if cmd.Flags().Changed("version") {
			return hosts.Version{}, usageError("--containerd-version is the same as --version: give one of them")
		}
		if runtime.Name != "containerd" {
			return hosts.Version{}, usageError("--containerd-version is for containerd only")
		}
		flag, told = "--containerd-version", f.containerdTold
	}
	if told == "" {
		return hosts.Version{}, nil
	}
	if runtime.Version == nil {
		return hosts.Version{}, usageError(flag + " is for containerd, docker and talos only")
	}
	v, err := runtime.Version(told)
	if err != nil {
		return v, usageError(fmt.Sprintf("%s %q %v", flag, told, err))
	}
	return v, nil
}

func printHosts(stdout, stderr io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	printed, err := runtime.Print(s)
	if err != nil {
		return err
	}
	say(stderr, printed.Notes)
	for _, name := range printed.Names {
		fmt.Fprintln(stderr, "# "+name)
	}
	_, err = io.WriteString(stdout, printed.Text)
	return err
}

var errSomewhereElse = errors.New(`not every pull comes here: "entrepot hosts RUNTIME --write" sees to it`)

func checkHosts(ctx context.Context, stdout io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	right, err := runtime.Check(ctx, s, stdout)
	if err == nil && !right {
		return errSomewhereElse
	}
	return err
}

// change writes or removes, or shows what that would change.
func (f hostsFlags) change(stdout, stderr io.Writer, runtime hosts.Runtime, s hosts.Setting) error {
	var plan hosts.Plan
	var refused error
	if f.remove {
		plan, refused = runtime.PlanRemove(s)
	} else if plan, refused = runtime.PlanWrite(s); refused != nil && !f.dryRun {
		return refused // all of it or nothing
	}
	say(stderr, plan.Notes)
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
		fmt.Fprintf(stderr, "nothing of entrepot's is in %s\n", s.Dir)
	case plan.Changes() && f.remove:
		fmt.Fprintln(stderr, "to restart: "+s.Typed(runtime.AfterRemove()))
	case plan.Changes():
		fmt.Fprintln(stderr, "to restart: "+s.Typed(runtime.Restart))
	}
	return refused
}

func say(w io.Writer, notes []string) {
	for _, note := range notes {
		fmt.Fprintln(w, note)
	}
}

// address is where clients on this machine reach entrepot.
func (m mirrored) address(stderr io.Writer) (*url.URL, error) {
	host, port, err := net.SplitHostPort(m.listen)
	if err != nil {
		return nil, fmt.Errorf("address of %s: %w", m.listen, err)
	}
	if port == "0" {
		return nil, usageError("entrepot listens on any free port: say with --address which one clients use")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		fmt.Fprintln(stderr, "entrepot listens on every address of its machine; for clients on others, say with --address which one they use")
	}
	scheme := "http"
	if m.tls {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: dialable(m.listen)}, nil
}
