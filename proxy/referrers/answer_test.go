package referrers

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// A shape is one of the answers that a source can give.
type shape struct {
	name   string
	answer Answer
}

// shapesOf are all answers that a source of that kind can give. What they list
// is named for the source.
func shapesOf(kind Kind, name string) []shape {
	at := time.Unix(1000, 0)
	list, claims := []Descriptor{referrer(name, "derived")}, []Descriptor{referrer(name+" claimed", "claimed")}
	failure := fmt.Errorf("%s failed", name)
	all := []shape{
		{"these", Answer{State: These, List: list, At: at}},
		{"none", Answer{State: None, At: at}},
		{"failed", Answer{Err: failure}},
		{"failed, with a list", Answer{Err: failure, List: list}},
		{"with claims", Answer{Err: failure, Claims: claims, Unread: true}},
		{"unread", Answer{Err: failure, Unread: true}},
		{"refused", Answer{Err: errRefusedInTests, Refused: true}},
		{"pending", Answer{Err: failure, Pending: true}},
	}
	if kind != FromSeen {
		all = append(all, shape{"no source", Answer{State: NoSource, At: at}})
	}
	for i := range all {
		all[i].answer.Of = kind
	}
	return all
}

var errRefusedInTests = errors.New("refused")

// TestTheTruthTable goes through every combination of what the sources can
// answer, of the record, and of what was seen. It counts instead of merging, and
// says for each row what must be so.
func TestTheTruthTable(t *testing.T) {
	kinds := []struct {
		kind Kind
		name string
	}{{FromAPI, "API"}, {FromTag, "tag"}, {FromAPI, "second API"}, {FromTag, "second tag"}, {FromCosign, "cosign"}}
	if testing.Short() {
		kinds = kinds[:3]
	}
	records := map[string]Record{
		"no record":                      {},
		"an empty record":                {Known: true, At: time.Unix(900, 0)},
		"an empty record that is needed": {Known: true, At: time.Unix(900, 0), Needed: true},
		"a record":                       {Known: true, At: time.Unix(900, 0), List: []Descriptor{referrer("on record", "derived")}},
	}
	seens := map[string][]Descriptor{"nothing seen": nil, "one seen": {referrer("seen", "derived")}}
	rows, combinations := map[string]int{}, 0
	var combine func(names string, answers []Answer)
	combine = func(names string, answers []Answer) {
		if len(answers) < len(kinds) {
			k := kinds[len(answers)]
			for _, s := range shapesOf(k.kind, k.name) {
				combine(names+", "+s.name, append(answers[:len(answers):len(answers)], s.answer))
			}
			return
		}
		for recordName, record := range records {
			for seenName, seen := range seens {
				combinations++
				row, want := expected(answers, record, seen)
				rows[row]++
				got := MergeAnswers(answers, record, seen)
				if got.Conclusion != want.Conclusion || got.Partial != want.Partial || (got.Err == nil) != (want.Conclusion == Known) {
					t.Fatalf("row %s: %s; %s, %s: got %+v", row, names, recordName, seenName, got)
				}
				if digests := setOf(got.List); want.Conclusion >= Stale && !reflect.DeepEqual(digests, setOf(want.List)) {
					t.Fatalf("row %s: %s; %s, %s: it lists %v, want %v", row, names, recordName, seenName, digests, setOf(want.List))
				}
			}
		}
	}
	combine("", nil)
	for _, row := range []string{"1", "2", "3", "4", "5", "6"} {
		if rows[row] == 0 {
			t.Errorf("no combination is in row %s", row)
		}
	}
	t.Logf("%d combinations, by row %v", combinations, rows)
}

// expected says what the table says, from how many answers are what.
func expected(answers []Answer, record Record, seen []Descriptor) (row string, want Verdict) {
	var cannot, own, ownReadable, refused, unread int
	var listed []Descriptor
	for _, a := range answers {
		isOwn := a.Of == FromAPI || a.Of == FromTag
		switch {
		case a.State == CannotTell:
			cannot++
		case isOwn && a.State != NoSource:
			own++
		}
		switch {
		case a.Refused:
			refused++
		case isOwn && (a.State == These || a.State == None || a.Pending):
			ownReadable++
		}
		if a.Unread {
			unread++
		}
		listed = append(append(listed, a.List...), a.Claims...)
	}
	listed = append(listed, seen...)
	switch {
	case refused > 0 && ownReadable == 0:
		return "1", Verdict{Conclusion: Refused}
	case cannot == 0 && own > 0:
		return "2", Verdict{Conclusion: Known, List: listed[:len(listed)-len(seen)]}
	case len(record.List) > 0:
		return "3", Verdict{Conclusion: Stale, List: append(listed, record.List...), Partial: unread > 0}
	case record.Needed && unread == 0:
		return "4", Verdict{Conclusion: Stale, List: listed}
	case len(listed) > 0:
		return "5", Verdict{Conclusion: Stale, List: listed, Partial: true}
	}
	return "6", Verdict{Conclusion: Unknown, Partial: true}
}

func setOf(list []Descriptor) map[Digest]string {
	set := map[Digest]string{}
	for _, d := range list {
		set[d.Digest] = d.ArtifactType
	}
	return set
}

func TestAVerdictIsAsOldAsTheOldestAnswer(t *testing.T) {
	young, old := time.Unix(2000, 0), time.Unix(1000, 0)
	got := MergeAnswers([]Answer{{Of: FromAPI, State: None, At: young}, {Of: FromTag, State: These, At: old, List: []Descriptor{referrer("x", "")}}}, Record{}, nil)
	if got.Conclusion != Known || !got.At.Equal(old) {
		t.Errorf("got %+v", got)
	}
	// That there was no such source was said at a time, too.
	got = MergeAnswers([]Answer{{Of: FromAPI, State: NoSource, At: old}, {Of: FromTag, State: None, At: young}}, Record{}, nil)
	if got.Conclusion != Known || !got.At.Equal(old) {
		t.Errorf("got %+v", got)
	}
}

// 12.12: a claim never hides what was derived, whichever source has it.
func TestWhatIsDerivedGoesBeforeWhatIsClaimed(t *testing.T) {
	claim, derived := referrer("x", "application/vnd.oci.empty.v1+json"), referrer("x", "application/vnd.dev.sigstore.bundle.v0.3+json")
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		answers []Answer
		record  Record
		seen    []Descriptor
	}{
		"by another source": {answers: []Answer{{Of: FromAPI, Err: failed, Claims: []Descriptor{claim}}, {Of: FromTag, State: These, List: []Descriptor{derived}}}},
		"seen":              {answers: []Answer{{Of: FromAPI, Err: failed, Claims: []Descriptor{claim}}}, seen: []Descriptor{derived}},
		"on record":         {answers: []Answer{{Of: FromAPI, Err: failed, Claims: []Descriptor{claim}}}, record: Record{Known: true, List: []Descriptor{derived}}},
	} {
		if got := MergeAnswers(c.answers, c.record, c.seen); got.Conclusion != Stale || !reflect.DeepEqual(got.List, []Descriptor{derived}) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestTheErrorThatTellsMostIsTold(t *testing.T) {
	failed, pending, refused := errors.New("failed"), errors.New("pending"), errors.New("refused")
	got := MergeAnswers([]Answer{
		{Of: FromAPI, Err: refused, Refused: true},
		{Of: FromTag, Err: pending, Pending: true},
		{Of: FromAPI, Err: failed},
		{Of: FromTag, Err: errors.New("also failed")},
	}, Record{}, nil)
	if got.Conclusion != Unknown || !errors.Is(got.Err, failed) {
		t.Errorf("got %+v", got)
	}
}
