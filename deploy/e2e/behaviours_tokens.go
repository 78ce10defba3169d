package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// tokens is a registry that wants tokens, with something odd about them.
func tokens(odd func(*fake.Auth)) []fake.Option {
	a := fake.Auth{Scheme: "token"}
	if odd != nil {
		odd(&a)
	}
	return []fake.Option{fake.WithAuth(a)}
}

// answering is a token server whose answers have a form of their own.
func answering(form string) []fake.Option {
	return tokens(func(a *fake.Auth) {
		a.Token = func(token string) string { return strings.ReplaceAll(form, "TOKEN", token) }
	})
}

// challenging writes challenges in a form of its own.
func challenging(forms ...string) []fake.Option {
	return tokens(func(a *fake.Auth) { a.Challenge = writing(forms...) })
}

func writing(forms ...string) func(realm, scope string) []string {
	return func(realm, scope string) []string {
		var all []string
		for _, form := range forms {
			all = append(all, strings.NewReplacer("REALM", realm, "SCOPE", scope).Replace(form))
		}
		return all
	}
}

var behavesWithTokens = []behaviour{
	{
		name:     "tokens for nobody",
		sentence: "Anybody gets a token, for one repository each.",
		source:   "distribution's token specification",
		options:  tokens(nil),
		content:  func(w *world) { w.usual(); w.AddImage("team/other", "1", w.layer(5, 3000)) },
		asks:     []ask{askPull, {what: "pull", repo: "team/other", tag: "1"}, askTags},
	},
	{
		name:     "a token server elsewhere",
		sentence: "The token server is on another host, which the configuration trusts.",
		source:   "auth.docker.io (wire W40)",
		options:  tokens(func(a *fake.Auth) { a.Apart = true }),
		before:   "trusted_realms",
	},
	{
		name:     "a realm for each repository",
		sentence: "Each repository has a realm of its own, whose server refuses the other's scope.",
		source:   "registry.gitlab.com, issue 10.13",
		options:  tokens(func(a *fake.Auth) { a.EachRepository = true }),
		content:  func(w *world) { w.usual(); w.AddImage("team/other", "1", w.layer(5, 3000)) },
		asks:     []ask{askPull, {what: "pull", repo: "team/other", tag: "1"}, askTags},
	},
	{
		name:     "a realm that moves",
		sentence: "Tokens expire after a second, and then the realm is another, the old one refuses.",
		source:   "nvidia-container-toolkit#1945",
		options:  tokens(func(a *fake.Auth) { a.ExpiresIn = 1 }),
		later: func(w *world) {
			w.Always("GET token", fake.Where(func(req *http.Request, _ fake.Request) bool { return req.URL.Query().Get("moved") == "" }, fake.Status(403, "DENIED")))
			w.SetRealm(w.TokenURL() + "?moved=yes")
		},
	},
	{
		name:     "a token refused once",
		sentence: "The first request with each token is 401 invalid_token; a fresh one is good.",
		source:   "containerd#9274",
		options:  tokens(nil),
		like: func(w *world) {
			seen := &sets{}
			w.Always("manifests", fake.Where(func(req *http.Request, q fake.Request) bool {
				token := req.Header.Get("Authorization")
				first := !seen.has("any")
				if first {
					seen.add("any")
					seen.add(token)
				}
				return seen.has(token)
			}, unauthorized(w, "invalid_token")))
		},
	},
	{
		name:     "tokens that die early",
		sentence: "Tokens are said to live for five minutes, and are refused after a second.",
		source:   "containerd#6377",
		options: tokens(func(a *fake.Auth) {
			a.ExpiresIn = 1
			a.Token = func(token string) string { return fmt.Sprintf(`{"token":%q,"expires_in":300}`, token) }
		}),
		before: "a 401 was always answered by another token",
	},
	{
		name:     "a token server that is down for a moment",
		sentence: "The token server is 503 once, and limited once.",
		source:   "hub-feedback#2023",
		options:  tokens(nil),
		like: func(w *world) {
			w.Once("GET token", fake.Page(503))
			w.Once("GET token", fake.Limited("Retry-After", "1"))
		},
		pause:  3 * time.Second,
		before: "a token server's 5xx was always tried again",
	},
	{
		name:     "a token address that redirects",
		sentence: "The token address answers 307 to another path of its host.",
		source:   "RFC 9110, 15.4.8",
		options:  tokens(nil),
		like: func(w *world) {
			w.Always("GET token", fake.Where(func(req *http.Request, _ fake.Request) bool { return req.URL.Path == "/token" }, moveToken(307)))
		},
	},
	{
		name:     "a token address that has moved for good",
		sentence: "The token server, on a host of its own, answers 308 by a relative reference, and its answer is in chunks.",
		source:   "RFC 9110, 15.4.9",
		options:  tokens(func(a *fake.Auth) { a.Apart = true }),
		like: func(w *world) {
			w.Always("GET token", fake.Where(func(req *http.Request, _ fake.Request) bool { return req.URL.Path == "/token" }, moveToken(308)))
		},
	},
	{
		name:     "a token's life as text",
		sentence: "expires_in is \"300\", and there is only an access_token.",
		source:   "authgear-server#235",
		options:  answering(`{"access_token":"TOKEN","expires_in":"300"}`),
	},
	{
		name:     "a token's life with a fraction",
		sentence: "expires_in is 300.0, and issued_at a Unix time.",
		source:   "moby#20970",
		options:  answering(`{"token":"TOKEN","expires_in":300.0,"issued_at":1457510670}`),
	},
	{
		name:     "a token's life is null",
		sentence: "expires_in and issued_at are null, refresh_token is empty.",
		source:   "distribution#979",
		options:  answering(`{"token":"TOKEN","access_token":"TOKEN","expires_in":null,"issued_at":null,"refresh_token":""}`),
		before:   "null is 0",
	},
	{
		name:     "a token's life is huge",
		sentence: "expires_in is more than an integer of 64 bits holds.",
		source:   "Azure/azure-sdk-for-python#18557",
		options:  answering(`{"token":"TOKEN","expires_in":99999999999999999999}`),
	},
	{
		name:     "a token without a life",
		sentence: "There is an expires_at in place of expires_in, and the type is text/html.",
		source:   "Katello#10768",
		options:  answering(`{"expires_at":"2030-01-01 00:00:00 UTC","token":"TOKEN","issued_at":"2026-11-27 19:00:00 UTC"}`),
		like:     func(w *world) { w.Always("GET token", fake.Typed("text/html")) },
		before:   "a token that tells no life lives a minute",
	},
	{
		name:     "a token with a byte-order mark",
		sentence: "The token server's JSON begins with a byte-order mark.",
		source:   "issue 10.14, Microsoft's servers",
		options:  answering("\ufeff" + `{"token":"TOKEN","expires_in":300}`),
		before:   "no library takes such a token straight",
	},
	{
		name:     "a compressed token",
		sentence: "The token server compresses its answers unless identity is asked for.",
		source:   "RFC 9110, 8.4",
		options:  tokens(nil),
		like: func(w *world) {
			w.Always("GET token", fake.UnlessAccepted("Accept-Encoding", "identity", fake.Encoded("gzip")))
		},
	},
	{
		name:     "basic",
		sentence: "It wants a user name and a password, with characters of every kind.",
		source:   "RFC 7617",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "basic", Username: somebody, Password: somebodysWord})},
		login:    true,
		before:   "basic was always known",
	},
	{
		name:     "basic in capitals without quotes",
		sentence: "The challenge is BASIC with a realm of one slash, unquoted.",
		source:   "regclient#265, devcontainers/cli#884",
		options: []fake.Option{fake.WithAuth(fake.Auth{
			Scheme: "basic", Username: somebody, Password: somebodysWord, Challenge: writing(`BASIC realm=/`),
		})},
		login:  true,
		before: "schemes were always compared without case",
	},
	{
		name:     "names hidden behind 404",
		sentence: "Whoever shows no credentials gets 404 for every name; only /v2/ challenges.",
		source:   "Artifactory, issue 10.15",
		options: []fake.Option{fake.WithAuth(fake.Auth{
			Scheme: "basic", Username: somebody, Password: somebodysWord, Hidden: true,
		})},
		login: true,
	},
	{
		name:     "tokens hidden behind 404",
		sentence: "Whoever shows no token gets 404 for every name; only /v2/ names the realm, without a scope.",
		source:   "Artifactory, issue 10.15",
		options: tokens(func(a *fake.Auth) {
			a.Username, a.Password, a.Hidden = somebody, somebodysWord, true
			a.Challenge = writing(`Bearer realm="REALM",service="test"`)
		}),
		login: true,
	},
	{
		name:     "tokens for somebody",
		sentence: "Only somebody gets a token, from a host of its own, and private names are private.",
		source:   "distribution's token specification",
		options: tokens(func(a *fake.Auth) {
			a.Username, a.Password, a.Apart = somebody, somebodysWord, true
		}),
		login:  true,
		before: "credentials go to trusted realms",
	},
	{
		name:     "a challenge with odd spacing",
		sentence: "The challenge has spaces and tabs around commas and equals signs, and its scheme in lower case.",
		source:   "RFC 9110, 11.6.1",
		options:  challenging("bearer  realm = \"REALM\" ,\t service=\"test\" , scope=\"SCOPE\""),
		before:   "challenges were always parsed by the grammar",
	},
	{
		name:     "several schemes in one challenge",
		sentence: "One header offers Negotiate, Basic and Bearer, in this order.",
		source:   "RFC 9110, 11.6.1",
		options:  challenging(`Negotiate, Basic realm="files", Bearer realm="REALM",service="test",scope="SCOPE"`),
		before:   "Bearer was always taken first",
	},
	{
		name:     "several challenges",
		sentence: "Three headers offer schemes, the first of them unknown and with a token of its own.",
		source:   "RFC 9110, 11.6.1",
		options:  challenging(`NTLM TlRMTVNTUAACAAAA==`, `Basic realm="files"`, `Bearer realm="REALM",service="test",scope="SCOPE"`),
		before:   "Bearer was always taken first",
	},
	{
		name:     "a challenge without a scope",
		sentence: "The challenge has neither a scope nor a service.",
		source:   "devcontainers/cli#692",
		options:  challenging(`Bearer realm="REALM"`),
		before:   "the scope is known without it",
	},
	{
		name:     "a challenge with an empty scope",
		sentence: "The scope is empty, and the service has spaces and commas.",
		source:   "binderhub#1586, docker-registry-manifest-cleanup#19",
		options:  challenging(`Bearer realm="REALM",service="Docker registry, of somebody's",scope=""`),
		before:   "the scope is known without it",
	},
	{
		name:     "a challenge with more actions",
		sentence: "The scope asks for push as well, and names an error with a description in quotes.",
		source:   "Docker.Registry.DotNet#7",
		options:  challenging(`Bearer realm="REALM",service="test",scope="SCOPE",error="insufficient_scope",error_description="say \"please\", then pull"`),
		before:   "quoted strings were always read",
	},
	{
		name:     "a realm with a query",
		sentence: "The realm has a query of its own, with commas and another service.",
		source:   "jdx/mise#11132",
		options:  challenging(`Bearer realm="REALM?account=a,b&offline_token=true",service="test",scope="SCOPE"`),
		before:   "a realm's query was always kept",
	},
	{
		name:     "only blobs want a token",
		sentence: "Manifests are public, blobs want a token.",
		source:   "Nexus with anonymous access, nexus-public#410",
		options:  tokens(nil),
		like: func(w *world) {
			w.Public("manifests", "ping", "tags")
		},
		before: "the dance is done where it is asked for",
	},
	{
		name:     "/v2/ is closed, all else is open",
		sentence: "The ping is 401 with a Basic challenge; pulls need nothing.",
		source:   "fanal#48",
		like: func(w *world) {
			w.Always("ping", fake.Combine(fake.WithHeader("WWW-Authenticate", `Basic realm="files"`), fake.Status(401, "UNAUTHORIZED")))
		},
		before: "nobody but the token dance asked /v2/",
	},
	{
		name:     "a storage that challenges",
		sentence: "The storage answers 401 with Basic once; the registry itself wants tokens.",
		source:   "issue 10.19, MinIO behind a proxy",
		options:  tokens(nil),
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{}))
			w.Always("GET storage", fake.FirstTime(fake.Combine(fake.WithHeader("WWW-Authenticate", `Basic realm="storage"`), fake.StorageError(401, "AccessDenied"))))
		},
	},
	{
		name:     "a proxy project below a path",
		sentence: "What the upstream has lies below a path of the endpoint, as in Harbor's proxy projects; tokens and lists too.",
		source:   "goharbor/harbor proxy cache, issue 10.16",
		options:  append(tokens(nil), fake.WithReferrers(), fake.WithPages(2)),
		like:     func(w *world) { w.referrers(3) },
		asks:     []ask{askPull, askTags, askReferrers},
		below:    "dockerhub-proxy",
	},
}

func unauthorized(w *world, why string) fake.Fault {
	return func(r *fake.Registry, rw http.ResponseWriter, req *http.Request, q fake.Request) {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:%s:pull",error=%q`, w.TokenURL(), q.Repo, why))
		fake.Status(401, "UNAUTHORIZED")(r, rw, req, q)
	}
}

func moveToken(status int) fake.Fault {
	return func(_ *fake.Registry, w http.ResponseWriter, req *http.Request, _ fake.Request) {
		w.Header().Set("Location", "/token/moved?"+req.URL.RawQuery)
		w.WriteHeader(status)
	}
}
