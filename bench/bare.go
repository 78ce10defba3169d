package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// serveBare serves a folder's files until ctx ends: what Go's own server costs, as
// a yardstick for the others. With inMemory it reads them once, and has an answer
// to each path in a map.
func serveBare(ctx context.Context, address, folder string, inMemory bool, cert certificate) error {
	handler := http.FileServer(http.Dir(folder))
	if inMemory {
		var err error
		if handler, err = readAnswers(folder); err != nil {
			return err
		}
	}
	server := &http.Server{Addr: address, Handler: handler}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	var err error
	if cert.certFile != "" {
		err = server.ListenAndServeTLS(cert.certFile, cert.keyFile)
	} else {
		err = server.ListenAndServe()
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answer is one that needs nothing but to be sent.
type answer struct {
	header http.Header
	body   []byte
}

type answers map[string]answer

func readAnswers(folder string) (answers, error) {
	all := answers{"/v2/": {}}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		digest := newContent("", body).digest
		all[filepath.ToSlash(strings.TrimPrefix(path, folder))] = answer{http.Header{
			"Content-Type": {octets}, "Content-Length": {strconv.Itoa(len(body))}, "Docker-Content-Digest": {digest}, "Etag": {`"` + digest + `"`},
		}, body}
		return err
	})
	return all, err
}

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found, ok := a[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	for name, values := range found.header {
		header[name] = values
	}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(found.body) // The client sees that it is cut.
	}
}
