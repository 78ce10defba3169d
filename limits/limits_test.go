package limits

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestThisProcessHasLimits(t *testing.T) {
	got, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if got.Files <= 0 || got.Memory <= 0 || got.CPUs <= 0 {
		t.Errorf("%+v", got)
	}
}

func TestAMemoryLimitOfGoIsALimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(48 << 20))
	if got, err := memoryLimit(); got <= 48<<20 || err != nil {
		t.Errorf("a limit that the process has set itself is taken for one of the machine: %d (%v)", got, err)
	}
	t.Setenv("GOMEMLIMIT", "48MiB")
	if got, err := memoryLimit(); got != 48<<20 || err != nil {
		t.Errorf("the limit is %d (%v)", got, err)
	}
}

func TestTheSmallerOfTwoLimitsThatMayBeUnknown(t *testing.T) {
	for _, c := range [][3]int64{{0, 0, 0}, {5, 0, 5}, {0, 5, 5}, {5, 6, 5}, {6, 5, 5}, {math.MaxInt64, 1, 1}} {
		if got := least(c[0], c[1]); got != c[2] {
			t.Errorf("of %d and %d it is %d", c[0], c[1], got)
		}
	}
}
