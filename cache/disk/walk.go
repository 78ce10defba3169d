package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// bbolt follows whatever its pages name: a damaged one that leads back to itself
// overflows its stack, which no program survives. So pages are read here, with
// bounds, and before bbolt is asked to change a record, the way to it is walked.
//
// The format is that of bbolt's data files, version 2: a page begins with its
// number, its kind, how many elements it has, and how many more pages it takes;
// numbers are in the order of the machine.
const (
	pageHeader  = 16
	pageElement = 16
	branchPage  = 1
	leafPage    = 2
	bucketEntry = 1  // the flag of an element that is a bucket
	bucketRoot  = 16 // bytes of a bucket before the page that is in it, if it is small
	// maxBuffer is the size in bytes up to which a buffer is used again.
	maxBuffer = 256 << 10
	// maxDepth is deeper than any tree: each branch has two children or more.
	maxDepth = 32
)

// walk is a position in the pages of a database, as of a transaction. Only one
// goroutine uses it at a time. All its errors are errDamaged.
type walk struct {
	read     func(p []byte, off int64) error
	pageSize int
	size     int64 // bytes of all pages
	left     int64 // pages that may be read before something leads in a circle
	stack    []pagePlace
	buffers  [maxDepth][]byte
}

// pagePlace is a page with a position in it.
type pagePlace struct {
	page
	at int
}

