package metadata

import (
	"slices"
	"strings"
	"time"
)

// PinScope says what of an image a pin is for. The zero PinScope is all of it.
type PinScope struct {
	Platforms   []string `json:",omitempty"` // as they are written; none means all
	NoReferrers bool     `json:",omitempty"`
}

// PutPin pins an image.
func (l *Ledger) PutPin(r Reference) { l.PutPinOf(r, PinScope{}) }

// PutPinOf pins a part of an image.
func (l *Ledger) PutPinOf(r Reference, scope PinScope) {
	l.write(bucketPin, Key(r.Repository, r.Ref), struct {
		At time.Time
		PinScope
	}{time.Now().UTC(), scope})
}

// PinScope returns what of an image its pin is for.
func (l *Ledger) PinScope(r Reference) (scope PinScope) {
	l.read(bucketPin, Key(r.Repository, r.Ref), &scope) // before there were scopes, a pin was its time alone
	return scope
}

// DropPin removes a pin.
func (l *Ledger) DropPin(r Reference) {
	l.records.Delete(bucketPin, Key(r.Repository, r.Ref))
}

// HasPin says whether an image was pinned with PutPin.
func (l *Ledger) HasPin(repo Repository, ref string) bool {
	_, err := l.records.Get(bucketPin, Key(repo, ref))
	return err == nil
}

// Pins returns the images that were pinned with PutPin, sorted by name.
func (l *Ledger) Pins() ([]Reference, error) {
	var all []Reference
	err := l.records.Scan(bucketPin, "", func(key string, _ []byte) bool {
		if repo, ref, ok := SplitKey(key); ok {
			all = append(all, Reference{repo, ref})
		}
		return true
	})
	slices.SortFunc(all, func(a, b Reference) int { return strings.Compare(a.String(), b.String()) })
	return all, err
}

// IsPinned says whether an image is pinned, by the configuration or with
// PutPin.
func (l *Ledger) IsPinned(repo Repository, ref string) bool {
	return l.IsPinnedByConfig(repo, ref) || l.HasPin(repo, ref)
}

// IsPinnedByConfig says whether the configuration pins an image.
func (l *Ledger) IsPinnedByConfig(repo Repository, ref string) bool {
	return l.pinnedByConfig != nil && l.pinnedByConfig(repo, ref)
}

// HasConfigPins says whether the configuration pins any images.
func (l *Ledger) HasConfigPins() bool { return l.pinnedByConfig != nil }
