package admission

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

var (
	// ErrNotLocal means that a request from elsewhere has no token.
	ErrNotLocal = errors.New("only requests over loopback or a Unix socket may change the cache, or those with the token in admin_token_file")
	// ErrToken means that the token of a request is not the one in the file.
	ErrToken = errors.New("the token is not the one in admin_token_file")
	// ErrTokenFile means that there is no usable token to compare with.
	ErrTokenFile = errors.New("the token in admin_token_file cannot be read")
)

// maxToken bounds the size of the token's file, in bytes.
const maxToken = 64 << 10

// Operators are those who may change the cache: whoever is on this machine, by
// loopback or by a Unix socket, and whoever has the token.
type Operators struct {
	// TokenFile is the file that holds the token, or empty. It is read at each
	// request that needs it, so that it can be replaced.
	TokenFile string
}

// Check returns nil if a request may change the cache, or the reason why not.
func (o Operators) Check(r *http.Request) error {
	if isLocal(r) {
		return nil
	}
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !given || o.TokenFile == "" {
		return ErrNotLocal
	}
	want, err := ReadToken(o.TokenFile)
	if err != nil || want == "" {
		return ErrTokenFile
	}
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return ErrToken
	}
	return nil
}

// ReadToken reads the token in a file, without the space around it.
func ReadToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxToken))
	return string(bytes.TrimSpace(content)), err
}

// forwarding are headers of requests that a reverse proxy passes on: what comes
// to loopback from it may come from anywhere.
func forwarding() []string {
	return []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"}
}

// isLocal says whether a request comes from this machine.
func isLocal(r *http.Request) bool {
	for _, name := range forwarding() {
		if len(r.Header.Values(name)) > 0 {
			return false
		}
	}
	if _, ok := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); ok {
		return true
	}
	from, known := peer(r)
	return known && from.IsLoopback()
}
