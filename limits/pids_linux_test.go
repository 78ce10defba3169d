package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
)

// machine is a folder with a /proc and the file systems that it names.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T, cgroup, mounts string) machine {
	m := machine{t, t.TempDir()}
	m.write("proc/7/cgroup", cgroup)
	m.write("proc/7/mountinfo", strings.ReplaceAll(mounts, "@", m.root))
	if err := os.Symlink("7", filepath.Join(m.root, "proc", "self")); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m machine) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) want(want int64) {
	m.t.Helper()
	proc, err := procfs.NewFS(filepath.Join(m.root, "proc"))
	if err != nil {
		m.t.Fatal(err)
	}
	if got, err := cgroupPIDs(proc); got != want || err != nil {
		m.t.Errorf("the limit is %d (%v), want %d", got, err, want)
	}
}

const (
	v2Mount   = "30 23 0:26 / @/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	otherDisk = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
)

func TestPIDsAreTheLeastOfTheCgroupAndItsParents(t *testing.T) {
	t.Run("v2: a parent's limit is the smaller one", func(t *testing.T) {
		m := newMachine(t, "0::/kubepods/pod1/c1\n", otherDisk+v2Mount)
		m.write("cg/kubepods/pids.max", "max\n")
		m.write("cg/kubepods/pod1/pids.max", "200\n")
		m.write("cg/kubepods/pod1/c1/pids.max", "1000\n")
		m.want(200)
	})
	t.Run("v2: in a namespace of its own the root has the limit", func(t *testing.T) {
		m := newMachine(t, "0::/\n", otherDisk+v2Mount)
		m.write("cg/pids.max", "64\n")
		m.want(64)
	})
	t.Run("v2: max is no limit", func(t *testing.T) {
		m := newMachine(t, "0::/a\n", otherDisk+v2Mount)
		m.write("cg/a/pids.max", "max\n")
		m.want(0)
	})
	const v1Mount = "39 31 0:36 / @/cg/pids rw,relatime - cgroup cgroup rw,pids\n"
	t.Run("v1: the controller's own hierarchy, though v2 is mounted too", func(t *testing.T) {
		m := newMachine(t, "8:pids:/docker/c1\n4:memory:/\n0::/\n", otherDisk+v2Mount+v1Mount)
		m.write("cg/pids/docker/c1/pids.max", "300\n")
		m.write("cg/pids.max", "5\n")
		m.want(300)
	})
	t.Run("v1: a container without a namespace sees its own group at the mount point", func(t *testing.T) {
		m := newMachine(t, "8:pids:/docker/c1\n", otherDisk+"39 31 0:36 /docker/c1 @/cg/pids ro,relatime - cgroup cgroup rw,pids\n")
		m.write("cg/pids/pids.max", "128\n")
		m.want(128)
	})
	t.Run("without cgroups there is no limit", func(t *testing.T) {
		newMachine(t, "", otherDisk).want(0)
	})
}

func TestWhatCannotBeReadIsNamed(t *testing.T) {
	m := newMachine(t, "0::/\n", v2Mount)
	m.write("cg/pids.max", "many\n")
	proc, err := procfs.NewFS(filepath.Join(m.root, "proc"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cgroupPIDs(proc); err == nil || !strings.Contains(err.Error(), "limit of pids") {
		t.Errorf("the error is %v", err)
	}
}
