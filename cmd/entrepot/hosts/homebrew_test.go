package hosts

import (
	"net/url"
	"strings"
	"testing"
)

func TestABrewEnvIsMergedInto(t *testing.T) {
	const line = "HOMEBREW_ARTIFACT_DOMAIN=http://mirror.lan:5000/v2/ghcr.io\n"
	for there, want := range map[string]string{
		"":                           marked("homebrew", line),
		"HOMEBREW_NO_ANALYTICS=1":    "HOMEBREW_NO_ANALYTICS=1\n" + marked("homebrew", line),
		"# mine\n" + line:            "# mine\n" + line,
		"#HOMEBREW_ARTIFACT_DOMAIN=": "#HOMEBREW_ARTIFACT_DOMAIN=\n" + marked("homebrew", line),
	} {
		p := newPlace(t, map[string]string{"/etc/homebrew/brew.env": there})
		m := mirrorOf(t, upstream("ghcr.io"), upstream("docker.io"))
		p.write("homebrew", m, "")
		if got := p.get("/etc/homebrew/brew.env"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if right, said := p.check("homebrew", m, ""); !right || !strings.HasPrefix(said, "ghcr.io: comes here\ndocker.io: this runtime never asks") {
			t.Error(said)
		}
	}
	p := newPlace(t, map[string]string{"/etc/homebrew/brew.env": "HOMEBREW_ARTIFACT_DOMAIN=https://office\n"})
	if got := p.refused("homebrew", mirrorOf(t, upstream("ghcr.io")), ""); !strings.Contains(got, "/etc/homebrew/brew.env: it has another mirror: HOMEBREW_ARTIFACT_DOMAIN=https://office; ") {
		t.Error(got)
	}
}

func TestAnAliasOfGHCRWillDoForHomebrew(t *testing.T) {
	corp := upstream("ghcr.corp.lan")
	corp.Aliases = []string{"ghcr.io"}
	r, _ := Find("homebrew")
	s, err := r.NewSetting(mirrorOf(t, corp), Version{}, newPlace(t, nil).Machine, "")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := r.Print(s)
	if err != nil || !strings.HasSuffix(printed.Text, "\nexport HOMEBREW_ARTIFACT_DOMAIN=http://mirror.lan:5000/v2/ghcr.corp.lan\n") {
		t.Errorf("%v, %s", err, printed.Text)
	}
}

func TestHomebrewIsToldWhatItCantUse(t *testing.T) {
	m := mirrorOf(t, upstream("ghcr.io"))
	m.Addresses, m.CAFile = []*url.URL{{Scheme: "https", Host: "a.lan"}, {Scheme: "https", Host: "b.lan"}}, "/ca.crt"
	notes := strings.Join(m.homebrewNotes(), "\n")
	for _, want := range []string{"https://b.lan is left out", "has to be among those (/ca.crt)"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in\n%s", want, notes)
		}
	}
}
