package hosts

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/aymanbagabas/go-udiff"
	"github.com/opencontainers/go-digest"
)

// Plan is what would change on disk, file by file. It is made without changing
// anything.
type Plan struct {
	Steps []Step
	Notes []string
	dir   string
	kept  state
}

// Step is what becomes of one file.
type Step struct {
	Path          string // as the runtime names it
	target        string // behind links
	Before, After []byte // nil: there is no file
	theirs        []byte // what a backup has to hold, where it becomes ours
	next          *record
	folders       []string // made by entrepot, and to go where nothing is left in them
}

// Changes says whether the step does anything to the file.
func (s Step) Changes() bool {
	return (s.Before == nil) != (s.After == nil) || !bytes.Equal(s.Before, s.After)
}

// Changes says whether any file changes.
func (p Plan) Changes() bool { return slices.ContainsFunc(p.Steps, Step.Changes) }

// Diff is the change in the unified form.
func (s Step) Diff() string {
	if !s.Changes() {
		return ""
	}
	before, after := s.Path, s.Path
	if s.Before == nil {
		before = "/dev/null"
	}
	if s.After == nil {
		after = "/dev/null"
	}
	return udiff.Unified(before, after, string(s.Before), string(s.After))
}

// PlanWrite is what makes the runtime pull through entrepot. Files of earlier
// writes that are of no use any more are given back. An error names all that
// can't be merged into.
func (r Runtime) PlanWrite(s Setting) (Plan, error) {
	p := Plan{dir: s.Dir, kept: s.kept}
	if err := s.Mirror.checkFiles(); err != nil {
		return p, err
	}
	layout, err := r.Files(s)
	if err != nil {
		return p, err
	}
	p.Notes = layout.Notes
	var refused []error
	for _, f := range layout.Files {
		step, err := s.planFile(r.owner(), f)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		p.Steps = append(p.Steps, step)
	}
	for _, old := range s.kept.Files {
		if old.Runtime != r.owner() || slices.ContainsFunc(layout.Files, func(f File) bool { return f.Path == old.Path }) {
			continue
		}
		step, err := s.planBack(old)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		p.Steps = append(p.Steps, step)
	}
	return p, errors.Join(refused...)
}

// PlanRemove gives back what was there. What can't be is in the error; the rest
// of the plan stands.
func (r Runtime) PlanRemove(s Setting) (Plan, error) {
	p := Plan{dir: s.Dir, kept: s.kept}
	var refused []error
	add := func(step Step, err error) {
		if err != nil {
			refused = append(refused, err)
			return
		}
		p.Steps = append(p.Steps, step)
	}
	for _, old := range s.kept.Files {
		if old.Runtime == r.owner() {
			add(s.planBack(old))
		}
	}
	// Where the record is lost, the marks are left.
	layout, err := r.Files(s)
	if err != nil {
		return p, errors.Join(refused...)
	}
	for _, f := range layout.Files {
		if _, known := s.kept.find(f.Path); known {
			continue
		}
		if now, err := readFile(f.Path); err == nil && now != nil {
			if _, had, _ := unmark(now, r.owner()); had {
				add(s.planBack(record{Runtime: r.owner(), Path: f.Path, Undo: Undo{Kind: undoMarked}}))
			}
		}
	}
	return p, errors.Join(refused...)
}

func (s Setting) planFile(owner string, f File) (Step, error) {
	step := Step{Path: f.Path}
	var err error
	if step.target, err = follow(f.Path); err != nil {
		return step, err
	}
	if step.Before, err = readFile(f.Path); err != nil {
		return step, fmt.Errorf("read what is there: %w", err)
	}
	old, known := s.kept.find(f.Path)
	if step.theirs, err = theirs(f.Path, step.Before, old, known, owner); err != nil {
		return step, err
	}
	change, err := f.Edit(step.theirs)
	if err != nil {
		var blocked Blocked
		if errors.As(err, &blocked) && blocked.Path == "" {
			blocked.Path = f.Path
			return step, blocked
		}
		return step, err
	}
	step.After = change.Content
	step.folders = old.Folders
	if bytes.Equal(step.After, step.theirs) && (step.After == nil) == (step.theirs == nil) {
		return step, nil // nothing of ours is in it
	}
	step.next = &record{
		Runtime: owner, Path: f.Path, Existed: step.theirs != nil, Written: digest.FromBytes(step.After), Undo: change.Undo, Folders: old.Folders,
	}
	if step.theirs != nil {
		step.next.Before = digest.FromBytes(step.theirs)
	}
	return step, nil
}

