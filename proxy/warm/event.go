package warm

import (
	"errors"
	"time"

	"github.com/entrepot/entrepot/proxy/retention"
)

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	// EventFound is content that is not cached and will be fetched.
	EventFound EventKind = "found"
	// EventStarted, EventProgress, EventDone and EventFailed are about one thing
	// that is fetched. Bytes have come so far.
	EventStarted  EventKind = "started"
	EventProgress EventKind = "progress"
	EventDone     EventKind = "done"
	EventFailed   EventKind = "failed"
	// EventWaiting says that nothing is requested of an upstream until a time,
	// and why.
	EventWaiting EventKind = "waiting"
	// EventNote is something that the person who asked should know.
	EventNote EventKind = "note"
	// EventImage ends an image: it is all there, or Error says why not.
	EventImage EventKind = "image"
)

// An Event is a step of fetching images. Sizes are in bytes.
type Event struct {
	Event  EventKind `json:"event"`
	Image  string    `json:"image,omitempty"` // as in docker.io/library/alpine:3
	Digest Digest    `json:"digest,omitempty"`
	// Kind is what is fetched: "manifest", "blob" or "referrers of".
	Kind  retention.PartKind `json:"kind,omitempty"`
	Size  int64              `json:"size,omitempty"` // -1 if it is not known
	Bytes int64              `json:"bytes,omitempty"`
	// Upstream is the one that is waited for.
	Upstream string      `json:"upstream,omitempty"`
	Until    time.Time   `json:"until,omitzero"`
	Text     string      `json:"text,omitempty"` // of a note, and the reason for waiting
	Error    string      `json:"error,omitempty"`
	Result   *Completion `json:"result,omitempty"` // of an image
}

// Completion says what it took to complete an image.
type Completion struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Fetched   int   `json:"fetched"` // manifests and blobs that were not cached
	Bytes     int64 `json:"bytes"`   // size of those
}

func (c *Completion) add(other Completion) {
	c.Manifests += other.Manifests
	c.Blobs += other.Blobs
	c.Fetched += other.Fetched
	c.Bytes += other.Bytes
}

// reasons joins errors, as far as there is a reason to read them.
func reasons(failed []error, more int) error {
	if more > 0 {
		failed = append(failed, errMore(more))
	}
	return errors.Join(failed...)
}
