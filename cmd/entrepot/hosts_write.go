package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// printFiles prints each file below its path. One whose format has no comments
// is printed alone, and its path beside it, so that what is printed can be
// taken for the file.
func printFiles(stdout, stderr io.Writer, files []configFile) error {
	if i := slices.IndexFunc(files, func(f configFile) bool { return path.Ext(f.path) == ".json" }); i >= 0 {
		f := files[i]
		fmt.Fprintf(stderr, "# %s/%s\n", f.dir, f.path)
		_, err := io.WriteString(stdout, f.content)
		return err
	}
	for i, f := range files {
		gap := ""
		if i > 0 {
			gap = "\n"
		}
		if _, err := fmt.Fprintf(stdout, "%s# %s/%s\n%s", gap, f.dir, f.path, f.content); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles writes the files below a folder, and says which. It first makes
// sure that none of them replaces what somebody else has written.
func writeFiles(w io.Writer, folder string, files []configFile) error {
	for _, f := range files {
		name := filepath.Join(folder, filepath.FromSlash(f.path))
		kept, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for an older file: %w", err)
		}
		if string(kept) != f.content && !strings.HasPrefix(string(kept), `# Made by "entrepot hosts `) {
			return fmt.Errorf("%s is there already and not made by entrepot: add by hand what \"entrepot hosts\" prints, or move it away", name)
		}
	}
	for _, f := range files {
		name := filepath.Join(folder, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		if err := os.WriteFile(name, []byte(f.content), 0o644); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}
