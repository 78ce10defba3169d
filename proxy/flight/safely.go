package flight

import (
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/limits/panics"
)

// safely makes a panic an error. Nobody knows what it has left behind, so that
// what has been received is lost.
func safely(task string, do func() error) (err error) {
	defer func() {
		if errors.Is(err, panics.ErrPanic) {
			err = fmt.Errorf("%w: %w", errLost, err)
		}
	}()
	defer panics.Catch(task, &err)
	return do()
}
