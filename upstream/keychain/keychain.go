// Package keychain finds the credentials of registries where people have put
// them for other programs: in the configuration of Docker and Podman, in
// credential helpers, in the pull secrets of Kubernetes.
//
// Its invariants, with the tests that guard them:
//
//   - The most specific entry that fits a repository is used, however many fit
//     (TestTheMostSpecificEntryIsUsed).
//   - An entry that cannot be used concerns nobody but its own registry
//     (TestABrokenEntryConcernsNobodyElse).
//   - A helper program runs once for all who ask, for as long as what it
//     returned is accepted, and delays nobody who does not need it
//     (TestAHelperRunsOnce, TestAHelperThatHangsDelaysNoOtherUpstream).
//   - No helper program outlives the mirror (TestNoHelperOutlivesItsHelpers).
//   - What changes on disk is read again (TestASecretThatRotatesIsReadAgain).
//
// Neither a password nor the path of a file is in what it returns as an error
// or as a reason: clients see those. Paths are in the log.
package keychain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/entrepot/entrepot/upstream"
)

// Options are what credentials are looked up for: one endpoint of an upstream.
type Options struct {
	Files   *Files
	Helpers *Helpers // shared by the endpoints of an upstream
	// Upstream and Aliases are the registry's names. Host is the endpoint's
	// host, without the default port of its scheme, and Prefix is before each
	// repository there.
	Upstream     string
	Aliases      []string
	Host, Prefix string
	Log          *slog.Logger
}

// Keychain has the credentials for one endpoint. It is an [upstream.Keychain].
type Keychain struct {
	opts   Options
	groups []group

	mu     sync.Mutex
	logged string
}

// New returns a Keychain. It reads nothing yet.
func New(opts Options) *Keychain {
	return &Keychain{opts: opts, groups: groupsOf(opts)}
}

// Account implements [upstream.Keychain].
func (k *Keychain) Account(repo string) string {
	entries, _ := k.opts.Files.entries()
	if found := k.find(entries, repo); len(found) > 0 {
		return found[0].id()
	}
	return ""
}

// Credentials returns the first that one of the entries that fit has, the most
// specific first. A broken entry does not stop the search.
func (k *Keychain) Credentials(ctx context.Context, repo string) (upstream.Credentials, error) {
	entries, failed := k.opts.Files.entries()
	for _, e := range k.find(entries, repo) {
		c, err := k.opts.Helpers.login(ctx, e)
		switch {
		case err != nil && ctx.Err() != nil:
			k.warnOnce("credentials can't be used", err)
			return upstream.Credentials{}, fmt.Errorf("the credential helper of the mirror for %s has not answered yet: %w", k.asked(), context.Cause(ctx))
		case err != nil:
			failed = errors.Join(failed, err)
		case c != upstream.Credentials{}:
			k.warnOnce("", nil)
			return c, nil
		}
	}
	asked := k.asked()
	if failed != nil {
		k.warnOnce("credentials can't be used", failed)
		return upstream.Credentials{}, fmt.Errorf("the Docker configuration of the mirror can't be used for %s; the mirror's log has the reason", asked)
	}
	k.warnOnce(noCredentials, nil)
	return upstream.Credentials{Absent: "the Docker configuration of the mirror has nothing for " + asked}, nil
}

// Reject implements [upstream.Keychain].
func (k *Keychain) Reject(repo string, refused upstream.Credentials) {
	entries, _ := k.opts.Files.entries()
	for _, e := range k.find(entries, repo) {
		k.opts.Helpers.reject(e, refused)
	}
}

// Announce logs that the files have nothing for the endpoint. It runs no
// helper.
func (k *Keychain) Announce() {
	entries, failed := k.opts.Files.entries()
	any := slices.ContainsFunc(entries, func(e entry) bool {
		return slices.ContainsFunc(k.groups, func(g group) bool { return g.names(e) })
	})
	if !any && failed == nil {
		k.warnOnce(noCredentials, nil)
	}
}

const noCredentials = "the Docker configuration has no credentials for an upstream"

// asked names the registries that are looked for.
func (k *Keychain) asked() string {
	var all []string
	for _, g := range k.groups {
		for _, p := range g {
			all = append(all, p.host)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// warnOnce logs a problem unless it is the one that was logged last. An empty
// message means that the problem is gone.
func (k *Keychain) warnOnce(message string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	problem := fmt.Sprint(message, err)
	known := message == "" || problem == k.logged
	k.logged = problem
	if known {
		return
	}
	attrs := []any{"upstream", k.opts.Upstream, "asked", k.asked(), "files", k.opts.Files.names()}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	k.opts.Log.Warn(message, attrs...)
}
