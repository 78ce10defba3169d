package hosts

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
)

// hostCAs returns files for the folders in which clients of the registries.conf
// family look for the CA of a host's certificate. Only the first of the
// candidates that exists counts.
func (s Setting) hostCAs() (files []File, notes []string, err error) {
	wanted := map[string]string{}
	var hosts []string
	want := func(host, file string) {
		if file == "" {
			return
		}
		if _, ok := wanted[host]; !ok {
			hosts = append(hosts, host)
		}
		wanted[host] = file
	}
	atMirror := func(a *url.URL) {
		if a.Scheme == "https" {
			want(a.Host, s.Mirror.CAFile)
		}
	}
	for _, address := range s.Mirror.Addresses {
		atMirror(address)
	}
	for _, r := range s.Mirror.Registries {
		want(r.certsName(), r.Server.CAFile)
		if r.Prefix == "" {
			for _, address := range s.Mirror.AtVirtualHost(r) {
				atMirror(address)
			}
		}
	}
	for _, host := range hosts {
		folder, own, err := s.certsFolder(host)
		if err != nil {
			return nil, nil, err
		}
		path := filepath.Join(folder, "entrepot.crt")
		if s.blank {
			notes = append(notes, fmt.Sprintf("the CA of the certificate of %s has to be in %s: %s", host, path, wanted[host]))
			continue
		}
		if !own {
			notes = append(notes, fmt.Sprintf("%s counts for %s: the CA of its certificate has to be there, as in %s", folder, host, wanted[host]))
			continue
		}
		content, err := os.ReadFile(wanted[host])
		if err != nil {
			return nil, nil, fmt.Errorf("certificates of %s: %w", host, err)
		}
		files = append(files, File{Path: path, Edit: wholly(content), Extra: true})
	}
	return files, notes, nil
}

// certsFolder returns the folder that counts for a host, or that would count
// once it exists, and whether the current user may write to it.
func (s Setting) certsFolder(host string) (folder string, own bool, err error) {
	candidates := []confFolder{{path: filepath.Dir(s.Dir), own: true}}
	if !s.DirGiven {
		candidates = append(s.confFolders(), confFolder{path: s.Machine.System("/etc/docker"), own: !s.Machine.Rootless})
	}
	if !s.blank {
		for _, c := range candidates {
			folder := filepath.Join(c.path, "certs.d", host)
			if _, err := os.Stat(folder); err == nil {
				return folder, c.own, nil
			} else if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
				return "", false, err
			}
		}
	}
	return filepath.Join(filepath.Dir(s.Dir), "certs.d", host), true, nil
}

// certsName returns the name under which these clients look for the CA of a
// registry's certificate. For docker.io it is that name, not its server's.
func (r Registry) certsName() string {
	if r.Name == dockerHub && r.Server.Place.String() == "https://"+dockerHubServer {
		return dockerHub
	}
	return r.Server.Host
}
