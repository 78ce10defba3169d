package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// story is what happens on one machine. Each says what it found, by columns of
// the table.
type story struct {
	name string
	// waits says that most of it is waiting for time-outs.
	waits bool
	tell  func(*telling)
}

// stories are told of each runtime, those that wait first.
var stories = []story{
	{"hung", true, whileItHangs},
	{"gone", true, whileItsMachineIsGone},
	{"as typed", false, asTyped},
	{"what was there", false, withWhatWasThere},
	{"addresses", false, atOtherAddresses},
}

// columns are those of the table.
var columns = []string{
	"as typed", "no file there", "existing configuration kept", "upstream by alias", "with a port", "by virtual host", "IPv6",
	"HTTPS with a private CA", "two addresses", "entrepot down", "hung", "its machine gone", "removed",
}

// telling is a story as it is told of a runtime.
type telling struct {
	*machine
	runtime rowRuntime
	cells   map[string]string
}

func (s *telling) found(column, format string, args ...any) {
	s.t.Helper()
	if !slices.Contains(columns, column) {
		s.t.Fatalf("there is no column %q", column)
	}
	s.cells[column] = fmt.Sprintf(format, args...)
}

// What --check says of a registry.
const (
	comes      = "comes here"
	neverAsked = "this runtime never asks for it through a mirror"
)

// write types the row, and does what the program says is to be done then.
func (s *telling) write(c rowClient, flags ...string) {
	s.t.Helper()
	_, said := s.types(s.runtime.hosts(s.t, flags...))
	c.restart(said)
}

// refuses types it, and it has to say why it does not do it.
func (s *telling) refuses(words string, flags ...string) {
	s.t.Helper()
	typed := s.runtime.hosts(s.t, flags...)
	_, said, err := s.typed(typed)
	if err == nil || !strings.Contains(said, words) {
		s.t.Errorf("$ %s\n%v\n%s\nwant it to be refused: %s", typed, err, said, words)
	}
}

// remove undoes it: what is below the runtime's folders has to be as before.
func (s *telling) remove(c rowClient, before map[string]seenFile, flags ...string) {
	s.t.Helper()
	_, said := s.types(s.runtime.instead(s.t, "--remove", flags...))
	s.asBefore(before, s.snapshot(s.runtime.folders...))
	c.restart(said)
}

// asTyped types the row over each configuration that the runtime comes with, and
// undoes it.
func asTyped(s *telling) {
	s.runEntrepot(mirrored{})
	var over []string
	for i, comesWith := range s.runtime.shipped {
		s.clear(s.runtime.folders...)
		comesWith.put(s.machine)
		c := s.runtime.start(s.machine)
		before := s.snapshot(s.runtime.folders...)
		s.write(c)
		s.from(s.pulls(c, "docker.io"), "here", "as typed over "+comesWith.name)
		over = append(over, comesWith.name)
		if i == 0 {
			said := s.check()
			s.asItSays(c, "upstream by alias", said, aliased)
			s.asItSays(c, "with a port", said, "corp.lan:5443")
			s.mirror.stop(s.t)
			down := s.pulls(c, "docker.io")
			s.from(down, "docker.io", "with entrepot down")
			if limit := 5 * time.Second; down.took > limit {
				s.t.Errorf("with entrepot down a pull takes %v, more than %v", down.took, limit)
			}
			s.found("entrepot down", "straight, %s", seconds(down.took))
			s.mirror.start(s.t)
		}
		s.remove(c, before)
		s.from(s.pulls(c, "docker.io"), "docker.io", "once removed")
		s.found("removed", "as before, straight")
		c.stop()
	}
	s.found("as typed", "%s, over %s", comes, strings.Join(over, " and "))
}

