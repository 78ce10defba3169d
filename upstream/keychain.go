package upstream

import "context"

// Keychain has the credentials for one endpoint. Repositories are named as the
// endpoint names them, and the name is empty for the endpoint as a whole. All
// methods MUST be safe for concurrent use.
type Keychain interface {
	// Account names the entry that a repository's credentials come from.
	// Repositories with one account share tokens. It MUST answer at once.
	Account(repo string) string
	// Credentials returns the credentials for a repository. A lookup that takes
	// long MUST go on when ctx ends, for those who ask next.
	Credentials(ctx context.Context, repo string) (Credentials, error)
	// Reject says that the registry or its token server did not accept these
	// credentials. If they are kept, they are looked up again next time.
	Reject(repo string, refused Credentials)
}

// CredentialsFunc is a Keychain of one account that keeps nothing.
type CredentialsFunc func(ctx context.Context) (Credentials, error)

// Account implements Keychain.
func (CredentialsFunc) Account(string) string { return "" }

// Credentials implements Keychain.
func (f CredentialsFunc) Credentials(ctx context.Context, _ string) (Credentials, error) {
	return f(ctx)
}

// Reject implements Keychain.
func (CredentialsFunc) Reject(string, Credentials) {}

// Credentials authenticate to a registry or its token server.
type Credentials struct {
	Username, Password string
	// IdentityToken is an OAuth2 refresh token, which replaces the other two at
	// the token server.
	IdentityToken string
	// RegistryToken is sent to the registry as it is. No token server is asked.
	RegistryToken string
	// Absent explains why there are no credentials, in words that can follow
	// "and". It is part of the error if the registry refuses access. It is
	// empty if there are credentials.
	Absent string
}

// isNone reports whether there is nothing to authenticate with.
func (c Credentials) isNone() bool {
	c.Absent = ""
	return c == Credentials{}
}
