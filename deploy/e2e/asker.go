package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// asker is a client that asks what refers to an image.
type asker struct {
	name, tool string
	// about is what it asks of: the attestation of the image or the image.
	about string
	// asks says how, for the page.
	asks string
	// beside says that it can be told of the registry itself behind the mirror.
	beside bool
	// triesAgain says that it waits before it tries again.
	triesAgain bool
	// pulls says that it is not there to ask, but fails where it can't.
	pulls bool
	// works says that a verdict is what the client is for.
	works func(verdict) bool
	// ready makes nodes with the client ready to ask all that there is to ask.
	ready func(t *testing.T, s *suite, m *mirror, key *referringKey, all []*inquiry) question

	all []*inquiry
	ask question
}

// ways are those that it can go.
func (k *asker) ways() []way {
	if k.beside {
		return []way{straight, alone, beside}
	}
	return []way{straight, alone}
}

// question has a client on one of two nodes ask, and says what it makes of the
// answers. An error comes with what is untold, and says why.
type question func(ctx context.Context, node int, a *inquiry) (verdict, error)

// way is how a client goes to a registry.
type way int

const (
	straight way = iota
	alone        // through the mirror, and nowhere else
	beside       // through the mirror, with the registry itself as the next host
)

func (w way) String() string {
	return [...]string{"straight", "through the mirror", "through the mirror, with the registry next"}[w]
}

// inquiry is one client's way to one registry, that nobody else asks.
type inquiry struct {
	api, tag said
	way      way
	registry *referring
	upstream string // the mirror's name of the registry
	attempts []attempt
}

// attempt is one question of a client's and what it came to.
type attempt struct {
	verdict
	err       error
	took      time.Duration
	questions int // about referrers, that the registry was asked meanwhile
}

// host is the registry's own.
func (a *inquiry) host() string { return strings.TrimPrefix(a.registry.URL(), "http://") }

// byPrefix is the image, as a client without settings for mirrors names it.
func (a *inquiry) byPrefix(m *mirror) string {
	if a.way == straight {
		return a.host() + "/" + referringRepo + ":1"
	}
	return m.address + "/" + a.upstream + "/" + referringRepo + ":1"
}

var askers = []*asker{
	{
		name: "Docker 29", tool: "moby", pulls: true, about: "the attestation", beside: true, ready: readyMoby,
		asks:  "the attestation of the platform that it pulls: the API of each host, then the fallback tag of each. ○ is an image without its signature, ✗ a pull that fails",
		works: func(v verdict) bool { return v != untold },
	},
	{
		name: "BuildKit's chain of attestations", tool: "buildkit", pulls: true, about: "the attestation", beside: true, ready: readyBuildKit,
		asks:  "the attestation of a platform: straight by the API, then the fallback tag; by the tag only, of each host, where its file names a mirror",
		works: func(v verdict) bool { return v != untold },
	},
	{
		name: "cosign verify", triesAgain: true, tool: "cosign3", about: "the image", ready: readyCosign,
		asks:  "the image, by the API, then the fallback tag. It has one word, \"no signatures found\", for none and for many failures",
		works: func(v verdict) bool { return v == toldSome },
	},
	{
		name: "oras discover", triesAgain: true, tool: "oras", about: "the image", ready: readyOras,
		asks:  "the image, by the API, then the fallback tag",
		works: func(v verdict) bool { return v != untold },
	},
	{
		name: "regctl artifact list", triesAgain: true, tool: "regctl", about: "the image", ready: readyRegctl,
		asks:  "the image, by the API, then the fallback tag",
		works: func(v verdict) bool { return v != untold },
	},
}
