package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// entrepot runs one command in this process.
func entrepot(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// clean makes a test independent of the user's folders and variables.
func clean(t *testing.T) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", "/home/someone/.cache")
	for _, assignment := range os.Environ() {
		if name, _, _ := strings.Cut(assignment, "="); strings.HasPrefix(name, "ENTREPOT_") {
			t.Setenv(name, "")
		}
	}
}

// otherVariables are those of this process but for the program's: tests know
// some that the program does not.
func otherVariables() []string {
	return slices.DeleteFunc(os.Environ(), func(assignment string) bool { return strings.HasPrefix(assignment, "ENTREPOT_") })
}

// file writes a file in the test's own folder, which becomes the current one.
func file(t *testing.T, name, content string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrongArgumentsExitWithTwoAndOneSentence(t *testing.T) {
	clean(t)
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	const all = "containerd, docker, crio, podman, skopeo, buildah, buildkit, buildx, k3s, rke2, talos, homebrew, openshift, bottlerocket, trivy, kaniko, crossplane, renovate"
	for _, c := range []struct{ name, args, want string }{
		{"an unknown command", "sevre", `unknown command "sevre"; did you mean serve? (known: bundle, completion, config, hosts, ls, pin, pins, purge, scrub, serve, unpin, version, warm)`},
		{"an unknown command of config", "config chekc", `unknown command "config chekc"; did you mean config check? (known: config check, config show)`},
		{"an unknown flag", "serve --lisen :1", "unknown flag: --lisen; did you mean --listen?"},
		{"a flag that is no boolean", "serve --offline=perhaps", `invalid argument "perhaps" for "--offline" flag: must be true or false`},
		{"an argument where none belongs", "serve now", `entrepot serve takes no arguments, but got "now"`},
		{"nothing to check", "config check", "name one file to check, as in: entrepot config check entrepot.yaml"},
		{"an unknown output", "config show -o jsn", `unknown output "jsn"; did you mean json? (known: yaml, json)`},
		{"no runtime", "hosts", "name one runtime: " + all},
		{"two runtimes", "hosts docker podman", "name one runtime: " + all},
		{"an unknown runtime", "hosts contianerd", `unknown runtime "contianerd"; did you mean containerd? (known: ` + all + ")"},
		{"a runtime near to none", "hosts qemu", `unknown runtime "qemu" (known: ` + all + ")"},
		{"an address without a scheme", "hosts docker --address mirror.lan:5000", `--address "mirror.lan:5000" is not a URL such as http://entrepot.example.com:5000`},
		{"an address with a path", "hosts docker --address http://mirror.lan/v2/", "--address has more than a scheme and a host: did you mean http://mirror.lan?"},
		{"an address with a password", "hosts docker --address http://a:sesame@mirror.lan", "--address has more than a scheme and a host: did you mean http://mirror.lan?"},
		{"any free port and no address", "hosts docker --listen :0", "entrepot listens on any free port: name the address that clients use with --address"},
		{"a version that is none", "hosts containerd --containerd-version new", `--containerd-version "new" is not a version such as 2.2`},
		{"a version of containerd for another", "hosts docker --containerd-version 2.2", "--containerd-version is for containerd only"},
		{"a version of containerd that says too little", "hosts containerd --version 2", `--version "2" is not a version such as 2.2`},
		{"a version of Docker that is none", "hosts docker --version new", `--version "new" is not a version such as 29`},
		{"a version where none matters", "hosts podman --version 5.1", "--version is for containerd, docker and talos only"},
		{"a folder and nothing to write", "hosts docker ./here", "name one runtime: " + all},
		{"a folder that is a runtime too", "hosts docker --write podman", "docker and podman are both runtimes: to name a folder, write ./podman"},
		{"two things at a time", "hosts docker --write --remove", "use only one of --write, --remove and --check"},
		{"no folder behind the sign", "hosts docker --write=", "--write= names no folder: use --write alone for the runtime's own"},
		{"a virtual host for an address", "hosts docker --config testdata/hosts.yaml --address http://virtual.mirror.lan:5000", "http://virtual.mirror.lan:5000 is a virtual host of virtual.example.com:5000 (its hosts): " +
			"every request there goes to virtual.example.com:5000, whatever registry the image names; use an address that is not a virtual host"},
		{"a CA for plain HTTP", "hosts docker --listen 127.0.0.1:5000 --ca testdata/hosts.yaml", "--ca is for an https address, but the address is http://127.0.0.1:5000"},
		{"a CA that is not there", "hosts docker --ca gone.pem", "--ca: stat WD/gone.pem: no such file or directory"},
		{"a version told twice", "hosts containerd --version 2.2 --containerd-version 2.1", "--containerd-version is the same as --version: use only one of them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want = strings.ReplaceAll(c.want, "WD", folder)
			code, stdout, stderr := entrepot(t, strings.Fields(c.args)...)
			if code != 2 || stdout != "" || stderr != "entrepot: "+c.want+"\n" {
				t.Errorf("exit %d, stdout %q, stderr\n%s\nwant\nentrepot: %s", code, stdout, stderr, c.want)
			}
		})
	}
}

func TestAWrongConfigurationExitsWithTwoEverywhere(t *testing.T) {
	clean(t)
	const want = "entrepot: the configuration has 2 mistakes:\n" +
		"  c.yaml:1: lisen: unknown key; did you mean listen?\n" +
		"  c.yaml:3: cache.max_size: unknown unit \"Gi\"; did you mean 1GiB?\n"
	file(t, "c.yaml", "lisen: :1\ncache:\n  max_size: 1Gi\n")
	for _, args := range []string{"config check c.yaml", "config show --config c.yaml", "serve --config c.yaml", "hosts docker --config c.yaml"} {
		t.Run(args, func(t *testing.T) {
			code, stdout, stderr := entrepot(t, strings.Fields(args)...)
			if code != 2 || stdout != "" || stderr != want {
				t.Errorf("exit %d, stdout %q, stderr\n%s\nwant\n%s", code, stdout, stderr, want)
			}
		})
	}
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWithoutACommandTheProgramSaysWhatItCanDo(t *testing.T) {
	code, stdout, stderr := entrepot(t)
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	for _, word := range []string{"serve", "hosts", "config", "version"} {
		if !strings.Contains(stdout, "\n  "+word) {
			t.Errorf("%s is not in\n%s", word, stdout)
		}
	}
}

// eventually waits for what is about to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("it is not true that %s", what)
		}
	}
}
