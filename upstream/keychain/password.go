package keychain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/entrepot/entrepot/upstream"
)

// Source is where credentials come from.
type Source = upstream.Keychain

// PasswordFile returns the credentials of one user. It reads the password when
// it is needed, so that a changed one needs no restart.
func PasswordFile(username, file string, log *slog.Logger) Source {
	return upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) {
		password, err := os.ReadFile(file)
		if err != nil {
			log.Warn("password_file can't be read", "username", username, "error", err)
			return upstream.Credentials{}, fmt.Errorf("the password_file of the mirror can't be read (%w); the mirror's log has its path", withoutPath(err))
		}
		return upstream.Credentials{Username: username, Password: strings.TrimRight(string(password), "\r\n")}, nil
	})
}

// withoutPath is the reason of an error, without the file's path.
func withoutPath(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
