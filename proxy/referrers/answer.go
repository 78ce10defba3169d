package referrers

import (
	"errors"
	"time"
)

// A State is what a source says about the referrers of a subject.
type State int

const (
	// CannotTell is the state of a source that could not be asked, read or
	// believed. What it lists all the same is certain, but may not be all.
	CannotTell State = iota
	// NoSource is the state of a source that does not exist there.
	NoSource
	// None is the state of a source that says that there are none.
	None
	// These is the state of a source with a complete list that is not empty.
	These
)

// A Kind is a kind of source.
type Kind int

const (
	// FromAPI is the Referrers API of one endpoint.
	FromAPI Kind = iota
	// FromTag is the referrers tag of one endpoint.
	FromTag
	// FromSeen is what passed through: manifests with that subject.
	FromSeen
	// FromCosign are the tags of cosign's legacy scheme.
	FromCosign
	// FromBuildKit are the entries that indexes attach to the subject.
	FromBuildKit
)

// isOwn says whether a source is one in which an upstream lists referrers. The
// others add to what it lists, and cannot say that there is nothing else.
func (k Kind) isOwn() bool { return k == FromAPI || k == FromTag }

// Answer is what one source says. The zero Answer is one that cannot be told,
// of an API.
type Answer struct {
	Of    Kind
	State State
	// List are descriptors that were derived from manifests. They are all of
	// them if the state is These.
	List []Descriptor
	// Claims are entries that the source describes, and that could not be
	// compared with their manifests. Only an answer that cannot be told has any.
	Claims []Descriptor
	// At is the time at which the source said so, or at which the oldest of what
	// it says was said.
	At time.Time
	// Err says why it cannot be told.
	Err error
	// Refused says that the upstream denies access to it.
	Refused bool
	// Unread says that the source lists something that could not be read, so
	// that there are certainly more than List.
	Unread bool
	// Pending says that the source has not answered yet.
	Pending bool
	// Warned says that the source is a mirror that could not ask its own
	// upstream, and said so. What it says is then no complete answer.
	Warned bool
}

// Record is the last complete answer that is on record, with what was seen
// since. The zero Record is that there is none.
type Record struct {
	Known bool
	List  []Descriptor
	At    time.Time
	// Needed says that an empty list may stand in for an answer: a pull of what is
	// kept needs one, or it is no older than other absences that are remembered.
	Needed bool
}

// Stands says whether the record may stand in for an answer, as stale.
func (r Record) Stands() bool { return r.Known && (len(r.List) > 0 || r.Needed) }

// A Conclusion says how much an answer to a client can be relied on.
type Conclusion int

const (
	// Unknown means that nothing may be told but an error.
	Unknown Conclusion = iota
	// Refused means that the upstream denies access. No record stands in for
	// that.
	Refused
	// Stale means that the list may not be all, or not all of it.
	Stale
	// Known means that the list is complete.
	Known
)

// Verdict is what follows from all answers.
type Verdict struct {
	Conclusion Conclusion
	List       []Descriptor
	// At is the oldest time of what the verdict follows from.
	At time.Time
	// Partial says that the list must not be used to conclude that something is
	// not there, or not of some type: there was never a complete one, or a part
	// of it is only claimed.
	Partial bool
	// Unread says that a source lists something that could not be read.
	Unread bool
	// Err says what could not be told. It is nil if the conclusion is Known.
	Err error
}

// ErrNoSource means that an upstream has no place where it lists referrers.
var ErrNoSource = errors.New("there is no source of referrers")

// MergeAnswers concludes from the answers of all sources, from the last
// complete answer and from what was seen in manifests without having been
// confirmed. Nothing else decides between none, stale and unknown. The first row
// that is true counts:
//
//	answers                                    record  listed*  verdict
//	1  a refusal that nothing excuses**         any     any      Refused
//	2  none cannot be told, and the API or
//	   the tag of an endpoint is These or None  any     any      Known: all that they list
//	3  some cannot be told, or no endpoint      a list  any      Stale: the record, and what is listed*
//	   has an API or a tag
//	4  as 3, and nothing is unread              empty,  any      Stale: what is listed*
//	                                            needed***
//	5  as 3                                     none,   some     Stale, and partial: what is listed*
//	                                            empty
//	6  as 3                                     none,   nothing  Unknown
//	                                            empty
//
// * Listed is what any source lists, what is only claimed, and what was seen.
//
// ** A refusal is excused if one of the upstream's own ways, an API or a tag of an
// endpoint, can be read, or has not answered yet: a client that may read what a
// tag lists may read the tag. Then it is one of those that cannot be told.
//
// *** An empty list on record is the last full list of nothing, and the clients
// that verify signatures ignore its warning and say that there are none. So it
// does not outlive the time for which an absence is remembered, with one
// exception: Docker asks for referrers at each pull, and fails to pull an image
// that is whole if it gets an error. That an image has none is learnt when it is
// kept, so that it can be pulled again (decision 14a).
//
// Unread entries and claims make any list partial. A descriptor that is derived
// goes before one that is claimed.
func MergeAnswers(answers []Answer, record Record, seen []Descriptor) Verdict {
	if err := refusal(answers); err != nil {
		return Verdict{Conclusion: Refused, Err: err}
	}
	var derived, claimed [][]Descriptor
	var v Verdict
	var missing *Answer
	ownAnswer := false
	for _, a := range answers {
		derived, claimed = append(derived, a.List), append(claimed, a.Claims)
		v.Unread = v.Unread || a.Unread || len(a.Claims) > 0
		switch {
		case a.State == CannotTell && (missing == nil || decides(a, *missing)):
			missing = &a
		case a.State == CannotTell:
		case a.State != NoSource && a.Of.isOwn():
			ownAnswer = true
		}
		if a.State != CannotTell && (v.At.IsZero() || a.At.Before(v.At)) {
			v.At = a.At
		}
	}
	if missing == nil && ownAnswer {
		v.Conclusion, v.List = Known, Merge(derived...)
		return v
	}
	v.Err = ErrNoSource
	if missing != nil {
		v.Err = missing.Err
	}
	stands := record.Stands() && (len(record.List) > 0 || !v.Unread)
	if stands {
		v.At = record.At
	}
	v.List = Merge(append(append(derived, seen, record.List), claimed...)...)
	v.Partial = !stands || v.Unread
	if stands || len(v.List) > 0 {
		v.Conclusion = Stale
	}
	return v
}

// refusal returns the error of a refusal that nothing excuses.
func refusal(answers []Answer) error {
	var refused error
	for _, a := range answers {
		if a.Of.isOwn() && (a.Pending || a.State == These || a.State == None) {
			return nil
		}
		if a.State == CannotTell && a.Refused && refused == nil {
			refused = a.Err
		}
	}
	return refused
}

// decides says whether a's error tells more than that of b: a failure tells more
// than that a source has not answered yet, and that more than a refusal that is
// excused. Of two that tell as much, the first counts.
func decides(a, b Answer) bool {
	return b.Refused && !a.Refused || b.Pending && !a.Pending && !a.Refused
}
