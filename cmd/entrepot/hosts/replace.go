package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceFile writes a file atomically, with the mode and owner of the file
// that it replaces, or else of like. It does not follow links: see follow.
func replaceFile(path string, content []byte, mode fs.FileMode, like fs.FileInfo) (err error) {
	if like == nil {
		if like, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			like, err = nil, nil
		}
		if err != nil {
			return err
		}
	}
	if like != nil {
		mode = like.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".entrepot-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if like != nil {
		if err = ownLike(f.Name(), like); err != nil {
			return fmt.Errorf("set the owner of %s: %w", path, err)
		}
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// follow returns the file that a path leads to. The file is changed, and links
// stay.
func follow(path string) (string, error) {
	if info, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return path, nil
	} else if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, err
	}
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", Blocked{Path: path, Problem: "it is a link to a file that does not exist", Fix: "create that file, or remove the link"}
	}
	return target, err
}

// makeFolders makes a folder and its parents. It returns those that did not
// exist, the outermost first.
func makeFolders(folder string) (made []string, err error) {
	for at := folder; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		made = append([]string{at}, made...)
		if filepath.Dir(at) == at {
			break
		}
	}
	return made, os.MkdirAll(folder, 0o755)
}
