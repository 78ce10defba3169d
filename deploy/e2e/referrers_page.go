package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// marks of verdicts.
var marks = map[verdict]string{untold: "✗", toldNone: "○", toldSome: "●"}

func referrersPage(s *suite, t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# What clients are told of referrers

Written by ` + "`deploy/e2e/run`" + `.

An image for one platform has BuildKit's attestation in its index, and a signature of the image and one of the attestation refer
to these. Registries differ in what they say to questions about that: a row for each answer of the Referrers API, a column for
each of the fallback tag. "404" of the tag is a registry's own, "a page" is a web page with 200, and 429 asks for 5 s.

A cell is what the client makes of it: straight → through the mirror, the first time and then, from another node, with the image
kept. ● it is told of the signature; ○ it is told of none; ✗ it fails. The number is how many questions about referrers the
registry was asked meanwhile, and where a client took longer than two seconds, it is told in steps of 5 s. Behind ‖ the registry
itself was the client's next host behind the mirror, where that made a difference.

What works straight and not through, an image's referrers that are listed straight and said to be absent through, an absence that
nobody has stated, and a wait that is more than a few seconds longer through than straight fail the suite.
`)
	for _, k := range askers {
		fmt.Fprintf(&b, "\n## %s %s\n\nIt asks about %s. ", k.name, s.version(t, k.tool), k.asks)
		if !k.beside {
			b.WriteString("It has no setting for mirrors, so there is no next host.")
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
				all = append(all, one.String())
			}
			by[a.way] = strings.Join(all, " ")
		}
	}
	text := by[straight] + " → " + by[alone]
	if next, told := by[beside]; told && next != by[alone] {
		text += " ‖ " + next
	}
	return text
}

func (a attempt) String() string {
	text := fmt.Sprint(marks[a.verdict], a.questions)
	if steps := a.took.Round(5 * time.Second); steps > 0 {
		text += fmt.Sprintf(" (%d s)", int(steps.Seconds()))
	}
	return text
}
