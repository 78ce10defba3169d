package disk

import (
	"encoding/binary"
	"errors"
	"testing"
)

// pagesOf are pages of 512 bytes that each have one element, with the key "k".
type pagesOf struct{ raw []byte }

func newPagesOf(n int) *pagesOf { return &pagesOf{make([]byte, 512*n)} }

func (p *pagesOf) page(id int) []byte { return p.raw[512*id : 512*(id+1)] }

// branch makes a page lead to another one, leaf one with a record.
func (p *pagesOf) branch(id, child int) {
	b := p.page(id)
	p.header(b, id, branchPage)
	binary.NativeEndian.PutUint32(b[pageHeader:], pageElement)
	binary.NativeEndian.PutUint32(b[pageHeader+4:], 1)
	binary.NativeEndian.PutUint64(b[pageHeader+8:], uint64(child))
}

func (p *pagesOf) leaf(id int) {
	b := p.page(id)
	p.header(b, id, leafPage)
	binary.NativeEndian.PutUint32(b[pageHeader+4:], pageElement)
	binary.NativeEndian.PutUint32(b[pageHeader+8:], 1)
	binary.NativeEndian.PutUint32(b[pageHeader+12:], 1)
}

func (p *pagesOf) header(b []byte, id int, kind uint16) {
	binary.NativeEndian.PutUint64(b, uint64(id))
	binary.NativeEndian.PutUint16(b[8:], kind)
	binary.NativeEndian.PutUint16(b[10:], 1)
	copy(b[pageHeader+pageElement:], "kv")
}

func (p *pagesOf) seek(left int64) error {
	w := walk{pageSize: 512, size: int64(len(p.raw)), left: left, read: func(b []byte, off int64) error {
		copy(b, p.raw[off:])
		return nil
	}}
	if err := w.seek(0, []byte("k")); err != nil {
		return err
	}
	if ok, err := w.valid(); !ok || err != nil {
		return errors.Join(err, errors.New("there is no record"))
	}
	key, value, err := w.record()
	if err == nil && string(key)+string(value) != "kv" {
		err = errors.New("another record")
	}
	return err
}

// Each bound of the walk holds by itself: where the others would let it go on,
// something that leads ever deeper, or is not what it says, is an error.
func TestEachBoundOfTheWalkHoldsByItself(t *testing.T) {
	chain := func(depth int) *pagesOf {
		p := newPagesOf(depth)
		for id := range depth - 1 {
			p.branch(id, id+1)
		}
		p.leaf(depth - 1)
		return p
	}
	if err := chain(maxDepth).seek(maxDepth); err != nil {
		t.Errorf("as deep as may be: %v", err)
	}
	for name, err := range map[string]error{
		"one page deeper":              chain(maxDepth + 1).seek(1000),
		"as deep, in fewer steps":      chain(maxDepth).seek(maxDepth - 1),
		"a page with another's number": func() error { p := chain(2); p.page(1)[0] = 7; return p.seek(1000) }(),
		"a page of another kind":       func() error { p := chain(2); p.page(1)[8] = 4; return p.seek(1000) }(),
		"more elements than fit":       func() error { p := chain(2); p.page(1)[10] = 200; return p.seek(1000) }(),
		"a key beyond its page":        func() error { p := chain(2); p.page(1)[pageHeader+9] = 2; return p.seek(1000) }(),
		"a value beyond its page":      func() error { p := chain(2); p.page(1)[pageHeader+13] = 2; return p.seek(1000) }(),
		"a page that is not there":     func() error { p := chain(2); p.branch(0, 2); return p.seek(1000) }(),
		"a page beyond the last":       func() error { p := chain(2); p.page(1)[12] = 1; return p.seek(1000) }(),
	} {
		if !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v, want errDamaged", name, err)
		}
	}
}