// withWhatWasThere types it where there is nothing at all, and over what a user
// could have.
func withWhatWasThere(s *telling) {
	s.runEntrepot(mirrored{})
	s.clear(s.runtime.folders...)
	c := s.runtime.start(s.machine)
	before := s.snapshot(s.runtime.folders...)
	s.write(c)
	s.from(s.pulls(c, "docker.io"), "here", "with nothing there")
	s.remove(c, before)
	c.stop()
	s.found("no file there", comes)

	s.clear(s.runtime.folders...)
	s.serveCorp()
	// entrepot believes the office too, and its configuration does not say so.
	s.put("/etc/believed.crt", string(s.trusted.pem)+string(s.private.pem))
	s.mirror.env = []string{"SSL_CERT_FILE=/etc/believed.crt"}
	s.runEntrepot(mirrored{})
	means := s.runtime.keep(s.machine)
	s.ofAGroup()
	c = s.runtime.start(s.machine)
	before = s.snapshot(s.runtime.folders...)
	s.write(c)
	for path, now := range s.snapshot(s.runtime.folders...) {
		if was, ok := before[path]; ok && (now.mode != was.mode || now.owner != was.owner) {
			s.t.Errorf("%s is %v of %v now, and was %v of %v", path, now.mode, now.owner, was.mode, was.owner)
		}
	}
	said := s.check()
	for _, mean := range means {
		if mean.up == "here" && strings.HasPrefix(said[mean.registry], neverAsked) {
			mean.up = mean.down
		}
		s.from(s.pulls(c, mean.registry), mean.up, mean.registry+" beside what a user has")
	}
	s.mirror.stop(s.t)
	for _, mean := range means {
		s.from(s.pulls(c, mean.registry), mean.down, mean.registry+" beside what a user has, with entrepot down")
	}
	s.mirror.start(s.t)
	s.remove(c, before)
	s.found("existing configuration kept", "yes")
	if s.runtime.older == nil {
		return
	}
	c.stop()
	s.clear(s.runtime.folders...)
	what, whom := s.runtime.older(s.machine)
	c = s.runtime.start(s.machine)
	before = s.snapshot(s.runtime.folders...)
	s.write(c)
	s.from(s.pulls(c, "docker.io"), "here", "over "+what)
	s.mirror.stop(s.t)
	s.from(s.pulls(c, "docker.io"), "theirs.lan", "over "+what+", with entrepot down")
	s.mirror.start(s.t)
	s.remove(c, before)
	s.from(s.pulls(c, "docker.io"), whom, "with "+what+" given back")
	s.found("existing configuration kept", "yes; %s moves over", what)
}

