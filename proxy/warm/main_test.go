package warm_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache/cachetest"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}
