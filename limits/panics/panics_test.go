package panics

import (
	"bytes"
	"errors"
	"testing"
)

type told struct {
	task  string
	value any
	stack []byte
}

// setHandler collects what is told until the test ends.
func setHandler(t *testing.T) *[]told {
	t.Helper()
	var all []told
	Handle(func(task string, value any, stack []byte) { all = append(all, told{task, value, stack}) })
	t.Cleanup(func() { Handle(nil) })
	return &all
}

func fails() { panic("broken") }

func caught() (err error) {
	defer Catch("a task", &err)
	fails()
	return nil
}

func reported() {
	defer Report("a task")
	fails()
}

func TestAPanicCostsItsTask(t *testing.T) {
	all := setHandler(t)
	if err := caught(); !errors.Is(err, ErrPanic) {
		t.Errorf("the task returned %v", err)
	}
	reported()
	if len(*all) != 2 {
		t.Fatalf("%d panics were told of, want 2", len(*all))
	}
	for _, one := range *all {
		if one.task != "a task" || one.value != "broken" || !bytes.Contains(one.stack, []byte("panics.fails(")) {
			t.Errorf("of %s: %v at\n%s", one.task, one.value, one.stack)
		}
	}
}

func TestATaskThatEndsWellIsNotTouched(t *testing.T) {
	all := setHandler(t)
	want := errors.New("its own")
	if err := func() (err error) { defer Catch("a task", &err); return want }(); err != want { //nolint:errorlint // the same one
		t.Errorf("the task returned %v, want its own error", err)
	}
	func() { defer Report("a task") }()
	if len(*all) > 0 {
		t.Errorf("%d panics were told of", len(*all))
	}
}

func TestWithoutAHandlerAPanicGoesOn(t *testing.T) {
	for name, task := range map[string]func(){"Report": reported, "Catch": func() { _ = caught() }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s swallowed a panic that nobody is told of", name)
				}
			}()
			task()
		}()
	}
}