// page is a page of a tree, with the pages that it takes beside its own.
type page struct {
	raw   []byte
	count int
	leaf  bool
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// begin begins to read as of a transaction, and returns the root of all buckets.
func (w *walk) begin(d *database, tx *bbolt.Tx) (root uint64) {
	file := d.file.OS()
	w.read = func(p []byte, off int64) error {
		_, err := file.ReadAt(p, off)
		return err
	}
	w.pageSize, w.size = d.bolt.Info().PageSize, tx.Size()
	return uint64(tx.Cursor().Bucket().Root())
}

// parse checks what a page says of itself.
func parse(raw []byte) (page, error) {
	if len(raw) < pageHeader {
		return page{}, damaged("a page has %d bytes", len(raw))
	}
	kind, count := binary.NativeEndian.Uint16(raw[8:]), int(binary.NativeEndian.Uint16(raw[10:]))
	switch {
	case kind != branchPage && kind != leafPage:
		return page{}, damaged("a page is of the kind %x", kind)
	case pageHeader+count*pageElement > len(raw):
		return page{}, damaged("a page has %d elements in %d bytes", count, len(raw))
	}
	return page{raw, count, kind == leafPage}, nil
}

// element returns the four numbers of an element.
func (p page) element(i int) (a, b, c, d uint32) {
	raw := p.raw[pageHeader+i*pageElement:]
	return binary.NativeEndian.Uint32(raw), binary.NativeEndian.Uint32(raw[4:]), binary.NativeEndian.Uint32(raw[8:]), binary.NativeEndian.Uint32(raw[12:])
}

// bytes are n bytes at an offset from an element.
func (p page) bytes(i int, off, n uint32) ([]byte, error) {
	from := int64(pageHeader+i*pageElement) + int64(off)
	if from+int64(n) > int64(len(p.raw)) {
		return nil, damaged("an element reaches beyond its page")
	}
	return p.raw[from : from+int64(n) : from+int64(n)], nil
}

func (p page) key(i int) ([]byte, error) {
	if p.leaf {
		_, off, n, _ := p.element(i)
		return p.bytes(i, off, n)
	}
	off, n, _, _ := p.element(i)
	return p.bytes(i, off, n)
}

// value returns what a leaf has under a key, and whether that is a bucket.
func (p page) value(i int) (value []byte, isBucket bool, err error) {
	flags, off, n, size := p.element(i)
	value, err = p.bytes(i, off+n, size)
	return value, flags&bucketEntry != 0, err
}

// child is the page that an element of a branch leads to.
func (p page) child(i int) uint64 {
	return binary.NativeEndian.Uint64(p.raw[pageHeader+i*pageElement+8:])
}

// search returns the first element whose key is not before a key.
func (p page) search(key []byte) (at int, exact bool, err error) {
	at = sort.Search(p.count, func(i int) bool {
		k, keyErr := p.key(i)
		if keyErr != nil {
			err = keyErr
		}
		order := bytes.Compare(k, key)
		exact = exact || order == 0
		return order >= 0
	})
	return at, exact, err
}

// load reads a page, and goes to it.
func (w *walk) load(id uint64) error {
	depth := len(w.stack)
	if w.left--; depth == maxDepth || w.left < 0 {
		return damaged("the page %d leads in a circle", id)
	}
	at := int64(id) * int64(w.pageSize)
	if id >= uint64(w.size)/uint64(w.pageSize) {
		return damaged("there is no page %d", id)
	}
	raw := w.buffer(depth, w.pageSize)
	if err := w.read(raw, at); err != nil {
		return damaged("page %d: %v", id, err)
	}
	if more := int64(binary.NativeEndian.Uint32(raw[12:])); more > 0 {
		whole := (more + 1) * int64(w.pageSize)
		if at+whole > w.size {
			return damaged("the page %d reaches beyond the last", id)
		}
		raw = w.buffer(depth, int(whole))
		if err := w.read(raw, at); err != nil {
			return damaged("page %d: %v", id, err)
		}
	}
	if own := binary.NativeEndian.Uint64(raw); own != id {
		return damaged("the page %d says that it is %d", id, own)
	}
	p, err := parse(raw)
	if err != nil {
		return err
	}
	w.stack = append(w.stack, pagePlace{p, 0})
	return nil
}

// buffer returns n bytes for a page. They are used again for the next page that
// is as deep.
func (w *walk) buffer(depth, n int) []byte {
	if n > maxBuffer {
		return make([]byte, n)
	}
	if cap(w.buffers[depth]) < n {
		w.buffers[depth] = make([]byte, n)
	}
	return w.buffers[depth][:n]
}

// seek goes to the first record that is not before a key, of the tree with that
// root.
func (w *walk) seek(root uint64, key []byte) error {
	w.stack = w.stack[:0]
	if err := w.load(root); err != nil {
		return err
	}
	return w.descend(key)
}

// descend goes on down to the leaf where a key belongs.
func (w *walk) descend(key []byte) error {
	for {
		top := &w.stack[len(w.stack)-1]
		at, exact, err := top.search(key)
		if err != nil {
			return err
		}
		if top.leaf {
			top.at = at
			return nil
		}
		if top.count == 0 {
			return damaged("a branch has no elements")
		}
		if !exact && at > 0 {
			at--
		}
		top.at = at
		if err := w.load(top.child(at)); err != nil {
			return err
		}
	}
}

// valid goes on to the next leaf until there is a record at the position. It
// returns false at the end.
func (w *walk) valid() (bool, error) {
	for {
		top := &w.stack[len(w.stack)-1]
		if top.leaf && top.at < top.count {
			return true, nil
		}
		for {
			if w.stack = w.stack[:len(w.stack)-1]; len(w.stack) == 0 {
				return false, nil
			}
			if top = &w.stack[len(w.stack)-1]; top.at+1 < top.count {
				top.at++
				break
			}
		}
		for !w.stack[len(w.stack)-1].leaf {
			top = &w.stack[len(w.stack)-1]
			if top.count == 0 {
				return false, damaged("a branch has no elements")
			}
			if err := w.load(top.child(top.at)); err != nil {
				return false, err
			}
		}
	}
}

// top is the leaf at the position.
func (w *walk) top() *pagePlace { return &w.stack[len(w.stack)-1] }

// seekIn goes to the first record of a bucket that is not before a key. It
// returns false if there is no such bucket, or no such record.
func (w *walk) seekIn(root uint64, b cache.Bucket, key []byte) (bool, error) {
	w.left = 2*w.size/int64(w.pageSize) + maxDepth
	if err := w.seek(root, []byte(b)); err != nil {
		return false, err
	}
	if ok, err := w.valid(); !ok || err != nil {
		return false, err
	}
	name, err := w.top().key(w.top().at)
	if err != nil || string(name) != string(b) {
		return false, err
	}
	value, isBucket, err := w.top().value(w.top().at)
	switch {
	case err != nil || !isBucket:
		return false, err
	case len(value) < bucketRoot:
		return false, damaged("the bucket %q has %d bytes", b, len(value))
	}
	if in := binary.NativeEndian.Uint64(value); in != 0 {
		err = w.seek(in, key)
	} else {
		var small page
		if small, err = parse(bytes.Clone(value[bucketRoot:])); err == nil {
			w.stack = append(w.stack[:0], pagePlace{small, 0})
			if !small.leaf {
				return false, damaged("the bucket %q is a branch", b)
			}
			err = w.descend(key)
		}
	}
	if err != nil {
		return false, err
	}
	return w.valid()
}

// record returns the record at the position.
func (w *walk) record() (key, value []byte, err error) {
	if key, err = w.top().key(w.top().at); err != nil {
		return nil, nil, err
	}
	value, _, err = w.top().value(w.top().at)
	return key, value, err
}

// buckets returns the names of all buckets.
func (w *walk) buckets(root uint64) (all []cache.Bucket, err error) {
	w.left = 2*w.size/int64(w.pageSize) + maxDepth
	if err := w.seek(root, nil); err != nil {
		return nil, err
	}
	for {
		more, err := w.valid()
		if !more || err != nil {
			return all, err
		}
		name, _, err := w.record()
		if err != nil {
			return nil, err
		}
		all = append(all, cache.Bucket(name))
		w.top().at++
	}
}
