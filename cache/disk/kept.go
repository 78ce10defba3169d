package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// mapSuffix is the suffix of the file with the map of a draft.
const mapSuffix = ".map"

// draftMap says what is in a draft. The file has it in JSON, with a line after
// it: the CRC-32C of that. It names only what is durable.
type draftMap struct {
	Digest  cache.Digest `json:"digest"`
	Size    int64        `json:"size"` // announced, in bytes
	Note    []byte       `json:"note"`
	SavedAt time.Time    `json:"savedAt"`
	Runs    []run        `json:"runs"`
}

func (m draftMap) bytes() (n int64) {
	for _, r := range m.Runs {
		n += r.span().Len()
	}
	return n
}

func (m draftMap) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(b, castagnoli)), nil
}

var errMap = errors.New("the map of a draft is damaged")

// decodeMap decodes what encode returned, and refuses anything else.
func decodeMap(b []byte) (m draftMap, err error) {
	content, sum, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(b[:len(content)+1], castagnoli)) {
		return m, errMap
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errMap, err)
	}
	if err := m.Digest.Validate(); err != nil {
		return m, fmt.Errorf("%w: %w", errMap, err)
	}
	at := int64(0)
	for _, r := range m.Runs {
		if r.From < at || r.To <= r.From || r.To-r.From > runLength || m.Size >= 0 && r.To > m.Size {
			return m, errMap
		}
		at = r.To
	}
	return m, nil
}

func (d *draft) Save(note []byte) error {
	if d.done {
		return fmt.Errorf("save %s: %w", d.want.Digest, errDone)
	}
	_, err := d.save(note)
	return err
}

// save makes durable what is in the file now, and then the map of it.
func (d *draft) save(note []byte) (draftMap, error) {
	m := draftMap{Digest: d.want.Digest, Size: d.want.Size, Note: note, SavedAt: time.Now().UTC()}
	d.mu.Lock()
	m.Runs = d.allRuns()
	path := d.path
	d.saved = true
	d.mu.Unlock()
	err := d.blobs.faults.inject(d.blobs.faults.sync)
	if err == nil {
		err = d.file.Sync()
	}
	var b []byte
	if err == nil {
		b, err = m.encode()
	}
	if err == nil {
		err = writeDurably(path+mapSuffix, b)
	}
	if err != nil {
		return m, fmt.Errorf("save the draft of %s: %w", d.want.Digest, wrapFull(err))
	}
	return m, nil
}

// allRuns are the runs of the prefix and of what is behind it. d.mu is held.
func (d *draft) allRuns() (all []run) {
	prefix := d.Written()
	for i, sum := range d.sums.sums() {
		from := int64(i) * pieceSize
		all = append(all, run{from, min(from+pieceSize, prefix), sum})
	}
	for _, r := range d.runs {
		if r.From >= prefix {
			all = append(all, r)
		}
	}
	return all
}

func (d *draft) Keep(note []byte) error {
	if d.done {
		return fmt.Errorf("keep %s: %w", d.want.Digest, errDone)
	}
	m, err := d.save(note)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
	d.release(d.reserved)
	return d.blobs.kept.add(d.path, m)
}

// keptDrafts are the drafts that were kept, by digest.
type keptDrafts struct {
	mu  sync.Mutex
	all map[cache.Digest]keptDraft
}

type keptDraft struct {
	path string
	cache.KeptDraft
}

// add adds the draft at a path. One that was there before is removed.
func (k *keptDrafts) add(path string, m draftMap) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, ok := k.all[m.Digest]
	k.all[m.Digest] = keptDraft{path, cache.KeptDraft{Digest: m.Digest, Size: m.Size, Bytes: m.bytes(), Note: m.Note, KeptAt: m.SavedAt}}
	if !ok || before.path == path {
		return nil
	}
	return before.remove()
}

// take removes a draft from those that are kept.
func (k *keptDrafts) take(d cache.Digest) (keptDraft, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept, ok := k.all[d]
	delete(k.all, d)
	return kept, ok
}

// remove removes the files of a draft: the map first, because without it a crash
// leaves nothing to be found.
func (k keptDraft) remove() error {
	return errors.Join(removeFile(k.path+mapSuffix), removeFile(k.path))
}

func (b *blobs) Kept(d cache.Digest) (cache.KeptDraft, bool) {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	kept, ok := b.kept.all[d]
	return kept.KeptDraft, ok
}

func (b *blobs) AllKept() (all []cache.KeptDraft) {
	b.kept.mu.Lock()
	defer b.kept.mu.Unlock()
	for _, kept := range b.kept.all {
		all = append(all, kept.KeptDraft)
	}
	return all
}

func (b *blobs) DropKept(_ context.Context, d cache.Digest) error {
	if err := b.dropKept(d); err != nil {
		return fmt.Errorf("drop the draft of %s: %w", d, err)
	}
	return nil
}

func (b *blobs) dropKept(d cache.Digest) error {
	if kept, ok := b.kept.take(d); ok {
		return kept.remove()
	}
	return nil
}

// Resume trusts the map, which is checked, but not the file: Check reads a piece
// of it before anybody else does.
func (b *blobs) Resume(_ context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	kept, ok := b.kept.take(d)
	if !ok {
		return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w", d, cache.ErrNotFound)
	}
	m, err := readMap(kept.path + mapSuffix)
	if err == nil && m.Digest != d {
		err = errMap
	}
	var file *os.File
	if err == nil {
		file, err = openShared(kept.path, os.O_RDWR)
	}
	if err != nil {
		return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w: %w", d, wrapNotFound(err), errors.Join(kept.remove()))
	}
	draft := b.newDraft(cache.Descriptor{Digest: d, Size: m.Size}, file)
	draft.saved = true
	draft.runs = m.Runs
	for _, r := range m.Runs {
		draft.pieces.Add(r.span())
	}
	draft.unchecked = slices.Clone(draft.pieces)
	return draft, kept.KeptDraft, nil
}

func readMap(path string) (draftMap, error) {
	file, err := openPublished(path)
	if err != nil {
		return draftMap{}, err
	}
	defer file.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(file); err != nil {
		return draftMap{}, err
	}
	return decodeMap(b.Bytes())
}

// findKept finds the drafts of an earlier process that have a map, and removes
// everything else.
func (k *keptDrafts) findKept(drafts string, log *slog.Logger) error {
	entries, err := os.ReadDir(drafts)
	if err != nil {
		return fmt.Errorf("drafts of an earlier run: %w", err)
	}
	stays := make(map[string]bool)
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), mapSuffix)
		if !ok || !contains(entries, name) {
			continue
		}
		path := filepath.Join(drafts, name)
		m, err := readMap(path + mapSuffix)
		if err != nil {
			continue
		}
		if other, ok := k.all[m.Digest]; ok {
			if other.Bytes >= m.bytes() {
				continue
			}
			stays[other.path], stays[other.path+mapSuffix] = false, false
			delete(k.all, m.Digest)
		}
		stays[path], stays[path+mapSuffix] = true, true
		if err := k.add(path, m); err != nil {
			return fmt.Errorf("drafts of an earlier run: %w", err)
		}
	}
	removed := 0
	for _, entry := range entries {
		path := filepath.Join(drafts, entry.Name())
		if entry.IsDir() || stays[path] {
			continue // the former was not created by this package
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("drafts of an earlier run: %w", err)
		}
		removed++
	}
	if removed > 0 {
		log.Info("removed unfinished downloads of an earlier run", "count", removed)
	}
	if n := len(k.all); n > 0 {
		log.Info("parts of downloads of an earlier run are kept", "count", n)
	}
	return nil
}