// planBack gives back what was there before a record was made.
func (s Setting) planBack(old record) (Step, error) {
	step := Step{Path: old.Path, folders: old.Folders}
	var err error
	if step.target, err = follow(old.Path); err != nil {
		return step, err
	}
	if step.Before, err = readFile(old.Path); err != nil {
		return step, fmt.Errorf("read what is there: %w", err)
	}
	_, known := s.kept.find(old.Path)
	step.After, err = theirs(old.Path, step.Before, old, known, old.Runtime)
	return step, err
}

// Apply does what was planned: backups first, then the record, then the files.
// What was done until an error is recorded.
func (p Plan) Apply() error {
	kept := p.kept
	// Where the record itself has to be, even if no file is beside it.
	var forRecord []string
	if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.next != nil }) || len(kept.Files) > 0 {
		var err error
		if forRecord, err = makeFolders(p.dir); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
	}
	for i, step := range p.Steps {
		if step.next == nil {
			continue
		}
		step.next.Folders, forRecord = append(step.next.Folders, forRecord...), nil
		if step.Changes() && step.After != nil {
			made, err := makeFolders(filepath.Dir(step.target))
			if err != nil {
				return fmt.Errorf("make the folder: %w", err)
			}
			step.next.Folders = append(step.next.Folders, made...)
			p.Steps[i] = step
		}
		if step.theirs != nil {
			if err := step.backUp(); err != nil {
				return err
			}
		}
		kept = kept.with(*step.next)
	}
	if len(kept.Files) > 0 {
		if err := kept.write(p.dir); err != nil {
			return fmt.Errorf("record what is written: %w", err)
		}
	}
	for _, step := range p.Steps {
		if err := step.apply(); err != nil {
			return err
		}
		if step.next == nil {
			kept = kept.without(step.Path)
		}
	}
	if err := kept.write(p.dir); err != nil {
		return fmt.Errorf("record what is written: %w", err)
	}
	p.tidy()
	return nil
}

// backUp keeps what people wrote beside the file, byte for byte.
func (s Step) backUp() error {
	name := s.Path + BackupEnding
	if kept, err := readFile(name); err == nil && kept != nil && bytes.Equal(kept, s.theirs) {
		return nil
	}
	like, err := os.Stat(s.target)
	if err != nil {
		return fmt.Errorf("keep what is there: %w", err)
	}
	if err := replaceFile(name, s.theirs, like.Mode().Perm(), like); err != nil {
		return fmt.Errorf("keep what is there: %w", err)
	}
	return nil
}

func (s Step) apply() error {
	if !s.Changes() {
		return nil
	}
	if s.After == nil {
		if err := os.Remove(s.target); err != nil {
			return fmt.Errorf("take away: %w", err)
		}
		return nil
	}
	if err := replaceFile(s.target, s.After, 0o644, nil); err != nil {
		return fmt.Errorf("write %s: %w", s.Path, err)
	}
	return nil
}

// tidy takes away what is of no use any more once files are given back: their
// backups, and folders that were made for them and have nothing else in them.
func (p Plan) tidy() {
	var folders []string
	for _, step := range p.Steps {
		if step.next == nil {
			_ = os.Remove(step.Path + BackupEnding) // where there was none, none goes
			folders = append(folders, step.folders...)
		}
	}
	// The innermost first: each is longer than what it is in.
	slices.SortFunc(folders, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, folder := range folders {
		_ = os.Remove(folder) // unless something is in it
	}
}
