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

// Plan lists what would change on disk, file by file. Making a plan changes
// nothing.
type Plan struct {
	Steps []Step
	Notes []string
	dir   string
	kept  state
}

// Step is the change of one file.
type Step struct {
	Path          string // as the runtime names it
	target        string // with links resolved
	Before, After []byte // nil if there is no file
	theirs        []byte // what the backup has to contain
	next          *record
	folders       []string // made by entrepot, and removed when they are empty
}

// Changes reports whether the step changes the file.
func (s Step) Changes() bool {
	return (s.Before == nil) != (s.After == nil) || !bytes.Equal(s.Before, s.After)
}

// Changes reports whether any file changes.
func (p Plan) Changes() bool { return slices.ContainsFunc(p.Steps, Step.Changes) }

// Diff returns the change as a unified diff.
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

// PlanWrite returns the plan that makes the runtime pull through entrepot.
// Files of earlier writes that are no longer needed are restored. The error
// lists everything that can't be merged.
func (r Runtime) PlanWrite(s Setting) (Plan, error) {
	p := Plan{dir: s.Dir, kept: s.state}
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
	for _, old := range s.state.Files {
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

// PlanRemove returns the plan that restores what was there. The error lists
// what can't be restored; the rest of the plan is valid.
func (r Runtime) PlanRemove(s Setting) (Plan, error) {
	p := Plan{dir: s.Dir, kept: s.state}
	var refused []error
	add := func(step Step, err error) {
		if err != nil {
			refused = append(refused, err)
			return
		}
		p.Steps = append(p.Steps, step)
	}
	for _, old := range s.state.Files {
		if old.Runtime == r.owner() {
			add(s.planBack(old))
		}
	}
	// If the record is lost, the marks remain.
	layout, err := r.Files(s)
	if err != nil {
		return p, errors.Join(refused...)
	}
	for _, f := range layout.Files {
		if _, known := s.state.find(f.Path); known {
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
		return step, fmt.Errorf("read the existing file: %w", err)
	}
	old, known := s.state.find(f.Path)
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
		return step, nil // it contains nothing of entrepot's
	}
	step.next = &record{
		Runtime: owner, Path: f.Path, Existed: step.theirs != nil, Written: digest.FromBytes(step.After), Undo: change.Undo, Folders: old.Folders,
	}
	if step.theirs != nil {
		step.next.Before = digest.FromBytes(step.theirs)
	}
	return step, nil
}

// planBack restores what was there before a record was made.
func (s Setting) planBack(old record) (Step, error) {
	step := Step{Path: old.Path, folders: old.Folders}
	var err error
	if step.target, err = follow(old.Path); err != nil {
		return step, err
	}
	if step.Before, err = readFile(old.Path); err != nil {
		return step, fmt.Errorf("read the existing file: %w", err)
	}
	_, known := s.state.find(old.Path)
	step.After, err = theirs(old.Path, step.Before, old, known, old.Runtime)
	return step, err
}

// Apply carries out the plan: first backups, then the record, then the files.
// After an error, everything done so far is recorded.
func (p Plan) Apply() error {
	kept := p.kept
	// The record's folder has to exist even if no file is in it.
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

// backUp copies the user's file to a backup next to it, byte for byte.
func (s Step) backUp() error {
	name := s.Path + BackupEnding
	if kept, err := readFile(name); err == nil && kept != nil && bytes.Equal(kept, s.theirs) {
		return nil
	}
	like, err := os.Stat(s.target)
	if err != nil {
		return fmt.Errorf("back up the existing file: %w", err)
	}
	if err := replaceFile(name, s.theirs, like.Mode().Perm(), like); err != nil {
		return fmt.Errorf("back up the existing file: %w", err)
	}
	return nil
}

func (s Step) apply() error {
	if !s.Changes() {
		return nil
	}
	if s.After == nil {
		if err := os.Remove(s.target); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
		return nil
	}
	if err := replaceFile(s.target, s.After, 0o644, nil); err != nil {
		return fmt.Errorf("write %s: %w", s.Path, err)
	}
	return nil
}

// tidy removes what is no longer needed after files are restored: their
// backups, and folders that were made for them and are empty.
func (p Plan) tidy() {
	var folders []string
	for _, step := range p.Steps {
		if step.next == nil {
			_ = os.Remove(step.Path + BackupEnding) // there may be none
			folders = append(folders, step.folders...)
		}
	}
	// The innermost first: its path is longer than that of its parent.
	slices.SortFunc(folders, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, folder := range folders {
		_ = os.Remove(folder) // fails if it is not empty
	}
}
