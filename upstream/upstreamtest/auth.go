package upstreamtest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// admit lets a request through that shows what Auth wants.
func (r *Registry) admit(w http.ResponseWriter, req *http.Request, q Request) bool {
	if q.Kind == "token" || q.Kind == "storage" || r.isPublic(q.Kind) {
		return true
	}
	scope := "repository:" + q.Repo + ":pull"
	switch r.auth.Scheme {
	case "basic":
		if user, pass, _ := req.BasicAuth(); user == r.auth.Username && pass == r.auth.Password {
			return true
		}
		r.challenge(w, q, `Basic realm="test"`, "", scope)
		return false
	case "token":
		_, value, _ := strings.Cut(req.Header.Get("Authorization"), "Bearer ")
		raw, err := base64.StdEncoding.DecodeString(value)
		given, expires, _ := strings.Cut(string(raw), " ")
		until, parseErr := strconv.ParseInt(expires, 10, 64)
		if err == nil && parseErr == nil && time.Now().UnixNano() <= until && (given == scope || q.Kind == "ping") {
			return true
		}
		realm := r.realm(q.Repo)
		r.challenge(w, q, fmt.Sprintf(`Bearer realm=%q,service="test",scope=%q`, realm, scope), realm, scope)
		return false
	}
	return true
}

func (r *Registry) challenge(w http.ResponseWriter, q Request, usual, realm, scope string) {
	if r.auth.Hidden && q.Kind != "ping" {
		complain(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	all := []string{usual}
	if r.auth.Challenge != nil {
		all = r.auth.Challenge(realm, scope)
	}
	w.Header()["Www-Authenticate"] = all
	complain(w, http.StatusUnauthorized, "UNAUTHORIZED")
}

// SetRealm changes the token server's URL in challenges from now on.
func (r *Registry) SetRealm(realm string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth.Realm = realm
}

// TokenURL is where its token server listens.
func (r *Registry) TokenURL() string {
	if r.tokens != nil {
		return elsewhere(r.tokens) + "/token"
	}
	return r.URL() + "/token"
}

func (r *Registry) realm(repo string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.auth.Realm != "":
		return r.auth.Realm
	case r.auth.EachRepository:
		return r.TokenURL() + "/" + repo
	}
	return r.TokenURL()
}

// answerToken is what a token server without faults says. It knows no OAuth2.
func (r *Registry) answerToken(w http.ResponseWriter, req *http.Request, q Request) {
	if req.Method != http.MethodGet {
		complain(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
		return
	}
	if user, pass, _ := req.BasicAuth(); r.auth.Username != "" && (user != r.auth.Username || pass != r.auth.Password) {
		complain(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	if _, repo, below := strings.Cut(req.URL.Path, "/token/"); r.auth.EachRepository && below && q.Ref != "repository:"+repo+":pull" {
		complain(w, http.StatusForbidden, "DENIED")
		return
	}
	life := time.Duration(r.auth.ExpiresIn) * time.Second
	if life == 0 {
		life = time.Minute
	}
	token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s %d", q.Ref, time.Now().Add(life).UnixNano()))
	if r.auth.Token != nil {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(r.auth.Token(token)))
		return
	}
	reply(w, "application/json", map[string]any{"token": token, "expires_in": r.auth.ExpiresIn})
}

// Public makes kinds of questions need neither tokens nor passwords.
func (r *Registry) Public(kinds ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.public = append(r.public, kinds...)
}

func (r *Registry) isPublic(kind string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.public, kind)
}