// ofAGroup gives a user's files to a group, which alone may read them.
func (s *telling) ofAGroup() {
	s.t.Helper()
	for path, f := range s.snapshot(s.runtime.folders...) {
		if !f.mode.IsRegular() {
			continue
		}
		if err := errors.Join(os.Chown(path, 0, 42), os.Chmod(path, 0o640)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// atOtherAddresses leads the runtime to entrepot in other ways than by its
// default.
func atOtherAddresses(s *telling) {
	s.serveCorp()
	s.runtime.shipped[0].put(s.machine)
	c := s.runtime.start(s.machine)
	for _, way := range []struct {
		column   string
		entrepot mirrored
		flags    []string
		more     string // a name that entrepot itself is asked under
		straight string // what is pulled straight with entrepot down
	}{
		{column: "IPv6", entrepot: mirrored{listen: "[::1]:5000"}},
		{column: "two addresses", flags: []string{"--address", "http://127.0.0.1:5999", "--address", "http://mirror.lan:5000"}},
		{column: "HTTPS with a private CA", straight: "corp.lan:5443", flags: []string{"--ca", "/etc/office.crt"}, entrepot: mirrored{
			listen: outside + ":5000", signedBy: s.private, corp: "tls: {ca_file: /etc/office.crt}",
		}},
		{column: "by virtual host", entrepot: mirrored{listen: "127.0.0.1:443", hub: "hosts: [hub.lan]", signedBy: s.trusted}, more: "hub.lan"},
	} {
		s.runEntrepot(way.entrepot)
		before := s.snapshot(s.runtime.folders...)
		if words, ok := s.runtime.refused[way.column]; ok {
			s.refuses(words, way.flags...)
			s.asBefore(before, s.snapshot(s.runtime.folders...))
			s.found(way.column, "refused: %s", words)
			continue
		}
		s.write(c, way.flags...)
		s.from(s.pulls(c, "docker.io"), "here", way.column)
		if way.more != "" {
			s.from(s.pulls(c, way.more), "here", way.column+": "+way.more)
		}
		if way.straight != "" && s.checked(s.runtime.instead(s.t, "--check", way.flags...))[way.straight] == comes {
			s.from(s.pulls(c, way.straight), "here", way.column+": "+way.straight)
			s.mirror.stop(s.t)
			s.from(s.pulls(c, way.straight), way.straight, way.column+": "+way.straight+", with entrepot down")
			s.mirror.start(s.t)
		}
		s.found(way.column, comes)
		s.remove(c, before, way.flags...)
	}
}

// whileItHangs stops entrepot's process, which then takes connections and never
// answers.
func whileItHangs(s *telling) {
	s.runEntrepot(mirrored{})
	s.runtime.shipped[0].put(s.machine)
	c := s.runtime.start(s.machine)
	s.write(c)
	s.from(s.pulls(c, "docker.io"), "here", "before it hangs")
	cost, known := s.cost(`(\d+) s a request where (?:its machine is gone or )?it hangs`)
	ref := s.renamed()
	s.signal(syscall.SIGSTOP)
	if known {
		a := s.pullsThis(c, ref)
		s.signal(syscall.SIGCONT)
		s.costs("hung", a, cost)
		return
	}
	if said := s.says(); !strings.Contains(said, "as long as it hangs") {
		s.t.Errorf("%q does not say what it costs while it hangs", said)
	}
	woken := time.AfterFunc(longEnough, func() { s.signal(syscall.SIGCONT) })
	defer woken.Stop()
	a := s.pullsThis(c, ref)
	if a.took < longEnough {
		s.t.Errorf("a pull goes on after %v, while it hangs", a.took)
	}
	s.from(a, "here", "once it goes on")
	s.found("hung", "for as long as it hangs (%v here)", longEnough)
}

// longEnough is longer than any time-out of a library, and no longer than the
// others wait.
const longEnough = 50 * time.Second

func (s *telling) signal(what syscall.Signal) {
	if what == syscall.SIGSTOP {
		s.hangs.Store(true)
	}
	if err := s.mirror.process.cmd.Process.Signal(what); err != nil {
		s.t.Error(err)
	}
	if what == syscall.SIGCONT {
		s.hangs.Store(false)
	}
}

// whileItsMachineIsGone leads the runtime to where packets are dropped.
func whileItsMachineIsGone(s *telling) {
	s.runEntrepot(mirrored{})
	s.runtime.shipped[0].put(s.machine)
	c := s.runtime.start(s.machine)
	s.from(s.pulls(c, "docker.io"), "docker.io", "before anything is written")
	s.write(c, "--address", "http://"+gone+":5000")
	cost, known := s.cost(`(\d+) s a (?:request|pull) where its machine is gone`)
	if !known {
		s.t.Errorf("%q does not say what it costs where its machine is gone", s.says())
	}
	s.costs("its machine gone", s.pullsThis(c, s.renamed()), cost)
}

// check is what "entrepot hosts RUNTIME --check" says, by registry.
func (s *telling) check() map[string]string {
	s.t.Helper()
	return s.checked(s.runtime.instead(s.t, "--check", s.runtime.told...))
}

func (s *telling) checked(typed string) map[string]string {
	s.t.Helper()
	stdout, _, err := s.typed(typed)
	s.t.Logf("%s\n%v", stdout, err)
	said := map[string]string{}
	for line := range strings.Lines(stdout) {
		if name, what, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			said[name] = what
		}
	}
	return said
}

// asItSays pulls an image of a registry, and holds against that what the program
// says of it.
func (s *telling) asItSays(c rowClient, column string, said map[string]string, registry string) {
	s.t.Helper()
	a := s.pulls(c, registry)
	what, ok := said[registry]
	switch {
	case !ok:
		s.t.Errorf("--check says nothing of %s", registry)
	case what == comes:
		s.from(a, "here", registry)
	case what != neverAsked || a.here > 0:
		s.t.Errorf("--check says of %s: %s; %s", registry, what, a)
	}
	s.found(column, "%s", what)
}

// says is what the program says that a pull costs.
func (s *telling) says() string {
	s.t.Helper()
	return s.check()["with entrepot down a pull costs"]
}

// cost is what it says of a request, in seconds.
func (s *telling) cost(pattern string) (seconds int, known bool) {
	s.t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(s.says())
	if found == nil {
		return 0, false
	}
	seconds, err := strconv.Atoi(found[1])
	if err != nil {
		s.t.Fatal(err)
	}
	return seconds, true
}

// costs holds the time of a pull that went straight in the end against what was
// said of each request.
func (s *telling) costs(column string, a asked, each int) {
	s.t.Helper()
	s.from(a, "docker.io", column)
	n := a.straight["docker.io"]
	least, most := time.Duration(each)*time.Second*9/10, time.Duration(each*(n+1))*time.Second+5*time.Second
	if a.took < least || a.took > most {
		s.t.Errorf("%s: a pull of %d requests takes %v; the program says %d s a request", column, n, a.took, each)
	}
	s.found(column, "straight, %s for %d requests", seconds(a.took), n)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// serveCorp has corp.lan:5443 show a certificate that only those believe who are
// told of its signer.
func (s *telling) serveCorp() {
	s.t.Helper()
	s.withdraw("corp.lan:5443")
	s.serve("corp.lan:5443", "127.0.1.3:5443", s.private)
}
