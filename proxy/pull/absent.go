package pull

import (
	"time"

	"github.com/entrepot/entrepot/cache/memory"
)

// maxAbsences bounds what is remembered as absent, in entries.
const maxAbsences = 16 << 10

// absences remembers for a while what an upstream said it does not have, so
// that a client that keeps asking does not become traffic upstream. Only an
// upstream's own word is remembered, never a failure to ask.
type absences struct {
	ttl  time.Duration
	keys *memory.Answers[string, error]
}

func newAbsences(ttl time.Duration) *absences {
	keys, err := memory.NewAnswers[string, error](maxAbsences)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &absences{ttl: ttl, keys: keys}
}

// remember keeps the upstream's "not found".
func (a *absences) remember(key string, err error) { a.keys.Put(key, err, a.ttl) }

// err is the remembered "not found" under key, nil where there is none.
func (a *absences) err(key string) error {
	err, _ := a.keys.Get(key)
	return err
}

func (a *absences) forget(key string) { a.keys.Delete(key) }
