package keychain

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/entrepot/entrepot/upstream"
)

// Source is where credentials come from.
type Source = upstream.Keychain

// PasswordFile returns the credentials of one user. It reads the password when
// it is needed, so that a changed one needs no restart.
func PasswordFile(username, file string) Source {
	return upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) {
		password, err := os.ReadFile(file)
		if err != nil {
			return upstream.Credentials{}, fmt.Errorf("password_file: %w", err)
		}
		return upstream.Credentials{Username: username, Password: strings.TrimRight(string(password), "\r\n")}, nil
	})
}
