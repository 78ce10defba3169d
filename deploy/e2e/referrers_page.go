package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// marks of verdicts.
var marks = map[verdict]string{untold: "✗", toldNone: "○", toldSome: "●"}

// referrersPage is a table for each client.
func (s *suite) referrersPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`An image for one platform has BuildKit's attestation in its index, and a signature of the image and one of the attestation refer
to these. Registries differ in what they say to questions about that: a row for each answer of the Referrers API, a column for
each of the fallback tag. The tag's 404 is a registry's own, a page is a web page with 200, and 429 asks for 5 s of patience.

A cell is what the client makes of it: straight → through the mirror, the first time and then, from another node, with the image
kept. ● it is told of the signature; ○ it is told of none; ✗ it fails. The number is how many questions about referrers the
registry was asked meanwhile; through the mirror it is exact up to 3, and where a client fails that tries again it is only told if
it is more than 9. *5 s* means that the client took some seconds, *20 s* more than 16, *1 min* more than 40. Behind ‖ the registry
itself was the client's next host behind the mirror, where that made a difference.

The suite fails where something works straight and not through, where through the mirror an image's referrers are said to be absent
that are listed straight, or that nobody has said to be absent, and where what works takes more than a few seconds longer than
straight. An absence counts as said where the tag is 404 and the API lists none, or there is no API:
oras and regctl, who take the API's word alone, are told by the mirror that nothing is known where the tag can't be asked.
`)
	for _, k := range askers {
		fmt.Fprintf(&b, "\n## %s\n\n%s, %s, asks about %s.", k.name, k.tool, s.version(t, k.tool), k.asks)
		if !k.beside {
			b.WriteString(" It has no setting for mirrors, so there is no next host.")
		}
		b.WriteString("\n\n| API \\ tag |")
		for _, tag := range tagSays {
			fmt.Fprintf(&b, " %s |", tag.name)
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(tagSays)) + "\n")
		for _, api := range apiSays {
			fmt.Fprintf(&b, "| %s |", api.name)
			for _, tag := range tagSays {
				fmt.Fprintf(&b, " %s |", k.cell(api, tag))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (k *asker) cell(api, tag said) string {
	by := map[way]string{}
	for _, a := range k.all {
		if a.api.name == api.name && a.tag.name == tag.name {
			var all []string
			for _, one := range a.attempts {
				all = append(all, marks[one.verdict]+one.asked(a.way)+one.time())
			}
			by[a.way] = strings.Join(all, ", ")
		}
	}
	text := by[straight] + " → " + by[alone]
	if next, told := by[beside]; told && next != by[alone] {
		text += " ‖ " + next
	}
	return text
}

// asked is how many questions there were. Where there were many, or where the
// client tried again until it gave up, no two runs agree on that.
func (a attempt) asked(w way) string {
	switch {
	case w != straight && a.questions > 9:
		return "10+"
	case w != straight && a.verdict == untold:
		return ""
	case w != straight && a.questions > 3:
		return "4+"
	}
	return strconv.Itoa(a.questions)
}

// time has steps so coarse that two runs agree.
func (a attempt) time() string {
	switch {
	case a.took > 40*time.Second:
		return " *1 min*"
	case a.took > 16*time.Second:
		return " *20 s*"
	case a.took > 2500*time.Millisecond:
		return " *5 s*"
	}
	return ""
}
